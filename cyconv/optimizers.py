"""Optimizers: from gradients to new parameters, over one flat arena."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from cyconv._core import of
from cyconv.checks import flag, flat, number
from cyconv.settled import Setting
from cyconv.threads import kernel_threads

SQUARES = 16384  # elements whose squares are one partial sum of a norm, for any number of threads
MOST_STEPS = 2**53  # a double counts so far


class Optimizer(Protocol):
    """What a training step asks of an optimizer."""

    def step(self, parameters: np.ndarray, gradients: np.ndarray, /) -> object:
        """Move the flat array `parameters` against `gradients`, in place."""


class BaseOptimizer:
    """What the optimizers of this module have in common: they describe themselves.

    A subclass names the arguments of its constructor in `arguments` and keeps each as an attribute,
    names the flat arrays that it keeps in `arrays`, and moves the parameters in `_sweep`.

    Attributes
    ----------
    arguments : tuple of str
        Those of the constructor, except max_norm.
    arrays : tuple of str
        What `state` has beside the number of steps, each as long as the parameters.
    """

    arguments: ClassVar[tuple[str, ...]] = ()
    arrays: tuple[str, ...] = ()

    def __init__(self, learning_rate: float, max_norm: float | None) -> None:
        self.learning_rate = learning_rate
        self.max_norm = max_norm
        self._count = np.zeros(1, np.int64)
        self._kept: dict[str, np.ndarray] = {}  # says nothing before the first step
        self._arena: np.ndarray | None = None

    def _number(self, value, name: str, positive: bool = False, below: float = math.inf) -> float:
        return number(value, type(self).__name__, name, below, positive)

    @Setting
    def learning_rate(self, value) -> float:
        """The step size; a new one must be finite and at least 0."""
        return self._number(value, "learning_rate")

    @Setting
    def max_norm(self, value) -> float | None:
        """A gradient whose Euclidean norm is more is scaled to it."""
        return None if value is None else self._number(value, "max_norm", positive=True)

    @property
    def t(self) -> int:
        """Number of steps taken."""
        return int(self._count[0])

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in (*self.arguments, "max_norm")}

    def state(self) -> dict[str, np.ndarray]:
        """Return what the optimizer has kept of its steps by name: the arrays, not copies.

        Returns
        -------
        dict of str to ndarray
            The number of steps ``t`` of shape (), int64; after the first step also flat arrays as
            long as the parameters.
        """
        return {"t": self._count.reshape(()), **(self._named() if self.t else {})}

    def _named(self) -> dict[str, np.ndarray]:
        """Return what is kept of what `arrays` names now."""
        return {name: self._kept[name] for name in self.arrays}

    def load_state(self, state: Mapping[str, np.ndarray], parameters: np.ndarray) -> None:
        """Go on from what `state` returned for a network with these flat `parameters`.

        Raises
        ------
        TypeError, ValueError
            If an array is missing, one too many, or of another type or shape. The optimizer is
            left as it was.
        """
        who = f"{type(self).__name__}.load_state"
        t = state.get("t")
        if not isinstance(t, np.ndarray) or t.dtype != np.int64 or t.shape != ():
            raise TypeError(f"{who}: t must be an array of shape () and int64, got {t!r:.60}")
        if not 0 <= t < MOST_STEPS:
            raise ValueError(f"{who}: t must be at least 0 and below 2**53, got {t}")
        names = {"t", *(self.arrays if t else ())}
        if set(state) != names:
            raise ValueError(
                f"{who}: after {t} steps the state has {sorted(names)}, got {sorted(state)}"
            )
        kept = {name: state[name] for name in self.arrays if t}
        for name, array in kept.items():
            flat(array, who, name, parameters)
        kept = {name: array.copy() for name, array in kept.items()}
        self._arena, self._kept, self._count = None, kept, np.full(1, t, np.int64)

    def step(self, parameters: np.ndarray, gradients: np.ndarray) -> None:
        """Move the flat array `parameters` against `gradients`, in place.

        The step is taken as a whole or, where an error or Ctrl-C comes in between, not at all.

        Raises
        ------
        TypeError, ValueError
            If they are not flat, contiguous arrays of one floating type and length, if they share
            memory, or if `parameters` is read-only.
        RuntimeError
            If the optimizer has worked on other parameters before: its state belongs to them.
        """
        who = f"{type(self).__name__}.step"
        flat(parameters, who, "parameters", parameters)
        flat(gradients, who, "gradients", parameters)
        if not parameters.flags.writeable:
            raise ValueError(f"{who}: parameters must be writable, got a read-only array")
        if np.may_share_memory(parameters, gradients):
            raise ValueError(f"{who}: gradients must not share memory with parameters")
        if self.t == 0:
            kept = {name: np.zeros_like(parameters) for name in self.arrays}
        else:
            kept = self._named()
            self._check_owner(parameters)
        clip = self._clip(gradients)
        # Both say nothing until the number of steps is more than 0, which the sweep sees to.
        self._kept, self._arena = kept, parameters
        self._sweep(parameters, gradients, kept, self._count, clip, kernel_threads())

    def _check_owner(self, parameters: np.ndarray) -> None:
        """Raise unless the state is that of these parameters, or may be: a copy cannot know."""
        text = f"{type(self).__name__}: this optimizer belongs to another network"
        arrays = [*self._kept.values(), *([] if self._arena is None else [self._arena])]
        for array in arrays:
            if (array.shape, array.dtype) != (parameters.shape, parameters.dtype):
                raise RuntimeError(
                    f"{text}, of {array.size:,} parameters in {array.dtype}, and this one has "
                    f"{parameters.size:,} in {parameters.dtype}; make a new one"
                )
        if self._arena is not None and self._arena is not parameters:
            raise RuntimeError(
                f"{text}; make a new one, or, if this network goes on where that one was, as one "
                "that was loaded does, give it copy.deepcopy(optimizer)"
            )

    def _clip(self, gradients: np.ndarray) -> float:
        """Return what scales the gradients to `max_norm`, or 1, as PyTorch's clip_grad_norm_."""
        if self.max_norm is None:
            return 1.0
        sums = np.empty(gradients.size // SQUARES + 1)
        norm = math.sqrt(
            of(gradients.dtype).elementwise.sum_of_squares(gradients, sums, kernel_threads())
        )
        clip = self.max_norm / (norm + 1e-6)
        return 1.0 if clip > 1 else clip  # NaN stays NaN

    def _sweep(self, parameters, gradients, kept, count, clip: float, threads: int) -> None:
        """Move the parameters, and count the step, in one compiled call and nothing after it."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return copies of all that a copy needs; which arena is its own, it learns in its step."""
        kept = {name: array.copy() for name, array in self._kept.items()}
        return {**vars(self), "_count": self._count.copy(), "_kept": kept, "_arena": None}

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.config.items())
        return f"{type(self).__name__}({', '.join(arguments)})"


