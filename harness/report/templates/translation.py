bleu = scores.filter((pl.col("task") == "translation") & (pl.col("metric") == "bleu"))
table = (
    bleu.group_by("regime", "variant", "language")
    .agg(pl.col("value").mean().round(1))
    .pivot(on="language", index=["regime", "variant"], values="value", sort_columns=True)
    .sort("regime", "variant")
)
copies = manifest["translation_scores"]["copy"]
directions = sorted(copies)
for (search,), shown in bleu.group_by("regime", maintain_order=True):
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.74 / len(variants)
    for index, variant in enumerate(variants):
        for place, direction in enumerate(directions):
            seeds = shown.filter((pl.col("variant") == variant) & (pl.col("language") == direction))["value"]
            across = place + (index - (len(variants) - 1) / 2) * width
            axes.plot([across] * len(seeds), seeds, color=colours[index % 8], marker=markers[index % 8], linestyle="")
    for place, direction in enumerate(directions):
        axes.hlines(copies[direction], place - 0.4, place + 0.4, color="grey", linestyle=":")
    axes.set_xticks(range(len(directions)), directions)
    axes.set_ylabel("BLEU")
    axes.set_title(f"Test BLEU, {search.replace('_', ' ')}; one mark per seed")
    handles = [plt.Line2D([], [], color=colours[i % 8], marker=markers[i % 8], label=labels[v]) for i, v in enumerate(variants)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    plt.show()
table
