"""Mistakes in the arguments of layers, in their inputs, and in the order of their calls."""

import math

import pytest

from cyconv import Network, layers, presets
from cyconv.initializers import zeros
from cyconv.layers import BatchNorm, Conv1D, Conv2D, Flatten, LeakyReLU, Linear
from tests.errors.mistakes import LAYER_CALLS, ROWS, ones, raises, written

EXTENTS = [
    (0, ValueError),
    (-3, ValueError),
    (True, TypeError),
    (2.0, TypeError),
    ("2", TypeError),
    (None, TypeError),
    ((2, 2), TypeError),
]


SIZES = ("Linear", "out_features"), ("Conv2D", "out_channels"), ("Conv1D", "out_channels")
GROUPS = ("Conv2D", "groups"), ("Conv1D", "groups")


@pytest.mark.parametrize(("who", "argument"), (*SIZES, *GROUPS))
@pytest.mark.parametrize(("value", "error"), EXTENTS, ids=written)
def test_numbers_of_features_channels_and_groups(who, argument, value, error):
    with raises(error, f"{who}: {argument}"):
        made(who, **{argument: value})


def made(who, **changed):
    """Return a layer of the table, with other arguments."""
    return getattr(layers, who)(**{**ROWS[who].make().config, **changed})


NOT_NUMBERS = [
    (-0.1, ValueError, "at least 0, got -0.1"),
    (math.nan, ValueError, "got nan"),
    (math.inf, ValueError, "got inf"),
    (True, TypeError, "must be a number, got True"),
    ("0.1", TypeError, "must be a number, got '0.1'"),
    (None, TypeError, "must be a number, got None"),
    (1j, TypeError, "must be a number, got 1j"),
]


@pytest.mark.parametrize(
    ("who", "argument", "value", "error", "text"),
    [
        *(
            (who, argument, *row)
            for who, argument in (
                ("LeakyReLU", "negative_slope"),
                ("BatchNorm", "momentum"),
                ("BatchNorm", "eps"),
                ("Dropout", "p"),
            )
            for row in NOT_NUMBERS
        ),
        ("BatchNorm", "momentum", 1.5, ValueError, "must be from 0 to 1, got 1.5; a layer finds"),
        ("BatchNorm", "eps", 0, ValueError, "must be more than 0, got 0"),
        ("Dropout", "p", 1.01, ValueError, "must be from 0 to 1, got 1.01"),
        ("Dropout", "p", 50, ValueError, "must be from 0 to 1, got 50"),
    ],
)
def test_numbers(who, argument, value, error, text):
    with raises(error, f"{who}: {argument} ", text):
        made(who, **{argument: value})


@pytest.mark.parametrize("who", ("Conv2D", "Conv1D", "Linear"))
@pytest.mark.parametrize("value", (0, 1, None, "True", [1.0]), ids=repr)
def test_bias_is_true_or_false(who, value):
    with raises(TypeError, f"{who}: bias must be True or False, got {value!r}"):
        made(who, bias=value)


@pytest.mark.parametrize("who", ("Conv2D", "Conv1D", "Im2Col", "MaxPool2D", "AvgPool2D"))
@pytest.mark.parametrize(
    ("value", "error"), [("ceil", ValueError), (None, TypeError), (True, TypeError), (1, TypeError)]
)
def test_rounding(who, value, error):
    with raises(error, f'{who}: rounding must be "exact" or "floor", got {value!r}'):
        made(who, rounding=value)


@pytest.mark.parametrize("who", ("MaxPool2D", "AvgPool2D"))
@pytest.mark.parametrize(
    ("argument", "value", "error", "text"),
    [
        ("kernel_size", 0, ValueError, "must be at least 1, got 0"),
        ("kernel_size", (2, -1), ValueError, "[1] must be at least 1, got -1"),
        ("kernel_size", None, TypeError, "must be an integer, got None"),
        ("kernel_size", 2.0, TypeError, "must be an integer, got 2.0"),
        ("stride", 0, ValueError, "must be at least 1, got 0"),
        ("stride", "2", TypeError, "must be an integer, got '2'"),
        ("stride", (1, 2, 3), ValueError, "must be an integer or a pair (y, x), got (1, 2, 3)"),
        ("padding", -1, ValueError, "must be at least 0, got -1"),
        ("padding", 2, ValueError, "must be smaller than kernel_size 2, so that every window"),
        ("padding", "full", ValueError, 'must be numbers, "valid" or "same", got \'full\''),
    ],
    ids=written,
)
def test_arguments_of_pooling(who, argument, value, error, text):
    with raises(error, f"{who}: {argument}", text):
        made(who, **{"kernel_size": 2, argument: value})


