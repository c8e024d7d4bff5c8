"""Writes tests/fixtures/probes.json: correlations from scipy, likenesses of words from torch, perplexities.

Run from the repository's root: `python tests/oracles/probes.py > tests/fixtures/probes.json`. Written with
scipy 1.17.1, torch 2.15.0 and numpy 2.4.6 under Python 3.11.7. All numbers are drawn from numpy's default_rng(7) and
rounded before anything is computed of them; those of the table are float32, stored exactly, and computed on as float64.
"""

import json
import math

import numpy as np
import torch
from scipy import stats

generator = np.random.default_rng(7)


def pearson(x, y):
    return float(stats.pearsonr(x, y).statistic)


def jackknife_variance(x, y):
    """(n - 1) / n * the sum of squares of the correlations that leave one pair out, about their mean."""
    n = len(x)
    left_out = np.array([pearson(np.delete(x, i), np.delete(y, i)) for i in range(n)])
    return float((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def correlation(name, slope, cosine_decimals, rating_decimals, jackknife=False):
    cosines = generator.uniform(-0.2, 0.9, 40)
    ratings = 2 + slope * (cosines - 0.35) + generator.normal(0, 0.4, 40)
    # Adding 0 leaves no negative zeros.
    cosines, ratings = cosines.round(cosine_decimals) + 0.0, ratings.round(rating_decimals) + 0.0
    case = dict(name=name, pairs=np.stack([cosines, ratings], axis=1).tolist(), pearson=pearson(cosines, ratings),
                spearman=float(stats.spearmanr(cosines, ratings).statistic))
    return case | (dict(jackknife_variance=jackknife_variance(cosines, ratings)) if jackknife else {})


def likeness():
    table = generator.normal(0, 1, (12, 6)).astype(np.float32)
    rows = torch.from_numpy(table).double()
    lengths = [(1, 1), (2, 1), (3, 2), (1, 3), (2, 3)]
    words = [tuple(generator.choice(12, size=length, replace=False).tolist() for length in pair) for pair in lengths]
    vectors = [tuple(rows[word].mean(dim=0) for word in pair) for pair in words]

    def cosine(a, b):
        return torch.nn.functional.cosine_similarity(a, b, dim=0).item()

    # The last two pairs are translations of one word: neither is another word's for the other.
    clusters, pairs = [0, 1, 2, 3, 3], []
    for (first, second), (a, b), cluster in zip(words, vectors, clusters):
        others = [cosine(a, other) for (_, other), number in zip(vectors, clusters) if number != cluster]
        pairs.append(dict(first=first, second=second, cluster=cluster, cosine=cosine(a, b),
                          distance=torch.dist(a, b).item(), cosine_of_others=math.fsum(others) / len(others)))
    return dict(table=table.tolist(), pairs=pairs)


def perplexity(name, nats_per_unit):
    units = generator.integers(1, 30, 10)
    losses = (units * nats_per_unit * generator.uniform(0.6, 1.4, 10)).round(4)
    return dict(name=name, sentences=[[loss, count] for loss, count in zip(losses.tolist(), units.tolist())],
                perplexity=math.exp(math.fsum(losses) / int(units.sum())))


record = dict(
    correlation=[correlation("ordinary", 2, 4, 4, jackknife=True), correlation("ties", 2, 1, 0),
                 correlation("negative", -2, 4, 4)],
    likeness=likeness(),
    perplexity=[perplexity("tokens", 3.0), perplexity("words", 6.0), perplexity("characters", 1.2)],
)
print(json.dumps(record, separators=(",", ":")))
