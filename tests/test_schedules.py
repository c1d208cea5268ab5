"""Learning-rate schedules: their formulas, PyTorch's numbers, and what fit makes of them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from cyconv import Adam
from cyconv.schedules import SCHEDULES, cosine, find, onecycle
from tests.test_training import small
from tests.zoo import batch

NUMBERS_OF_STEPS = (1, 2, 3, 4, 7, 10, 100, 17_200)


@pytest.mark.parametrize("steps", NUMBERS_OF_STEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_takes_a_part_between_0_and_all_of_the_rate(name, steps):
    parts = [SCHEDULES[name](step, steps) for step in range(steps)]
    assert all(0 < part <= 1 for part in parts)


def test_cosine_is_the_formula_of_its_paper():
    for step in range(50):
        assert cosine(step, 50) == pytest.approx((1 + math.cos(math.pi * step / 50)) / 2, abs=1e-15)
    assert (cosine(0, 1), cosine(0, 50), cosine(25, 50)) == (1, 1, pytest.approx(0.5))


def test_onecycle_takes_a_single_step_at_the_whole_rate():
    assert onecycle(0, 1) == 1
    net = small()
    net.fit(*batch(net, 50), epochs=1, batch_size=50, schedule="onecycle")
    assert np.abs(net._parameters - small()._parameters).max() > 1e-4


def test_onecycle_rises_for_three_tenths_and_falls():
    parts = [onecycle(step, 100) for step in range(100)]
    assert parts[0] == pytest.approx(1 / 25) and parts[-1] == pytest.approx(1 / 250_000)
    assert np.argmax(parts) == 29 and parts[29] == 1
    assert np.all(np.diff(parts[:30]) > 0) and np.all(np.diff(parts[29:]) < 0)


@pytest.mark.parametrize("steps", NUMBERS_OF_STEPS[1:])
@pytest.mark.parametrize("name", ("cosine", "onecycle"))
def test_the_rates_are_those_of_pytorch(name, steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.Adam([torch.zeros(1)], 0.2)
    theirs = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps),
    }[name]()
    for step in range(steps):
        ours = 0.2 * SCHEDULES[name](step, steps)
        # PyTorch's cosine goes from each rate to the next, and gathers rounding errors on its way.
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-12)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


class Rates(Adam):
    """Note the learning rate of each step."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.rates = []

    def step(self, parameters, gradients):
        self.rates.append(self.learning_rate)
        super().step(parameters, gradients)


@pytest.mark.parametrize("name", SCHEDULES)
def test_fit_gives_each_step_of_the_whole_run_its_part(name):
    optimizer = Rates(0.01)
    small().fit(*batch(small(), 50), epochs=3, batch_size=20, optimizer=optimizer, schedule=name)
    assert optimizer.rates == [0.01 * SCHEDULES[name](step, 9) for step in range(9)]
    assert optimizer.learning_rate == 0.01


def test_a_schedule_of_ones_own_is_asked_for_each_step():
    asked, optimizer = [], Rates(0.5)

    def half(step, steps):
        asked.append((step, steps))
        return 2 if step == 0 else 0

    net = small()
    net.fit(*batch(net, 50), epochs=1, batch_size=20, optimizer=optimizer, schedule=half)
    assert asked == [(0, 3), (1, 3), (2, 3)]
    assert optimizer.rates == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ("constant", "cosine"))
def test_a_callback_may_change_the_learning_rate(name):
    optimizer = Rates(0.01)

    def halve(network, epoch, history):
        assert optimizer.learning_rate == 0.01 / 2 ** (epoch - 1)  # not a scheduled part of it
        optimizer.learning_rate /= 2

    small().fit(
        *batch(small(), 50), epochs=3, batch_size=50, optimizer=optimizer, schedule=name,
        callbacks=[halve],
    )  # fmt: skip
    parts = [SCHEDULES[name](step, 3) for step in range(3)]
    assert optimizer.rates == [0.01 / 2**step * part for step, part in enumerate(parts)]
    assert optimizer.learning_rate == 0.01 / 8


def test_the_rate_is_as_it_was_after_a_step_that_fails():
    optimizer = Adam(0.01)
    x, labels = batch(small(), 50)
    with pytest.raises(FloatingPointError):
        small().fit(x * np.float32(np.nan), labels, optimizer=optimizer, schedule=lambda *_: 0.5)
    assert optimizer.learning_rate == 0.01


def test_an_optimizer_without_a_rate_goes_with_the_constant_schedule_only():
    taken = []
    optimizer = SimpleNamespace(step=lambda parameters, gradients: taken.append(gradients.copy()))
    net, data = small(), batch(small(), 50)
    net.fit(*data, epochs=1, batch_size=25, optimizer=optimizer)
    assert len(taken) == 2
    for schedule in ("cosine", lambda step, steps: 1):
        with pytest.raises(TypeError, match="schedule needs an optimizer with a learning_rate"):
            net.fit(*data, epochs=1, optimizer=optimizer, schedule=schedule)
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("linear", ValueError, "schedule must be one of constant, cosine, onecycle, got 'linear'"),
        (0.5, TypeError, r"schedule must be a name or f\(step, steps\), got 0.5"),
        (None, TypeError, "got None"),
        (lambda step, steps: None, TypeError, "schedule's factor must be a number, got None"),
        (lambda step, steps: math.nan, ValueError, "schedule's factor must be finite"),
        (lambda step, steps: -0.1, ValueError, "schedule's factor must be finite and at least 0"),
    ],
)
def test_what_is_no_schedule_trains_nothing(value, error, text):
    net = small()
    with pytest.raises(error, match=rf"Network\.fit: .*{text}"):
        net.fit(*batch(net, 50), epochs=1, schedule=value)
    np.testing.assert_array_equal(net._parameters, small()._parameters)


def test_find_returns_a_schedule_by_name():
    assert find("cosine", "test") is cosine
    assert find(max, "test") is max
