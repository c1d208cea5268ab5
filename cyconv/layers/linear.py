"""The linear layer: one matrix product over the whole batch."""

from __future__ import annotations

from cyconv import tuning
from cyconv.checks import blas_extent, flag, names_after, shape_text
from cyconv.geometry import Geometry, integer
from cyconv.graph import Graph, Value
from cyconv.initializers import xavier_uniform, zeros
from cyconv.layers.base import Layer
from cyconv.program import Program
from cyconv.stages import WholeBatch


class Linear(Layer):
    """``y = x · weight + bias``: (N, K) to (N, out_features).

    Parameters
    ----------
    out_features : int
    bias : bool
        Whether to add one.

    Raises
    ------
    TypeError, ValueError
        If `out_features` is not an integer of at least 1; when the network is made, if the input is
        not flat.
    """

    @names_after("out_features")
    def __init__(self, out_features: int, *, bias: bool = True) -> None:
        self.out_features = integer(out_features, "Linear", "out_features", 1)
        self.bias = flag(bias, "Linear", "bias")
        self.config = {"out_features": self.out_features, "bias": self.bias}

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 1:
            raise ValueError(
                f"{self.who}: x must have shape (N, features), "
                f"got {shape_text(('N', *input_shape))}; put Flatten() before it"
            )
        blas_extent(input_shape[0], self.who, "the number of input features")
        blas_extent(self.out_features, self.who, "out_features")
        self.declare("weight", (input_shape[0], self.out_features), xavier_uniform)
        if self.bias:
            self.declare("bias", (self.out_features,), zeros)
        return (self.out_features,)

    def operations(self, program: Program, x: int) -> int:
        # At one pixel a convolution is a linear layer.
        op = program.convolution(self, Geometry.pixel(self.input_shape[0]), self.out_features)
        large = self.parameters["weight"].size * program.dtype.itemsize > tuning.WHOLE_BATCH_BYTES
        return program.add(op, x, stage=WholeBatch if large else None)

    def onnx(self, graph: Graph, value: Value) -> Value:
        return graph.node(self, "Gemm", value, weights=self.parameters)
