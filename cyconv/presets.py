"""The two networks of the README, for 28x28 grey images of ten classes."""

from __future__ import annotations

from numpy.typing import DTypeLike

from cyconv.layers import Conv2D, Flatten, LeakyReLU, Linear, Softmax
from cyconv.network import Network


def exercise(seed: int = 0, dtype: DTypeLike = "float32") -> Network:
    """Return the course's network: four convolutions, 4,934 parameters."""
    layers = [
        Conv2D(4, 8, stride=2),
        LeakyReLU(),
        Conv2D(8, 6),
        LeakyReLU(),
        Conv2D(16, 4),
        LeakyReLU(),
        Conv2D(10, 3),
        Flatten(),
        Softmax(),
    ]
    return Network(layers, input_shape=(28, 28, 1), seed=seed, dtype=dtype)


def wide(seed: int = 0, dtype: DTypeLike = "float32") -> Network:
    """Return two wide convolutions and two linear layers, 3.3 million parameters."""
    layers = [
        Conv2D(32, 6, stride=2, padding=2),
        LeakyReLU(),
        Conv2D(64, 6, stride=2, padding=2),
        LeakyReLU(),
        Flatten(),
        Linear(1024),
        LeakyReLU(),
        Linear(10),
        Softmax(),
    ]
    return Network(layers, input_shape=(28, 28, 1), seed=seed, dtype=dtype)
