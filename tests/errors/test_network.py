"""Mistakes in the arguments of a network, in its images, and in what its weights have become."""

import math

import numpy as np
import pytest

from cyconv import Adam, Network, presets
from cyconv.layers import Flatten, Linear, Softmax
from tests.errors.mistakes import IMAGES, LABELS, METHODS, ones, raises, written


@pytest.mark.parametrize(
    ("argument", "value", "error", "text"),
    [
        ("layers", [], ValueError, "at least one layer"),
        ("layers", None, TypeError, "got None"),
        ("layers", 5, TypeError, "got 5"),
        ("layers", Flatten(), TypeError, "Flatten()"),
        ("layers", [Flatten], TypeError, "layers[0] must be a Layer"),
        ("layers", [Flatten(), "Linear"], TypeError, "layers[1] must be a Layer, got 'Linear'"),
        ("input_shape", 28, TypeError, "got 28"),
        ("input_shape", (), TypeError, "got ()"),
        ("input_shape", "28", TypeError, "got '28'"),
        ("input_shape", (28, 0, 1), ValueError, "input_shape[1] must be at least 1, got 0"),
        ("input_shape", (28, -28, 1), ValueError, "input_shape[1] must be at least 1, got -28"),
        ("input_shape", (28, 28.0, 1), TypeError, "input_shape[1] must be an integer, got 28.0"),
        ("input_shape", (28, True), TypeError, "input_shape[1] must be an integer, got True"),
        ("seed", -1, ValueError, "at least 0, got -1"),
        ("seed", None, TypeError, "must be an integer, got None"),
        ("seed", 1.0, TypeError, "must be an integer, got 1.0"),
        ("seed", True, TypeError, "must be an integer, got True"),
        ("dtype", "float16", TypeError, "must be float32 or float64"),
        ("dtype", int, TypeError, "must be float32 or float64"),
        ("dtype", "float33", TypeError, "must be float32 or float64"),
        ("dtype", None, TypeError, "must be float32 or float64"),
    ],
    ids=written,
)
def test_arguments_of_a_network(argument, value, error, text):
    with raises(error, f"Network: {argument}", text):
        Network(**{"layers": [Flatten()], argument: value})


def test_an_array_is_not_a_dtype():
    with raises(TypeError, "Network: dtype must be float32 or float64"):
        Network([Flatten()], (2, 2, 1), dtype=ones(3))


@pytest.mark.parametrize("preset", (presets.exercise, presets.wide))
@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), ("0", TypeError)])
def test_seeds_of_presets(preset, seed, error):
    with raises(error, "Network: seed"):
        preset(seed)


@pytest.mark.parametrize("who", METHODS)
@pytest.mark.parametrize("given", ((2, 28, 27, 1), (28, 28), (2, 28, 28, 3)), ids=str)
def test_shapes_of_images(who, given):
    with raises(ValueError, f"{who}: x must have shape (N, 28, 28, 1)", f"got {given}"):
        METHODS[who](x=ones(*given))


def test_a_gradient_of_another_shape():
    net = presets.exercise()
    net.forward(IMAGES)
    with raises(ValueError, "Softmax '8': dy must have shape (2, 10), got (2, 9)"):
        net.backward(ones(2, 9))


def test_backward_before_forward():
    with raises(RuntimeError, "Softmax '8': backward needs a forward"):
        presets.exercise().backward(ones(2, 10))


@pytest.mark.parametrize("who", ("Network.predict", "Network.predict_proba"))
@pytest.mark.parametrize(("dtype", "value"), [(np.float32, math.nan), (np.float64, math.inf)])
def test_images_that_are_not_finite(who, dtype, value):
    x = IMAGES.astype(dtype)
    x[1] = value
    with raises(ValueError, f"{who}: x must be finite, got NaN or infinity in image 1"):
        METHODS[who](x=x)


@pytest.mark.parametrize("method", ("predict", "predict_proba"))
def test_weights_that_are_not_finite(method):
    net = presets.exercise()
    net.parameters()["0.weight"][...] = math.nan
    text = f"Network.{method}: the output is not finite; the weights have diverged"
    with raises(FloatingPointError, text):
        getattr(net, method)(IMAGES)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("train_step", (IMAGES, LABELS, Adam())),
        ("evaluate", (IMAGES, LABELS)),
        ("predict_proba", (IMAGES,)),
        ("fit", (IMAGES, LABELS)),
    ],
)
@pytest.mark.parametrize(
    ("new_layers", "pieces"),
    [
        (lambda: [Flatten(), Linear(10)], ("the network must end with Softmax()", "Linear(10)")),
        (
            lambda: [Softmax()],
            ("the network must end with Softmax() on a flat output", "(28, 28, 1)"),
        ),
    ],
    ids=("no Softmax", "Softmax over an image"),
)
def test_a_network_that_does_not_end_with_probabilities(method, arguments, new_layers, pieces):
    required, given = pieces
    net = Network(new_layers())
    with raises(ValueError, f"Network.{method}: {required}", given):
        getattr(net, method)(*arguments)
