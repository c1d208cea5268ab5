"""The fit loop: epochs of shuffled batches, validation, history, callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.geometry import integer
from cyconv.optimizers import Adam, Optimizer
from cyconv.schedules import Schedule, constant, find

if TYPE_CHECKING:
    from cyconv.network import Network


@dataclass
class History:
    """What a training run measured, one number for each epoch.

    Attributes
    ----------
    loss : list of float
        Mean loss of the batches, each before its update.
    val_loss, val_accuracy : list of float
        On the validation data; empty without them.
    seconds : list of float
        Time of the training steps, without validation and callbacks.
    """

    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Progress:
    """How far a training run has come: `fit` goes on from here, and keeps it up to date.

    Attributes
    ----------
    epoch : int
        Epochs that are finished.
    batch : int
        Steps that are done of the epoch after them.
    loss, seconds : float
        Sum of the losses of that epoch's images, and time of its steps, so far.
    history : History
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    history: History = field(default_factory=History)


class Callback:
    """What `fit` calls on its way; override what you need. A true result ends the training."""

    def on_epoch_begin(self, network: Network, epoch: int, batches: int) -> None:
        """Before an epoch of `batches` steps, or what is left of one; epochs count from 1."""

    def on_batch_end(self, network: Network, batch: int, loss: float) -> object:
        """After a step; batches count from 1."""

    def on_epoch_end(self, network: Network, epoch: int, history: History) -> object:
        """After validation."""


class KeepBest(Callback):
    """Keep the parameters of the epoch with the best validation accuracy.

    Parameters
    ----------
    patience : int, optional
        End the training after so many epochs without a better one.

    Attributes
    ----------
    epoch : int
        The best one; 0 before the first.
    accuracy : float
    parameters : ndarray or None
        A copy of the flat array of all parameters.
    """

    def __init__(self, patience: int | None = None) -> None:
        self.patience = None if patience is None else integer(patience, "KeepBest", "patience", 1)
        self.epoch, self.accuracy = 0, -1.0
        self.parameters: np.ndarray | None = None

    def on_epoch_end(self, network: Network, epoch: int, history: History) -> bool:
        """Compare the epoch with the best one."""
        if not history.val_accuracy:
            raise ValueError("KeepBest: fit must be given validation_data, got none")
        if history.val_accuracy[-1] > self.accuracy:
            self.epoch, self.accuracy = epoch, history.val_accuracy[-1]
            self.parameters = network._parameters.copy()
        return self.patience is not None and epoch - self.epoch >= self.patience

    def restore(self, network: Network) -> None:
        """Give a network the parameters of the best epoch, if there was one."""
        if self.parameters is not None:
            network._parameters[...] = self.parameters