@pytest.mark.parametrize(
    ("body", "shortcut", "error", "text"),
    [
        ([], None, ValueError, "body must name at least one layer, got none"),
        (None, None, TypeError, "body must be a list of Layer, got None"),
        (Flatten(), None, TypeError, "body must be a list of Layer, got Flatten()"),
        ([Flatten], None, TypeError, "body[0] must be a Layer, got <class"),
        ([Flatten(), "ReLU"], None, TypeError, "body[1] must be a Layer, got 'ReLU'"),
        ([Flatten()], Linear(2), TypeError, "shortcut must be a list of Layer, got Linear(2)"),
        ([Flatten()], [None], TypeError, "shortcut[0] must be a Layer, got None"),
    ],
    ids=str,
)
def test_branches_of_a_residual(body, shortcut, error, text):
    with raises(error, f"Residual: {text}"):
        layers.Residual(body, shortcut)


@pytest.mark.parametrize(
    ("body", "shortcut", "pieces"),
    [
        pytest.param(
            [Conv2D(4, 3)],
            None,
            ("Residual '1': body and shortcut", "got (N, 3, 3, 4) and (N, 5, 5, 2)", "Conv2D("),
            id="another size",
        ),
        pytest.param(
            [Flatten()],
            [Conv2D(2, 1)],
            ("Residual '1': body and shortcut must have outputs of one shape, got (N, 50)",),
            id="a vector and an image",
        ),
        pytest.param(
            [LeakyReLU(), Linear(2)],
            None,
            ("Linear '1.body.1': x must have shape",),
            id="no vector",
        ),
        pytest.param(
            [LeakyReLU()],
            [Conv2D(3, 7)],
            ("Conv2D '1.shortcut.0': kernel 7 is larger than height 5",),
            id="too large a kernel",
        ),
    ],
)
def test_branches_that_do_not_fit(body, shortcut, pieces):
    first, residual = Conv2D(2, 1), layers.Residual(body, shortcut)
    with raises(ValueError, *pieces):
        Network([first, residual], (5, 5, 1))
    assert not any(layer.input_shape for layer in (first, *residual.walk()))  # none is taken


def test_the_bounds_of_numbers_are_numbers():
    assert (BatchNorm(momentum=1).momentum, layers.Dropout(1).p) == (1, 1)
    assert (BatchNorm(momentum=0).momentum, layers.Dropout(0).p) == (0, 0)


@pytest.mark.parametrize(
    ("call", "who", "name"),
    [
        (lambda: Conv2D(1, 8, 3), "Conv2D: arguments after kernel_size", "stride=3"),
        (lambda: Conv2D(1, 8, (2, 1), 1), "Conv2D: arguments after kernel_size", "stride=(2, 1)"),
        (lambda: Conv1D(1, 8, 3), "Conv1D: arguments after kernel_size", "stride=3"),
        (lambda: layers.Im2Col(3, 2), "Im2Col: arguments after kernel_size", "stride=2"),
        (lambda: layers.MaxPool2D(3, 2), "MaxPool2D: arguments after kernel_size", "stride=2"),
        (lambda: layers.AvgPool2D(3, 2), "AvgPool2D: arguments after kernel_size", "stride=2"),
        (lambda: Linear(784, 10), "Linear: arguments after out_features", "bias=10"),
    ],
)
def test_arguments_by_position(call, who, name):
    with raises(TypeError, who, "given by name", name):
        call()


def test_groups_divide_the_filters():
    with raises(ValueError, "Conv2D: groups must divide the 4 out_channels, got 3"):
        Conv2D(4, 3, groups=3)


def test_groups_divide_the_channels():
    text = "Conv2D '1': groups must divide the 3 channels of x, got 2"
    with raises(ValueError, text):
        Network([Conv2D(3, 1), Conv2D(4, 3, groups=2)], (8, 8, 1))


@pytest.mark.parametrize("layer", (BatchNorm(), layers.Residual([LeakyReLU(), BatchNorm()])))
def test_one_value_of_each_channel_has_no_variance(layer):
    name = "1" if isinstance(layer, BatchNorm) else "1.body.1"
    net = Network([Linear(3), layer.fresh()], (4,))
    text = f"BatchNorm '{name}': training needs 2 values of each channel or more, got 1"
    with raises(ValueError, text, "use a larger batch"):
        net.forward(ones(1, 4), training=True)
    net.forward(ones(1, 4))
    net.forward(ones(2, 4), training=True)


def test_a_layer_of_its_own_names_its_training_too():
    with raises(ValueError, "BatchNorm: training needs 2 values of each channel or more, got 1"):
        BatchNorm().forward(ones(1, 4), training=True)


