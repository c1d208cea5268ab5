"""Pooling of NumPy arrays: the maximum or the mean of each window, for each channel on its own.

What lies outside the image counts as minus infinity for the maximum, and not at all for the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv._core import of
from cyconv.geometry import Geometry, Padding, Pair, Rounding, pooling_window, resolve
from cyconv.threads import kernel_threads


def max_pool2d(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray:
    """Return the maximum of the pixels in each window, NaN if there is one.

    ``y[n, oh, ow, c] = max over kh, kw of x[n, oh*sh - ph + kh, ow*sw - pw + kw, c]``.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C), float32 or float64
    kernel_size : int or (y, x)
    stride : int or (y, x), optional
        Without it, that of windows side by side: the kernel's size.
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"
        Places around the image, fewer than the kernel's size, that windows may reach into.
    rounding : "exact" or "floor"
        What becomes of an output size that is not an integer: an error, or the integer below.

    Returns
    -------
    ndarray of shape (N, OH, OW, C)

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or element type.
    ValueError
        If a shape or size is wrong, or an output size is not an integer.
    MemoryError, OverflowError
        If the result cannot be held.
    """
    x, geometry = check_pool(x, kernel_size, stride, padding, rounding, "max_pool2d")
    return _maximum(x, geometry, "max_pool2d")


def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray:
    """Return the gradient of `max_pool2d` with respect to its input.

    The first maximum of a window, in the order of its lines, takes the whole dy, as in PyTorch;
    NaN counts as the maximum.

    Parameters
    ----------
    dy : ndarray of shape (N, OH, OW, C), float32 or float64
        Gradient of a loss with respect to the output of ``max_pool2d(x, ...)``.
    x : ndarray of shape (N, H, W, C), of the same type
    kernel_size, stride, padding, rounding
        As in `max_pool2d`.

    Returns
    -------
    ndarray of shape (N, H, W, C)

    Raises
    ------
    TypeError, ValueError, MemoryError, OverflowError
        As in `max_pool2d`.
    """
    who = "max_pool2d_backward"
    dy, x, geometry = check_max_pool2d_backward(dy, x, kernel_size, stride, padding, rounding, who)
    dx = checks.allocate(x.shape, x.dtype, who, "dx")
    if dx.size:
        y, threads = _maximum(x, geometry, who), min(kernel_threads(), len(x))
        of(x.dtype).pool.max_pool2d_backward(dy, x, y, dx, geometry._asdict(), threads)
    return dx


def avg_pool2d(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray:
    """Return the mean of the pixels in each window.

    The padding does not count: at an edge fewer pixels are added up, and their sum is divided by
    their number (PyTorch's ``count_include_pad=False``).

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C), float32 or float64
    kernel_size, stride, padding, rounding
        As in `max_pool2d`.

    Returns
    -------
    ndarray of shape (N, OH, OW, C)

    Raises
    ------
    TypeError, ValueError, MemoryError, OverflowError
        As in `max_pool2d`.
    """
    x, geometry = check_pool(x, kernel_size, stride, padding, rounding, "avg_pool2d")
    y = empty_output(x, geometry, "avg_pool2d")
    if y.size:
        threads = min(kernel_threads(), len(x) * geometry.OH)
        of(x.dtype).pool.avg_pool2d(x, y, geometry._asdict(), threads)
    return y


def avg_pool2d_backward(
    dy: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    rounding: Rounding = "exact",
) -> np.ndarray:
    """Return the gradient of `avg_pool2d` with respect to its input.

    Parameters
    ----------
    dy : ndarray of shape (N, OH, OW, C), float32 or float64
        Gradient of a loss with respect to the output of ``avg_pool2d(x, ...)``.
    input_shape : (N, H, W, C)
        Shape of x.
    kernel_size, stride, padding, rounding
        As in `max_pool2d`.

    Returns
    -------
    ndarray of shape (N, H, W, C)

    Raises
    ------
    TypeError, ValueError, MemoryError, OverflowError
        As in `max_pool2d`.
    """
    who = "avg_pool2d_backward"
    dy, geometry, shape = check_avg_pool2d_backward(
        dy, input_shape, kernel_size, stride, padding, rounding, who
    )
    dx = checks.allocate(shape, dy.dtype, who, "dx")
    if dx.size:
        threads = min(kernel_threads(), len(dx))
        of(dx.dtype).pool.avg_pool2d_backward(dy, dx, geometry._asdict(), threads)
    return dx


def _maximum(x: np.ndarray, geometry: Geometry, who: str) -> np.ndarray:
    y = empty_output(x, geometry, who)
    if y.size:
        threads = min(kernel_threads(), len(x) * geometry.OH)
        of(x.dtype).pool.max_pool2d(x, y, geometry._asdict(), threads)
    return y


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
