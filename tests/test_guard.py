"""Nothing is read or written beside an array: kernels, BLAS and training between forbidden pages.

Such an access ends the process, so that each test runs in one of its own, `python -m
tests.test_guard`; the last line that it prints tells what ended it.
"""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cyconv
from cyconv import naive
from cyconv._core import of
from cyconv.geometry import resolve
from tests import guard, reference, zoo
from tests.reference import assert_same, everything, pool_everything
from tests.test_exactness import RUNS, cuts, problems

pytestmark = pytest.mark.skipif(not guard.AVAILABLE, reason="no mprotect on this system")


def functions(side, count):
    """Compute random and large convolutions, all arrays between forbidden pages."""
    rng = np.random.default_rng(3)
    large = [(case, reference.arrays(case, rng)) for case in reference.LARGE]
    with cuts() as cut:
        for case, given in itertools.chain(problems(int(count), seed=3), large):
            expected = everything(naive, case, *given)
            for dtype, threads in RUNS:
                print(np.dtype(dtype), threads, case, flush=True)
                arrays = [guard.copy(array.astype(dtype), side) for array in given]
                cyconv.set_num_threads(threads)
                for module in (cyconv, naive) if threads == 1 else (cyconv,):
                    cut()
                    with guard.pages(side):
                        results = everything(module, case, *arrays)
                    assert_same(results, expected, case, dtype, threads)


def poolings(side, count):
    """Pool random images, all arrays between forbidden pages."""
    rng = np.random.default_rng(4)
    for _ in range(int(count)):
        case = reference.random_pool(rng)
        given = reference.pool_arrays(case, rng)
        for dtype, threads in RUNS:
            print(np.dtype(dtype), threads, case, flush=True)
            arrays = [guard.copy(array.astype(dtype), side) for array in given]
            cyconv.set_num_threads(threads)
            expected = pool_everything(naive, case, *arrays)
            for module in (cyconv, naive):
                with guard.pages(side):
                    results = pool_everything(module, case, *arrays)
                assert_same(results, expected, case, dtype, threads, names=reference.POOLINGS)


def networks(side, count):
    """Train, predict and go layer by layer, all arrays between forbidden pages."""
    runs = (1, 1, np.uint8), (37, 1, np.float32), (37, 3, np.float64), (37, 3, np.uint8)
    for name, (images, threads, dtype) in itertools.product(zoo.ALL_NETWORKS, runs[-int(count) :]):
        if name == "batch normalisation first and last":
            images = max(images, 2)  # one vector has no variance
        print(name, np.dtype(dtype), images, threads, flush=True)
        cyconv.set_num_threads(threads)
        x, labels = zoo.batch(zoo.network(name), images)
        x = x if dtype is np.uint8 else (x / 255).astype(dtype)
        expected = work(name, x, labels)
        with guard.pages(side):
            found = work(name, guard.copy(x, side), labels)
        for result, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


def work(name, x, labels):
    """Return what a network's methods return."""
    net, optimizer = zoo.network(name), cyconv.Adam()
    losses = [net.train_step(x, labels, optimizer) for _ in range(2)]
    results = [losses, net.predict_proba(x), net.evaluate(x, labels)]
    for training in (False, True):
        y = net.forward(x, training)
        results += [y, net.backward(y), *net.state().values()]
    return results


def one_too_far(side, access):
    """Read or write the byte beside an array."""
    array = guard.empty((5,), np.float32, side)
    address = array.ctypes.data + (array.nbytes if side == "behind" else -1)
    byte = ctypes.c_char.from_address(address)
    if access == "write":
        byte.value = b"0"
    print(byte.value)


def kernel(side):
    """Let im2col write one row more than there is room for."""
    window = resolve((3, 3, 1), 2, 1, 0, "canary")
    x, cols = guard.empty((1, 3, 3, 1), np.float32, side), guard.empty((3, 4), np.float32, side)
    of("float32").convolution.im2col(x, cols, window._asdict(), 1)


def blas(side):
    """Let dgemm read one line of an image more than there is: 1x1 filters need no columns."""
    window = resolve((4, 4, 2), 1, 1, 0, "canary")
    shapes = (1, 3, 4, 2), (1, 1, 2, 3), (3,), (1, 4, 4, 3), (1, 8)
    x, weight, bias, y, cols = (guard.empty(shape, np.float64, side) for shape in shapes)
    of("float64").convolution.conv2d(x, weight, bias, None, y, cols, window._asdict(), 4, 1)


def canaries():
    """Print each canary and how the fork ended that it was called in; no kernel runs before it."""
    for name, *arguments in CANARIES:
        child = os.fork()
        if child == 0:
            globals()[name](*arguments)
            os._exit(0)
        print(name, *arguments, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(*arguments):
    """Return what became of a function of this module in a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", __name__, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )


def survivors(*arguments):
    """Return how much a function has done without touching a forbidden page."""
    done = run(*arguments)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{done.returncode} in {lines[-1:]}\n{done.stderr[-3000:]}"
    return len(lines)


@pytest.mark.parametrize("side", guard.SIDES)
def test_convolutions_touch_nothing_beside_an_array(side, count, figure):
    done = survivors("functions", side, count(25, 200, 10_000))
    figure(f"convolutions with guard pages {side} all arrays", done)


@pytest.mark.parametrize("side", guard.SIDES)
def test_poolings_touch_nothing_beside_an_array(side, count, figure):
    done = survivors("poolings", side, count(25, 100, 5_000))
    figure(f"poolings with guard pages {side} all arrays", done)


@pytest.mark.parametrize("side", guard.SIDES)
def test_networks_touch_nothing_beside_an_array(side, count, figure):
    done = survivors("networks", side, count(1, 4, 4))
    figure(f"training runs with guard pages {side} all arrays", done)


CANARIES = (
    *itertools.product(("one_too_far",), guard.SIDES, ("read", "write")),
    ("kernel", "behind"),
    ("blas", "behind"),
)


def test_an_access_beside_an_array_ends_the_process():
    done = run("canaries")
    ended = [tuple(line.rsplit(maxsplit=1)) for line in done.stdout.splitlines()]
    assert [name for name, _ in ended] == [" ".join(canary) for canary in CANARIES], done.stderr
    assert {int(code) for _, code in ended} <= {-signal.SIGSEGV, -signal.SIGBUS}, ended


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    globals()[name](*arguments)
