"""Numbers that `tests/statistics.rs` expects, from scipy, scikit-learn and statsmodels.

Run: python statistics.py   (scipy 1.17, scikit-learn, statsmodels, numpy)
"""

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from statsmodels.api import OLS
from statsmodels.stats.multitest import multipletests

# Student's t: two-sided 95 % and 99.9 % quantiles.
for degrees in (1, 2, 4, 9, 199, 1669):
    print("t", degrees, repr(stats.t.ppf(0.975, degrees)), repr(stats.t.ppf(0.9995, degrees)))

# Holm.
p_values = [0.04, 0.001, 0.03, 0.2, 0.012]
print("holm", multipletests(p_values, method="holm")[1].tolist())

# Thirty examples of ten premises, made by the recurrence below (also in the Rust test).
state, golds, predictions, premises = 12345, [], [], []
for row in range(30):
    state = (1103515245 * state + 12345) % 2**31
    gold = row % 3
    wrong = (state >> 16) % 10
    golds.append(gold)
    predictions.append(gold if wrong < 6 else (gold + 1 + wrong % 2) % 3)
    premises.append(row // 3)
golds, predictions, premises = map(np.array, (golds, predictions, premises))
print("accuracy", repr(100 * accuracy_score(golds, predictions)))
precision, recall, f1, _ = precision_recall_fscore_support(golds, predictions, average="macro", zero_division=0)
print("macro", repr(100 * precision), repr(100 * recall), repr(100 * f1))

# Cluster-robust variance of the accuracy (an intercept-only regression), with the small-sample factor G / (G - 1) only:
# statsmodels' own also multiplies (N - 1) / (N - k).
correct = 100.0 * (golds == predictions)
fit = OLS(correct, np.ones(30)).fit(cov_type="cluster", cov_kwds={"groups": premises, "use_correction": False})
clusters = len(set(premises.tolist()))
print("cluster variance", repr(float(fit.cov_params()[0][0] * clusters / (clusters - 1))))
