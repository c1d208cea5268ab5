"""Pooling of NumPy arrays: the maximum or the mean of each window, for each channel on its own.

What lies outside the image counts as minus infinity for the maximum, and not at all for the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.geometry import Geometry, Padding, Pair, Rounding, pooling_window, resolve


def check_pool(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Padding,
    rounding: Rounding,
    who: str,
) -> tuple[np.ndarray, Geometry]:
    """Return (x, geometry) of a call of a pooling, or raise."""
    x = checks.array(x, who, "x", ("N", "H", "W", "C"))
    checks.not_empty(x, who, "x")
    window = pooling_window(kernel_size, stride, padding, who)
    return x, resolve(x.shape[1:], *window, who, rounding=rounding)


def check_max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None,
    padding: Padding,
    rounding: Rounding,
    who: str,
) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Return (dy, x, geometry) of a call of max_pool2d_backward, or raise."""
    x, geometry = check_pool(x, kernel_size, stride, padding, rounding, who)
    dy = checks.array(dy, who, "dy", (len(x), geometry.OH, geometry.OW, geometry.C))
    checks.same_dtype(who, x=x, dy=dy)
    return dy, x, geometry


def check_avg_pool2d_backward(
    dy: ArrayLike,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Padding,
    rounding: Rounding,
    who: str,
) -> tuple[np.ndarray, Geometry, tuple[int, ...]]:
    """Return (dy, geometry, input shape) of a call of avg_pool2d_backward, or raise."""
    shape = checks.batch_shape(input_shape, who)
    window = pooling_window(kernel_size, stride, padding, who)
    geometry = resolve(shape[1:], *window, who, rounding=rounding)
    dy = checks.array(dy, who, "dy", (shape[0], geometry.OH, geometry.OW, geometry.C))
    return dy, geometry, shape


def empty_output(x: np.ndarray, geometry: Geometry, who: str) -> np.ndarray:
    """Return the uninitialised output of a pooling of `x`."""
    return checks.allocate((len(x), geometry.OH, geometry.OW, geometry.C), x.dtype, who, "y")
