def interval(cell):
    """Mean accuracy in percent and half its 95 % interval: variance of sums over premises, seeds together."""
    correct = cell.with_columns((pl.col("predicted") == pl.col("gold")).alias("correct"))
    premises = correct.group_by("premise").agg(pl.col("correct").sum(), pl.len().alias("items"))
    mean = premises["correct"].sum() / premises["items"].sum()
    residuals = premises["correct"].to_numpy() - mean * premises["items"].to_numpy()
    count = len(residuals)
    variance = count / max(count - 1, 1) * np.sum(residuals**2) / premises["items"].sum() ** 2
    return 100 * mean, 196 * np.sqrt(variance)


def points(axes, series, select, names):
    """One point with its interval for each language and series; `select` gives the predictions of a pair."""
    width = 0.74 / len(series)
    for index, name in enumerate(series):
        for place, language in enumerate(languages):
            cell = select(name, language)
            if cell.height == 0:
                continue
            mean, half = interval(cell)
            axes.errorbar(
                place + (index - (len(series) - 1) / 2) * width, mean, half, capsize=3,
                color=colours[index % 8], marker=markers[index % 8], label=names(name) if place == 0 else None,
            )
    axes.axhline(chance, color="grey", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(languages)), languages)
    axes.set_ylabel("accuracy (%)")


chosen = predictions.filter((pl.col("selection") == selection) & (pl.col("task") == "xnli"))


def cells(variant, regime, language):
    return chosen.filter(
        (pl.col("variant") == variant) & (pl.col("regime") == regime) & (pl.col("language") == language)
    )


figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
regime = "zero_shot" if "zero_shot" in regimes else regimes[0]
points(axes, variants, lambda variant, language: cells(variant, regime, language), labels.get)
axes.set_title(f"Test accuracy by language, {regime.replace('_', '-')}")
handles = [plt.Line2D([], [], color=colours[i % 8], marker=markers[i % 8], label=labels[v]) for i, v in enumerate(variants)]
figure.legend(handles=handles, loc="outside lower center", ncols=4)
plt.show()
