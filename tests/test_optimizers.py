"""Optimizers against the algorithms as printed, and against PyTorch."""

import math

import numpy as np
import pytest

import cyconv
from cyconv import Adam
from cyconv._core import of
from cyconv.optimizers import OPTIMIZERS, SGD, AdamW, BaseOptimizer
from tests import optimizer_reference

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
    ours, theirs, terms = (
        Adam(**settings),
        *(optimizer_reference.Adam(size, **settings) for _ in range(2)),
    )
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


# What every optimizer must do as PyTorch does.
KINDS = {
    "Adam": (Adam, {"learning_rate": 0.01}),
    "Adam, clipped": (Adam, {"learning_rate": 0.01, "betas": (0.8, 0.95), "max_norm": 20}),
    "AdamW": (AdamW, {"learning_rate": 0.01, "weight_decay": 0.3}),
    "AdamW, clipped": (AdamW, {"eps": 1e-4, "max_norm": 20}),
    "SGD": (SGD, {"learning_rate": 0.1}),
    "SGD, decayed and clipped": (SGD, {"learning_rate": 0.1, "weight_decay": 0.2, "max_norm": 20}),
    "momentum": (SGD, {"learning_rate": 0.1, "momentum": 0.9}),
    "momentum, decayed": (SGD, {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.2}),
    "Nesterov": (SGD, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "Nesterov, decayed and clipped": (
        SGD,
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.2,
         "max_norm": 20},
    ),
}  # fmt: skip


def made(name):
    kind, settings = KINDS[name]
    return kind(**settings)


def gradients_of_steps(dtype, size=500, steps=20):
    """Yield gradients whose norms are below 20 and above it."""
    rng = np.random.default_rng(1)
    for step in range(steps):
        yield (rng.normal(size=size) * 2.0 ** (step % 3 - 1)).astype(dtype)


def of_reference(name):
    """Return step(parameters, gradients) -> parameters from the algorithms as printed."""
    kind, settings = KINDS[name]
    most = settings.get("max_norm")
    others = {key: value for key, value in settings.items() if key != "max_norm"}
    optimizer = getattr(optimizer_reference, kind.__name__)(500, **others)
    return lambda theta, g: optimizer.step(theta, optimizer_reference.clipped(g, most))


def of_pytorch(name):
    """Return step(parameters, gradients) -> parameters from PyTorch."""
    torch = pytest.importorskip("torch")
    kind, settings = KINDS[name]
    most = settings.get("max_norm")
    names = {"learning_rate": "lr"}
    others = {names.get(key, key): value for key, value in settings.items() if key != "max_norm"}
    theta = torch.zeros(500, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, kind.__name__)([theta], **others)

    def step(before, g):
        with torch.no_grad():
            theta[...] = torch.from_numpy(before)
        theta.grad = torch.from_numpy(g.copy())
        if most is not None:
            torch.nn.utils.clip_grad_norm_([theta], most)
        optimizer.step()
        return theta.detach().numpy().copy()

    return step


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 5e-6)])
@pytest.mark.parametrize("theirs", (of_reference, of_pytorch))
@pytest.mark.parametrize("name", KINDS)
def test_twenty_steps_are_those_of_others(name, theirs, dtype, tolerance):
    ours, step = made(name), theirs(name)
    parameters = np.random.default_rng(0).normal(size=500).astype(dtype)
    expected = parameters.astype(np.float64)
    norms = []
    for gradients in gradients_of_steps(dtype):
        gradients.flags.writeable = False
        ours.step(parameters, gradients)
        expected = step(expected, gradients.astype(np.float64))
        np.testing.assert_allclose(parameters, expected, rtol=0, atol=tolerance)
        norms.append(np.linalg.norm(gradients))
    assert min(norms) < 20 < max(norms)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", KINDS)
def test_all_have_the_same_bits_for_any_number_of_threads(name, dtype):
    results = set()
    for threads in (1, 2, 3):
        cyconv.set_num_threads(threads)
        optimizer, parameters = made(name), np.ones(100_003, dtype)
        for gradients in gradients_of_steps(dtype, parameters.size, 3):
            optimizer.step(parameters, gradients)
        arrays = parameters, *optimizer.state().values()
        results.add(b"".join(array.tobytes() for array in arrays))
    assert len(results) == 1


@pytest.mark.parametrize("size", (0, 1, 7, 8, 9, 16383, 16384, 16385, 100_003))
def test_a_norm_is_the_sum_of_all_squares(size):
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(size).normal(size=size).astype(dtype)
        for parts in (1, 2, 7, size + 3):
            found = of(x.dtype).elementwise.sum_of_squares(x, np.empty(parts), 2)
            assert found == pytest.approx(math.fsum(x.astype(float) ** 2), rel=1e-13)