class Adam(BaseOptimizer):
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
    max_norm : float, optional
        More than 0; a gradient whose Euclidean norm is more is scaled to it, as by PyTorch's
        clip_grad_norm_ (Pascanu et al. 2013, algorithm 1). The array of gradients stays as it is.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number or out of range.
    """

    arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "betas", "eps")
    arrays = ("m", "v")
    _weight_decay = 0.0

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, max_norm)
        self.betas = betas
        self.eps = eps

    @Setting
    def betas(self, value) -> tuple[float, float]:
        """Decay of the two running means, each in [0, 1)."""
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(
                f"{type(self).__name__}: betas must be a pair of numbers, got {value!r:.60}"
            )
        first, second = (self._number(value[i], f"betas[{i}]", below=1) for i in (0, 1))
        return first, second

    @Setting
    def eps(self, value) -> float:
        """More than 0."""
        return self._number(value, "eps", positive=True)

    @Setting
    def weight_decay(self, value) -> float:
        """At least 0."""
        if "weight_decay" not in self.arguments:
            raise AttributeError(f"{type(self).__name__}: it has no weight_decay; AdamW has one")
        return self._number(value, "weight_decay")

    def _sweep(self, parameters, gradients, kept, count, clip: float, threads: int) -> None:
        # Where g**2 underflows, m over a smaller eps would be a move of any size.
        eps = max(self.eps, math.sqrt(np.finfo(parameters.dtype).tiny))
        of(parameters.dtype).elementwise.adam(
            parameters,
            gradients,
            kept["m"],
            kept["v"],
            count,
            self.learning_rate,
            *self.betas,
            eps,
            self.weight_decay,
            clip,
            threads,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), as PyTorch has it.

    ``w *= 1 - learning_rate * weight_decay`` before Adam's step, which does not see the decay.

    Parameters
    ----------
    learning_rate, betas, eps, max_norm
        As in `Adam`.
    weight_decay : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number or out of range.
    """

    arguments = (*Adam.arguments, "weight_decay")

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, max_norm=max_norm)
        self.weight_decay = weight_decay


