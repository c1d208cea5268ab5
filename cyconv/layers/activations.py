"""Layers without parameters that work element by element or row by row."""

from __future__ import annotations

import math

from cyconv.checks import number
from cyconv.graph import Graph, Value
from cyconv.layers.base import Layer
from cyconv.program import Program


class LeakyReLU(Layer):
    """``f(x) = x if x > 0 else negative_slope * x`` (the course's slide "Changes from Ex06").

    Parameters
    ----------
    negative_slope : float
        At least 0; 0 makes it a ReLU.

    Raises
    ------
    TypeError, ValueError
        If `negative_slope` is not a finite number of at least 0.
    """

    def __init__(self, negative_slope: float = 0.1) -> None:
        self.negative_slope = number(negative_slope, "LeakyReLU", "negative_slope")
        self.config = {"negative_slope": self.negative_slope}

    def operations(self, program: Program, x: int) -> int:
        if program.joins(x, self.negative_slope):
            return x
        size = math.prod(self.input_shape)
        return program.add(program.kernels.activation.LeakyReLU(size, self.negative_slope), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        return graph.node(self, "LeakyRelu", value, alpha=self.negative_slope)


class ReLU(LeakyReLU):
    """``f(x) = x if x > 0 else 0``."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.config = {}

    def onnx(self, graph: Graph, value: Value) -> Value:
        return graph.node(self, "Relu", value)


class Softmax(Layer):
    """``f(x_i) = exp(x_i) / sum_j exp(x_j)`` over the last axis, shifted by the maximum.

    The course's slide "Changes from Ex06". Its `backward` is the product with the true Jacobian;
    `Network.train_step` joins a Softmax at the end with the cross-entropy, whose common gradient
    with respect to the logits is softmax minus one-hot.
    """

    def operations(self, program: Program, x: int) -> int:
        size, classes = math.prod(self.input_shape), self.input_shape[-1]
        return program.add(program.kernels.softmax.Softmax(size, classes), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        return graph.node(self, "Softmax", graph.channels_last(value), axis=-1)
