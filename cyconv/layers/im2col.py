"""The columns of an image as a layer of their own, as the slides have it."""

from __future__ import annotations

import numpy as np

from cyconv.checks import image_shape, names_after
from cyconv.geometry import (
    Padding,
    Pair,
    Rounding,
    padding_pairs,
    pair,
    resolve,
    rounding_mode,
    shortest,
)
from cyconv.graph import Graph, Value, filters, window
from cyconv.layers.base import Layer
from cyconv.program import Program


class Im2Col(Layer):
    """The patch under every output pixel: (N, H, W, C) to (N, OH, OW, KH*KW*C).

    The first half of a convolution; the second is a matrix product at every pixel, which is
    ``Conv2D(out_channels, 1)``. Together they equal ``Conv2D(out_channels, kernel_size, ...)``.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, rounding
        As in `Conv2D`.
    """

    @names_after("kernel_size")
    def __init__(
        self,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        rounding: Rounding = "exact",
    ) -> None:
        self.kernel_size = pair(kernel_size, "Im2Col", "kernel_size")
        self.stride = pair(stride, "Im2Col", "stride")
        self.padding = padding_pairs(padding, "Im2Col")
        self.dilation = pair(dilation, "Im2Col", "dilation")
        self.rounding = rounding_mode(rounding, "Im2Col")
        self.config = {
            "kernel_size": shortest(self.kernel_size),
            "stride": shortest(self.stride),
            "padding": shortest(self.padding),
            "dilation": shortest(self.dilation),
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
            self.dilation,
            self.rounding,
        )
        return self.geometry.OH, self.geometry.OW, self.geometry.taps

    def operations(self, program: Program, x: int) -> int:
        return program.add(program.kernels.im2col.Im2Col(self.geometry._asdict()), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        # Each filter copies a tap of its own. The weight is a view of few numbers: it may be large.
        g, taps = self.geometry, self.geometry.taps
        impulse = np.zeros(2 * taps - 1, np.float32)
        impulse[taps - 1] = 1
        identity = np.lib.stride_tricks.sliding_window_view(impulse, taps)[::-1]
        weight = filters(identity.reshape(g.KH, g.KW, g.C, taps), axes=3)
        return graph.node(
            self, "Conv", graph.channels_first(value), weights={"weight": weight}, **window(g, 3)
        )
