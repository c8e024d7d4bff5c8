"""Masked-LM steps of xlt and of PyTorch on one NVIDIA GPU, in turn: medians, and ratios taken within a round.

    python benches/peers/compare_cuda.py --rounds 5

Prints the table of docs/performance.md. A round of a workload takes about a minute, most of it torch.compile's.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
# Layers, hidden, heads, feed-forward, sequences, length.
WORKLOADS = [(6, 512, 8, 2048, 128, 128), (12, 1024, 16, 4096, 64, 256)]
VOCABULARY = 32000


def output_of(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    # What a library prints before the object is skipped.
    return json.loads(done.stdout[done.stdout.index("{") :])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--xlt", default="target/release/xlt")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", default="compile", choices=["eager", "compile"])
    parser.add_argument("--precision", default="bf16", choices=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    print("| workload | xlt, ms | tokens/s | PyTorch, ms | tokens/s | speed, PyTorch = 1 | share of the product's rate |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for layers, hidden, heads, feed_forward, sequences, length in WORKLOADS:
        sizes = ["--layers", layers, "--hidden", hidden, "--heads", heads, "--feed-forward", feed_forward]
        sizes += ["--vocabulary", VOCABULARY, "--sequences", sequences, "--length", length]
        sizes += ["--precision", arguments.precision, "--steps", arguments.steps]
        sizes = [str(size) for size in sizes]
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            ours.append(output_of([arguments.xlt, "bench", "--device", arguments.device, "--json", *sizes]))
            peer = [arguments.python, str(HERE / "pytorch_cuda.py"), "--mode", arguments.mode, "--warmup", "10"]
            theirs.append(output_of(peer + sizes))
        ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs)]

        def median(results, key):
            return statistics.median(result[key] for result in results)

        print(
            f"| hidden {hidden}, {layers} layers, {heads} heads, {sequences} x {length} "
            f"| {median(ours, 'milliseconds_per_step'):.1f} | {median(ours, 'tokens_per_second'):,.0f} "
            f"| {median(theirs, 'milliseconds_per_step'):.1f} | {median(theirs, 'tokens_per_second'):,.0f} "
            f"| **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {100 * median(ours, 'share_of_matrix_product'):.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
