"""Mistakes in the arguments of a network, in its images, and in what its weights have become."""

import math

import numpy as np
import pytest

from cyconv import Adam, Network, presets
from cyconv.layers import Dropout, Flatten, Layer, Linear, Softmax
from cyconv.losses import CrossEntropy
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
        ("seed", 2**64, ValueError, "at most 18446744073709551615, got a number of 65 bits"),
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


def test_the_largest_seed_trains_and_no_digits_of_a_larger_one_are_written():
    with raises(ValueError, "Network: seed must be at most", "got a number of 20,001 bits"):
        Network([Flatten()], seed=1 << 20_000)
    net = Network([Flatten(), Dropout(), Linear(3), Softmax()], seed=2**64 - 1)
    assert math.isfinite(net.train_step(IMAGES, LABELS % 3, Adam()))


@pytest.mark.parametrize("name", presets.NAMES)
@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), ("0", TypeError)])
def test_seeds_of_presets(name, seed, error):
    with raises(error, "Network: seed"):
        getattr(presets, name)(seed)


@pytest.mark.parametrize("name", presets.NAMES)
@pytest.mark.parametrize(
    ("argument", "value", "error", "text"),
    [
        ("input_shape", 28, TypeError, "must be (H, W, C), got 28"),
        ("input_shape", None, TypeError, "must be (H, W, C), got None"),
        ("input_shape", (28, 28), ValueError, "must be (H, W, C), got (28, 28)"),
        ("input_shape", (64, 28, 28, 1), ValueError, "must be (H, W, C), got (64, 28, 28, 1)"),
        ("input_shape", (0, 28, 1), ValueError, "'s height must be at least "),
        ("input_shape", (28, -1, 1), ValueError, "'s width must be at least "),
        ("input_shape", (28, 28, 0), ValueError, "'s channels must be at least 1, got 0"),
        ("input_shape", (28.0, 28, 1), TypeError, "'s height must be an integer, got 28.0"),
        ("input_shape", (28, 28, True), TypeError, "'s channels must be an integer, got True"),
        ("classes", 0, ValueError, " must be at least 1, got 0"),
        ("classes", 10.0, TypeError, " must be an integer, got 10.0"),
        ("classes", "10", TypeError, " must be an integer, got '10'"),
        ("classes", None, TypeError, " must be an integer, got None"),
        ("classes", True, TypeError, " must be an integer, got True"),
    ],
    ids=written,
)
def test_images_and_classes_of_presets(name, argument, value, error, text):
    with raises(error, f"{name}: {argument}", text):
        getattr(presets, name)(**{argument: value})


SMALLEST = {"exercise": 24, "wide": 6, "lenet5": 12, "mnist_convnet": 10, "vgg_small": 8}


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_says_how_small_an_image_may_be(name):
    least = SMALLEST.get(name, 1)
    make = getattr(presets, name)
    make(input_shape=(least, least, 1))
    text = f"{name}: input_shape's width must be at least {least}, got {least - 1}"
    with raises(ValueError, text):
        make(input_shape=(28, least - 1, 1))


@pytest.mark.parametrize("value", (1, 0, None, "yes", [True], 0.5), ids=repr)
def test_training_is_true_or_false(value):
    text = f"Network.forward: training must be True or False, got {value!r}"
    with raises(TypeError, text):
        METHODS["Network.forward"](training=value)


@pytest.mark.parametrize("value", ("cross_entropy", CrossEntropy, 0.1, print), ids=str)
def test_what_is_not_a_loss(value):
    with raises(TypeError, "Network.train_step: loss must be a CrossEntropy, got "):
        METHODS["Network.train_step"](loss=value)


def test_a_loss_for_other_classes():
    loss = CrossEntropy(class_weight=[1, 2, 3])
    with raises(ValueError, "class_weight", "10"):
        METHODS["Network.train_step"](loss=loss)


class Mine(Layer):
    """A user's layer."""


OTHER = type("Mine", (Layer,), {})


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (5, TypeError, "must be a list of classes of layers, got 5"),
        (Mine, TypeError, "must be a list of classes of layers, got <class"),
        ("Mine", TypeError, "must be a list of classes of layers, got 'Mine'"),
        ([int], TypeError, "must be classes of layers, got <class 'int'>"),
        ([Mine()], TypeError, "must be classes of layers, got Mine()"),
        ([None], TypeError, "must be classes of layers, got None"),
        ([Mine, OTHER], ValueError, "has a second class of the name Mine"),
    ],
    ids=str,
)
def test_classes_of_layers_to_load(value, error, text, tmp_path):
    presets.exercise().save(tmp_path / "net.safetensors")
    with raises(error, f"Network.load: layers {text}"):
        Network.load(tmp_path / "net.safetensors", layers=value)


@pytest.mark.parametrize("who", METHODS)
@pytest.mark.parametrize("given", ((2, 28, 27, 1), (28, 28), (2, 28, 28, 3)), ids=str)
def test_shapes_of_images(who, given):
    with raises(ValueError, f"{who}: x must have shape (N, 28, 28, 1)", f"got {given}"):
        METHODS[who](x=ones(*given))


def test_images_whose_channels_come_first():
    net = Network([Flatten(), Linear(10), Softmax()], (4, 5, 3))
    for images in (ones(2, 3, 4, 5), np.zeros((2, 3, 4, 5), np.uint8)):
        with raises(ValueError, "x must have shape (N, 4, 5, 3)", "use x.transpose(0, 2, 3, 1)"):
            net.predict(images)
    with raises(ValueError, "x must have shape (N, 28, 28, 1), got (2, 1, 28, 28)", "transpose"):
        presets.exercise().predict(ones(2, 1, 28, 28))
    cube = Network([Flatten(), Linear(10), Softmax()], (3, 3, 3))
    assert cube.predict(ones(2, 3, 3, 3)).shape == (2,)
    for other, images in ((net, ones(2, 4, 5, 1)), (Network([Linear(10)], (4,)), ones(2, 5))):
        with pytest.raises(ValueError) as raised:
            other.predict(images)
        assert "channels" not in str(raised.value)


def test_a_gradient_of_another_shape():
    net = presets.exercise()
    net.forward(IMAGES)
    with raises(ValueError, "Softmax '8': dy must have shape (2, 10), got (2, 9)"):
        net.backward(ones(2, 9))


def test_backward_before_forward():
    with raises(RuntimeError, "Softmax '8': backward needs a forward"):
        presets.exercise().backward(ones(2, 10))


@pytest.mark.parametrize("who", ("Network.predict", "Network.predict_proba", "Network.evaluate"))
@pytest.mark.parametrize(("dtype", "value"), [(np.float32, math.nan), (np.float64, math.inf)])
def test_images_that_are_not_finite(who, dtype, value):
    x = IMAGES.astype(dtype)
    x[1] = value
    with raises(ValueError, f"{who}: x must be finite, got NaN or infinity in image 1"):
        METHODS[who](x=x)


@pytest.mark.parametrize(
    ("who", "arguments"),
    [
        ("Network.predict", [IMAGES]),
        ("Network.predict_proba", [IMAGES]),
        ("Network.evaluate", [IMAGES, LABELS]),
    ],
)
def test_weights_that_are_not_finite(who, arguments):
    net = presets.exercise()
    net.parameters()["0.weight"][...] = math.nan
    text = f"{who}: the output is not finite; the weights have diverged"
    with raises(FloatingPointError, text):
        getattr(net, who.removeprefix("Network."))(*arguments)


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
