"""Runs `xlt bench` and its peers in turn, and prints a table of ratios.

    python -m venv peers && peers/bin/pip install -r benches/peers/requirements.txt
    cargo build --release
    peers/bin/python benches/peers/compare.py [--rounds 5] [--threads 2] [--only WORKLOADS] [--peers NAMES] [--write docs/performance.md]

Workloads whose names begin with bf16 have products of 16-bit operands; PyTorch is slow at them where the processor has no
instructions for it: `--only "^(?!bf16)"` leaves them out.

Every round runs each program of a workload once, in turn, so that a machine whose speed drifts treats all alike; a ratio is
taken within a round, and the median of the rounds is printed with the least and the greatest.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SMALL = "--layers 4 --hidden 256 --heads 4 --feed-forward 1024 --vocabulary 8000 --sequences 32 --length 64"
LARGE = "--layers 6 --hidden 512 --heads 8 --feed-forward 2048 --vocabulary 8000 --sequences 16 --length 128"
PAIRS = f"--layers 4 --hidden 256 --heads 4 --feed-forward 1024 --vocabulary 8000 --sequences 32 --lengths {HERE / 'xnli_lengths.txt'}"
SENTENCES = "--layers 3 --hidden 256 --heads 4 --feed-forward 1024 --vocabulary 8000"
MIXED = f"--lengths {HERE / 'translation_lengths.txt'}"
XLT = "xlt"
MARK = "<!-- measured -->"

# name, size, what peers add, (peer, its program, its own arguments)
WORKLOADS = [
    ("masked LM, hidden 256, 4 layers, 32 x 64", SMALL, "--objective masked_lm", [
        ("PyTorch", "pytorch.py", ""),
        ("torch.compile", "pytorch.py", "--compile"),
        ("transformers' XLM", "transformers_xlm.py", ""),
    ]),
    ("masked LM, hidden 512, 6 layers, 16 x 128", LARGE, "--objective masked_lm", [("PyTorch", "pytorch.py", "")]),
    ("bf16, masked LM, hidden 256, 4 layers, 32 x 64", SMALL, "--objective masked_lm --precision bf16", [("PyTorch", "pytorch.py", "")]),
    ("bf16, masked LM, hidden 512, 6 layers, 16 x 128", LARGE, "--objective masked_lm --precision bf16", [("PyTorch", "pytorch.py", "")]),
    ("bf16, XNLI fine-tuning, batches of 32 real lengths", PAIRS, "--objective xnli --precision bf16", [
        ("transformers, padded to 128", "transformers_xlm.py", "--pad-to 128"),
        ("transformers, padded to the longest", "transformers_xlm.py", ""),
    ]),
    ("causal LM, hidden 256, 4 layers, 32 x 64", SMALL, "--objective causal_lm", [("PyTorch", "pytorch.py", "")]),
    ("translation, training, hidden 256, 3+3 layers, 64 x 24", SENTENCES + " --sequences 64 --length 24", "--objective translation", [
        ("transformers' Marian", "transformers_marian.py", ""),
    ]),
    ("translation, training, batches of 32 real lengths", f"{SENTENCES} --sequences 32 {MIXED}", "--objective translation", [
        ("transformers' Marian, batches as they come", "transformers_marian.py", ""),
        ("transformers' Marian, batches of one length", "transformers_marian.py", "--sort"),
    ]),
    ("translation, greedy, 128 x 24", SENTENCES + " --sequences 128 --length 24", "--objective generation", [
        ("transformers' Marian", "transformers_marian.py", ""),
    ]),
    ("translation, greedy, 128 of real lengths", f"{SENTENCES} --sequences 128 {MIXED}", "--objective generation", [
        ("transformers' Marian", "transformers_marian.py", ""),
    ]),
    ("translation, beam of 4, 128 x 24", SENTENCES + " --sequences 128 --length 24", "--objective generation --beam 4", [
        ("transformers' Marian", "transformers_marian.py", ""),
    ]),
    ("XNLI fine-tuning, batches of 32 real lengths", PAIRS, "--objective xnli", [
        ("transformers, padded to 128", "transformers_xlm.py", "--pad-to 128"),
        ("transformers, padded to the longest", "transformers_xlm.py", ""),
    ]),
    ("XNLI prediction, batches of 32 real lengths", PAIRS, "--objective xnli_prediction", [
        ("transformers, padded to 128", "transformers_xlm.py", "--pad-to 128"),
        ("transformers, padded to the longest", "transformers_xlm.py", ""),
    ]),
]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    # The object is the last thing a program prints; libraries may talk before it.
    return json.loads(done.stdout[done.stdout.index("{"):])


def measure(size, objective, peers, options):
    """One object for each program and round."""
    common = [*size.split(), *objective.split(), "--threads", str(options.threads)]
    programs = {XLT: [options.xlt, "bench", *common, "--steps", str(options.steps), "--json"]}
    for name, program, own in peers:
        programs[name] = [sys.executable, HERE / program, *common, *own.split(), "--steps", str(options.steps)]
    rounds = []
    for number in range(options.rounds):
        rounds.append({name: run(command) for name, command in programs.items()})
        print(f"  round {number + 1}: " + ", ".join(f"{name} {result['milliseconds_per_step']:.0f} ms" for name, result in rounds[-1].items()), file=sys.stderr)
    return rounds


def row(workload, name, rounds):
    def middle(values):
        values = sorted(values)
        return statistics.median(values), values[0], values[-1]

    ratio, least, most = middle([one[XLT]["tokens_per_second"] / one[name]["tokens_per_second"] for one in rounds])
    ours, theirs = (statistics.median([one[key]["milliseconds_per_step"] for one in rounds]) for key in (XLT, name))
    memory = [statistics.median([one[key]["peak_memory_bytes"] for one in rounds]) / 1e6 for key in (XLT, name)]
    return f"| {workload} | {name} | {ours:.0f} | {theirs:.0f} | **{ratio:.2f}** ({least:.2f} to {most:.2f}) | {memory[0]:.0f} | {memory[1]:.0f} |"


def parts(rounds):
    """What each part of our step costs, medians over the rounds."""
    names = sorted(rounds[0][XLT]["milliseconds"])
    return {name: statistics.median([one[XLT]["milliseconds"][name] for one in rounds]) for name in names}


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="only workloads whose name matches this regular expression")
    parser.add_argument("--peers", default="", help="only peers whose name matches this regular expression")
    parser.add_argument("--xlt", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/xlt")
    parser.add_argument("--write", type=Path, help="a page whose text behind the mark is replaced by the tables")
    options = parser.parse_args()
    lines = ["| workload | peer | xlt, ms | peer, ms | speed, peer = 1 | memory of xlt, MB | memory of peer, MB |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    costs, shares, device = {}, {}, ""
    for name, size, objective, peers in WORKLOADS:
        peers = [peer for peer in peers if re.search(options.peers, peer[0])]
        if not re.search(options.only, name) or not peers:
            continue
        print(name, file=sys.stderr)
        rounds = measure(size, objective, peers, options)
        lines += [row(name, peer, rounds) for peer, _, _ in peers]
        costs[name] = parts(rounds)
        shares[name] = statistics.median([one[XLT]["share_of_matrix_product"] for one in rounds])
        device = rounds[0][XLT]["device"]
    columns = sorted({part for cost in costs.values() for part in cost})
    lines += ["", "What a step of xlt spends on each part, in milliseconds, and its matrix products' rate as a share of that of one product alone:", ""]
    lines += ["| workload | " + " | ".join(column.replace("_", " ") for column in columns) + " | share |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for name, cost in costs.items():
        lines.append(f"| {name} | " + " | ".join(f"{cost[column]:.1f}" if column in cost else "" for column in columns) + f" | {100 * shares[name]:.0f} % |")
    versions = subprocess.run([sys.executable, "-c", "import torch, transformers; print('PyTorch', torch.__version__ + ', transformers', transformers.__version__)"], capture_output=True, text=True).stdout.strip()
    lines = [f"{options.threads} threads of {device or processor()}; {versions}; medians of {options.rounds} rounds, {options.steps} steps each.", "", *lines]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        page = options.write.read_text()
        options.write.write_text(page[: page.index(MARK) + len(MARK)] + "\n\n" + text)


main()
