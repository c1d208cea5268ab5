"""From an image to a vector."""

from __future__ import annotations

import math

from cyconv.graph import Graph, Value
from cyconv.layers.base import Layer
from cyconv.program import Program


class Flatten(Layer):
    """All axes but the batch as one: (N, H, W, C) to (N, H*W*C)."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(input_shape),)

    def operations(self, program: Program, x: int) -> int:
        return x

    def onnx(self, graph: Graph, value: Value) -> Value:
        return graph.node(self, "Flatten", graph.channels_last(value), axes=1, axis=1)
