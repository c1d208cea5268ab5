"""The gate: every array that a public function is given passes here before a kernel sees it.

Behind the gate an array is C-contiguous, aligned, in the machine's byte order and of a type and
shape that a kernel can take, so that in a kernel nothing can fail.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cyconv._core import of
from cyconv.geometry import integer
from cyconv.threads import kernel_threads

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
BLAS_LIMIT = 2**31 - 1
Init = TypeVar("Init", bound=Callable[..., None])


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


_MEMORY = _physical_memory()


def array(value, who: str, name: str, shape=None, dtypes=FLOATS) -> np.ndarray:
    """Return `value` as a C-contiguous array of one of `dtypes`, copied only if it must be.

    Parameters
    ----------
    value : array_like
        What the caller was given.
    who, name : str
        The function or layer, and the argument, that an error names.
    shape : tuple of int or str, optional
        The required shape; a string stands for an extent that may be anything and names it.
    dtypes : sequence of dtype
        The element types that are accepted.

    Raises
    ------
    TypeError
        If it is not a numeric array or has another dtype.
    ValueError
        If its shape is another.
    MemoryError, OverflowError
        If a copy of it cannot be held.
    """
    result = _any_array(value, who, name)
    if result.dtype not in dtypes:
        accepted = " or ".join(map(str, dtypes))
        given, advice = _elements(value, result), ""
        if np.uint8 in dtypes and result.dtype.kind in "iu":
            advice = f"; use {name}.astype(np.uint8) for pixels from 0 to 255"
        elif result.dtype.kind in "fiub":
            advice = f"; use {name}.astype(np.{dtypes[0]})"
        elif result.dtype.kind == "O" and result.ndim:
            advice = f" ({'images' if np.uint8 in dtypes else 'arrays'} of different sizes?)"
        raise TypeError(f"{who}: {name} must be {accepted}, got {given}{advice}")
    if shape is not None and not matches(result.shape, shape):
        raise ValueError(
            f"{who}: {name} must have shape {shape_text(shape)}, got {shape_text(result.shape)}"
        )
    if result.flags.c_contiguous and result.flags.aligned:
        return result
    copy = allocate(result.shape, result.dtype, who, name)
    copy[...] = result
    return copy


def _any_array(value, who: str, name: str) -> np.ndarray:
    """Return `value` as an array of any kind, or raise TypeError."""
    not_masked(value, who, name)
    try:
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # a tensor of another library may say in its own way that it is none
        raise TypeError(f"{who}: {name} must be an array, got {value!r:.60}: {error}") from None


def not_masked(value, who: str, name: str) -> None:
    """Raise TypeError if `value` is a masked array or a list of some, whose masks NumPy drops."""
    for each in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(each, np.ma.MaskedArray):
            raise TypeError(f"{who}: {name} is a masked array; fill it first: {name}.filled(0)")


def _elements(value, result: np.ndarray) -> str:
    """Return the element type of an array, or the type of a value that is none."""
    if result.ndim == 0 and not isinstance(value, np.ndarray):
        return type(value).__name__
    return {"U": "str", "S": "bytes"}.get(result.dtype.kind, str(result.dtype))


def matches(given, required) -> bool:
    """Tell whether a shape is the required one, in which a string stands for any extent."""
    return len(given) == len(required) and all(
        isinstance(r, str) or g == r for g, r in zip(given, required, strict=True)
    )


def shape_text(shape) -> str:
    """Return a shape as it is read: (N, 28, 28, 1)."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def batch_shape(value, who: str) -> tuple[int, int, int, int]:
    """Return `value` as the shape (N, H, W, C) of a batch of images, or raise."""
    if not isinstance(value, (tuple, list)) or len(value) != 4:
        raise ValueError(f"{who}: input_shape must be (N, H, W, C), got {value!r}")
    N, H, W, C = (
        integer(size, who, f"input_shape[{axis}]", 1 if axis else 0)
        for axis, size in enumerate(value)
    )
    return N, H, W, C


