"""Kernel size, stride, padding, dilation and rounding: the only home of the output-size rule."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

LIMIT = 2**62  # of every extent: a position in the padded image fits into 64 bits
Pair = int | tuple[int, int]
AxisPadding = Pair | Literal["valid", "same"]
Padding = AxisPadding | tuple[tuple[int, int], tuple[int, int]]
Rounding = Literal["exact", "floor"]
_AXES = ("height", "width")
_LINES = {"height": "rows", "width": "columns", "size": "elements"}


def shortest(value):
    """Return a pair or padding in its shortest form: 2 for (2, 2), (1, 2) for ((1, 1), (2, 2))."""
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        if any(before != after for before, after in value):
            return value
        value = tuple(before for before, _ in value)
    return value[0] if isinstance(value, tuple) and value[0] == value[1] else value


class Placing(NamedTuple):
    """How a window is placed on an image, as a caller wrote it."""

    stride: Pair = 1
    padding: Padding = 0
    dilation: Pair = 1
    rounding: Rounding = "exact"


class Geometry(NamedTuple):
    """One convolution's or pooling's sizes for one image; also the kernels' struct.

    An output element reads the input at ``ih = oh*stride_h + kh*dilation_h - pad_top`` and
    ``iw = ow*stride_w + kw*dilation_w - pad_left``; what lies outside the image counts as zero.
    ``C`` channels are read at each pixel of an image that has ``pitch`` of them: as many, except
    for one of several groups.
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
    dilation_h: int
    dilation_w: int
    pad_bottom: int
    pad_right: int
    pitch: int

    @classmethod
    def pixel(cls, C: int) -> Geometry:
        """Return the geometry of an image of one pixel: that of a linear layer with C inputs."""
        return resolve((1, 1, C), 1, 1, 0, "linear")

    @property
    def groups(self) -> int:
        """Number of groups of C channels in an image."""
        return self.pitch // self.C

    @property
    def is_inside(self) -> bool:
        """Whether all windows lie in the image with its padding."""
        last_h = (self.OH - 1) * self.stride_h + (self.KH - 1) * self.dilation_h
        last_w = (self.OW - 1) * self.stride_w + (self.KW - 1) * self.dilation_w
        return (
            last_h < self.H + self.pad_top + self.pad_bottom
            and last_w < self.W + self.pad_left + self.pad_right
        )

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


def divides(groups: int, extent: int, who: str, name: str) -> None:
    """Raise ValueError if an extent cannot be divided into the groups."""
    if extent % groups:
        raise ValueError(f"{who}: groups must divide the {extent} {name}, got {groups}")


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


def rounding_mode(value, who: str) -> Rounding:
    """Return `value` if it is "exact" or "floor", or raise TypeError or ValueError."""
    text = f'{who}: rounding must be "exact" or "floor", got {value!r}'
    if not isinstance(value, str):
        raise TypeError(text)
    if value not in ("exact", "floor"):
        raise ValueError(text)
    return "exact" if value == "exact" else "floor"


def conv_output_size(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: AxisPadding = 0,
    dilation: int = 1,
    rounding: Rounding = "exact",
) -> int:
    """Return the number of outputs of a convolution along one axis.

    ``(size - ((kernel - 1) * dilation + 1) + before + after) / stride + 1``, which must be an
    integer (the course's slide "2D convolutions rules of thumb") or is rounded down on request.

    Parameters
    ----------
    size, kernel, stride : int
        Extent of the input and of the kernel, and the step between two outputs.
    padding : int, (before, after), "valid" or "same"
        Zeros before and after the input. With "same" the result is ``ceil(size / stride)``.
    dilation : int
        The step between two taps of the kernel.
    rounding : "exact" or "floor"
        What becomes of a result that is not an integer: an error, or the integer below, as in
        PyTorch, where the last inputs are not read.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range or the result is not an integer.

    Examples
    --------
    >>> conv_output_size(28, 8, stride=2)
    11
    >>> conv_output_size(28, 3, stride=2, padding=(1, 0))
    14
    >>> conv_output_size(28, 3, stride=2, padding=1, rounding="floor")
    14
    """
    who = "conv_output_size"
    size = integer(size, who, "size", 1)
    axis = _Axis(
        "size",
        size,
        integer(kernel, who, "kernel", 1),
        integer(stride, who, "stride", 1),
        axis_padding(padding, who),
        integer(dilation, who, "dilation", 1),
    )
    return _outputs(axis, rounding_mode(rounding, who), who, _suggest_axis)[0]


