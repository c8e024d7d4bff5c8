"""What all peers measure: the arguments of `xlt bench`, random batches of the same sizes, and one JSON object on stdout."""

import argparse
import json
import random
import resource
import statistics
import time
from pathlib import Path

import torch

# Steps before those that are measured.
WARM_UP = 2


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--feed-forward", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--languages", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--lengths", type=Path, help="a file with the tokens of a sequence in each line, instead of --length")
    parser.add_argument("--sort", action="store_true", help="batches of about one length: the run's sequences are sorted before they are cut into batches")
    parser.add_argument("--objective", choices=["masked_lm", "causal_lm", "xnli", "xnli_prediction", "translation", "generation"], default="masked_lm")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beam", type=int, default=1, help="hypotheses that generation keeps")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="torch.compile (PyTorch only)")
    parser.add_argument("--pad-to", type=int, help="pad every sequence to this many tokens (transformers only); the longest of the batch unless given")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(1)
    random.seed(1)
    return settings


def lengths(settings):
    """Endless batches of sequence lengths."""
    if settings.lengths is None:
        while True:
            yield [settings.length] * settings.sequences
    given = [int(line) for line in settings.lengths.read_text().split()]
    start = 0
    if settings.sort:
        count = settings.sequences * (settings.steps + WARM_UP)
        ordered = sorted(given[index % len(given)] for index in range(count))
        batches = [ordered[first:first + settings.sequences] for first in range(0, count, settings.sequences)]
        random.shuffle(batches)
        yield from batches
    while True:
        yield [given[(start + index) % len(given)] for index in range(settings.sequences)]
        start += settings.sequences


def autocast(settings):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.precision == "bf16")


def report(settings, step):
    """Runs `step(lengths)` for the warm-up steps and the measured ones; prints the median."""
    batches = lengths(settings)
    seconds, tokens = [], []
    # Compilation and the first allocations are not measured.
    for number in range(settings.steps + WARM_UP):
        batch = next(batches)
        start = time.perf_counter()
        step(batch)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - start)
            tokens.append(sum(batch))
    print(json.dumps({
        "objective": settings.objective,
        "milliseconds_per_step": 1e3 * statistics.median(seconds),
        "tokens_per_second": sum(tokens) / sum(seconds),
        "examples_per_second": settings.sequences * settings.steps / sum(seconds),
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }))