def image_shape(input_shape, who: str) -> tuple[int, int, int]:
    """Return the shape of a sample, or raise ValueError if it is not an image's, (H, W, C)."""
    if len(input_shape) != 3:
        raise ValueError(
            f"{who}: x must have shape (N, H, W, C), got {shape_text(('N', *input_shape))}"
        )
    H, W, C = input_shape
    return H, W, C


def not_empty(x, who: str, name: str) -> None:
    """Raise ValueError if an extent other than the first, the batch, is zero."""
    if 0 in x.shape[1:]:
        raise ValueError(
            f"{who}: {name} must have no empty axis but the batch, got {shape_text(x.shape)}"
        )


def same_dtype(who: str, **arrays) -> None:
    """Raise TypeError if the arrays given by name are not all of one element type."""
    (first, one), *others = arrays.items()
    for name, other in others:
        if other.dtype != one.dtype:
            raise TypeError(
                f"{who}: {name} must be {one.dtype} as {first} is, got {other.dtype}; "
                f"use {name}.astype({first}.dtype)"
            )


def allocate(shape, dtype, who: str, name: str) -> np.ndarray:
    """Return an uninitialised array, or raise OverflowError or MemoryError with the numbers."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _MEMORY:
        text = f"{who}: {name} of shape {shape_text(shape)} takes {size:,} bytes"
        if size > sys.maxsize:
            raise OverflowError(f"{text}, more than an address can hold; use a smaller batch")
        raise MemoryError(f"{text}, more than this machine's memory; use a smaller batch")
    return np.empty(shape, dtype)


def representable(shape, who: str, name: str) -> None:
    """Raise OverflowError if an array of this shape has more bytes than an address can hold."""
    if math.prod(shape) > sys.maxsize // 8:
        raise OverflowError(
            f"{who}: {name} of shape {shape_text(shape)} has {math.prod(shape):,} elements, more "
            "than an address can hold; use a smaller kernel or less padding"
        )


def aligned(rows: int, size: int, dtype, who: str, name: str) -> np.ndarray:
    """Return an uninitialised matrix, each of its rows of at least `size` on a line of the cache.

    A vector that crosses the border of two lines costs two accesses.
    """
    line = 64 // np.dtype(dtype).itemsize
    padded = -(-size // line) * line
    memory = allocate((rows * padded + line,), dtype, who, name)
    first = -memory.ctypes.data % 64 // memory.itemsize
    return memory[first : first + rows * padded].reshape(rows, padded)


def blas_extent(size: int, who: str, name: str, remedy: str = "kernel") -> None:
    """Raise OverflowError if an extent of a matrix is more than BLAS can count."""
    if size > BLAS_LIMIT:
        raise OverflowError(
            f"{who}: {name} is {size:,}, but BLAS counts to {BLAS_LIMIT:,}; use a smaller {remedy}"
        )


def finite(x, who: str, name: str = "x") -> None:
    """Raise ValueError if an image of the batch `x` holds NaN or infinity, naming the first."""
    if x.dtype == np.uint8:
        return
    if of(x.dtype).elementwise.is_finite(x.reshape(-1), kernel_threads()):
        return
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    raise ValueError(f"{who}: {name} must be finite, got NaN or infinity in image {bad.argmax()}")


def number(value, who: str, name: str, below: float = math.inf, positive: bool = False) -> float:
    """Return `value` as a float of at least 0, or more than 0, and below a bound.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is out of range, or too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{who}: {name} must be a number, got {value!r:.60}")
    least = "more than 0" if positive else "at least 0"
    most = "finite" if below == math.inf else f"below {below:g}"
    try:
        result = float(value)
    except OverflowError:  # an integer whose digits nobody wants to read
        raise ValueError(
            f"{who}: {name} must be {most} and {least}, got a number too large for a float"
        ) from None
    if not 0 <= result < below or (positive and result == 0):
        raise ValueError(f"{who}: {name} must be {most} and {least}, got {value!r:.60}")
    return result