def axis_padding(padding, who: str):
    """Return the padding of one axis as (before, after), or the string "same"."""
    if isinstance(padding, str):
        pads = padding_pairs(padding, who)
        return pads if pads == "same" else pads[0]
    return pair(padding, who, "padding", 0)


def resolve(
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    who: str,
    dilation: Pair = 1,
    rounding: Rounding = "exact",
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
    dilation : int or (y, x)
    rounding : "exact" or "floor"

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or an output size is not an integer
        and `rounding` is "exact".
    """
    H, W, C = input_shape
    kernel = pair(kernel_size, who, "kernel_size")
    step = pair(stride, who, "stride")
    pads = padding_pairs(padding, who)
    apart = pair(dilation, who, "dilation")
    rounding = rounding_mode(rounding, who)
    return _resolve((H, W, C), kernel, step, pads, who, apart, rounding)


@lru_cache(maxsize=1024)  # a call of conv2d on a small image takes longer for this than to compute
def _resolve(input_shape, kernel, step, pads, who, apart, rounding) -> Geometry:
    H, W, C = input_shape
    both = (pads, pads) if pads == "same" else pads
    axes = [_Axis(*axis) for axis in zip(_AXES, (H, W), kernel, step, both, apart, strict=True)]
    (OH, top, bottom), (OW, left, right) = (
        _outputs(axis, rounding, who, lambda _: tuple(map(_suggest_axis, axes))) for axis in axes
    )
    (KH, KW), (sh, sw), (dh, dw) = kernel, step, apart
    return Geometry(H, W, C, KH, KW, OH, OW, sh, sw, top, left, dh, dw, bottom, right, C)


def pooling_window(
    kernel_size: Pair, stride: Pair | None, padding: Padding, who: str
) -> tuple[tuple[int, int], tuple[int, int], Padding]:
    """Return (kernel size, stride, padding) of a pooling; a stride of None is the kernel's size.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or a window could be padding only.
    """
    kernel = pair(kernel_size, who, "kernel_size")
    step = kernel if stride is None else pair(stride, who, "stride")
    pads = padding_pairs(padding, who)
    if pads != "same" and any(max(pads[axis]) >= kernel[axis] for axis in range(2)):
        raise ValueError(
            f"{who}: padding must be smaller than kernel_size {shortest(kernel)}, so that every "
            f"window holds a pixel, got {shortest(pads)}"
        )
    return kernel, step, pads


class _Axis(NamedTuple):
    """A window on one axis; `pads` is (before, after) or "same"."""

    name: str
    size: int
    kernel: int
    stride: int
    pads: Any
    dilation: int

    @property
    def reach(self) -> int:
        """Extent of the window, from its first tap to its last."""
        return (self.kernel - 1) * self.dilation + 1

    def __str__(self) -> str:
        return f"kernel {self.kernel}" + f" with dilation {self.dilation}" * (self.dilation > 1)


def _outputs(axis: _Axis, rounding: Rounding, who: str, suggest) -> tuple[int, int, int]:
    """Return (outputs, zeros before, zeros after) along one axis."""
    name, size, _, stride, pads, _ = axis
    padded = size if pads == "same" else size + sum(pads)
    if max(padded, axis.reach, stride) > LIMIT:
        raise OverflowError(
            f"{who}: kernel, stride and the padded {name} must be at most {LIMIT:,}"
        )
    if pads == "same":
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + axis.reach - size, 0)
        return outputs, total // 2, total - total // 2
    before, after = pads
    span = padded - axis.reach
    if span < 0:
        most = (padded - 1) // axis.dilation + 1
        raise ValueError(
            f"{who}: {axis} is larger than {name} {size} padded by {before} + {after}; "
            f"use a kernel of at most {most} or more padding"
        )
    if span % stride and rounding == "exact":
        shown = before if before == after else pads
        raise ValueError(
            f"{who}: {axis}, stride {stride}, padding {shown} on {name} {size} leaves "
            f"{span / stride + 1:g} output {_LINES[name]}; "
            f'use padding={suggest(axis)}, padding="same" or rounding="floor"'
        )
    return span // stride + 1, before, after


def _suggest_axis(axis: _Axis) -> tuple[int, int]:
    """Return the nearest padding with which the outputs of an axis are a whole number."""
    before, after = axis.pads
    excess = (axis.size - axis.reach + before + after) % axis.stride
    return before, after - excess if after >= excess else after + (axis.stride - excess)
