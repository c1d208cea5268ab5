"""Optimizers: from gradients to new parameters, over one flat arena."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from cyconv._core import of
from cyconv.checks import FLOATS, number, shape_text
from cyconv.threads import get_num_threads


class Optimizer(Protocol):
    """What a training step asks of an optimizer."""

    def step(self, parameters: np.ndarray, gradients: np.ndarray, /) -> object:
        """Move the flat array `parameters` against `gradients`, in place."""


class Adam:
    """Adam (Kingma & Ba 2014, algorithm 1), with the true powers of beta in its corrections.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g**2``,
    ``w -= learning_rate * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps)``.

    Parameters
    ----------
    learning_rate : float
        At least 0; it may be changed between steps.
    betas : (float, float)
        Decay of the two running means, each in [0, 1).
    eps : float
        More than 0; what is smaller than 1e-19 acts as 1e-19 in float32, where its square is lost.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of range.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"Adam: betas must be a pair of numbers, got {betas!r}")
        self.learning_rate = learning_rate
        self.betas = (number(betas[0], "Adam", "betas[0]"), number(betas[1], "Adam", "betas[1]"))
        self.eps = number(eps, "Adam", "eps")
        if max(self.betas) >= 1:
            raise ValueError(f"Adam: betas must be below 1, got {betas!r}")
        if self.eps == 0:
            raise ValueError("Adam: eps must be more than 0, got 0")
        self.t = 0
        self._arena: np.ndarray | None = None
        self.m: np.ndarray | None = None
        self.v: np.ndarray | None = None

    @property
    def learning_rate(self) -> float:
        """The step size; a new one must be finite and at least 0."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = number(value, "Adam", "learning_rate")

    def step(self, parameters: np.ndarray, gradients: np.ndarray) -> None:
        """Move the flat array `parameters` against `gradients`, in place.

        Raises
        ------
        TypeError, ValueError
            If they are not flat, contiguous arrays of one floating type and length, if they share
            memory, or if `parameters` is read-only.
        RuntimeError
            If the optimizer has worked on other parameters before: its means belong to them.
        """
        _flat(parameters, "parameters", parameters)
        _flat(gradients, "gradients", parameters)
        if not parameters.flags.writeable:
            raise ValueError("Adam.step: parameters must be writable, got a read-only array")
        if np.may_share_memory(parameters, gradients):
            raise ValueError("Adam.step: gradients must not share memory with parameters")
        if self._arena is None:
            if self.m is None or self.v is None:  # those of a checkpoint are there
                self.m, self.v = np.zeros_like(parameters), np.zeros_like(parameters)
            _flat(self.m, "m", parameters)
            _flat(self.v, "v", parameters)
            self._arena = parameters
        elif self._arena is not parameters:
            raise RuntimeError("Adam: this optimizer belongs to another network; make a new one")
        self.t += 1
        if parameters.size:
            of(parameters.dtype).elementwise.adam(
                parameters,
                gradients,
                self.m,
                self.v,
                self.learning_rate,
                *self.betas,
                # Where g**2 underflows, m over a smaller eps would be a move of any size.
                max(self.eps, math.sqrt(np.finfo(parameters.dtype).tiny)),
                self.t,
                get_num_threads(),
            )

    def __repr__(self) -> str:
        return f"Adam(learning_rate={self.learning_rate}, betas={self.betas}, eps={self.eps})"


def _flat(array, name: str, like) -> None:
    """Raise if `array` is no flat array of the type and length of `like`."""
    if not isinstance(array, np.ndarray) or array.dtype not in FLOATS:
        raise TypeError(
            f"Adam.step: {name} must be an array of float32 or float64, got {array!r:.60}"
        )
    if array.dtype != like.dtype:
        raise TypeError(
            f"Adam.step: {name} must be {like.dtype} as the parameters are, got {array.dtype}"
        )
    if array.ndim != 1 or array.shape != like.shape or not array.flags.c_contiguous:
        raise ValueError(
            f"Adam.step: {name} must be flat, contiguous and of shape ({like.size},), "
            f"got {shape_text(array.shape)}"
        )
