"""Convolution in two and in one dimension."""

from __future__ import annotations

import sys

from cyconv.checks import blas_extent, representable, shape_text
from cyconv.geometry import (
    AxisPadding,
    Padding,
    Pair,
    axis_padding,
    integer,
    padding_pairs,
    pair,
    resolve,
    shortest,
)
from cyconv.functional import tile_rows
from cyconv.initializers import xavier_uniform, zeros
from cyconv.layers.base import Layer
from cyconv.program import Program


class Conv2D(Layer):
    """Two-dimensional convolution: (N, H, W, C) to (N, OH, OW, out_channels).

    ``y[n, oh, ow, f] = bias[f] + sum over kh, kw, c of x[n, oh*sh - ph + kh, ow*sw - pw + kw, c]
    * weight[kh, kw, c, f]``; see `cyconv.conv2d`.

    Parameters
    ----------
    out_channels : int
        Number of filters, F.
    kernel_size, stride : int or (y, x)
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when the network is made, if an
        output size is not an integer.
    """

    def __init__(
        self, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0
    ) -> None:
        who = type(self).__name__
        self.out_channels = integer(out_channels, who, "out_channels", 1)
        self.kernel_size = pair(kernel_size, who, "kernel_size")
        self.stride = pair(stride, who, "stride")
        self.padding = padding_pairs(padding, who)
        self.bias = True
        self.config = {
            "out_channels": self.out_channels,
            "kernel_size": shortest(self.kernel_size),
            "stride": shortest(self.stride),
            "padding": shortest(self.padding),
        }

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 3:
            raise ValueError(
                f"{self.who}: x must have shape (N, H, W, C), got {shape_text(('N', *input_shape))}"
            )
        self._declare(input_shape)
        return self.geometry.OH, self.geometry.OW, self.out_channels

    def _declare(self, image_shape):
        self.geometry = resolve(image_shape, self.kernel_size, self.stride, self.padding, self.who)
        blas_extent(self.geometry.taps, self.who, "the number of taps KH*KW*C")
        blas_extent(self.out_channels, self.who, "out_channels")
        columns = (self.geometry.OH, self.geometry.OW, self.geometry.taps)
        representable(columns, self.who, "the columns of one image")
        shape = (*self.kernel_size, image_shape[2], self.out_channels)
        self.declare("weight", shape, xavier_uniform)
        self.declare("bias", (self.out_channels,), zeros)

    def operations(self, program: Program, x: int) -> int:
        geometry = self.geometry
        tile = tile_rows(geometry, sys.maxsize, program.dtype.itemsize)
        op = program.kernels.convolution.Conv(
            geometry._asdict(), self.out_channels, tile, self.bias
        )
        op.first = self.first
        return program.add(op, x)


class Conv1D(Conv2D):
    """One-dimensional convolution: (N, W, C) to (N, OW, out_channels).

    The slides' "convolution in 1D", a `Conv2D` on images of height 1; its weight has the shape
    (1, kernel_size, C, out_channels).

    Parameters
    ----------
    out_channels, kernel_size, stride : int
    padding : int, (before, after), "valid" or "same"

    Raises
    ------
    TypeError, ValueError
        As in `Conv2D`.
    """

    def __init__(
        self, out_channels: int, kernel_size: int, stride: int = 1, padding: AxisPadding = 0
    ) -> None:
        who = "Conv1D"
        kernel = integer(kernel_size, who, "kernel_size", 1)
        step = integer(stride, who, "stride", 1)
        pads = axis_padding(padding, who)
        super().__init__(
            out_channels, (1, kernel), (1, step), pads if pads == "same" else ((0, 0), pads)
        )
        self.config = {
            "out_channels": self.out_channels,
            "kernel_size": kernel,
            "stride": step,
            "padding": shortest(pads),
        }

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 2:
            raise ValueError(
                f"{self.who}: x must have shape (N, W, C), got {shape_text(('N', *input_shape))}"
            )
        self._declare((1, *input_shape))
        return self.geometry.OW, self.out_channels
