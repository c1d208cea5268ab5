"""Pooling layers."""

from __future__ import annotations

from cyconv.checks import image_shape, names_after
from cyconv.geometry import (
    Padding,
    Pair,
    Rounding,
    pooling_window,
    resolve,
    rounding_mode,
    shortest,
)
from cyconv.graph import Graph, Value, window
from cyconv.layers.base import Layer
from cyconv.program import Program


class _Pool(Layer):
    """What the pooling layers with a window have in common.

    `kernel` names their operation, and `operator` that of ONNX.
    """

    kernel = operator = ""

    @names_after("kernel_size")
    def __init__(
        self,
        kernel_size: Pair,
        *,
        stride: Pair | None = None,
        padding: Padding = 0,
        rounding: Rounding = "exact",
    ) -> None:
        who = type(self).__name__
        self.kernel_size, self.stride, self.padding = pooling_window(
            kernel_size, stride, padding, who
        )
        self.rounding = rounding_mode(rounding, who)
        self.config = {
            "kernel_size": shortest(self.kernel_size),
            "stride": None if stride is None else shortest(self.stride),
            "padding": shortest(self.padding),
            "rounding": self.rounding,
        }

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        input_shape = image_shape(input_shape, self.who)
        self.geometry = resolve(
            input_shape,
            self.kernel_size,
            self.stride,
            self.padding,
            self.who,
            rounding=self.rounding,
        )
        return self.geometry.OH, self.geometry.OW, self.geometry.C

    def operations(self, program: Program, x: int) -> int:
        make = getattr(program.kernels.pooling, self.kernel)
        return program.add(make(self.geometry._asdict()), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        x = graph.channels_first(value)
        return graph.node(self, self.operator, x, **window(self.geometry, x.axes))


class MaxPool2D(_Pool):
    """The largest element of each window: (N, H, W, C) to (N, OH, OW, C).

    Padding counts as minus infinity. Backward, the first of equal elements gets the gradient.

    Parameters
    ----------
    kernel_size : int or (y, x)
    stride : int or (y, x), optional
        The kernel's size if it is left out.
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"
        Less than the kernel's size.
    rounding : {"exact", "floor"}
        Whether an output size that is not an integer is an error, or loses the last rows.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when the network is made, if an
        output size is not an integer.
    """

    kernel = operator = "MaxPool"


class AvgPool2D(_Pool):
    """The mean of each window: (N, H, W, C) to (N, OH, OW, C). Padding does not count.

    Parameters and errors are those of `MaxPool2D`.
    """

    kernel, operator = "AvgPool", "AveragePool"


class GlobalAvgPool2D(Layer):
    """The mean of each channel over the image: (N, H, W, C) to (N, C)."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        H, W, C = image_shape(input_shape, self.who)
        self.geometry = resolve((H, W, C), (H, W), 1, 0, self.who)
        return (C,)

    def operations(self, program: Program, x: int) -> int:
        return program.add(program.kernels.pooling.AvgPool(self.geometry._asdict()), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        mean = graph.node(self, "GlobalAveragePool", graph.channels_first(value))
        return graph.node(self, "Flatten", mean, axes=1, axis=1)
