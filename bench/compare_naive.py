"""How much faster is conv2d than the slides' seven loops?

The first two layers of the exercise network at batch 512. The results are compared first, on
integers, where both must be exact; then the two take turns. Times are medians of the turns and the
factor is the ratio of the medians. The loops run on one thread.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from harness import interleave, print_row, seconds_each

import cyconv

LAYERS = {
    "512x28x28x1, 8x8x4 stride 2": ((512, 28, 28, 1), (8, 8, 1, 4), 2),
    "512x11x11x4, 6x6x8": ((512, 11, 11, 4), (6, 6, 4, 8), 1),
}
SECONDS = 0.1  # of a turn, unless one call takes longer
WIDTHS = 28, 8, 10, 10, 8


def integers(rng, shape):
    """Return small integers in float32, whose products add up without rounding."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def tasks(package, x, w, b, dy, stride):
    """Return the two passes with one package's functions."""
    return {
        "forward": lambda: [package.conv2d(x, w, b, stride)],
        "backward": lambda: package.conv2d_backward(dy, x, w, stride),
    }


def main():
    """Check, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, help="threads of cyconv (default: all cores)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side (default: 7)")
    options = parser.parse_args()
    cyconv.set_num_threads(options.threads)
    print(f"cyconv on {cyconv.get_num_threads()} threads, the naive loops on 1, float32")
    print_row(["layer", "pass", "naive ms", "cyconv ms", "factor"], WIDTHS)
    rng = np.random.default_rng(0)
    for name, (shape, filters, stride) in LAYERS.items():
        x, w, b = (integers(rng, size) for size in (shape, filters, filters[3]))
        dy = integers(rng, cyconv.conv2d(x, w, b, stride).shape)
        naive = tasks(cyconv.naive, x, w, b, dy, stride)
        for direction, fast in tasks(cyconv, x, w, b, dy, stride).items():
            for slow_array, fast_array in zip(naive[direction](), fast(), strict=True):
                np.testing.assert_array_equal(slow_array, fast_array)
            runs = [partial(seconds_each, task) for task in (naive[direction], fast)]
            slow_ms, fast_ms = 1e3 * np.median(interleave(runs, options.repeats, SECONDS), axis=0)
            factor = f"{slow_ms / fast_ms:.0f}"
            print_row([name, direction, f"{slow_ms:.1f}", f"{fast_ms:.2f}", factor], WIDTHS)


if __name__ == "__main__":
    main()
