"""What `fit` calls on its way."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from cyconv.averages import Arenas, arenas
from cyconv.geometry import integer

if TYPE_CHECKING:
    from cyconv.network import Network
    from cyconv.training import History


class Callback:
    """What `fit` calls on its way; override what you need. A true result ends the training.

    A run that was interrupted and goes on first calls those that the interrupt left out.

    Attributes
    ----------
    repeats : bool
        Whether a call that was interrupted is made again too; it must do no harm then.
    """

    repeats = False

    def on_epoch_begin(self, network: Network, epoch: int, batches: int) -> None:
        """Before an epoch of `batches` steps, or what is left of one; epochs count from 1."""

    def on_batch_end(self, network: Network, batch: int, loss: float) -> object:
        """After a step; batches count from 1."""

    def on_epoch_end(self, network: Network, epoch: int, history: History) -> object:
        """After validation."""


NO_VALIDATION = "KeepBest: fit must be given validation_data, got none"


class KeepBest(Callback):
    """Keep the weights of the epoch with the best validation accuracy.

    Parameters
    ----------
    patience : int, optional
        End the training after this many epochs without a better one.

    Attributes
    ----------
    epoch : int
        The best one; 0 before the first.
    accuracy : float
    steps : int
        Those that the network had taken by then.
    arrays : tuple of ndarray
        Copies of the flat arrays of parameters and of untrained state; empty before the first.
    """

    repeats = True

    def __init__(self, patience: int | None = None) -> None:
        self.patience = None if patience is None else integer(patience, "KeepBest", "patience", 1)
        self.epoch, self.accuracy, self.steps = 0, -1.0, 0
        self.arrays: Arenas = ()

    def on_epoch_end(self, network: Network, epoch: int, history: History) -> bool:
        """Compare the epoch with the best one."""
        if not history.val_accuracy:
            raise ValueError(NO_VALIDATION)
        if history.val_accuracy[-1] > self.accuracy:
            kept = {
                "epoch": epoch,
                "accuracy": history.val_accuracy[-1],
                "steps": network.steps,
                "arrays": tuple(arena.copy() for arena in arenas(network)),
            }
            vars(self).update(kept)  # at once: Ctrl-C comes before or after
        return self.patience is not None and epoch - self.epoch >= self.patience

    def restore(self, network: Network) -> None:
        """Give a network the weights of the best epoch, if there was one."""
        if self.arrays:
            found, own = (
                [(each.size, str(each.dtype)) for each in arrays]
                for arrays in (arenas(network), self.arrays)
            )
            if found != own:
                raise ValueError(
                    "KeepBest: network must have the layers and the dtype of the one that was "
                    f"trained, whose parameters and state are {own}, got {found}"
                )
            for arena, kept in zip(arenas(network), self.arrays, strict=True):
                arena[...] = kept
            network._steps[0] = self.steps


class _Called(Callback):
    """A plain callable, called at the end of each epoch."""

    def __init__(self, call):
        self.on_epoch_end = call


def as_callback(each, who: str) -> Callback:
    """Return a Callback or a callable as a Callback that can be called, or raise TypeError."""
    if isinstance(each, type):
        raise TypeError(
            f"{who}: callbacks must be made, as KeepBest() is, got the class {each.__name__}"
        )
    callback = each if isinstance(each, Callback) else _Called(each)
    for call in (callback.on_epoch_begin, callback.on_batch_end, callback.on_epoch_end):
        try:
            inspect.signature(call).bind("network", 1, "history or loss")
        except TypeError:
            raise TypeError(
                f"{who}: callbacks must be Callback, or callable with 3 arguments, such as "
                f"(network, epoch, history), got {call!r}"
            ) from None
        except ValueError:  # a builtin, whose signature nobody knows
            pass
    return callback
