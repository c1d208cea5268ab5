"""Mistakes in a step of training, in the arguments of fit, and in those of Adam."""

import math

import numpy as np
import pytest

from cyconv import Adam, presets
from tests.errors.mistakes import IMAGES, LABELLED, LABELS, METHODS, ones, raises, written


@pytest.mark.parametrize("who", ("Network.train_step", "Network.evaluate", "Network.fit"))
def test_no_images(who):
    with raises(ValueError, f"{who}: x must hold at least one image"):
        LABELLED[who](x=ones(0, 28, 28, 1), labels=np.zeros(0, int))


@pytest.mark.parametrize(
    ("who", "place"), [("Network.train_step", ""), ("Network.fit", " at epoch 1, step 1")]
)
def test_a_loss_that_is_not_finite(who, place):
    x = IMAGES.copy()
    x[1] = math.nan
    with raises(FloatingPointError, f"{who}: the loss is nan{place}; this step is not taken"):
        METHODS[who](x=x)


def test_validation_images_that_are_not_finite_are_refused_before_anything_is_trained():
    x = IMAGES.copy()
    x[1] = math.inf
    net = presets.exercise()
    with raises(ValueError, "Network.fit: validation_data: x must be finite", "image 1"):
        net.fit(IMAGES, LABELS, validation_data=(x, LABELS))
    assert net.steps == 0


@pytest.mark.parametrize("value", (None, "adam", Adam, 0.001))
def test_what_is_not_an_optimizer(value):
    with raises(TypeError, "Network.train_step: optimizer"):
        METHODS["Network.train_step"](optimizer=value)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("epochs", -1, ValueError),
        ("epochs", 1.0, TypeError),
        ("epochs", True, TypeError),
        ("epochs", None, TypeError),
        ("batch_size", 0, ValueError),
        ("batch_size", -64, ValueError),
        ("batch_size", 64.0, TypeError),
        ("batch_size", None, TypeError),
        ("seed", -1, ValueError),
        ("seed", "0", TypeError),
        ("optimizer", "adam", TypeError),
        ("optimizer", Adam, TypeError),
        ("callbacks", 5, TypeError),
        ("callbacks", print, TypeError),
        ("callbacks", [5], TypeError),
        ("schedule", 0.1, TypeError),
        ("schedule", None, TypeError),
        ("schedule", "linear", ValueError),
    ],
    ids=written,
)
def test_arguments_of_fit(argument, value, error):
    with raises(error, "Network.fit: ", argument):
        METHODS["Network.fit"](**{argument: value})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        pytest.param(0.1, TypeError, id="a fraction"),
        pytest.param((IMAGES,), TypeError, id="images only"),
        pytest.param((IMAGES, LABELS, 0), TypeError, id="more than two"),
        pytest.param((IMAGES, [1]), ValueError, id="too few labels"),
        pytest.param((IMAGES, [1, 10]), ValueError, id="too large a label"),
        pytest.param((IMAGES[:, 1:], LABELS), ValueError, id="another shape"),
        pytest.param((None, LABELS), TypeError, id="labels only"),
        pytest.param((IMAGES[:0], []), ValueError, id="no images"),
    ],
)
def test_validation_data_of_fit(value, error):
    with raises(error, "Network.fit: ", "validation_data"):
        METHODS["Network.fit"](validation_data=value)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("learning_rate", -1e-3, ValueError),
        ("learning_rate", math.nan, ValueError),
        ("learning_rate", math.inf, ValueError),
        ("learning_rate", "0.1", TypeError),
        ("learning_rate", None, TypeError),
        ("learning_rate", True, TypeError),
        ("betas", 0.9, ValueError),
        ("betas", (0.9,), ValueError),
        ("betas", (0.9, 0.99, 0.999), ValueError),
        ("betas", (0.9, 1.0), ValueError),
        ("betas", (-0.1, 0.9), ValueError),
        ("betas", (0.9, math.nan), ValueError),
        ("betas", ("0.9", 0.9), TypeError),
        ("betas", (0.9, None), TypeError),
        ("eps", 0, ValueError),
        ("eps", -1e-8, ValueError),
        ("eps", math.nan, ValueError),
        ("eps", "1e-8", TypeError),
    ],
    ids=written,
)
def test_arguments_of_adam(argument, value, error):
    with raises(error, f"Adam: {argument}"):
        Adam(**{argument: value})


@pytest.mark.parametrize(
    ("value", "error"), [(math.nan, ValueError), (-1, ValueError), ("1", TypeError)]
)
def test_a_learning_rate_that_is_set_later(value, error):
    adam = Adam()
    with raises(error, "Adam: learning_rate must be"):
        adam.learning_rate = value


def read_only(array):
    """Return the array, which may no longer be written to."""
    array.flags.writeable = False
    return array


SHARED = ones(4)
HALF = ones(3, dtype=np.float16)
BAD_STEPS = {  # parameters, gradients, the error and its text
    "fewer gradients": (ones(10), ones(3), ValueError, "gradients must be flat"),
    "more gradients": (ones(3), ones(10), ValueError, "gradients must be flat"),
    "gradients of another type": (
        ones(3),
        ones(3, dtype=np.float64),
        TypeError,
        "gradients must",
    ),
    "gradients in two dimensions": (ones(3), ones(3, 1), ValueError, "gradients must be flat"),
    "gradients in a list": (
        ones(3),
        [1.0] * 3,
        TypeError,
        "gradients must be an array of float32",
    ),
    "gradients with gaps": (ones(3), ones(6)[::2], ValueError, "gradients must be flat"),
    "parameters in a list": (
        [1.0] * 3,
        ones(3),
        TypeError,
        "parameters must be an array of float",
    ),
    "parameters with gaps": (ones(6)[::2], ones(3), ValueError, "parameters must be flat"),
    "two dimensions": (ones(3, 1), ones(3, 1), ValueError, "parameters must be flat"),
    "float16": (HALF, HALF, TypeError, "parameters must be an array of float"),
    "read-only parameters": (
        read_only(ones(3)),
        ones(3),
        ValueError,
        "parameters must be writable",
    ),
    "overlapping arrays": (
        SHARED[1:],
        SHARED[:3],
        ValueError,
        "gradients must not share memory",
    ),
}


@pytest.mark.parametrize("what", BAD_STEPS)
def test_arrays_of_a_step_of_adam(what):
    parameters, gradients, error, text = BAD_STEPS[what]
    with raises(error, f"Adam.step: {text}"):
        Adam().step(parameters, gradients)


def test_an_optimizer_for_a_second_network():
    adam = Adam()
    adam.step(ones(3), ones(3))
    with raises(RuntimeError, "Adam: this optimizer belongs to another network"):
        adam.step(ones(3), ones(3))