def flag(value, who: str, name: str) -> bool:
    """Return `value`, True or False, or raise TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who}: {name} must be True or False, got {value!r}")
    return bool(value)


def optimizer(value, who: str) -> None:
    """Raise TypeError if `value` is not an optimizer."""
    if isinstance(value, type) or not callable(getattr(value, "step", None)):
        raise TypeError(
            f"{who}: optimizer must be one like cyconv.Adam(), with step(parameters, gradients), "
            f"got {value!r}"
        )


def images(x, input_shape: tuple[int, ...], who: str) -> np.ndarray:
    """Return a batch of images of a shape, uint8 or floats, with the last axis if it was left out.

    Raises
    ------
    TypeError, ValueError
        If x has another element type or shape.
    """
    accepted = (*FLOATS, np.dtype(np.uint8))
    x = array(x, who, "x", dtypes=accepted)
    if x.shape[1:] == input_shape:
        return x
    required = ("N", *input_shape)
    if input_shape[-1] == 1 and matches(x.shape, required[:-1]):
        x = x[..., np.newaxis]
    if len(input_shape) == 3 and x.shape[1:] == (input_shape[2], *input_shape[:2]) != input_shape:
        raise ValueError(
            f"{who}: x must have shape {shape_text(required)}, got {shape_text(x.shape)}, whose "
            "channels come first; use x.transpose(0, 2, 3, 1)"
        )
    return array(x, who, "x", required, accepted)


def labels(value, count: int, classes: int, who: str) -> np.ndarray:
    """Return `value` as `count` class numbers, each from 0 to classes - 1.

    Raises
    ------
    TypeError
        If it is not an array of integers.
    ValueError
        If a label is out of range, naming the first one, or there are too few or too many.
    """
    result = _any_array(value, who, "labels")
    if result.dtype.kind in "f":
        raise ValueError(
            f"{who}: labels must be integers, got {result.dtype}; use labels.astype(np.int64)"
        )
    if result.dtype.kind not in "iu":
        given, castable = _elements(value, result), result.ndim and result.dtype.kind in "bOUS"
        cast = "; use labels.astype(np.int64)" if castable else ""
        raise TypeError(f"{who}: labels must be an array of integers, got {given}{cast}")
    if result.shape != (count,):
        raise ValueError(
            f"{who}: labels must have shape ({count},), one for each image, "
            f"got {shape_text(result.shape)}"
        )
    if count and (result.min() < 0 or result.max() >= classes):
        index = int(np.argmax((result < 0) | (result >= classes)))
        raise ValueError(
            f"{who}: labels must be from 0 to {classes - 1}, got {result[index]} at index {index}"
        )
    return np.ascontiguousarray(result, dtype=np.intp)


def names_after(last: str) -> Callable[[Init], Init]:
    """Let a constructor say what to write if arguments after `last` are given by position."""

    def decorate(init: Init) -> Init:
        names = list(inspect.signature(init).parameters)  # self included
        count = names.index(last)

        @functools.wraps(init)
        def checked(self, *given, **named):
            if len(given) > count:
                raise TypeError(
                    f"{type(self).__name__}: arguments after {last} are given by name, such as "
                    f"{names[count + 1]}={given[count]!r}, got {given!r} by position; a layer "
                    "finds the size of its input by itself"
                )
            init(self, *given, **named)

        return checked  # type: ignore[return-value]

    return decorate


def flat(array, who: str, name: str, like) -> None:
    """Raise if `array` is not a flat array of the type and length of `like`."""
    if not isinstance(array, np.ndarray) or array.dtype not in FLOATS:
        raise TypeError(f"{who}: {name} must be an array of float32 or float64, got {array!r:.60}")
    if array.dtype != like.dtype:
        raise TypeError(
            f"{who}: {name} must be {like.dtype} as the parameters are, got {array.dtype}"
        )
    if array.ndim != 1 or array.shape != like.shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{who}: {name} must be flat, contiguous and of shape ({like.size},), "
            f"got {shape_text(array.shape)}"
        )
