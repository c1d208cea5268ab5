"""Adam against the algorithm as printed."""

import math

import numpy as np
import pytest

import cyconv
from cyconv import Adam
from tests import reference

SETTINGS = [
    {},
    {"learning_rate": 0.1, "betas": (0.5, 0.9)},
    {"learning_rate": 1e-2, "betas": (0, 0.99), "eps": 1e-3},
    {"learning_rate": 1e-2, "betas": (0.9, 0)},
]


def run(settings, dtype, steps=100, size=1000, threads=1):
    """Yield (step, parameters of cyconv, of the reference, sum of the terms of all moves)."""
    cyconv.set_num_threads(threads)
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=size).astype(dtype)
    ours, theirs, terms = Adam(**settings), *(reference.Adam(size, **settings) for _ in range(2))
    expected, total = parameters.astype(np.float64, copy=True), np.zeros(size)
    for step in range(1, steps + 1):
        gradients = (rng.normal(size=size) * 10.0 ** rng.integers(-6, 3, size)).astype(dtype)
        ours.step(parameters, gradients)
        expected = theirs.step(expected, np.float64(gradients))
        # In m gradients of both signs cancel; without signs it is what a rounding error refers to.
        total = terms.step(total, np.abs(np.float64(gradients)))
        yield step, parameters, expected, np.abs(total)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_is_the_algorithm_up_to_rounding(settings, dtype):
    # One rounding of beta**t grows by 1 / (1 - beta) in the corrections, in double on both sides.
    powers = sum(1 / (1 - beta) for beta in settings.get("betas", (0.9, 0.999)))
    for step, parameters, expected, terms in run(settings, dtype):
        # Each step rounds its move a dozen times, and the parameter once.
        roundings = 12 * terms + step * (np.abs(expected) + terms)
        bound = np.finfo(dtype).eps / 2 * roundings + 2.0**-53 * (roundings + powers * terms)
        assert (np.abs(parameters - expected) <= bound).all(), step


def test_the_first_step_moves_by_the_learning_rate_against_the_sign():
    gradients = np.array([1e-3, -5, 2e4, -1e-2], np.float32)
    parameters = np.zeros(4, np.float32)
    Adam(0.25).step(parameters, gradients)
    np.testing.assert_allclose(parameters, -0.25 * np.sign(gradients), 2e-5)


def test_the_powers_of_beta_are_the_true_ones_after_many_steps():
    # A constant gradient of 1 keeps both corrected means at exactly 1: each step is the rate.
    # Powers that are multiplied up in single precision drift away from that.
    parameters, optimizer = np.zeros(1), Adam(1.0, (0.9, 0.999), 1e-12)
    for step in range(1, 3001):
        before = parameters[0]
        optimizer.step(parameters, np.ones(1))
        assert before - parameters[0] == pytest.approx(1, rel=1e-9), step


def test_the_same_bits_for_any_number_of_threads():
    results = [list(run({}, np.float32, 3, 300_000, n))[-1][1].tobytes() for n in (1, 2, 3)]
    assert len(set(results)) == 1


def test_the_rate_may_change_between_steps():
    optimizer, parameters = Adam(0.1), np.zeros(3)
    optimizer.step(parameters, np.ones(3))
    before = parameters.copy()
    optimizer.learning_rate = 0
    optimizer.step(parameters, np.ones(3))
    np.testing.assert_array_equal(parameters, before)


@pytest.mark.parametrize("eps", (1e-8, 1e-30, 1e-60))
def test_a_parameter_without_a_gradient_stays(eps):
    for dtype in (np.float32, np.float64):
        parameters = np.ones(3, dtype)
        optimizer = Adam(eps=eps)
        for _ in range(3):
            optimizer.step(parameters, np.array([0, 1, 0], dtype))
        assert parameters[0] == parameters[2] == 1
        assert parameters[1] < 1


def test_gradients_stay_as_they_are():
    gradients = np.arange(5, dtype=np.float32)
    gradients.flags.writeable = False
    Adam().step(np.zeros(5, np.float32), gradients)
    np.testing.assert_array_equal(gradients, np.arange(5))


def test_no_parameters_at_all():
    optimizer = Adam()
    optimizer.step(np.zeros(0, np.float32), np.zeros(0, np.float32))


def test_an_optimizer_belongs_to_one_network():
    x, labels = np.zeros((2, 28, 28, 1), np.float32), [0, 1]
    optimizer, other = Adam(), cyconv.presets.exercise(1)
    cyconv.presets.exercise(0).train_step(x, labels, optimizer)
    before = other._parameters.copy()
    with pytest.raises(RuntimeError, match="Adam: this optimizer belongs to another network"):
        other.train_step(x, labels, optimizer)
    np.testing.assert_array_equal(other._parameters, before)
    with pytest.raises(RuntimeError, match="another network"):
        other.fit(x, labels, optimizer=optimizer)


def test_a_rejected_step_counts_for_nothing():
    optimizer, parameters, twin = Adam(0.1), np.zeros(2), np.zeros(2)
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        optimizer.step(np.zeros((2, 2)), np.zeros((2, 2)))
    optimizer.step(parameters, np.ones(2))
    Adam(0.1).step(twin, np.ones(2))
    np.testing.assert_array_equal(parameters, twin)


def test_any_object_with_a_step_is_an_optimizer():
    class Descent:
        def step(self, parameters, gradients):
            parameters -= 0.01 * gradients

    net = cyconv.presets.exercise()
    rng = np.random.default_rng(0)
    x, labels = rng.random((8, 28, 28, 1), np.float32), rng.integers(0, 10, 8)
    before = {name: array.copy() for name, array in net.parameters().items()}
    first = net.train_step(x, labels, Descent())
    for name, array in net.parameters().items():
        expected = before[name] - np.float32(0.01) * net.gradients()[name]
        np.testing.assert_array_equal(array, expected)
    assert net.train_step(x, labels, Descent()) < first
    assert math.isfinite(first)