def fit(
    network: Network,
    x: ArrayLike,
    labels: ArrayLike,
    epochs: int = 5,
    batch_size: int = 64,
    optimizer: Optimizer | None = None,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    callbacks: Sequence[Callback | Callable[[Network, int, History], object]] = (),
    schedule: str | Schedule = "constant",
    progress: Progress | None = None,
) -> History:
    """Train a network on a data set.

    Parameters
    ----------
    network : Network
        It must end with Softmax.
    x : ndarray of shape (N, *input_shape), float32 or uint8
    labels : ndarray of shape (N,), integers
    epochs, batch_size : int
        The last batch of an epoch may be smaller.
    optimizer : Adam, optional
        ``Adam()`` if it is left out.
    validation_data : (x, labels), optional
        Evaluated after each epoch.
    shuffle : bool
        Whether to draw a new order of the images for each epoch.
    seed : int
        Decides the orders: epoch e of one seed is always the same.
    callbacks : sequence of Callback or callable
        A plain callable ``f(network, epoch, history)`` is called at the end of each epoch; a true
        result ends the training.
    schedule : {"constant", "cosine", "onecycle"} or callable
        ``f(step, steps)``, the part of the optimizer's learning rate that a step takes; steps of
        the whole run, counted from 0.
    progress : Progress, optional
        Where a run that was ended stood. With the network, the optimizer and all other arguments
        as they were, the run goes on to the same bits as if it had not been ended.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; nothing is trained then.
    FloatingPointError
        If the loss of a batch or of the validation data, or after an epoch a parameter, is NaN or
        infinite; the text names epoch and step.
    """
    who = "Network.fit"
    x = network._images(x, who)
    labels = network._labels(labels, len(x), who)
    epochs = integer(epochs, who, "epochs", 0)
    batch_size = integer(batch_size, who, "batch_size", 1)
    seed = integer(seed, who, "seed", 0)
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError(f"{who}: validation_data must be a pair (x, labels)")
        held_x = network._images(validation_data[0], f"{who}: validation_data")
        validation_data = (
            held_x,
            network._labels(validation_data[1], len(held_x), f"{who}: validation_data"),
        )
    optimizer = Adam() if optimizer is None else optimizer
    checks.optimizer(optimizer, who)
    factor = find(schedule, who)
    if factor is not constant and not hasattr(optimizer, "learning_rate"):
        raise TypeError(f"{who}: schedule needs an optimizer with a learning_rate")
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"{who}: callbacks must be a list, got {callbacks!r}")
    called = [_as_callback(each) for each in callbacks]
    progress = Progress() if progress is None else progress
    if not isinstance(progress, Progress):
        raise TypeError(f"{who}: progress must be a Progress, got {progress!r}")
    integer(progress.epoch, who, "progress.epoch", 0)
    integer(progress.batch, who, "progress.batch", 0)
    history = progress.history
    batches = -(-len(x) // batch_size)
    if progress.batch > batches:
        raise ValueError(
            f"{who}: progress.batch is {progress.batch}, but an epoch has {batches} steps; "
            "give the data and the batch_size that the run began with"
        )
    while progress.epoch < epochs:
        epoch = progress.epoch + 1
        for each in called:
            each.on_epoch_begin(network, epoch, batches)
        order = np.arange(len(x))
        if shuffle:
            np.random.default_rng([seed, epoch]).shuffle(order)
        for batch in range(progress.batch, batches):
            start = time.perf_counter()
            picked = order[batch * batch_size : (batch + 1) * batch_size]
            share = checks.number(
                factor(progress.epoch * batches + batch, epochs * batches), who, "schedule's factor"
            )
            with _scaled(optimizer, share):
                place = f" at epoch {epoch}, step {batch + 1}"
                loss = network._step(x[picked], labels[picked], optimizer, who, place)
            progress.batch = batch + 1
            progress.loss += loss * len(picked)
            progress.seconds += time.perf_counter() - start
            if any([each.on_batch_end(network, batch + 1, loss) for each in called]):
                return history
        if not np.isfinite(network._parameters).all():
            raise _diverged(who, "a parameter is NaN or infinite", epoch, batches)
        if validation_data is not None:
            loss, accuracy = network.evaluate(*validation_data)
            if not math.isfinite(loss):
                raise _diverged(who, f"the loss of the validation data is {loss}", epoch, batches)
            history.val_loss.append(loss)
            history.val_accuracy.append(accuracy)
        history.loss.append(progress.loss / len(x))
        history.seconds.append(progress.seconds)
        progress.epoch, progress.batch, progress.loss, progress.seconds = epoch, 0, 0.0, 0.0
        if any([each.on_epoch_end(network, epoch, history) for each in called]):
            break
    return history


def _diverged(who: str, what: str, epoch: int, step: int) -> FloatingPointError:
    return FloatingPointError(
        f"{who}: {what} after epoch {epoch}, step {step}; look for NaN or infinity in the data, or "
        "lower the learning rate"
    )


@contextmanager
def _scaled(optimizer: Any, share: float) -> Iterator[None]:
    """Give the optimizer a share of its learning rate for one step."""
    if share == 1:
        yield
        return
    rate = optimizer.learning_rate
    optimizer.learning_rate = rate * share
    try:
        yield
    finally:
        optimizer.learning_rate = rate


class _Called(Callback):
    """A plain callable, called at the end of each epoch."""

    def __init__(self, call):
        self.call = call

    def on_epoch_end(self, network, epoch, history):
        return self.call(network, epoch, history)


def _as_callback(each) -> Callback:
    if isinstance(each, Callback):
        return each
    if not callable(each):
        raise TypeError(f"Network.fit: callbacks must be Callback or callable, got {each!r}")
    return _Called(each)
