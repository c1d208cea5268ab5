"""What does Winograd's way cost in accuracy, and what does it win in time?

For 3x3 layers of padding 1: the root mean square of the error of y and dx in float32, over that of
the result in float64, by the direct way and by Winograd's; and how many times faster y is, and y
and all gradients. Random numbers are normal.
"""

from __future__ import annotations

import argparse

import numpy as np

import cyconv
from cyconv.timing import interleave, print_row, seconds_each

WIDTHS = 18, 11, 11, 11, 11, 7, 7
LAYERS = (
    (28, 128, 128), (56, 64, 64), (14, 256, 256), (7, 512, 512), (28, 32, 64), (8, 64, 64),
    (32, 16, 16), (16, 16, 16), (8, 32, 32), (4, 64, 64),
)  # fmt: skip


def both(x, weight, dy, winograd=False):
    """Return y and dx."""
    dx, *_ = cyconv.conv2d_backward(dy, x, weight, padding=1, winograd=winograd)
    return cyconv.conv2d(x, weight, padding=1, winograd=winograd), dx


def errors(x, weight, dy):
    """Return the relative errors of y and dx, each by the direct way and by Winograd's."""
    exact = both(*(array.astype(np.float64) for array in (x, weight, dy)))
    results = zip(both(x, weight, dy), both(x, weight, dy, True), strict=True)
    return [
        np.linalg.norm(result - wanted) / np.linalg.norm(wanted)
        for pair, wanted in zip(results, exact, strict=True)
        for result in pair
    ]


def gains(x, weight, dy, turns):
    """Return how many times faster Winograd's way is: y, and y with dx, dweight and dbias."""
    tasks = [
        lambda winograd=winograd: cyconv.conv2d(x, weight, padding=1, winograd=winograd)
        for winograd in (False, True)
    ]
    tasks += [lambda winograd=winograd: both(x, weight, dy, winograd) for winograd in (False, True)]
    runs = [lambda n, task=task: seconds_each(task, n) for task in tasks]
    times = np.median(interleave(runs, turns, 0.05), axis=0)
    return times[0] / times[1], times[2] / times[3]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--turns", type=int, default=9, help="of each way (default: 9)")
    options = parser.parse_args()
    cyconv.set_num_threads(options.threads)
    names = "error of y", "Winograd", "of dx", "Winograd", "y", "and all"
    print_row((f"{options.batch} of", *names), WIDTHS)
    rng = np.random.default_rng(0)
    for size, C, F in LAYERS:
        shapes = (options.batch, size, size, C), (3, 3, C, F), (options.batch, size, size, F)
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        cells = [f"{each:.2g}" for each in errors(*arrays)]
        cells += [f"x {each:.2f}" for each in gains(*arrays, options.turns)]
        print_row((f"{size}x{size}x{C} to {F}", *cells), WIDTHS)


if __name__ == "__main__":
    main()
