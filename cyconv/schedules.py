"""Learning-rate schedules: what part of the learning rate a step of a training run takes."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]  # (step, steps) -> factor; steps count from 0


def constant(step: int, steps: int) -> float:
    """Return 1."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Fall from 1 to 0 along half a cosine (Loshchilov & Hutter 2016, equation 5)."""
    return _between(1, 0, step / steps)


def onecycle(step: int, steps: int) -> float:
    """Rise from 1/25 to 1 in the first 30 % of the steps, then fall to 1/250,000.

    The one-cycle policy (Smith & Topin 2017), with the numbers and cosines of PyTorch's OneCycleLR.
    A run of a single step takes it at 1.
    """
    if steps == 1:
        return 1.0
    top = 0.3 * steps - 1
    if step <= top:
        return _between(1 / 25, 1, step / top)
    return _between(1, 1 / 250_000, (step - top) / (steps - 1 - top))


def _between(start: float, end: float, way: float) -> float:
    """Go from start to end along half a cosine, of which `way` lies behind."""
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "onecycle": onecycle}


def find(value: str | Schedule, who: str) -> Schedule:
    """Return a schedule by its name, or a callable as it is.

    Raises
    ------
    TypeError, ValueError
        If it is neither.
    """
    if callable(value):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{who}: schedule must be a name or f(step, steps), got {value!r}")
    if value not in SCHEDULES:
        names = ", ".join(SCHEDULES)
        raise ValueError(f"{who}: schedule must be one of {names}, got {value!r}")
    return SCHEDULES[value]
