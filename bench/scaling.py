"""Does an image cost the same in small and large batches, and half as much on two threads?

Training steps of both presets over batch sizes, and single convolutions over image sizes with the
same work in every call. No cliff: from batch 64 up, and at every image size, the cost stays within
25 % of the lowest in its column; what does not is marked with "<". Before the timing, losses and
outputs are compared with the plain way to compute them, and between the thread counts bit for bit.

Times are medians of turns; the speed-up is the median of the ratios of neighbouring turns. It means
something on idle cores only: one busy neighbour holds up every thread that waits for the others.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

import cyconv
from cyconv.measure import STILL, on_threads
from cyconv.timing import interleave, print_row

BATCHES = {"exercise": 8192, "wide": 1024}  # the largest; the others are halves of it
LAYERS = {"16 -> 16": (16, 16), "32 -> 64": (32, 64)}  # channels of 3x3 filters, padding 1
SIDES = {28: 64, 56: 16, 112: 4, 224: 1}  # images in a batch: the work is the same
CLIFF = 1.25
LEAST_BATCH = 64  # that must be without a cliff
QUICK_BATCH = 512  # the largest with --quick
WISH = 1.85  # speed-up of two threads, exercise at batch 512
WIDTHS = 24, 10, 7, 10, 7, 9


def measure(tasks, options):
    """Return the seconds of each task on one and on all threads, from interleaved turns.

    Returns
    -------
    ndarray of shape (turns, len(tasks), 2)
    """
    runs = [on_threads(n, task) for task in tasks for n in (1, options.threads)]
    times = interleave(runs, options.turns, options.seconds)
    return times.reshape(options.turns, len(tasks), 2)


def print_table(title, unit, names, units, guarded, times, threads):
    """Print the cost of a unit in each task, marked where it is a cliff; return the speed-ups.

    Parameters
    ----------
    names, units, guarded : list
        Of each task: its name, how many units of work it does, whether it must be without a cliff.
    times : ndarray of shape (turns, len(names), 2), seconds
    """
    print_row([title, f"1: {unit}", "cost", f"{threads}: {unit}", "cost", "speed-up"], WIDTHS)
    costs = np.median(times, axis=0) / np.array(units)[:, np.newaxis]
    relative = costs / costs.min(axis=0)
    speed_ups = np.median(times[:, :, 0] / times[:, :, 1], axis=0)
    for i, name in enumerate(names):
        cells = []
        for cost, factor in zip(costs[i], relative[i], strict=True):
            mark = "<" if guarded[i] and factor > CLIFF else " "
            cells += [f"{cost:.2f}", f"{factor:.2f}{mark}"]
        print_row([name, *cells, f"{speed_ups[i]:.2f}"], WIDTHS)
    print()
    return dict(zip(names, speed_ups, strict=True))


def same_bits(task, threads):
    """Return a task's result, or raise AssertionError if it depends on the number of threads."""
    results = []
    for n in (1, threads):
        cyconv.set_num_threads(n)
        results.append(task())
    np.testing.assert_equal(*results)
    return results[0]


def steps(preset, options):
    """Measure and print the training steps of a preset; return the speed-ups."""
    rng = np.random.default_rng(0)
    largest = min(BATCHES[preset], QUICK_BATCH) if options.quick else BATCHES[preset]
    batches = [2**i for i in range(largest.bit_length())]
    x = rng.random((largest, 28, 28, 1), np.float32)
    labels = rng.integers(0, 10, largest)
    net = getattr(cyconv.presets, preset)()
    tasks = [partial(net.train_step, x[:n], labels[:n], cyconv.Adam(STILL)) for n in batches]
    for n in batches[:8]:
        loss = same_bits(lambda n=n: first_loss(preset, x[:n], labels[:n]), options.threads)
        plain = -np.log(net.forward(x[:n])[np.arange(n), labels[:n]]).mean()
        np.testing.assert_allclose(loss, plain, rtol=1e-5)
    return print_table(
        f"step {preset}, batch",
        "µs/image",
        [str(n) for n in batches],
        [1e-6 * n for n in batches],
        [n >= LEAST_BATCH for n in batches],
        measure(tasks, options),
        options.threads,
    )


def first_loss(preset, x, labels):
    """Return the loss of a new network's first step."""
    return getattr(cyconv.presets, preset)().train_step(x, labels, cyconv.Adam(STILL))


def convolutions(options):
    """Measure and print the convolutions."""
    rng = np.random.default_rng(0)
    for name, (C, F) in LAYERS.items():
        w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((3, 3, C, F), F))
        tasks = {"conv2d": [], "conv2d_backward": []}
        for side, n in SIDES.items():
            x, dy = (
                rng.integers(-4, 5, (n, side, side, channels)).astype(np.float32)
                for channels in (C, F)
            )
            tasks["conv2d"].append(partial(cyconv.conv2d, x, w, b, 1, 1))
            tasks["conv2d_backward"].append(partial(cyconv.conv2d_backward, dy, x, w, 1, 1))
            check(x, w, b, dy, options.threads)
        for direction, factor in (("conv2d", 2), ("conv2d_backward", 4)):
            gflop = [1e-9 * factor * n * side * side * w.size for side, n in SIDES.items()]
            print_table(
                f"{direction} {name}",
                "ms/GFLOP",
                [f"{n}x{side}x{side}" for side, n in SIDES.items()],
                [1e-3 * work for work in gflop],
                [True] * len(SIDES),
                measure(tasks[direction], options),
                options.threads,
            )


def check(x, w, b, dy, threads):
    """Raise AssertionError unless a corner of y and dx is what the naive loops make of integers."""
    y = same_bits(lambda: cyconv.conv2d(x, w, b, 1, 1), threads)
    dx, _, _ = same_bits(lambda: cyconv.conv2d_backward(dy, x, w, 1, 1), threads)
    corner = np.s_[-1:, -16:, -16:]  # its own outermost rows and columns lack their neighbours
    inner = np.s_[:, 1:, 1:]
    naive_y = cyconv.naive.conv2d(x[corner], w, b, 1, 1)
    naive_dx, _, _ = cyconv.naive.conv2d_backward(dy[corner], x[corner], w, 1, 1)
    np.testing.assert_array_equal(y[corner][inner], naive_y[inner])
    np.testing.assert_array_equal(dx[corner][inner], naive_dx[inner])


def main():
    """Check, measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, help="beside one thread (default: all cores)")
    parser.add_argument("--turns", type=int, default=7, help="of each case (default: 7)")
    parser.add_argument(
        "--quick", action="store_true", help=f"short turns, batches up to {QUICK_BATCH}"
    )
    options = parser.parse_args()
    options.threads = options.threads or cyconv.get_num_threads()
    options.seconds = 0.01 if options.quick else 0.04
    print(f"one and {options.threads} threads, float32; cost: over the lowest of the column\n")
    for preset in BATCHES:
        speed_ups = steps(preset, options)
        if preset == "exercise" and options.threads == 2:
            wish = f"two threads over one at batch 512: {speed_ups['512']:.2f}, wished {WISH}"
            print(f"{wish}\n")
    convolutions(options)


if __name__ == "__main__":
    main()
