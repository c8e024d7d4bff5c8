gaps = (
    accuracy.filter((pl.col("regime") == "zero_shot") & (pl.col("task") == "xnli"))
    .group_by("variant", "language")
    .agg(pl.col("value").mean())
)
reference = gaps.filter(pl.col("language") == source).select("variant", pl.col("value").alias("reference"))
gaps = gaps.filter(pl.col("language") != source).join(reference, on="variant")
gaps = gaps.with_columns((pl.col("reference") - pl.col("value")).alias("gap"))

targets = languages[1:]
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
for index, variant in enumerate(variants):
    found = dict(gaps.filter(pl.col("variant") == variant).select("language", "gap").iter_rows())
    places = [place for place, language in enumerate(targets) if language in found]
    axes.plot(
        places, [found[targets[place]] for place in places], linestyle="none",
        color=colours[index % 8], marker=markers[index % 8], label=labels[variant],
    )
axes.axhline(0, color="grey", linestyle="--", linewidth=1)
axes.set_xticks(range(len(targets)), targets)
axes.set_ylabel("gap (percentage points)")
axes.set_title("Transfer gap by target language")
figure.legend(loc="outside lower center", ncols=4)
plt.show()
