"""From an image to a vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cyconv.layers.base import Layer


class Flatten(Layer):
    """All axes but the batch as one: (N, H, W, C) to (N, H*W*C)."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(input_shape),)

    def forward(self, x: np.ndarray) -> np.ndarray:
        x = self.enter(x)
        self.save(x)
        return x.reshape(len(x), *self.output_shape)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dy, x = self.saved(dy)
        return dy.reshape(x.shape)

    def operations(self, arena: np.ndarray, first: int) -> tuple[Any, ...]:
        return ()
