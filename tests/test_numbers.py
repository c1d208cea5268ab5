"""The edges of floating point: NaN, infinities, subnormal numbers, and the largest ones."""

import decimal
import math

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, naive, presets
from cyconv.layers import LeakyReLU, Linear, Softmax
from cyconv.losses import cross_entropy
from tests import optimizer_reference, reference
from tests.reference import NAMES, arrays, by_definition, everything
from tests.zoo import batch

DTYPES = (np.float32, np.float64)
THREADS = (1, 4)
BIG = float(np.finfo(np.float32).max)
GIVEN = ("x", "cols", "weight", "bias", "dy")

# NaN and infinities.


def same(result, expected):
    """Tell whether numbers and infinities are equal, and NaN in the same places."""
    return np.array_equal(result, expected, equal_nan=True)


def agrees(result, expected):
    """Tell, for each number, what `same` tells of all."""
    return (result == expected) | (np.isnan(result) & np.isnan(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, in the definition
def test_kernels_pass_on_what_is_not_finite_as_the_definition_does(dtype, count, figure):
    geometries = count(200, 1000, 10_000)
    rng = np.random.default_rng(9)
    for index, case in enumerate(reference.random_cases(geometries, seed=9)):
        given = arrays(case, rng, dtype=dtype)
        spoiled = GIVEN[index % len(GIVEN)]
        array = given[index % len(GIVEN)]
        for value in rng.choice((np.nan, np.inf, -np.inf), 1 + index % 3):
            array[np.unravel_index(rng.integers(array.size), array.shape)] = value
        cyconv.set_num_threads(THREADS[index % 2])
        results = everything(cyconv, case, *given, winograd=False)  # test_winograd.py has that
        loops = everything(naive, case, *given)
        definition = by_definition(case, *given)
        for name, result, expected, loop in zip(NAMES, results, definition, loops, strict=True):
            # The padding's zeros times infinity are NaN; the slides' loops do not multiply with
            # them, nor do the kernels with all of them.
            if (name, spoiled) in (("conv2d", "weight"), ("dweight", "dy")):
                either = np.where(agrees(result, expected), expected, loop)
                assert same(result, either), (name, spoiled, case)
            else:
                assert same(result, expected) and same(loop, expected), (name, spoiled, case)
    figure(f"NaN and infinities through the kernels, {dtype.__name__}: geometries", geometries)


def test_a_run_that_diverges_names_epoch_and_step_and_does_not_take_it():
    net = presets.exercise()
    x, labels = batch(net, 64)
    kept = []

    class Growth:
        def step(self, parameters, gradients):
            parameters *= 30
            kept.append(parameters.copy())

    with pytest.raises(FloatingPointError) as stopped:
        net.fit(x, labels, epochs=99, batch_size=16, optimizer=Growth())
    epoch, step = 1 + len(kept) // 4, 1 + len(kept) % 4
    assert epoch > 1
    assert f"at epoch {epoch}, step {step}; this step is not taken" in str(stopped.value)
    np.testing.assert_array_equal(net._parameters, kept[-1])


# Subnormal numbers: a library that was linked with -ffast-math makes them zero for the process.


def test_subnormal_numbers_are_alive_after_import_and_after_the_threads_have_run(python):
    printed = python(
        """
        import threading
        import numpy as np

        alive = []
        def look():
            alive.append(float(np.float32(1e-40) * np.float32(0.5) + np.float32(0)))

        look()
        import cyconv
        look()
        cyconv.set_num_threads(4)
        net = cyconv.presets.exercise()
        x, labels = np.ones((64, 28, 28, 1), np.float32), np.zeros(64, int)
        net.train_step(x, labels, cyconv.Adam())
        net.predict(x)
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        print(*alive)
        """
    )
    half = float(np.float32(5e-41))
    assert [float(number) for number in printed.split()] == 4 * [half]
    assert half != 0


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("case", reference.LARGE, ids=str)
def test_sums_of_products_may_be_subnormal(case, threads):
    cyconv.set_num_threads(threads)
    given = arrays(case, np.random.default_rng(5))
    expected = everything(naive, case, *given)
    # Whole numbers times 2**-148, for which float32 has room below its normal numbers: with x,
    # weight and dy of 2**-74 every sum of products is exact.
    factor = 2.0**-74
    powers = (1, 2, 1, 2, 1)  # of the factor, in x, cols, weight, bias and dy
    scaled = [
        (array * factor**power).astype(np.float32)
        for array, power in zip(given, powers, strict=True)
    ]
    # Winograd's way has quarters of these products, for which there is no room.
    results = everything(cyconv, case, *scaled, winograd=False)
    for name, result, wanted in zip(NAMES, results, expected, strict=True):
        power = 1 if name in ("im2col", "dbias") else 2
        np.testing.assert_array_equal(result, wanted * factor**power, name)
        assert power == 1 or 0 < np.abs(result).max() < np.finfo(np.float32).tiny, name


@pytest.mark.parametrize("threads", THREADS)
def test_pointwise_loops_keep_subnormal_numbers(threads):
    cyconv.set_num_threads(threads)
    # The bits of a subnormal number count its steps: integers see what a float might hide.
    sign, steps = np.int32(-(2**31)), np.arange(1, 200_001, dtype=np.int32)
    x = (8 * steps | sign).view(np.float32)[np.newaxis]
    layer = LeakyReLU(0.125)
    for result in (layer.forward(x), layer.backward(x)):
        np.testing.assert_array_equal(result[0].view(np.int32), steps | sign)


# The loss at the edge of float32, against decimal arithmetic.

ROWS = [
    [1e4, 0, -1e4],
    [BIG, BIG, BIG],
    [-BIG, -BIG, -BIG],
    [BIG, 0, -BIG],
    [BIG, math.nextafter(BIG, 0), BIG / 2],
    [3e38, 2.9999e38, 1],
    [0, -math.inf, 1],
    [BIG, -math.inf, -BIG],
    [1e-45, 0, -1e-45],
    [88.7, -88.7, 103.9],
    [709.8, -745.2, 0],
    [0.0, 16.6, 36.7],
]


def exact(row, label):
    """Return the loss of one image, and its gradient, in decimal arithmetic of 60 digits."""
    with decimal.localcontext(prec=60) as context:
        context.traps[decimal.Underflow] = context.traps[decimal.Inexact] = False
        logits = [decimal.Decimal(float(value)) for value in row]
        terms = [(value - max(logits)).exp() for value in logits]
        total = sum(terms)
        loss = total.ln() - (logits[label] - max(logits))
        gradient = [term / total for term in terms]
        gradient[label] -= 1
        return float(loss), [float(value) for value in gradient]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_loss_is_that_of_decimal_arithmetic(row, dtype):
    row = np.array(row, np.float32)
    for label in range(len(row)):
        expected, slope = exact(row, label)
        loss, gradient = cross_entropy(row[np.newaxis].astype(dtype), [label])
        # Three roundings of double, of numbers of the size of the loss or of one.
        assert loss == pytest.approx(expected, rel=2.0**-50, abs=2.0**-50)
        unit = np.finfo(dtype).eps
        np.testing.assert_allclose(gradient[0], slope, rtol=2 * unit, atol=2.0**-50)


def test_a_mean_is_finite_though_the_sum_is_not():
    loss, _ = cross_entropy(np.array([[8e307, -8e307]] * 3), [1, 1, 0])
    assert loss == pytest.approx(2 / 3 * 1.6e308, rel=2.0**-50)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_step_has_the_loss_of_decimal_arithmetic(row):
    net = Network([Linear(3), Softmax()], input_shape=(2,))
    net.parameters()["0.weight"][...] = 0
    net.parameters()["0.bias"][...] = row
    labels = [label for label in range(3) if math.isfinite(exact(np.float32(row), label)[0])]
    losses, slopes = zip(*(exact(np.float32(row), label) for label in labels), strict=True)
    x = np.zeros((len(labels), 2), np.float32)
    expected = pytest.approx(math.fsum(losses) / len(labels), rel=2.0**-50, abs=2.0**-50)
    if np.isfinite(row).all():  # else refused, as predict refuses it
        assert net.evaluate(x, labels)[0] == expected
    assert net.train_step(x, labels, Adam(0)) == expected
    np.testing.assert_allclose(
        net.gradients()["0.bias"], np.mean(slopes, axis=0), rtol=1e-6, atol=1e-7
    )


# Adam at its extremes, against the algorithm in float64.

GRADIENTS = (0.0, 1e-45, 1e-38, 1e-30, 1e-25, 1e-22, 1e-18, 1e-8, 1.0, 1e8, 1e18)
BETAS = ((0.9, 0.999), (0, 0), (0, 0.999), (0.9, 0), (0.999999, 0.999999))


@pytest.mark.parametrize("t", (0, 10, 10**5, 10**9))
@pytest.mark.parametrize("betas", BETAS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_is_the_algorithm_for_gradients_of_every_size(dtype, betas, t):
    gradients = np.array([sign * g for g in GRADIENTS for sign in (1, -1)], dtype)
    parameters, expected = np.zeros_like(gradients), np.zeros(gradients.size)
    ours, theirs = Adam(0.01, betas), optimizer_reference.Adam(gradients.size, 0.01, betas)
    if t:
        kept = {name: np.zeros_like(parameters) for name in ("m", "v")}
        ours.load_state({"t": np.array(t, np.int64), **kept}, parameters)
    theirs.t = t
    for _ in range(3):
        ours.step(parameters, gradients)
        expected = theirs.step(expected, np.float64(gradients))
    # Each step rounds a dozen times; moves below 1e-20 may be lost with the squares in float32.
    np.testing.assert_allclose(parameters, expected, rtol=18 * np.finfo(dtype).eps, atol=1e-20)


@pytest.mark.parametrize("learning_rate", (0, 1e-30, 1e-3, 1.0))
@pytest.mark.parametrize("eps", (1e-300, 1e-45, 1e-30, 1e-8, 1e30))
@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_moves_by_no_more_than_its_rate_whatever_eps_is(dtype, eps, learning_rate):
    gradients = np.array([*GRADIENTS, 1e38], dtype)  # whose square is infinite in float32
    parameters, optimizer = np.zeros_like(gradients), Adam(learning_rate, eps=eps)
    for step in range(1, 4):
        optimizer.step(parameters, gradients)
        assert (np.abs(parameters) <= step * learning_rate * (1 + 1e-5)).all()
    assert parameters[0] == 0