@pytest.mark.parametrize(
    ("who", "given", "required"),
    [
        ("Conv2D", (2, 5, 6), "(N, H, W, C)"),
        ("Conv1D", (2, 5, 6, 3), "(N, W, C)"),
        ("Im2Col", (2, 5), "(N, H, W, C)"),
        ("Linear", (2, 5, 6, 3), "(N, features)"),
        ("MaxPool2D", (2, 5, 6), "(N, H, W, C)"),
        ("AvgPool2D", (2, 5), "(N, H, W, C)"),
        ("GlobalAvgPool2D", (2, 5, 6), "(N, H, W, C)"),
    ],
    ids=written,
)
def test_shapes_of_inputs(who, given, required):
    """A layer is built for samples: the text leaves out how many there were."""
    got = f"got (N, {', '.join(map(str, given[1:]))})"
    with raises(ValueError, f"{who}: x must have shape {required}", got):
        LAYER_CALLS[who, "x"](ones(*given))


@pytest.mark.parametrize("who", ROWS)
def test_a_vector_is_not_a_batch(who):
    with raises(ValueError, f"{who}: x"):
        LAYER_CALLS[who, "x"](ones(3))


@pytest.mark.parametrize("who", ROWS)
def test_shapes_of_gradients(who):
    layer = ROWS[who].make()
    required = layer.forward(ones(2, *ROWS[who].input_shape)).shape
    for given in ((1, *required[1:]), (*required[:-1], required[-1] + 1), required[:-1]):
        with raises(ValueError, f"{who}: dy must have shape {required}", f"got {given}"):
            LAYER_CALLS[who, "dy"](ones(*given))


def test_a_batch_of_another_width():
    layer = Linear(2)
    layer.forward(ones(2, 3))
    with raises(ValueError, "Linear: x must have shape (N, 3), got (2, 4)"):
        layer.forward(ones(2, 4))


@pytest.mark.parametrize("who", ROWS)
def test_samples_without_features(who):
    with raises(ValueError, f"{who}: x must have no empty axis but the batch, got (3, 0)"):
        LAYER_CALLS[who, "x"](ones(3, 0))


def test_a_layer_of_a_network_is_named_by_its_place():
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


@pytest.mark.parametrize("who", ROWS)
def test_backward_before_forward(who):
    with raises(RuntimeError, f"{who}: backward needs a forward before it, and only one each"):
        ROWS[who].make().backward(ones(2, 2))


def test_a_parameter_declared_outside_build():
    with raises(RuntimeError, "Linear: parameters are declared in build(self, input_shape)"):
        Linear(2).declare("weight", (2,), zeros)


class Half(layers.Layer):
    """A user's layer that lacks its methods."""


class Same(layers.Layer):
    """A user's layer that checks nothing itself."""

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize(
    "call", ("forward(x)", "backward(dy)", "operations(program, x)", "onnx(graph, value)")
)
def test_a_users_layer_without_a_method(call):
    name, arguments = call.removesuffix(")").split("(")
    with raises(TypeError, f"Half: a layer must define {name}(self, {arguments})"):
        getattr(Half(), name)(*(ones(1, 1) for _ in arguments.split(", ")))


def test_a_network_with_a_users_layer_without_a_forward():
    net = Network([Half()], (3,))
    assert not net.layers[0].is_exportable
    with raises(TypeError, "Half '0': a layer must define forward(self, x)"):
        net.forward(ones(2, 3))


@pytest.mark.parametrize("method", ("forward", "backward"))
@pytest.mark.parametrize(
    ("returned", "error", "text"),
    [
        (ones(2, 9), ValueError, "must have shape (2, 10), got (2, 9)"),
        (ones(1, 10), ValueError, "must have shape (2, 10), got (1, 10)"),
        (None, TypeError, "must be "),
    ],
    ids=("another width", "one sample", "nothing"),
)
def test_what_a_pass_of_a_users_layer_returns(method, returned, error, text):
    layer = Same()
    setattr(layer, method, lambda array: returned)
    net = Network([layer], (10,))
    with raises(error, f"Same '0': what {method} returns {text}"):
        net.forward(ones(2, 10))
        net.backward(ones(2, 10))


@pytest.mark.parametrize(
    ("dy", "error", "text"),
    [
        (ones(2, 9), ValueError, "must have shape (2, 10), got (2, 9)"),
        ([["a"] * 10] * 2, TypeError, "must be float32 or float64, got str"),
    ],
    ids=("another shape", "strings"),
)
def test_a_gradient_for_a_users_layer_at_the_end(dy, error, text):
    net = Network([Same()], (10,))
    net.forward(ones(2, 10))
    with raises(error, f"Same '0': dy {text}"):
        net.backward(dy)
