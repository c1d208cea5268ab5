"""The linear layer: one matrix product over the whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cyconv._core import of
from cyconv.checks import aligned, allocate, blas_extent, shape_text
from cyconv.geometry import Geometry, integer
from cyconv.initializers import xavier_uniform, zeros
from cyconv.layers.base import Layer
from cyconv.threads import get_num_threads, one_blas_thread


class Linear(Layer):
    """``y = x · weight + bias``: (N, K) to (N, out_features).

    Parameters
    ----------
    out_features : int

    Raises
    ------
    TypeError, ValueError
        If `out_features` is no integer of at least 1; when the network is made, if the input is
        not flat.
    """

    def __init__(self, out_features: int) -> None:
        self.out_features = integer(out_features, "Linear", "out_features", 1)
        self.config = {"out_features": self.out_features}

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 1:
            raise ValueError(
                f"{self.who}: x must have shape (N, features), "
                f"got {shape_text(('N', *input_shape))}; put Flatten() before it"
            )
        blas_extent(input_shape[0], self.who, "the number of input features")
        blas_extent(self.out_features, self.who, "out_features")
        self.declare("weight", (input_shape[0], self.out_features), xavier_uniform)
        self.declare("bias", (self.out_features,), zeros)
        return (self.out_features,)

    def forward(self, x: np.ndarray) -> np.ndarray:
        x = self.enter(x)
        self.save(x)
        blas_extent(len(x), self.who, "the batch")
        y = allocate((len(x), self.out_features), x.dtype, self.who, "y")
        if len(x):
            with one_blas_thread():
                of(x.dtype).linear.forward(
                    x,
                    self.parameter("weight", x.dtype),
                    self.parameter("bias", x.dtype),
                    y,
                    1,
                    tile_width(self.out_features),
                    get_num_threads(),
                )
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dy, x = self.saved(dy)
        weight, dx = self.parameter("weight", x.dtype), np.empty_like(x)
        dweight, dbias = np.zeros_like(weight), np.zeros(self.out_features, x.dtype)
        if len(x):
            with one_blas_thread():
                threads = get_num_threads()
                room = backward_room(len(x), x.shape[1], self.out_features, threads, x.dtype)
                of(x.dtype).linear.backward(dy, x, weight, dx, dweight, dbias, *room, threads)
        self.gradients["weight"][...], self.gradients["bias"][...] = dweight, dbias
        return dx

    def operations(self, arena: np.ndarray, first: int) -> tuple[Any, ...]:
        # At one pixel a convolution is a linear layer.
        features = self.input_shape[0]
        geometry = Geometry(1, 1, features, 1, 1, 1, 1, 1, 1, 0, 0)
        return (of(arena.dtype).stage.Conv(geometry._asdict(), self.out_features, arena, first),)


def tile_width(size: int) -> int:
    """Return the width of the tiles that an extent of a matrix is divided into: about 16 tiles.

    A multiple of 64, so that the columns of a tile fill whole vectors.
    """
    return 64 * max(1, round(size / 1024))


def backward_room(
    N: int, K: int, F: int, threads: int, dtype: DTypeLike
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return working memory and tile sizes of linear.backward."""
    tile, panel = tile_width(K), 64
    (dy_transposed,) = aligned(1, N * F, dtype, "Linear", "working memory")
    dx_transposed = aligned(threads, panel * tile, dtype, "Linear", "working memory")
    return dy_transposed, dx_transposed, tile, panel
