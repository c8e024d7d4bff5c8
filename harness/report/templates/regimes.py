rows = (len(variants) + 1) // 2
figure, panels = plt.subplots(rows, 2, figsize=(11, 3.2 * rows), sharey=True, squeeze=False, layout="constrained")
for axes, variant in zip(panels.flat, variants):
    points(axes, regimes, lambda regime, language: cells(variant, regime, language), lambda name: name)
    axes.set_title(labels[variant])
for axes in list(panels.flat)[len(variants):]:
    axes.set_visible(False)
handles = [plt.Line2D([], [], color=colours[i % 8], marker=markers[i % 8], label=r) for i, r in enumerate(regimes)]
figure.legend(handles=handles, loc="outside lower center", ncols=4)
plt.show()