class SGD(BaseOptimizer):
    """Gradient descent, with momentum if it is asked for, as PyTorch has it.

    ``g += weight_decay * w``, ``velocity = momentum * velocity + g``, which begins with g, and
    ``w -= learning_rate * velocity``; with Nesterov's momentum (Sutskever et al. 2013)
    ``w -= learning_rate * (g + momentum * velocity)``.

    Parameters
    ----------
    learning_rate : float
        At least 0; it may be changed between steps.
    momentum : float
        In [0, 1).
    nesterov : bool
        It needs a momentum.
    weight_decay : float
        At least 0.
    max_norm : float, optional
        As in `Adam`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    arguments = ("learning_rate", "momentum", "nesterov", "weight_decay")
    _nesterov = False

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0,
        nesterov: bool = False,
        weight_decay: float = 0,
        *,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, max_norm)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov

    @Setting
    def weight_decay(self, value) -> float:
        """At least 0."""
        return self._number(value, "weight_decay")

    @Setting
    def momentum(self, value) -> float:
        """In [0, 1); after a step without it, it stays 0."""
        value = self._number(value, "momentum", below=1)
        self._check_nesterov(self._nesterov, value)
        if value and self.t and "velocity" not in self._kept:
            raise ValueError(
                f"{type(self).__name__}: momentum must stay 0 after a step without it, got "
                f"{value}; make a new optimizer"
            )
        self.arrays = ("velocity",) if value else ()
        return value

    @Setting
    def nesterov(self, value) -> bool:
        """Whether the momentum is Nesterov's."""
        value = flag(value, type(self).__name__, "nesterov")
        self._check_nesterov(value, self.momentum)
        return value

    def _check_nesterov(self, nesterov: bool, momentum: float) -> None:
        if nesterov and momentum == 0:
            raise ValueError(
                f"{type(self).__name__}: nesterov needs a momentum, such as momentum=0.9, got 0"
            )

    def _sweep(self, parameters, gradients, kept, count, clip: float, threads: int) -> None:
        of(parameters.dtype).elementwise.sgd(
            parameters,
            gradients,
            kept.get("velocity"),
            count,
            self.learning_rate,
            self.momentum,
            self.nesterov,
            self.weight_decay,
            clip,
            threads,
        )


OPTIMIZERS: dict[str, type[BaseOptimizer]] = {each.__name__: each for each in (Adam, AdamW, SGD)}


def share_of_rate(optimizer: Any, share: float) -> tuple[str, float] | None:
    """Return which attribute gives the optimizer a share of its learning rate, and its value."""
    if share == 1:
        return None
    rate = optimizer.learning_rate * share
    if getattr(type(optimizer), "learning_rate", None) is not BaseOptimizer.learning_rate:
        return "learning_rate", rate
    # Not by the property, in whose Python code Ctrl-C could come.
    return "_learning_rate", optimizer._number(rate, "learning_rate")
