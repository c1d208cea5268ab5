"""How much faster is conv2d than the slides' seven loops?

The first two layers of the exercise network at batch 512. The results are compared first, on
integers, where both must be exact; then the two take turns. Times are medians of the turns and the
factor is the ratio of the medians. The loops run on one thread.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

import cyconv
from cyconv.measure import convolutions, draw, integers, passes
from cyconv.timing import interleave, print_row, seconds_each

BATCH = 512
LAYERS = 2  # the first ones of the exercise network
SECONDS = 0.1  # of a turn, unless one call takes longer
WIDTHS = 32, 8, 10, 10, 8


def main():
    """Check, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, help="threads of cyconv (default: all cores)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side (default: 7)")
    options = parser.parse_args()
    cyconv.set_num_threads(options.threads)
    threads = cyconv.get_num_threads()
    print(f"batch {BATCH}, float32; cyconv on {threads} threads, the naive loops on 1")
    print_row(["layer", "pass", "naive ms", "cyconv ms", "factor"], WIDTHS)
    rng = np.random.default_rng(0)
    for layer in convolutions(cyconv.presets.exercise())[:LAYERS]:
        data = draw(layer, BATCH, partial(integers, rng))
        naive = passes(cyconv.naive, layer, *data)
        for direction, fast in passes(cyconv, layer, *data).items():
            for slow_array, fast_array in zip(naive[direction](), fast(), strict=True):
                np.testing.assert_array_equal(slow_array, fast_array)
            runs = [partial(seconds_each, task) for task in (naive[direction], fast)]
            slow_ms, fast_ms = 1e3 * np.median(interleave(runs, options.repeats, SECONDS), axis=0)
            factor = f"{slow_ms / fast_ms:.0f}"
            print_row([str(layer), direction, f"{slow_ms:.1f}", f"{fast_ms:.2f}", factor], WIDTHS)


if __name__ == "__main__":
    main()
