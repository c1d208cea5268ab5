"""Runs that were ended anywhere go on to the same bits, whatever they are trained with."""

import numpy as np
import pytest

from cyconv import Adam, Network
from cyconv.averages import Average, arenas
from cyconv.layers import BatchNorm, Conv2D, Dropout, Flatten, Linear, Residual, Softmax
from cyconv.losses import CrossEntropy
from cyconv.optimizers import SGD, AdamW
from cyconv.training import Callback, KeepBest, Progress, fit
from tests.test_training import small
from tests.zoo import batch


class Stop(Callback):
    """End the training after so many steps, or at the first end of an epoch."""

    def __init__(self, steps=None):
        self.steps = steps

    def on_batch_end(self, network, batch, loss):
        if self.steps is not None:
            self.steps -= 1
            return self.steps == 0

    def on_epoch_end(self, network, epoch, history):
        return self.steps is None


def changing(seed, dtype):
    """Return a network whose layers draw random numbers, and keep what is not trained."""
    body = [Dropout(0.3), Conv2D(2, 3, padding=1), BatchNorm()]
    layers = [Conv2D(2, 3), Residual(body), Flatten(), Dropout(), Linear(4), Softmax()]
    return Network(layers, (7, 7, 1), seed, dtype)


# What a run is trained with: an optimizer, and arguments of fit.
SETUPS = {
    "Adam": (lambda: Adam(0.05), {}),
    "AdamW": (lambda: AdamW(0.05, weight_decay=0.1, max_norm=0.1), {"ema": 0.8}),
    "SGD": (lambda: SGD(0.5), {"ema": 0.5}),
    "momentum": (lambda: SGD(0.5, 0.9, weight_decay=0.01), {}),
    "Nesterov": (lambda: SGD(0.5, 0.9, nesterov=True, max_norm=0.2), {}),
    "loss": (lambda: Adam(0.05), {"loss": CrossEntropy(0.1, (1, 2, 0.5, 0))}),
    "state": (lambda: AdamW(0.05, weight_decay=0.1), {"ema": 0.7}),
}
KINDS = tuple(SETUPS)


class Run:
    """A run of three epochs of four steps, the last of 5 images, that may be ended at any of them.

    Attributes are those of `cyconv.runs.Training`, so that it may be one.
    """

    def __init__(self, dtype=np.float32, kind="Adam"):
        self.dtype, self.kind = dtype, kind
        make, self.more = SETUPS[kind]
        self.network = (changing if kind == "state" else small)(3, dtype)
        self.optimizer = make()
        self.progress, self.best, self.settings = Progress(), KeepBest(), {}
        self.schedule, self.loss = "onecycle", self.more.get("loss")

    def train(self, stop=None, **changes):
        """Train to the end, or until `stop` ends it."""
        x, labels = batch(self.network, 50)
        arguments = {
            "epochs": 3, "batch_size": 15, "optimizer": self.optimizer, "seed": 5,
            "validation_data": (x[:20], labels[:20]), "schedule": self.schedule,
            "callbacks": [self.best] if stop is None else [self.best, stop],
            "progress": self.progress, "loss": self.loss, "ema": self.more.get("ema"),
        }  # fmt: skip
        return fit(self.network, x, labels, **{**arguments, **changes})

    def bits(self):
        """Return all that a run has come to but for the time it took."""
        best, history = self.best, self.progress.history
        average, state = self.progress.average or Average(0.5), self.optimizer.state()
        groups = arenas(self.network), state.values(), best.arrays, average.mean, average.raw
        return (
            [[(array.dtype, array.tobytes()) for array in arrays] for arrays in groups],
            (*state, average.decay, repr(self.optimizer)),
            (best.epoch, best.accuracy, best.steps, self.network.steps),
            (self.progress.epoch, self.progress.batch, self.progress.loss),
            [*history.loss, *history.val_loss, *history.val_accuracy, len(history.seconds)],
        )


STOPS = [*range(1, 13), None]  # after a step, or at the ends of epochs


@pytest.mark.parametrize("shuffle", (True, False))
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_ended_anywhere_goes_on_to_the_same_bits(kind, dtype, shuffle):
    whole = Run(dtype, kind)
    whole.train(shuffle=shuffle)
    assert whole.progress.epoch == 3 and whole.optimizer.t == 12
    for steps in STOPS:
        run = Run(dtype, kind)
        run.train(Stop(steps), shuffle=shuffle)
        assert run.bits() != whole.bits()
        run.train(shuffle=shuffle)
        assert run.bits() == whole.bits()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ended_after_each_step_is_the_same_run(kind):
    whole, run = Run(kind=kind), Run(kind=kind)
    whole.train()
    for done in range(1, 13):
        run.train(Stop(1))
        assert run.progress.epoch * 4 + run.progress.batch == done == run.optimizer.t
    assert run.progress.batch == 4  # the end of the last epoch is still to come
    assert run.train() is run.progress.history
    assert run.bits() == whole.bits()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_has_reached_its_end_stays_there_and_more_epochs_go_on(kind):
    run, longer = Run(kind=kind), Run(kind=kind)
    run.train(schedule="constant")
    end = run.bits()
    run.train(schedule="constant")
    assert run.bits() == end
    longer.train(schedule="constant", epochs=5)
    run.train(schedule="constant", epochs=5)
    assert run.bits() == longer.bits() != end


def test_an_epoch_that_is_resumed_is_announced_with_all_its_steps():
    told = []

    class Listener(Callback):
        def on_epoch_begin(self, network, epoch, batches):
            told.append((epoch, batches))

        def on_batch_end(self, network, batch, loss):
            told.append(batch)

    run = Run()
    run.train(Stop(6))
    run.train(callbacks=[Listener()])
    assert told == [(2, 4), 3, 4, (3, 4), 1, 2, 3, 4]


def test_the_time_of_an_epoch_is_that_of_all_its_parts():
    run = Run()
    run.train(Stop(3))
    before = run.progress.seconds
    run.train()
    assert 0 < before < run.progress.history.seconds[0]
