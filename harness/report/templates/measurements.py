measures = scores.filter(pl.col("task").is_in(measured))
table = (
    measures.group_by("task", "regime", "metric", "variant", "language")
    .agg(pl.col("value").mean().round(3))
    .pivot(on="language", index=["task", "regime", "metric", "variant"], values="value", sort_columns=True)
    .sort("task", "regime", "metric", "variant")
)
for (task, regime, metric), shown in measures.group_by("task", "regime", "metric", maintain_order=True):
    places = sorted(shown["language"].unique())
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    width = 0.74 / len(variants)
    for index, variant in enumerate(variants):
        for place, language in enumerate(places):
            seeds = shown.filter((pl.col("variant") == variant) & (pl.col("language") == language))["value"]
            across = place + (index - (len(variants) - 1) / 2) * width
            axes.plot([across] * len(seeds), seeds, color=colours[index % 8], marker=markers[index % 8], linestyle="")
    axes.set_xticks(range(len(places)), places)
    axes.set_ylabel(metric.replace("_", " "))
    axes.set_title(f"{task}, {regime}".replace("_", " "))
    handles = [plt.Line2D([], [], color=colours[i % 8], marker=markers[i % 8], label=labels[v]) for i, v in enumerate(variants)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    plt.show()
table
