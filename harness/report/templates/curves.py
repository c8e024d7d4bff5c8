if curves is None or curves.height == 0:
    print("no learning curves were recorded")
else:
    measures = curves.select("stage", pl.col("series").str.split(" ").list.head(2).list.join(" ").alias("measure"))
    curves = curves.with_columns(measures["measure"])
    for stage, measure in measures.unique(maintain_order=True).iter_rows():
        figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
        shown = curves.filter((pl.col("stage") == stage) & (pl.col("measure") == measure))
        for (variant, *_), line in shown.group_by(
            "variant", "pretrain_seed", "finetune_seed", "series", maintain_order=True
        ):
            axes.plot(line["tokens"], line["value"], color=colours[variants.index(variant) % 8], linewidth=1)
        if "perplexity" in measure:
            axes.set_yscale("log")
        axes.set_xlabel("examples" if stage == "finetune" else "tokens")
        axes.set_ylabel(measure)
        handles = [plt.Line2D([], [], color=colours[i % 8], label=labels[v]) for i, v in enumerate(variants)]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        plt.show()
