import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

results = Path(RESULTS_FOLDER)
manifest = json.loads((results / "manifest.json").read_text(encoding="utf-8"))
scores = pl.read_parquet(results / "scores.parquet")
predictions = pl.read_parquet(results / "predictions.parquet")
curves = pl.read_csv(results / "curves.csv") if (results / "curves.csv").exists() else None

source = manifest["languages"]["source"]
languages = [source, *manifest["languages"]["targets"]]
variants = [variant["name"] for variant in manifest["variants"]]
labels = {variant["name"]: variant["label"] for variant in manifest["variants"]}
selection = manifest["selections"][0]
measured = ["language_modelling", "word_translation", "word_similarity"]
classified = [one for one in manifest["evaluations"] if one["task"] not in ["translation", *measured]]
regimes = list(dict.fromkeys(evaluation["regime"] for evaluation in classified))
colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F"]
markers = ["o", "s", "^", "D", "v", "<", ">", "_"]
chance = 100 / 3

scores.head()
