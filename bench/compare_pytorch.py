"""How fast is cyconv beside PyTorch on the CPU?

Training steps, prediction, single convolutions (with dx), and the peak memory of a training
process. Each side works in its own process, and they take turns, one at a time. Before a case is
timed, both sides must agree: losses of five Adam steps, labels, or outputs and gradients, from the
same weights and data. PyTorch runs each case in every variant below, and its fastest counts.

Times are medians of the turns; the ratio, PyTorch over cyconv, is the median of the ratios of
neighbouring turns: above 1, cyconv is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from fnmatch import fnmatchcase
from functools import partial
from itertools import product

import numpy as np
from harness import Worker, interleave, print_row
from peers import Cyconv, PyTorch, check

FORMATS = "contiguous_format", "channels_last"
ADAMS = "foreach", "fused"
VARIANTS = {
    "step": list(product(FORMATS, ADAMS)),
    "predict": list(product(FORMATS)),
    "conv": list(product(FORMATS)),
    "memory": list(product(FORMATS, ["fused"])),  # foreach holds copies
}
CONVOLUTIONS = {  # images, filters, stride, padding
    "512x28x28x1, 8x8x4 stride 2": ((512, 28, 28, 1), (8, 8, 1, 4), 2, 0),
    "512x11x11x4, 6x6x8": ((512, 11, 11, 4), (6, 6, 4, 8), 1, 0),
    "512x6x6x8, 4x4x16": ((512, 6, 6, 8), (4, 4, 8, 16), 1, 0),
    "512x3x3x16, 3x3x10": ((512, 3, 3, 16), (3, 3, 16, 10), 1, 0),
    "512x28x28x1, 6x6x32 stride 2 pad 2": ((512, 28, 28, 1), (6, 6, 1, 32), 2, 2),
    "512x14x14x32, 6x6x64 stride 2 pad 2": ((512, 14, 14, 32), (6, 6, 32, 64), 2, 2),
    "64x28x28x32, 3x3x64 pad 1": ((64, 28, 28, 32), (3, 3, 32, 64), 1, 1),
    "32x56x56x64, 3x3x64 pad 1": ((32, 56, 56, 64), (3, 3, 64, 64), 1, 1),
    "32x28x28x128, 3x3x128 pad 1": ((32, 28, 28, 128), (3, 3, 128, 128), 1, 1),
}
STRAIGHT = "exercise", "wide"
ZOO = "lenet5", "mnist_convnet", "vgg_small", "resnet8", "resnet20"
CASES = {
    **{
        f"memory {preset} {batch}": ("memory", preset, batch)
        for preset, batch in (("exercise", 512), ("wide", 512))
    },
    **{
        f"step {preset} {batch}": ("step", preset, batch)
        for preset, batch in [*product(STRAIGHT, (64, 512)), *product(ZOO, (64, 256))]
    },
    **{f"predict exercise {batch}": ("predict", "exercise", batch) for batch in (1, 64, 1024)},
    **{
        f"conv {'fwd+bwd' if backward else 'fwd'} {name}": ("conv", *convolution, backward)
        for backward, (name, convolution) in product((False, True), CONVOLUTIONS.items())
    },
}
TRIAL_TURNS = 3  # of each variant of PyTorch
MEMORY_HEAD = (
    "peak memory", "PyTorch MB", "cyconv MB", "ratio",
    "over imports: PyTorch", "cyconv", "ratio", "PyTorch's variant",
)  # fmt: skip
MEMORY_WIDTHS = 20, 10, 9, 6, 21, 7, 6, 24
SPEED_HEAD = (
    "case", "PyTorch ms", "cyconv ms", "images/s", "ratio", "quartiles", "PyTorch's variant"
)  # fmt: skip
SPEED_WIDTHS = 48, 10, 9, 10, 6, 13, 25


def compare_memory(case, threads):
    """Return the record of a memory case, from fresh processes."""

    def measure(side, *args):
        worker = Worker(side, threads)
        before, after = worker.call("memory", *args)
        network = worker.call("network", preset) if side is Cyconv else None
        worker.close()
        return after, after - before, network

    _, preset, batch = case
    *ours, network = measure(Cyconv, preset, batch)
    (*theirs, _), variant = min(
        (measure(PyTorch, variant, network, None, batch), variant) for variant in VARIANTS["memory"]
    )
    return {
        "variant": " ".join(variant),
        "pytorch_mb": theirs[0],
        "cyconv_mb": ours[0],
        "ratio": theirs[0] / ours[0],
        "pytorch_growth_mb": theirs[1],
        "cyconv_growth_mb": ours[1],
        "growth_ratio": theirs[1] / ours[1],
    }


def compare_speed(case, pytorch, cyconv, turns, seconds):
    """Return the record of a timed case."""
    kind, *args = case
    theirs = args
    if kind != "conv":
        preset, batch = args
        theirs = cyconv.call("network", preset), cyconv.call("weights", preset), batch
    run_pytorch, run_cyconv = partial(pytorch.call, "time"), partial(cyconv.call, "time")

    def trial(variant):
        pytorch.call(kind, variant, *theirs)
        return np.median(interleave([run_pytorch], TRIAL_TURNS, seconds / 2))

    best = min(VARIANTS[kind], key=trial)
    check(case, cyconv, pytorch.call(kind, best, *theirs))
    times = interleave([run_pytorch, run_cyconv], turns, seconds)
    ratios = times[:, 0] / times[:, 1]
    batch = args[0][0] if kind == "conv" else args[1]
    return {
        "variant": " ".join(best),
        "pytorch_ms": 1e3 * np.median(times[:, 0]),
        "cyconv_ms": 1e3 * np.median(times[:, 1]),
        "images_per_second": batch / np.median(times[:, 1]),
        "ratio": np.median(ratios),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }


def print_memory(cases, threads):
    """Measure and print the peaks of memory; return the records by case."""
    print_row(MEMORY_HEAD, MEMORY_WIDTHS)
    records = {}
    for name, case in cases.items():
        records[name] = record = compare_memory(case, threads)
        variant, *numbers = record.values()
        forms = "{:.0f}", "{:.0f}", "{:.2f}", "{:.0f}", "{:.0f}", "{:.2f}"
        cells = [form.format(number) for form, number in zip(forms, numbers, strict=True)]
        print_row([name, *cells, variant], MEMORY_WIDTHS)
    print()
    return records


def print_speed(cases, options):
    """Measure and print the times; return the records by case."""
    pytorch, cyconv = Worker(PyTorch, options.threads), Worker(Cyconv, options.threads)
    print(f"{pytorch.call('about')}; {cyconv.call('about')}")
    print_row(SPEED_HEAD, SPEED_WIDTHS)
    records = {}
    for name, case in cases.items():
        records[name] = record = compare_speed(
            case, pytorch, cyconv, options.turns, options.seconds
        )
        low, high = record["ratio_quartiles"]
        cells = [
            f"{record['pytorch_ms']:.3f}",
            f"{record['cyconv_ms']:.3f}",
            f"{record['images_per_second']:,.0f}",
            f"{record['ratio']:.2f}",
            f"{low:.2f} - {high:.2f}",
            record["variant"],
        ]
        print_row([name, *cells], SPEED_WIDTHS)
    return records


def main():
    """Measure, print the tables, and write the records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="of either side (default: 2)")
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="PATTERN",
        default=[""],
        help='only cases whose name has one of these in it, such as "step resnet* 64"',
    )
    parser.add_argument("--turns", type=int, default=7, help="of each side (default: 7)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn (default: 0.2)")
    parser.add_argument("--json", metavar="FILE", help="write the results to this file")
    options = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        print("python -m pip install -e '.[bench]'", file=sys.stderr)
        sys.exit(2)
    patterns = [f"*{pattern}*" for pattern in options.cases]
    chosen = {
        name: case
        for name, case in CASES.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    memory = {name: case for name, case in chosen.items() if case[0] == "memory"}
    speed = {name: case for name, case in chosen.items() if case[0] != "memory"}
    print(f"{options.threads} threads, float32")
    # Memory first: a process inherits the peak of the one that starts it, which grows with data.
    records = print_memory(memory, options.threads) if memory else {}
    if speed:
        records |= print_speed(speed, options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"threads": options.threads, "cases": records}, file, indent=1)


if __name__ == "__main__":
    main()
