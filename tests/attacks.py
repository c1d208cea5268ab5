"""Readers of files under attack: damaged copies of good files by the hundred thousand, with limits.

A reader is attacked in a process of its own: what takes too much memory or time, or crashes, takes
that process with it and nothing else.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the limits of memory and time are Linux's", allow_module_level=True)

import resource

MIB = 2**20
SHOWN = 2000  # bytes of a file in a message: all of a mutant


class Outcome(NamedTuple):
    """How many files were read and how many refused, and the most that one of them took."""

    read: int
    refused: int
    seconds: float
    mebibytes: int

    def __str__(self):
        return (
            f"{self.read + self.refused:,}, of which {self.refused:,} refused; "
            f"at most {1000 * self.seconds:.0f} ms and {self.mebibytes} MiB"
        )


@dataclass
class Mutants:
    """Names and contents of damaged copies: `count` of damage(rng, content), of good ones."""

    originals: list[bytes]
    damage: Callable[[np.random.Generator, bytes], bytes]
    count: int
    seed: int

    def __iter__(self):
        rng = np.random.default_rng(self.seed)
        for number in range(self.count):
            original = self.originals[rng.integers(len(self.originals))]
            yield f"seed {self.seed}, case {number}", self.damage(rng, original)


def attack(check, good, files, seconds=1, mebibytes=64):
    """Let a reader loose on files in another process, and return the Outcome.

    Parameters
    ----------
    check : callable
        check(path, content) reads the file and tells whether that was possible; what it raises is
        a failure. It is known by its module and name, like the function in `Mutants`.
    good : list of bytes
        Contents that are read first, and must be.
    files : iterable of (str, bytes)
        Names and contents of the others.
    seconds, mebibytes : int
        CPU time for one file, and memory beyond what the process has after the good ones.
    """
    memory = os.memfd_create("file")
    path = f"/proc/{os.getpid()}/fd/{memory}"
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            arguments = path, check, good, files, seconds, mebibytes
            return process.submit(_attack, *arguments).result()
    except BrokenProcessPool:
        content = os.pread(memory, os.fstat(memory).st_size, 0)
        raise AssertionError(
            f"the reader crashed, or ran for {seconds} s, on {content[:SHOWN]!r}"
        ) from None
    finally:
        os.close(memory)


def _attack(path, check, good, files, seconds, mebibytes):
    for content in good:
        _write(path, content)
        assert check(path, content), f"this file is good: {content!r}"
    before = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, [before + mebibytes * MIB] * 2)
    results, longest = [], 0.0
    for name, content in files:
        _write(path, content)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # then a signal ends the process
        start = time.process_time()
        try:
            results.append(check(path, content))
        except Exception as error:
            raise AssertionError(
                f"{name}, {content[:SHOWN]!r}: {type(error).__name__}: {error}"
            ) from None
        longest = max(longest, time.process_time() - start)
        signal.setitimer(signal.ITIMER_PROF, 0)
    more = max(0, _status("VmPeak") - before) // MIB
    return Outcome(results.count(True), results.count(False), longest, more)


def _write(path, content):
    with open(path, "wb", buffering=0) as file:
        file.write(content)


def _status(name):
    """Return a size of this process in bytes."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


def mutate(rng, content):
    """Return a copy of a file with one to four edits."""
    data = bytearray(content)
    kinds, places, others, sizes, values = rng.integers(2**32, size=(5, 4)).tolist()
    for edit in range(1 + values[0] % 4):
        kind, value = kinds[edit] % 8, values[edit]
        first, second = (place % (len(data) + 1) for place in (places[edit], others[edit]))
        last = first + sizes[edit] % 16
        if kind == 0:  # bits
            data[first:last] = bytes(byte ^ 1 << value % 8 for byte in data[first:last])
        elif kind == 1:
            data[first : first + 1] = value.to_bytes(4)[:1]
        elif kind == 2:  # the numbers at both ends of what one, two, four and eight bytes hold
            width, order = 1 << value % 4, ("little", "big")[value >> 2 & 1]
            number = (-2, -1, 0, 1)[value >> 3 & 3] % 2 ** (8 * width)
            data[first : first + width] = number.to_bytes(width, order)
        elif kind == 3:
            del data[first:]
        elif kind == 4:
            del data[first:last]
        elif kind == 5:
            data[first:first] = value.to_bytes(4)
        elif kind == 6:  # a slice once more, elsewhere
            data[second:second] = data[first:last]
        else:  # two slices exchanged
            one, other = data[first:last], data[second : second + last - first]
            data[first:last] = other
            data[second : second + last - first] = one
    return bytes(data)
