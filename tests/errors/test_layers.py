"""Mistakes in the arguments of layers, in their inputs, and in the order of their calls."""

import math

import pytest

from cyconv import Network, layers, presets
from cyconv.initializers import zeros
from cyconv.layers import Conv1D, Conv2D, Flatten, LeakyReLU, Linear
from tests.errors.mistakes import LAYER_CALLS, ones, raises, written

EXTENTS = [
    (0, ValueError),
    (-3, ValueError),
    (True, TypeError),
    (2.0, TypeError),
    ("2", TypeError),
    (None, TypeError),
    ((2, 2), TypeError),
]


@pytest.mark.parametrize(("value", "error"), EXTENTS, ids=written)
def test_out_features(value, error):
    with raises(error, "Linear: out_features"):
        Linear(value)


@pytest.mark.parametrize(("value", "error"), EXTENTS, ids=written)
def test_out_channels(value, error):
    with raises(error, "Conv2D: out_channels"):
        Conv2D(value, 3)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (True, TypeError),
        ("0.1", TypeError),
        (None, TypeError),
        (1j, TypeError),
    ],
)
def test_negative_slope(value, error):
    with raises(error, "LeakyReLU: negative_slope"):
        LeakyReLU(value)


@pytest.mark.parametrize(
    ("who", "given", "required"),
    [
        ("Conv2D", (2, 5, 6), "(N, H, W, C)"),
        ("Conv1D", (2, 5, 6, 3), "(N, W, C)"),
        ("Im2Col", (2, 5), "(N, H, W, C)"),
        ("Linear", (2, 5, 6, 3), "(N, features)"),
    ],
    ids=written,
)
def test_shapes_of_inputs(who, given, required):
    """A layer is built for samples: the text leaves out how many there were."""
    got = f"got (N, {', '.join(map(str, given[1:]))})"
    with raises(ValueError, f"{who}: x must have shape {required}", got):
        LAYER_CALLS[who, "x"](ones(*given))


@pytest.mark.parametrize("who", ("LeakyReLU", "Softmax", "Flatten"))
def test_a_vector_is_not_a_batch(who):
    with raises(ValueError, f"{who}: x"):
        LAYER_CALLS[who, "x"](ones(3))


@pytest.mark.parametrize(
    ("who", "given", "required"),
    [
        ("Conv2D", (2, 3, 4, 3), "(2, 3, 4, 4)"),
        ("Linear", (1, 4), "(2, 4)"),
        ("LeakyReLU", (3, 2), "(2, 3)"),
    ],
    ids=written,
)
def test_shapes_of_gradients(who, given, required):
    with raises(ValueError, f"{who}: dy must have shape {required}", f"got {given}"):
        LAYER_CALLS[who, "dy"](ones(*given))


def test_a_batch_of_another_width():
    layer = Linear(2)
    layer.forward(ones(2, 3))
    with raises(ValueError, "Linear: x must have shape (N, 3), got (2, 4)"):
        layer.forward(ones(2, 4))


@pytest.mark.parametrize(("who", "text"), [("Linear", "Linear: "), ("LeakyReLU", "LeakyReLU")])
def test_samples_without_features(who, text):
    with raises(ValueError, text):
        LAYER_CALLS[who, "x"](ones(3, 0))


def test_a_layer_of_a_network_is_named_by_its_index():
    text = "Conv2D '2': x must have shape (N, 11, 11, 4), got (64, 10, 11, 4)"
    layer = presets.exercise().layers[2]
    with raises(ValueError, text):
        layer.forward(ones(64, 10, 11, 4))


@pytest.mark.parametrize(
    ("sequence", "input_shape", "pieces"),
    [
        pytest.param(
            lambda: [Conv2D(4, 3), Linear(3)],
            (8, 8, 1),
            ("Linear '1': x must have shape (N, features), got (N, 6, 6, 4)", "Flatten()"),
            id="Linear after an image",
        ),
        pytest.param(
            lambda: [Flatten(), Conv2D(4, 3)],
            (8, 8, 1),
            ("Conv2D '1': x must have shape (N, H, W, C), got (N, 64)",),
            id="Conv2D after a vector",
        ),
        pytest.param(
            lambda: [Conv1D(4, 3)],
            (8, 8, 1),
            ("Conv1D '0': x must have shape (N, W, C), got (N, 8, 8, 1)",),
            id="Conv1D on an image",
        ),
        pytest.param(
            lambda: [LeakyReLU()] * 2,
            (3,),
            ("LeakyReLU '0': this layer is part of a network already",),
            id="the same layer twice",
        ),
    ],
)
def test_layers_that_do_not_follow_each_other(sequence, input_shape, pieces):
    with raises(ValueError, *pieces):
        Network(sequence(), input_shape)


def test_a_layer_wider_than_blas_counts():
    with raises(OverflowError, "Linear '0': out_features is 2,147,483,648", "BLAS"):
        Network([Linear(2**31)], (1,))


def test_a_convolution_with_more_taps_than_blas_counts():
    with raises(OverflowError, "Conv2D '0': the number of taps KH*KW*C is 4,294,967,296"):
        Network([Conv2D(1, 2**16, padding=2**16)], (4, 4, 1))


@pytest.mark.parametrize(
    ("who", "new_layer"),
    [
        ("Linear", lambda: Linear(2)),
        ("Conv2D", lambda: Conv2D(2, 3)),
        ("LeakyReLU", LeakyReLU),
        ("Flatten", Flatten),
    ],
)
def test_backward_before_forward(who, new_layer):
    with raises(RuntimeError, f"{who}: backward needs a forward before it, and only one each"):
        new_layer().backward(ones(2, 2))


def test_a_parameter_declared_outside_build():
    with raises(RuntimeError, "Linear: parameters are declared in build(self, input_shape)"):
        Linear(2).declare("weight", (2,), zeros)


class Half(layers.Layer):
    """A user's layer that lacks its passes."""


class Same(layers.Layer):
    """A user's layer that checks nothing itself."""

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("name", ("forward", "backward"))
def test_a_users_layer_without_a_pass(name):
    with raises(TypeError, f"Half: a layer must define {name}"):
        getattr(Half(), name)(ones(1, 1))


@pytest.mark.parametrize(
    ("dy", "error", "text"),
    [
        (ones(2, 9), ValueError, "must have shape (2, 10), got (2, 9)"),
        ([["a"] * 10] * 2, TypeError, "must be float32 or float64, got list"),
    ],
    ids=("another shape", "strings"),
)
def test_a_gradient_for_a_users_layer_at_the_end(dy, error, text):
    net = Network([Same()], (10,))
    net.forward(ones(2, 10))
    with raises(error, f"Same '0': dy {text}"):
        net.backward(dy)
