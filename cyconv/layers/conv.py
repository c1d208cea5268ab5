"""Convolution in two and in one dimension."""

from __future__ import annotations

from cyconv.checks import (
    blas_extent,
    flag,
    image_shape,
    names_after,
    representable,
    shape_text,
)
from cyconv.geometry import (
    AxisPadding,
    Padding,
    Pair,
    Rounding,
    axis_padding,
    divides,
    integer,
    padding_pairs,
    pair,
    resolve,
    rounding_mode,
    shortest,
)
from cyconv.graph import Graph, Value, filters, window
from cyconv.initializers import xavier_uniform, zeros
from cyconv.layers.base import Layer
from cyconv.program import Program


class Conv2D(Layer):
    """Two-dimensional convolution: (N, H, W, C) to (N, OH, OW, out_channels).

    ``y[n, oh, ow, f] = bias[f] + sum over kh, kw, c of x[n, oh*sh - ph + kh*dh, ow*sw - pw + kw*dw,
    c] * weight[kh, kw, c, f]``; see `cyconv.conv2d`.

    Parameters
    ----------
    out_channels : int
        Number of filters, F.
    kernel_size, stride : int or (y, x)
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"
    dilation : int or (y, x)
        Pixels from one tap of the kernel to the next.
    groups : int
        Each group of filters reads a group of channels of its own.
    bias : bool
        Whether to add one.
    rounding : {"exact", "floor"}
        Whether an output size that is not an integer is an error, or loses the last rows.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when the network is made, if an
        output size is not an integer, or `groups` does not divide the channels.
    """

    @names_after("kernel_size")
    def __init__(
        self,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        rounding: Rounding = "exact",
    ) -> None:
        who = type(self).__name__
        self.out_channels = integer(out_channels, who, "out_channels", 1)
        self.kernel_size = pair(kernel_size, who, "kernel_size")
        self.stride = pair(stride, who, "stride")
        self.padding = padding_pairs(padding, who)
        self.dilation = pair(dilation, who, "dilation")
        self.groups = integer(groups, who, "groups", 1)
        divides(self.groups, self.out_channels, who, "out_channels")
        self.bias = flag(bias, who, "bias")
        self.rounding = rounding_mode(rounding, who)
        self.config = {
            "out_channels": self.out_channels,
            "kernel_size": shortest(self.kernel_size),
            "stride": shortest(self.stride),
            "padding": shortest(self.padding),
            "dilation": shortest(self.dilation),
            "groups": self.groups,
            "bias": self.bias,
            "rounding": self.rounding,
        }

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        input_shape = image_shape(input_shape, self.who)
        self._declare(input_shape)
        return self.geometry.OH, self.geometry.OW, self.out_channels

    def _declare(self, image_shape):
        divides(self.groups, image_shape[2], self.who, "channels of x")
        geometry = resolve(
            image_shape,
            self.kernel_size,
            self.stride,
            self.padding,
            self.who,
            self.dilation,
            self.rounding,
        )
        self.geometry = geometry = geometry._replace(C=image_shape[2] // self.groups)
        blas_extent(geometry.taps, self.who, "the number of taps KH*KW*C")
        blas_extent(geometry.pitch, self.who, "the number of channels")
        blas_extent(self.out_channels, self.who, "out_channels")
        columns = (geometry.OH, geometry.OW, geometry.taps)
        representable(columns, self.who, "the columns of one image")
        shape = (*self.kernel_size, geometry.C, self.out_channels)
        self.declare("weight", shape, xavier_uniform)
        if self.bias:
            self.declare("bias", (self.out_channels,), zeros)

    def operations(self, program: Program, x: int) -> int:
        return program.add(program.convolution(self, self.geometry, self.out_channels), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        x = graph.channels_first(value)
        weights = self.parameters | {"weight": filters(self.parameters["weight"], x.axes)}
        placing = window(self.geometry, x.axes)
        return graph.node(self, "Conv", x, weights=weights, group=self.geometry.groups, **placing)


class Conv1D(Conv2D):
    """One-dimensional convolution: (N, W, C) to (N, OW, out_channels).

    The slides' "convolution in 1D", a `Conv2D` on images of height 1; its weight has the shape
    (1, kernel_size, C, out_channels).

    Parameters
    ----------
    out_channels, kernel_size, stride, dilation, groups : int
    padding : int, (before, after), "valid" or "same"
    bias, rounding
        As in `Conv2D`.

    Raises
    ------
    TypeError, ValueError
        As in `Conv2D`.
    """

    @names_after("kernel_size")
    def __init__(
        self,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: AxisPadding = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        rounding: Rounding = "exact",
    ) -> None:
        who = "Conv1D"
        kernel = integer(kernel_size, who, "kernel_size", 1)
        step = integer(stride, who, "stride", 1)
        apart = integer(dilation, who, "dilation", 1)
        pads = axis_padding(padding, who)
        super().__init__(
            out_channels,
            (1, kernel),
            stride=(1, step),
            padding=pads if pads == "same" else ((0, 0), pads),
            dilation=(1, apart),
            groups=groups,
            bias=bias,
            rounding=rounding,
        )
        one = {"kernel_size": kernel, "stride": step, "padding": shortest(pads), "dilation": apart}
        self.config = self.config | one

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 2:
            raise ValueError(
                f"{self.who}: x must have shape (N, W, C), got {shape_text(('N', *input_shape))}"
            )
        self._declare((1, *input_shape))
        return self.geometry.OW, self.out_channels
