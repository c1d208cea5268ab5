"""Timing in turns, and the rows of a table.

This module imports nothing of the package: `bench/harness.py` takes it into processes that measure
another version of cyconv, or none.
"""

from __future__ import annotations

import time

import numpy as np

PAUSE = 0.02  # seconds before a turn: the idle side's OpenMP threads spin some ms, then sleep


def seconds_each(task, iterations: int) -> float:
    """Return the mean time of a call, after one call that wakes the threads and fills caches."""
    task()
    start = time.perf_counter()
    for _ in range(iterations):
        task()
    return (time.perf_counter() - start) / iterations


def iterations_for(run, seconds: float) -> int:
    """Return how many iterations `run` does in about `seconds`."""
    iterations = 1
    while (each := run(iterations)) * iterations < seconds / 4:
        iterations *= 4
    return max(1, round(seconds / each))


def interleave(runs, turns: int, seconds: float) -> np.ndarray:
    """Return the seconds per iteration of each `run(iterations)`, taken in turns A B A B ...

    Returns
    -------
    ndarray of shape (turns, len(runs))
    """
    counts = [iterations_for(run, seconds) for run in runs]
    times = np.empty((turns, len(runs)))
    for turn in range(turns):
        for side, (run, count) in enumerate(zip(runs, counts, strict=True)):
            time.sleep(PAUSE)
            times[turn, side] = run(count)
    return times


def print_row(cells, widths) -> None:
    """Print one line of a table: the first cell to the left, the others to the right."""
    first, *others = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    print("  ".join([first.strip().ljust(widths[0]), *others]), flush=True)
