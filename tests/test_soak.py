"""The same thing again and again: memory, threads and descriptors stay, and so does the speed."""

import contextlib
import gc
import multiprocessing
import os
import sys
import time
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, presets
from cyconv.layers import Conv2D, Flatten, Linear, Softmax
from tests.zoo import batch, network

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")

WARM = 300  # calls before the first look
MOST_BYTES = 2**20  # that memory may grow by


def used():
    """Return this process's (bytes of memory, Python objects, threads, descriptors)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    counts = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
    return pages * os.sysconf("SC_PAGE_SIZE"), sys.getallocatedblocks(), *counts


def growth(make, calls):
    """Return by how much all that is `used` grows over many calls."""
    cyconv.set_num_threads(2)
    call = make()
    for _ in range(WARM):
        call()
    before = used()
    for _ in range(calls):
        call()
    return [after - first for after, first in zip(used(), before, strict=True)]


@pytest.fixture
def assert_flat(figure):
    """Return f(make, calls, name), which checks the growth over many calls."""

    def check(make, calls, name):
        # In a new process, where no memory that other tests have freed can take up a leak.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            memory, objects, threads, files = pool.submit(growth, make, calls).result()
        assert memory < MOST_BYTES
        assert objects < calls / 4  # caches come and go, a leak has one for each call
        assert (threads, files) == (0, 0)
        figure(f"soak, {name}", f"{calls:,}: {memory:+,} bytes, {objects:+} Python objects")

    return check


def training():
    """Return a call that takes a step, of each epoch's batches in turn."""
    (x, labels), _ = cyconv.datasets.load_digits()
    net, optimizer, images = presets.exercise(), Adam(), 16
    step = iter(range(sys.maxsize))

    def call():
        first = next(step) * images % (len(x) - images)
        picked = slice(first, first + images)
        net.train_step(x[picked], labels[picked], optimizer)

    return call


def cycles():
    """Return a call that creates a small network, uses it and drops it."""
    x, labels = np.ones((2, 4, 4, 1), np.float32), [0, 1]

    def call():
        net = Network([Conv2D(2, 3), Flatten(), Linear(2), Softmax()], (4, 4, 1))
        net.train_step(x, labels, Adam())
        net.forward(x)
        net.predict(x)

    return call


def failures():
    """Return a call that is refused, each time for another reason."""
    net, optimizer = presets.exercise(), Adam()
    x, labels = np.ones((4, 28, 28, 1), np.float32), np.arange(4)
    bad = x.copy()
    bad[2, 0, 0] = np.nan
    refused = [
        lambda: net.train_step(x[:, 1:], labels, optimizer),
        lambda: net.train_step(x, labels + 9, optimizer),
        lambda: net.train_step(bad, labels, optimizer),
        lambda: net.predict(bad),
        lambda: net.forward(x.astype(np.int64)),
        lambda: net.backward(np.ones((4, 10), np.float32)),
        lambda: cyconv.conv2d(x, np.ones((3, 3, 2, 1), np.float32)),
        lambda: cyconv.im2col(x, 29),
        lambda: cyconv.set_num_threads(0),
        lambda: Network([Conv2D(4, 8, stride=2), Linear(10)]),
        lambda: Network.load(os.devnull),
    ]
    turn = iter(range(sys.maxsize))

    def call():
        with contextlib.suppress(ArithmeticError, RuntimeError, TypeError, ValueError):
            refused[next(turn) % len(refused)]()
            raise AssertionError("this call must be refused")

    return call


def test_training_is_flat(assert_flat, count):
    assert_flat(training, count(1_000, 10_000, 200_000), "training steps")


def test_the_last_steps_are_as_quick_as_the_first(count, figure):
    cyconv.set_num_threads(1)  # whose clock stands still while other processes run
    old, new, steps = training(), training(), count(1_000, 10_000, 200_000)
    for _ in range(steps):
        old()
    times = np.empty((count(40, 100, 100), 2))
    for turn in times:
        for side, call in enumerate((old, new)):  # in turns: the machine changes its speed too
            start = time.thread_time()
            for _ in range(50):
                call()
            turn[side] = time.thread_time() - start
    slower = np.median(times[:, 0] / times[:, 1]) - 1
    assert slower < 0.1
    figure(f"soak, slower after {steps:,} steps", f"{100 * slower:+.1f} %")


def test_networks_leave_nothing_behind(assert_flat, count):
    assert_flat(cycles, count(500, 4_000, 100_000), "networks created, used and dropped")


@pytest.mark.parametrize("name", ("exercise", "a user's layers", "residual", "dropout"))
def test_a_network_that_is_dropped_takes_its_memory_with_it(name):
    net = network(name)
    x, labels = batch(net)
    net.train_step(x, labels, Adam())
    net.predict(x)
    net.backward(net.forward(x))
    net.layers[0].forward(x.astype(np.float32))
    kept = [weakref.ref(each) for each in (net, *net.layers, net._parameters)]
    programs = [weakref.ref(each) for each in net._passes._programs.values()]
    gc.disable()  # nobody has to come and look for it
    try:
        del net
        assert len(programs) == 3
        assert not [each() for each in (*kept, *programs) if each() is not None]
    finally:
        gc.enable()


def test_refused_calls_leave_nothing_behind(assert_flat, count):
    assert_flat(failures, count(6_000, 10_000, 100_000), "refused calls")
