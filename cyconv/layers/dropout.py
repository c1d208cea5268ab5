"""Dropout."""

from __future__ import annotations

import math

from cyconv.checks import number
from cyconv.graph import Graph, Value
from cyconv.layers.base import Layer
from cyconv.program import Program


class Dropout(Layer):
    """In training, each element becomes 0 with probability p, and is divided by 1 - p otherwise.

    Srivastava et al. 2014, inverted, so that there is nothing to do outside training. Which
    elements become 0 follows from the network's seed, the step, the image's place in the batch, the
    layer and the element (Philox, Salmon et al. 2011): not from the number of threads.

    Parameters
    ----------
    p : float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If `p` is not a number from 0 to 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number(p, "Dropout", "p")
        if self.p > 1:
            raise ValueError(f"Dropout: p must be from 0 to 1, got {p!r}")
        self.config = {"p": self.p}

    def operations(self, program: Program, x: int) -> int:
        if not program.training or self.p == 0:
            return x
        size = math.prod(self.input_shape)
        return program.add(program.kernels.dropout.Dropout(size, self.p, self.number), x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        return value
