"""The fit loop: epochs of shuffled batches, validation, history, callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv._core import atomic
from cyconv.averages import Average, arenas, resume
from cyconv.callbacks import NO_VALIDATION, Callback, KeepBest, as_callback
from cyconv.geometry import integer
from cyconv.losses import CrossEntropy
from cyconv.optimizers import Adam, Optimizer, share_of_rate
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
    average : Average or None
        The moving average of the weights, if the run has one.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    history: History = field(default_factory=History)
    average: Average | None = field(default=None, compare=False)
    # What callbacks have not heard yet, if there is anything: (how many have, method, arguments).
    _news: tuple[int, str, tuple[Any, ...]] | None = field(
        default=None, init=False, repr=False, compare=False
    )


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
    *,
    loss: CrossEntropy | None = None,
    ema: float | None = None,
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
    optimizer : Optimizer, optional
        Anything with ``step(parameters, gradients)``; ``Adam()`` if it is left out.
    validation_data : (x, labels), optional
        Evaluated after each epoch.
    shuffle : bool
        Whether to draw a new order of the images for each epoch.
    seed : int
        Decides the orders: epoch e of one seed is always the same. Each call begins with epoch 1,
        and with a new optimizer if none is given; to go on, give it `progress` and the optimizer.
    callbacks : sequence of Callback or callable
        A plain callable ``f(network, epoch, history)`` is called at the end of each epoch; a true
        result ends the training.
    schedule : {"constant", "cosine", "onecycle"} or callable
        ``f(step, steps)``, the part of the optimizer's learning rate that a step takes; steps of
        the whole run, counted from 0.
    progress : Progress, optional
        Where a run stood that was ended, by Ctrl-C or an error too. With the network, the optimizer
        and all other arguments as they were, it goes on to the same bits as if it had not been.
    loss : CrossEntropy, optional
        What the steps lower; the plain cross-entropy, which validation measures always, if it is
        left out.
    ema : float, optional
        Decay, in (0, 1), of an exponential moving average of the weights, which each step goes
        into. The network has the average wherever it is looked at: for validation, at the ends of
        epochs and after the run; the weights that go on training wait in `progress`.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; nothing is trained then. Also if a batch has no label that has
        weight in `loss`; its step is not taken then.
    FloatingPointError
        If the loss of a batch or of the validation data, or after an epoch a parameter, is NaN or
        infinite; the text names epoch and step.
    """
    progress = Progress() if progress is None else progress
    run = _Run(network, epochs, batch_size, shuffle, seed, progress, loss)
    run.check_data(x, labels, validation_data)
    run.check_numbers()
    run.check_optimizer(optimizer, schedule)
    run.check_callbacks(callbacks)
    run.check_progress(ema)
    try:
        ended = run.end_epoch()
        while not ended and run.progress.epoch < run.epochs:
            ended = run.train_epoch()
    finally:
        run.show_average()
    return run.progress.history


WHO = "Network.fit"


