"""The fit loop: epochs of shuffled batches, validation, history, callbacks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from cyconv import checks
from cyconv.geometry import integer
from cyconv.optimizers import Adam


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


class Callback:
    """What `fit` calls on its way; override what you need."""

    def on_epoch_begin(self, network, epoch: int, batches: int) -> None:
        """Before the first of `batches` steps of an epoch; epochs count from 1."""

    def on_batch_end(self, network, batch: int, loss: float) -> None:
        """After a step; batches count from 1."""

    def on_epoch_end(self, network, epoch: int, history: History):
        """After validation; a true result ends the training."""


def fit(
    network,
    x,
    labels,
    epochs=5,
    batch_size=64,
    optimizer=None,
    validation_data=None,
    shuffle=True,
    seed=0,
    callbacks=(),
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

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; nothing is trained then.
    FloatingPointError
        If the loss is NaN or infinite; the text names epoch and step.
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
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"{who}: callbacks must be a list, got {callbacks!r}")
    callbacks = [_as_callback(each) for each in callbacks]
    batches = -(-len(x) // batch_size)
    history = History()
    for epoch in range(1, epochs + 1):
        for callback in callbacks:
            callback.on_epoch_begin(network, epoch, batches)
        order = np.arange(len(x))
        if shuffle:
            np.random.default_rng([seed, epoch]).shuffle(order)
        total, seconds = 0.0, 0.0
        for batch in range(batches):
            start = time.perf_counter()
            picked = order[batch * batch_size : (batch + 1) * batch_size]
            place = f" at epoch {epoch}, step {batch + 1}"
            loss = network._step(x[picked], labels[picked], optimizer, who, place)
            seconds += time.perf_counter() - start
            total += loss * len(picked)
            for callback in callbacks:
                callback.on_batch_end(network, batch + 1, loss)
        history.loss.append(total / len(x))
        history.seconds.append(seconds)
        if validation_data is not None:
            loss, accuracy = network.evaluate(*validation_data)
            history.val_loss.append(loss)
            history.val_accuracy.append(accuracy)
        if any([callback.on_epoch_end(network, epoch, history) for callback in callbacks]):
            break
    return history


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
