"""Layers without parameters that work element by element or row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cyconv._core import of
from cyconv.checks import number
from cyconv.layers.base import Layer
from cyconv.threads import get_num_threads


class LeakyReLU(Layer):
    """``f(x) = x if x > 0 else negative_slope * x`` (the course's slide "Changes from Ex06").

    Parameters
    ----------
    negative_slope : float
        At least 0; 0 makes it a ReLU.

    Raises
    ------
    TypeError, ValueError
        If `negative_slope` is no finite number of at least 0.
    """

    def __init__(self, negative_slope: float = 0.1) -> None:
        self.negative_slope = number(negative_slope, "LeakyReLU", "negative_slope")
        self.config = {"negative_slope": self.negative_slope}

    def forward(self, x: np.ndarray) -> np.ndarray:
        x = self.enter(x)
        y = np.empty_like(x)
        if x.size:
            of(x.dtype).elementwise.leaky_relu(
                x.reshape(-1), y.reshape(-1), self.negative_slope, get_num_threads()
            )
        self.save(x)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dy, x = self.saved(dy)
        dx = np.empty_like(x)
        if x.size:
            of(x.dtype).elementwise.leaky_relu_backward(
                x.reshape(-1),
                dy.reshape(-1),
                dx.reshape(-1),
                self.negative_slope,
                get_num_threads(),
            )
        return dx

    def operations(self, arena: np.ndarray, first: int) -> tuple[Any, ...]:
        return (of(arena.dtype).stage.LeakyReLU(math.prod(self.input_shape), self.negative_slope),)


class Softmax(Layer):
    """``f(x_i) = exp(x_i) / sum_j exp(x_j)`` over the last axis, shifted by the maximum.

    The course's slide "Changes from Ex06". Its `backward` is the product with the true Jacobian;
    `Network.train_step` joins a Softmax at the end with the cross-entropy, whose common gradient
    with respect to the logits is softmax minus one-hot.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        x = self.enter(x)
        y = np.empty_like(x)
        if x.size:
            rows = (-1, x.shape[-1])
            of(x.dtype).elementwise.softmax(x.reshape(rows), y.reshape(rows), get_num_threads())
        self.save(y)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dy, y = self.saved(dy)
        dx = np.empty_like(y)
        if y.size:
            rows = (-1, y.shape[-1])
            of(y.dtype).elementwise.softmax_backward(
                y.reshape(rows), dy.reshape(rows), dx.reshape(rows), get_num_threads()
            )
        return dx

    def operations(self, arena: np.ndarray, first: int) -> tuple[Any, ...]:
        return (of(arena.dtype).stage.Softmax(math.prod(self.input_shape), self.input_shape[-1]),)