@pytest.mark.parametrize(("norm", "scale"), [(0.5, 1), (1, 1), (2, 0.5), (1e30, 1e-30), (0, 1)])
def test_a_gradient_is_scaled_to_the_norm_if_it_is_longer(norm, scale):
    gradients, parameters = np.array([0, 0.6, 0.8]) * norm, np.zeros(3)
    SGD(1, max_norm=1).step(parameters, gradients)
    np.testing.assert_allclose(parameters, -gradients * scale, rtol=2e-6)


def test_the_first_velocity_is_the_gradient():
    optimizer, gradients = SGD(0.5, 0.9), np.array([1.0, -2.0])
    optimizer.step(np.zeros(2), gradients)
    np.testing.assert_array_equal(optimizer.state()["velocity"], gradients)


def test_the_names_are_those_of_the_classes():
    assert {"Adam": Adam, "AdamW": AdamW, "SGD": SGD} == OPTIMIZERS
    with pytest.raises(NotImplementedError):
        BaseOptimizer(0.1, None).step(np.zeros(1), np.zeros(1))


ROWS = [
    *((kind, {name: value}, error) for kind in (Adam, AdamW, SGD) for name, value, error in (
        ("learning_rate", -1e-3, ValueError),
        ("learning_rate", math.nan, ValueError),
        ("learning_rate", 10**400, ValueError),
        ("learning_rate", 10**5000, ValueError),
        ("learning_rate", "0.1", TypeError),
        ("learning_rate", True, TypeError),
        ("max_norm", 0, ValueError),
        ("max_norm", -1, ValueError),
        ("max_norm", math.inf, ValueError),
        ("max_norm", math.nan, ValueError),
        ("max_norm", 10**400, ValueError),
        ("max_norm", "1", TypeError),
        ("max_norm", True, TypeError),
    )),
    *((kind, {name: value}, error) for kind in (Adam, AdamW) for name, value, error in (
        ("betas", 0.9, ValueError),
        ("betas", (0.9,), ValueError),
        ("betas", (1, 0.9), ValueError),
        ("betas", (0.9, 1.0), ValueError),
        ("betas", (0.9, "0.9"), TypeError),
        ("eps", 0, ValueError),
        ("eps", None, TypeError),
    )),
    *((kind, {name: value}, error) for kind in (AdamW, SGD) for name, value, error in (
        ("weight_decay", -0.1, ValueError),
        ("weight_decay", math.inf, ValueError),
        ("weight_decay", "0.1", TypeError),
    )),
    (SGD, {"momentum": 1}, ValueError),
    (SGD, {"momentum": -0.1}, ValueError),
    (SGD, {"momentum": math.nan}, ValueError),
    (SGD, {"momentum": None}, TypeError),
    (SGD, {"nesterov": 1, "momentum": 0.9}, TypeError),
    (SGD, {"nesterov": None, "momentum": 0.9}, TypeError),
    (SGD, {"nesterov": True}, ValueError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "arguments", "error"),
    ROWS,
    ids=lambda each: getattr(each, "__name__", "") or next(iter(each)),
)
def test_a_mistake_is_named(kind, arguments, error):
    with pytest.raises(error, match=rf"^{kind.__name__}: {next(iter(arguments))}\b") as raised:
        kind(**({"learning_rate": 0.1} if kind is SGD else {}) | arguments)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("kind", "arguments", "error"),
    [row for row in ROWS if row[0] is not SGD or "nesterov" not in row[1]],
    ids=lambda each: getattr(each, "__name__", "") or next(iter(each)),
)
def test_a_mistake_is_named_in_what_is_changed_between_steps(kind, arguments, error):
    optimizer = kind(0.1)
    before = optimizer.config
    name, value = next(iter(arguments.items()))
    with pytest.raises(error, match=rf"^{kind.__name__}: {name}\b"):
        setattr(optimizer, name, value)
    assert optimizer.config == before


def test_nesterov_and_the_momentum_that_it_needs_are_changed_together():
    optimizer = SGD(0.1)
    with pytest.raises(ValueError, match=r"^SGD: nesterov needs a momentum, such as momentum=0.9"):
        optimizer.nesterov = True
    with pytest.raises(TypeError, match=r"^SGD: nesterov must be True or False, got 1"):
        optimizer.nesterov = 1
    optimizer.momentum = 0.9
    optimizer.nesterov = True
    with pytest.raises(ValueError, match=r"^SGD: nesterov needs a momentum, such as momentum=0.9"):
        optimizer.momentum = 0
    assert repr(optimizer) == repr(SGD(0.1, 0.9, True))


def test_adam_has_no_weight_decay():
    with pytest.raises(AttributeError, match=r"^Adam: it has no weight_decay; AdamW has one"):
        Adam().weight_decay = 0.1
    assert Adam().weight_decay == 0
