accuracy = scores.filter((pl.col("metric") == "accuracy") & (pl.col("selection") == selection))
table = (
    accuracy.group_by("task", "regime", "variant", "language")
    .agg(pl.col("value").mean().round(1))
    .pivot(on="language", index=["task", "regime", "variant"], values="value", sort_columns=True)
    .sort("task", "regime", "variant")
)
table
