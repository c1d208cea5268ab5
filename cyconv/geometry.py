"""Kernel size, stride and padding: the only home of the output-size rule."""

from __future__ import annotations

import operator
from typing import Literal, NamedTuple

LIMIT = 2**62  # of every extent: a position in the padded image fits into 64 bits
Pair = int | tuple[int, int]
AxisPadding = Pair | Literal["valid", "same"]
Padding = AxisPadding | tuple[tuple[int, int], tuple[int, int]]
_AXES = ("height", "width")
_LINES = {"height": "rows", "width": "columns", "size": "elements"}


def shortest(value):
    """Return a pair or padding in its shortest form: 2 for (2, 2), (1, 2) for ((1, 1), (2, 2))."""
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        if any(before != after for before, after in value):
            return value
        value = tuple(before for before, _ in value)
    return value[0] if isinstance(value, tuple) and value[0] == value[1] else value


class Geometry(NamedTuple):
    """One convolution's sizes for one image; the fields of the kernels' ``Window`` struct.

    An output element reads the input at ``ih = oh*stride_h + kh - pad_top`` and
    ``iw = ow*stride_w + kw - pad_left``; what lies outside the image counts as zero.
    """

    H: int
    W: int
    C: int
    KH: int
    KW: int
    OH: int
    OW: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int

    @property
    def taps(self) -> int:
        """Length of one row of the column matrix, KH*KW*C."""
        return self.KH * self.KW * self.C


def integer(value, who: str, name: str, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`; bools and floats are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{who}: {name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{who}: {name} must be at least {minimum}, got {number}")
    return number


def pair(value, who: str, name: str, minimum: int = 1) -> tuple[int, int]:
    """Return `value`, an integer or a pair (y, x), as a pair."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{who}: {name} must be an integer or a pair (y, x), got {value!r}")
        return (
            integer(value[0], who, f"{name}[0]", minimum),
            integer(value[1], who, f"{name}[1]", minimum),
        )
    number = integer(value, who, name, minimum)
    return number, number


def padding_pairs(padding, who: str):
    """Return `padding` as ((top, bottom), (left, right)), or the string "same".

    Parameters
    ----------
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"
        Zeros added around the image.
    who : str
        The name that an error begins with.
    """
    if isinstance(padding, str):
        if padding == "same":
            return "same"
        if padding == "valid":
            return (0, 0), (0, 0)
        raise ValueError(f'{who}: padding must be numbers, "valid" or "same", got {padding!r}')
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != 2:
            raise ValueError(
                f"{who}: padding must be ((top, bottom), (left, right)), got {padding!r}"
            )
        return (
            pair(padding[0], who, "padding[0]", 0),
            pair(padding[1], who, "padding[1]", 0),
        )
    y, x = pair(padding, who, "padding", 0)
    return (y, y), (x, x)


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: AxisPadding = 0) -> int:
    """Return the number of outputs of a convolution along one axis.

    ``(size - kernel + before + after) / stride + 1``, which must be an integer (the course's
    slide "2D convolutions rules of thumb").

    Parameters
    ----------
    size, kernel, stride : int
        Extent of the input and of the kernel, and the step between two outputs.
    padding : int, (before, after), "valid" or "same"
        Zeros before and after the input. With "same" the result is ``ceil(size / stride)``.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If an argument is out of range or the result is not an integer.

    Examples
    --------
    >>> conv_output_size(28, 8, stride=2)
    11
    >>> conv_output_size(28, 3, stride=2, padding=(1, 0))
    14
    """
    who = "conv_output_size"
    size = integer(size, who, "size", 1)
    kernel = integer(kernel, who, "kernel", 1)
    stride = integer(stride, who, "stride", 1)
    pads = axis_padding(padding, who)
    return _output(size, kernel, stride, pads, who, "size", _suggest_axis)[0]


def axis_padding(padding, who: str):
    """Return the padding of one axis as (before, after), or the string "same"."""
    if isinstance(padding, str):
        pads = padding_pairs(padding, who)
        return pads if pads == "same" else pads[0]
    return pair(padding, who, "padding", 0)


def resolve(
    input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair, padding: Padding, who: str
) -> Geometry:
    """Return the geometry of a window sliding over images of shape (H, W, C).

    Parameters
    ----------
    input_shape : tuple of int
        (H, W, C) of one image.
    kernel_size, stride : int or (y, x)
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"
    who : str
        The name that an error begins with.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or an output size is no integer.
    """
    H, W, C = input_shape
    kernel = pair(kernel_size, who, "kernel_size")
    step = pair(stride, who, "stride")
    pads = padding_pairs(padding, who)
    (OH, top), (OW, left) = (
        _output(
            size,
            kernel[axis],
            step[axis],
            pads if pads == "same" else pads[axis],
            who,
            _AXES[axis],
            lambda _: _suggest_image((H, W), kernel, step, pads),
        )
        for axis, size in enumerate((H, W))
    )
    return Geometry(H, W, C, *kernel, OH, OW, *step, top, left)


def _output(size, kernel, stride, pads, who, axis, suggest) -> tuple[int, int]:
    """Return (outputs, zeros before) along one axis."""
    reach = max(size + sum(pads) if pads != "same" else size, kernel, stride)
    if reach > LIMIT:
        raise OverflowError(
            f"{who}: kernel, stride and the padded {axis} must be at most {LIMIT:,}"
        )
    if pads == "same":
        outputs = -(-size // stride)
        return outputs, max((outputs - 1) * stride + kernel - size, 0) // 2
    before, after = pads
    span = size - kernel + before + after
    if span < 0:
        raise ValueError(
            f"{who}: kernel {kernel} is larger than {axis} {size} padded by {before} + {after}; "
            f"use a kernel of at most {size + before + after} or more padding"
        )
    if span % stride:
        shown = before if before == after else pads
        fix = suggest((size, kernel, stride, pads))
        raise ValueError(
            f"{who}: kernel {kernel}, stride {stride}, padding {shown} on {axis} {size} leaves "
            f'{span / stride + 1:g} output {_LINES[axis]}; use padding={fix} or "same"'
        )
    return span // stride + 1, before


def _suggest_axis(axis) -> tuple[int, int]:
    """Return the nearest padding with which the outputs of an axis are a whole number."""
    size, kernel, stride, (before, after) = axis
    excess = (size - kernel + before + after) % stride
    return before, after - excess if after >= excess else after + (stride - excess) % stride


def _suggest_image(sizes, kernel, stride, pads):
    return tuple(_suggest_axis(axis) for axis in zip(sizes, kernel, stride, pads, strict=True))
