"""The hyperbolic tangent."""

from __future__ import annotations

import math

from cyconv.graph import Graph, Value
from cyconv.layers.base import Layer
from cyconv.program import Program


class Tanh(Layer):
    """``f(x) = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``."""

    def operations(self, program: Program, x: int) -> int:
        return program.add(program.kernels.tanh.Tanh(math.prod(self.input_shape)), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        return graph.node(self, "Tanh", value)
