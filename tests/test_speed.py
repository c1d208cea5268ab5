"""What each step of the way is worth, as ratios of times within one run: no seconds, one thread.

The bounds are at most two thirds of the least that was measured with any level of CYCONV_SIMD, and
the clock stands still while other processes run: only a change of the work itself gets past them.
"""

import sys
import time

import numpy as np
import pytest

import cyconv
from cyconv.layers import Layer

TURNS, TURN, ATTEMPTS = 9, 0.004, 3  # seconds of a turn
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="its clock of a thread's own time is too coarse"
)


def images(batch):
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((batch, 28, 28, 1), np.float32), rng.integers(0, 10, batch)


def step(batch, dtype=np.float32):
    """Return a training step of the exercise network, optimizer and all."""
    x, labels = images(batch)
    net, adam = cyconv.presets.exercise(), cyconv.Adam(1e-7)
    x = (255 * x).astype(dtype) if dtype == np.uint8 else x
    return lambda: net.train_step(x, labels, adam)


def layers(batch):
    """Return the same without the optimizer, layer after layer over the whole batch."""
    x, _ = images(batch)
    net = cyconv.presets.exercise()

    def forward_and_backward():
        y = x
        for layer in net.layers:
            y = layer.forward(y)
        for layer in reversed(net.layers):
            y = layer.backward(y)

    return forward_and_backward


class Same(Layer):
    """A layer in NumPy that takes no time of its own."""

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


def interrupted_step(batch):
    """Return a training step of the exercise network with a layer in NumPy in the middle."""
    x, labels = images(batch)
    layers = [layer.fresh() for layer in cyconv.presets.exercise().layers]
    net = cyconv.Network([*layers[:4], Same(), *layers[4:]])
    adam = cyconv.Adam(1e-7)
    return lambda: net.train_step(x, labels, adam)


def predict(batch):
    """Return a prediction of the exercise network."""
    x, _ = images(batch)
    net = cyconv.presets.exercise()
    return lambda: net.predict(x)


def conv(module, batch, side, backward=False):
    """Return a 3x3 convolution of 16 channels with 32 filters, or its gradients."""
    rng = np.random.default_rng(0)
    x = rng.random((batch, side, side, 16), np.float32)
    dy = rng.random((batch, side, side, 32), np.float32)
    w = rng.random((3, 3, 16, 32), np.float32)
    if backward:
        return lambda: module.conv2d_backward(dy, x, w, padding=1)
    return lambda: module.conv2d(x, w, padding=1)


RATIOS = {  # slower, faster, the least ratio of their times
    "blocks through all layers beat layer after layer": (layers(16), step(16), 1.3),
    "conv2d beats the naive loops": (
        conv(cyconv.naive, 1, 28), conv(cyconv, 1, 28), 2.5,
    ),
    "conv2d_backward beats the naive loops": (
        conv(cyconv.naive, 1, 28, True), conv(cyconv, 1, 28, True), 4,
    ),
    "gradients cost at most two convolutions each": (
        conv(cyconv, 4, 28), conv(cyconv, 4, 28, True), 1 / 4,
    ),
    "a step costs more than a prediction": (step(64), predict(64), 1.3),
    "one image does not cost a batch": (step(64), step(1), 4),
    "images of a large batch cost no more": (step(64), step(256), 0.6 / 4),
    "pixels of a large image cost no more": (conv(cyconv, 16, 28), conv(cyconv, 1, 112), 0.6),
    "what is around a layer in NumPy stays fast": (step(64), interrupted_step(64), 0.7),
    "images in uint8 cost no more": (step(64), step(64, np.uint8), 0.6),
}  # fmt: skip


def ratio(slower, faster):
    """Return the ratio of two tasks' times, the median of interleaved turns."""
    tasks, counts = (slower, faster), []
    for task in tasks:
        task()
        start = time.thread_time()
        task()
        counts.append(max(1, round(TURN / (time.thread_time() - start))))
    times = np.empty((TURNS, 2))
    for turn in times:
        for side, (task, count) in enumerate(zip(tasks, counts, strict=True)):
            start = time.thread_time()
            for _ in range(count):
                task()
            turn[side] = (time.thread_time() - start) / count
    return np.median(times[:, 0] / times[:, 1])


@pytest.mark.parametrize("name", RATIOS)
def test_the_work_is_worth_it(name):
    slower, faster, least = RATIOS[name]
    cyconv.set_num_threads(1)
    ratios = []
    while not ratios or (max(ratios) < least and len(ratios) < ATTEMPTS):
        ratios.append(ratio(slower, faster))
    assert max(ratios) >= least