@dataclass
class _Run:
    """The arguments of `fit`, and the parts of its work."""

    network: Network
    epochs: int
    batch_size: int
    shuffle: bool
    seed: int
    progress: Progress
    loss: CrossEntropy | None

    def check_data(self, x, labels, validation_data) -> None:
        self.x = self.network._images(x, WHO)
        self.labels = self.network._labels(labels, len(self.x), WHO)
        if self.loss is not None:
            if not isinstance(self.loss, CrossEntropy):
                raise TypeError(f"{WHO}: loss must be a CrossEntropy, got {self.loss!r:.60}")
            self.loss.scale(self.labels, self.network.classes, WHO)
        self.held = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError(f"{WHO}: validation_data must be a pair (x, labels)")
            who = f"{WHO}: validation_data"
            held_x = self.network._images(validation_data[0], who)
            checks.finite(held_x, who)
            self.held = held_x, self.network._labels(validation_data[1], len(held_x), who)

    def check_numbers(self) -> None:
        self.epochs = integer(self.epochs, WHO, "epochs", 0)
        self.batch_size = integer(self.batch_size, WHO, "batch_size", 1)
        self.seed = integer(self.seed, WHO, "seed", 0)
        self.batches = -(-len(self.x) // self.batch_size)
        images = len(self.x)
        last = images - (self.batches - 1) * self.batch_size
        try:
            self.network._passes.check_step(self.network._computed(self.x[:0]).dtype, last)
        except ValueError as error:
            text = f"{WHO}: the last batch of an epoch has {last} of {images} images"
            raise ValueError(f"{text}: {error}") from None

    def check_optimizer(self, optimizer, schedule) -> None:
        self.optimizer = Adam() if optimizer is None else optimizer
        checks.optimizer(self.optimizer, WHO)
        self.factor = find(schedule, WHO)
        if self.factor is not constant and not hasattr(self.optimizer, "learning_rate"):
            raise TypeError(f"{WHO}: schedule needs an optimizer with a learning_rate")

    def check_callbacks(self, callbacks) -> None:
        if not isinstance(callbacks, (list, tuple)):
            raise TypeError(f"{WHO}: callbacks must be a list, got {callbacks!r}")
        self.callbacks = [as_callback(each, WHO) for each in callbacks]
        keep = KeepBest.on_epoch_end
        if self.held is None and any(
            getattr(each.on_epoch_end, "__func__", None) is keep for each in self.callbacks
        ):
            raise ValueError(NO_VALIDATION)

    def check_progress(self, ema) -> None:
        """Check how far the run has come, and that its average is the one asked for."""
        progress = self.progress
        if not isinstance(progress, Progress):
            raise TypeError(f"{WHO}: progress must be a Progress, got {progress!r}")
        integer(progress.epoch, WHO, "progress.epoch", 0)
        integer(progress.batch, WHO, "progress.batch", 0)
        if progress.batch > self.batches:
            raise ValueError(
                f"{WHO}: progress.batch is {progress.batch}, but an epoch has {self.batches} "
                "steps; give the data and the batch_size that the run began with"
            )
        progress.average = resume(progress.average, ema, self.network, WHO)

    def train_epoch(self) -> bool:
        """Train an epoch, or what is left of one; tell whether a callback ends the training."""
        network, progress = self.network, self.progress
        epoch, history = progress.epoch + 1, progress.history
        if progress.average is not None:
            progress.average.take_off(arenas(network))
        for each in self.callbacks:
            each.on_epoch_begin(network, epoch, self.batches)
        if self.take_steps(epoch):
            return True
        if not np.isfinite(network._parameters).all():
            raise _diverged("a parameter is NaN or infinite", epoch, self.batches)
        self.show_average()
        measured = [(history.loss, progress.loss / len(self.x)), *self.validate(epoch)]
        atomic.count_epoch(progress, [*measured, (history.seconds, progress.seconds)])
        return self.end_epoch()

    def end_epoch(self) -> bool:
        """Tell callbacks of an epoch that has ended, if they have not heard of it."""
        if self.progress.batch:
            return False
        self.show_average()
        return self.tell()

    def tell(self) -> bool:
        """Tell callbacks what they have not heard yet; tell whether one ends the training."""
        progress, ended = self.progress, False
        while progress._news is not None:
            heard = progress._news[0]
            if heard < len(self.callbacks):
                ended |= bool(atomic.tell(progress, self.callbacks[heard], self.network))
            else:
                progress._news = None
        return ended

    def take_steps(self, epoch: int) -> bool:
        """Take the steps of an epoch; tell whether a callback ends the training."""
        progress, size, order = self.progress, self.batch_size, np.arange(len(self.x))
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        ended = self.tell()
        while not ended and progress.batch < self.batches:
            start = time.perf_counter()
            picked = order[progress.batch * size : (progress.batch + 1) * size]
            self.take_step(self.x[picked], self.labels[picked], epoch, progress.batch, start)
            ended = self.tell()
        return ended

    def take_step(self, x, labels, epoch: int, batch: int, start: float) -> None:
        """Take one step, and count it."""
        done, steps = (epoch - 1) * self.batches + batch, self.epochs * self.batches
        share = checks.number(self.factor(done, steps), WHO, "schedule's factor")
        place, average = f" at epoch {epoch}, step {batch + 1}", self.progress.average
        take_in = None if average is None else average.updater(arenas(self.network))
        self.network._step(
            x,
            labels,
            self.optimizer,
            WHO,
            place,
            self.loss,
            rate=share_of_rate(self.optimizer, share),
            then=partial(atomic.count_step, self.progress, len(x), start, take_in),
        )

    def validate(self, epoch: int) -> list[tuple[list[float], float]]:
        """Measure the network on the validation data, if there are any; return what for what."""
        if self.held is None:
            return []
        try:
            loss, accuracy = self.network.evaluate(*self.held)
        except FloatingPointError:
            loss = math.nan
        if not math.isfinite(loss):
            raise _diverged(f"the loss of the validation data is {loss}", epoch, self.batches)
        history = self.progress.history
        return [(history.val_loss, loss), (history.val_accuracy, accuracy)]

    def show_average(self) -> None:
        """Let the network have the averaged weights, if the run has any."""
        if self.progress.average is not None:
            self.progress.average.wear(arenas(self.network))


def _diverged(what: str, epoch: int, step: int) -> FloatingPointError:
    return FloatingPointError(
        f"{WHO}: {what} after epoch {epoch}, step {step}; look for NaN or infinity in the data, or "
        "lower the learning rate"
    )
