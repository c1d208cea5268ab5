"""The moving average of a network's weights over the steps of its training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cyconv import checks
from cyconv._core import atomic, of
from cyconv.threads import kernel_threads

if TYPE_CHECKING:
    from cyconv.network import Network

Arenas = tuple[np.ndarray, ...]  # a network's flat arrays: its parameters, its untrained state


class Average:
    """An exponential moving average of flat arrays: ``mean += (1 - decay) * (x - mean)``.

    It begins with the arrays after the first step, as PyTorch's AveragedModel does. (Polyak &
    Juditsky 1992 averaged all steps alike.) While it is worn, the arrays hold the average, and the
    weights that go on training wait beside it.

    Parameters
    ----------
    decay : float
        In (0, 1): the share of the average that a step leaves.

    Attributes
    ----------
    mean : tuple of ndarray
        Empty before the first step.
    raw : tuple of ndarray
        The arrays' own content while the average is worn; empty otherwise.

    Raises
    ------
    TypeError, ValueError
        If decay is not a number or out of range.
    """

    def __init__(self, decay: float) -> None:
        self.decay = checks.number(decay, "Average", "decay", below=1, positive=True)
        self.mean: Arenas = ()
        self.raw: Arenas = ()

    def fits(self, arenas: Arenas) -> bool:
        """Tell whether these are arrays of the shapes and types that the average has, if any."""
        kinds = [(arena.shape, arena.dtype) for arena in arenas]
        return all(
            [(array.shape, array.dtype) for array in arrays] == kinds
            for arrays in (self.mean, self.raw)
            if arrays
        )

    def update(self, arenas: Arenas) -> None:
        """Take the arrays after a step into the average."""
        self.updater(arenas)()

    def updater(self, arenas: Arenas) -> Callable[[], None]:
        """Return what takes the arrays into the average, as a whole: no Ctrl-C comes in between."""
        threads = kernel_threads()
        blends = [
            (of(mean.dtype).elementwise.average, (mean, arena, 1 - self.decay, threads))
            for mean, arena in zip(self.mean, arenas, strict=False)
        ]
        first = () if self.mean else _like(arenas)
        return partial(atomic.take_in, self, arenas, first, blends)

    def wear(self, arenas: Arenas) -> None:
        """Put the average into the arrays; a second time, or before the first step, do nothing."""
        if self.mean and not self.raw:
            atomic.wear(self, arenas, _like(arenas))

    def take_off(self, arenas: Arenas) -> None:
        """Give the arrays their own content back, if they hold the average."""
        if self.raw:
            atomic.take_off(self, arenas)


def arenas(network: Network) -> Arenas:
    """Return the flat arrays that training changes: the parameters, and the untrained state."""
    return network._parameters, network._state


def resume(
    average: Average | None, ema: float | None, network: Network, who: str
) -> Average | None:
    """Return the average that a training run goes on with: its own, or a new one.

    Raises
    ------
    TypeError, ValueError
        If `ema` is not a decay, or not the one that the run began with, or the average is one of
        another network's weights.
    """
    decay = None if ema is None else checks.number(ema, who, "ema", below=1, positive=True)
    if average is None:
        return None if decay is None else Average(decay)
    if decay != average.decay:
        raise ValueError(
            f"{who}: ema must be {average.decay}, with which progress began, got {ema!r}"
        )
    if not average.fits(arenas(network)):
        raise ValueError(f"{who}: progress has the average of another network's weights")
    return average


def _like(arenas: Arenas) -> Arenas:
    return tuple(map(np.empty_like, arenas))
