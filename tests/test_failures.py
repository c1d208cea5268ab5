"""A step that fails or is interrupted, wherever it may be, leaves everything as it was."""

import copy
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import cyconv
from cyconv import SGD, Adam, Network, checks, presets
from cyconv.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    LeakyReLU,
    Linear,
    ReLU,
    Residual,
    Softmax,
)
from cyconv.threads import scipy_blas
from cyconv.training import Callback
from tests.test_resume import Run
from tests.zoo import Gain, batch

PACKAGE = str(Path(cyconv.__file__).parent)


def everything():
    """Return a network with a stage of each kind, state and random numbers."""
    branch = [Conv2D(4, 3, padding=1), BatchNorm(), ReLU()]
    layers = [Conv2D(4, 3), Gain(), Residual(branch), Flatten(), Dropout(), Linear(700)]
    return Network([*layers, LeakyReLU(), Linear(10), Softmax()], (12, 12, 1))


def of_whole_batches():
    """Return a network whose first product alone needs much memory for a large batch."""
    layers = [Conv2D(4, 3), LeakyReLU(), Flatten(), Linear(9000), Softmax()]
    return Network(layers, (8, 8, 1))


NETWORKS = {
    "exercise": presets.exercise,
    "wide": presets.wide,
    "everything": everything,
    "whole batches": of_whole_batches,
}
OPTIMIZERS = {"Adam": Adam, "SGD": lambda: SGD(0.01, 0.9)}


def bits(net, optimizer):
    """Return all that a step changes."""
    state = [array.tobytes() for array in optimizer.state().values()]
    return [array.tobytes() for array in net._arenas if array is not net._gradients] + state


class Failing:
    """Let the allocation number `at` fail, and count them."""

    def __init__(self, at):
        self.at, self.count = at, 0
        self.originals = checks.allocate, np.empty

    def __enter__(self):
        def failing(original):
            def allocate(*arguments, **keywords):
                self.count += 1
                if self.count == self.at:
                    raise MemoryError("no memory")
                return original(*arguments, **keywords)

            return allocate

        checks.allocate, np.empty = map(failing, self.originals)
        return self

    def __exit__(self, *_):
        checks.allocate, np.empty = self.originals


@pytest.mark.parametrize("name", NETWORKS)
def test_after_an_allocation_that_fails_the_next_step_has_the_bits_of_one_that_does_not(name):
    net, optimizer = NETWORKS[name](), Adam()
    (x, labels), (more, more_labels) = batch(net, 20), batch(net, 33)
    net.train_step(x, labels, optimizer)
    twin, twin_optimizer = copy.deepcopy((net, optimizer))
    at = 1
    while True:
        before = bits(net, optimizer)
        with Failing(at) as failing, suppress(MemoryError):
            net.train_step(more, more_labels, optimizer)
        if failing.count < at:  # a step in which nothing failed
            twin.train_step(more, more_labels, twin_optimizer)
        else:
            assert bits(net, optimizer) == before
        for images in (x, x[:7]):
            net.train_step(images, labels[: len(images)], optimizer)
            twin.train_step(images, labels[: len(images)], twin_optimizer)
        assert bits(net, optimizer) == bits(twin, twin_optimizer)
        if failing.count < at:
            break
        at += 1
    assert at > 2


def test_a_batch_that_no_machine_holds_does_no_harm():
    net, optimizer = of_whole_batches(), Adam()
    x, labels = batch(net, 4)
    twin, twin_optimizer = copy.deepcopy((net, optimizer))
    for each, taken in ((net, optimizer), (twin, twin_optimizer)):
        each.train_step(x, labels, taken)
    images = np.broadcast_to(np.zeros(1, np.uint8), (10**9, 8, 8, 1))
    with pytest.raises(MemoryError, match="use a smaller batch"):
        net._passes.step(images, np.zeros(1, np.intp), cyconv.losses.CrossEntropy(), (0, 0))
    for each, taken in ((net, optimizer), (twin, twin_optimizer)):
        each.train_step(x, labels, taken)
    assert bits(net, optimizer) == bits(twin, twin_optimizer)


class Interrupting:
    """Raise KeyboardInterrupt at the line number `at` that the package executes, and count them.

    `event` may be "opcode": at any instruction.
    """

    def __init__(self, at, event="line"):
        self.at, self.event, self.count = at, event, 0

    def _trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = self.event == "opcode"
        if event == self.event:
            self.count += 1
            if self.count == self.at:
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self):
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("name", ("exercise", "everything"))
def test_a_step_that_is_interrupted_at_any_line_is_taken_as_a_whole_or_not_at_all(
    name, optimizer_name, count, figure
):
    (x, labels), (more, more_labels) = batch(NETWORKS[name](), 20), batch(NETWORKS[name](), 9)
    start = NETWORKS[name](), OPTIMIZERS[optimizer_name]()
    start[0].train_step(x, labels, start[1])
    blas = [library.get_num_threads() for library in scipy_blas()]
    seen, at = set(), 1
    while True:
        # A step of another size than the one before makes memory anew.
        net, optimizer = copy.deepcopy(start)
        net.train_step(x, labels, optimizer)
        untouched = copy.deepcopy((net, optimizer))
        with Interrupting(at) as interrupting:
            try:
                net.train_step(more, more_labels, optimizer)
                break
            except KeyboardInterrupt:
                pass
        assert [library.get_num_threads() for library in scipy_blas()] == blas
        whole = bits(net, optimizer) != bits(*untouched)
        if whole:
            untouched[0].train_step(more, more_labels, untouched[1])
        seen.add(whole)
        for images in (x, x[:9]):
            net.train_step(images, labels[: len(images)], optimizer)
            untouched[0].train_step(images, labels[: len(images)], untouched[1])
        assert bits(net, optimizer) == bits(*untouched), at
        at += count(17, 5, 1)
    assert interrupting.count < at and False in seen
    figure(f"lines at which a step of {name} with {optimizer_name} was interrupted", at)


class Steps(Callback):
    """Keep the number of each step and epoch that it hears of."""

    def __init__(self):
        self.heard = []

    def on_batch_end(self, network, batch, loss):
        self.heard.append((batch, loss))

    def on_epoch_end(self, network, epoch, history):
        self.heard.append((epoch, *history.loss))


@pytest.mark.parametrize("kind", ("AdamW", "state", "Nesterov", "loss"))
def test_a_run_that_is_interrupted_at_any_line_goes_on_to_the_same_bits(kind, count, figure):
    def train(run, steps):
        plain = lambda network, epoch, history: steps.heard.append(epoch)  # noqa: E731
        run.train(epochs=2, batch_size=25, callbacks=[plain, steps, run.best])

    whole, all_steps = Run(kind=kind), Steps()
    train(whole, all_steps)
    at, tried = 1, 0
    while True:
        run, steps = Run(kind=kind), Steps()
        with Interrupting(at) as interrupting:
            try:
                train(run, steps)
                break
            except KeyboardInterrupt:
                tried += 1
        train(run, steps)
        assert run.bits() == whole.bits(), at
        assert steps.heard == all_steps.heard, at
        assert run.optimizer.learning_rate == whole.optimizer.learning_rate, at
        at += count(61, 17, 1)
    assert interrupting.count < at
    figure(f"lines at which a run of {kind} was interrupted and went on to the same bits", tried)
