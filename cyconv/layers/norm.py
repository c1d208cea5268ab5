"""Batch normalisation."""

from __future__ import annotations

import math

from cyconv.checks import number
from cyconv.graph import Graph, Value
from cyconv.initializers import ones, zeros
from cyconv.layers.base import Layer
from cyconv.program import Program


class BatchNorm(Layer):
    """``y = weight * (x - mean) / sqrt(var + eps) + bias`` for each channel, the last axis.

    Ioffe & Szegedy 2015. In training, mean and (biased) variance are those of the batch over all
    axes but the last, and the running ones move towards them, the unbiased variance; otherwise the
    running ones are taken. As in PyTorch.

    Parameters
    ----------
    momentum : float
        Weight of the new in the running mean and variance, from 0 to 1.
    eps : float
        More than 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number or out of range.
    """

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5) -> None:
        self.momentum = number(momentum, "BatchNorm", "momentum")
        self.eps = number(eps, "BatchNorm", "eps")
        if self.momentum > 1:
            raise ValueError(
                f"BatchNorm: momentum must be from 0 to 1, got {momentum!r}; a layer finds the "
                "number of its channels by itself"
            )
        if self.eps == 0:
            raise ValueError("BatchNorm: eps must be more than 0, got 0")
        self.config = {"momentum": self.momentum, "eps": self.eps}

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels = input_shape[-1:]
        self.declare("weight", channels, ones)
        self.declare("bias", channels, zeros)
        self.declare("running_mean", channels, zeros, trained=False)
        self.declare("running_var", channels, ones, trained=False)
        return input_shape

    def operations(self, program: Program, x: int) -> int:
        kernels, size, channels = program.kernels, math.prod(self.input_shape), self.input_shape[-1]
        names = "weight", "bias", "running_mean", "running_var"
        shape = size, channels, program.located(self, **dict.fromkeys(names, channels))
        norm = kernels.normalisation.Normalise(*shape, self.eps, program.training)
        if not program.training:
            return x if program.folds(x, norm) else program.add(norm, x)
        moments = kernels.normalisation.Moments(*shape, self.eps, self.momentum)
        program.require(2, size // channels, self.who)
        x = program.add(moments, x)
        return program.add(norm, x, shares=x)

    def onnx(self, graph: Graph, value: Value) -> Value:
        weights = self.parameters | self.state
        x = graph.channels_first(value)
        return graph.node(self, "BatchNormalization", x, weights=weights, epsilon=self.eps)
