"""ONNX files: onnxruntime computes from them what the network computes."""

import itertools
import sys

import numpy as np
import pytest

import cyconv
from cyconv import Network, export, presets
from cyconv.layers import (
    AvgPool2D,
    BatchNorm,
    Conv1D,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Im2Col,
    LeakyReLU,
    Linear,
    MaxPool2D,
    ReLU,
    Residual,
    Softmax,
    Tanh,
)
from tests import reference
from tests.zoo import ALL_NETWORKS, LAYERS, NETWORKS, PRESETS, Gain, Row, Square, network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

REFUSED = [name for name, row in (LAYERS | NETWORKS).items() if not row.exportable]
EXPORTED = [*dict.fromkeys((*LAYERS, *ALL_NETWORKS, *PRESETS))]
EXPORTED = [name for name in EXPORTED if name not in REFUSED]


def make(name):
    """Return a network of the tables of the zoo."""
    if name in LAYERS:
        return Network([LAYERS[name].make()], LAYERS[name].input_shape)
    return network(name)


def randomize(net):
    """Change parameters and state: initial biases are zero, running variances one."""
    rng = np.random.default_rng(1)
    for array in (*net.parameters().values(), *net.state().values()):
        array += rng.uniform(-0.1, 0.1, array.shape)
    return net


@pytest.fixture
def exported(tmp_path):
    """Return f(net), which returns the model of the network's ONNX file once it is checked."""

    def model(net):
        export.to_onnx(net, tmp_path / "net.onnx")
        onnx.checker.check_model(tmp_path / "net.onnx", full_check=True)
        return onnx.load(tmp_path / "net.onnx")

    return model


def run(model, x):
    """Return the only output of a model for its only input."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"input": x})
    return y


def check_against_forward(net, exported):
    """Check what the network's ONNX file returns for 1,000 random inputs; return its model."""
    model = exported(randomize(net))
    x = np.random.default_rng(0).standard_normal((1000, *net.input_shape)).astype(np.float32)
    np.testing.assert_allclose(run(model, x), net.forward(x), rtol=1e-5, atol=1e-5)
    return model


@pytest.mark.parametrize("name", EXPORTED)
def test_it_returns_what_forward_returns(name, exported):
    check_against_forward(make(name), exported)


def check_on_digits(net, train, test, exported):
    """Check labels and probabilities of a trained network for 1,000 images."""
    x, labels = train[0][:1500], train[1][:1500]
    net.fit(x, labels, epochs=1, batch_size=32)
    images = np.concatenate([test[0][:1000], x])[:1000, ..., np.newaxis]
    probabilities = run(exported(net), images.astype(np.float32) / 255)
    assert probabilities.shape == (1000, 10)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), net.predict(images))
    np.testing.assert_allclose(probabilities, net.predict_proba(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", (presets.exercise, presets.wide))
def test_the_small_digits_get_the_same_labels(preset, exported):
    check_on_digits(preset(), *cyconv.datasets.load_digits(), exported)


@pytest.mark.parametrize("preset", (presets.exercise, presets.wide))
def test_mnist_gets_the_same_labels(preset, mnist, exported):
    check_on_digits(preset(), *mnist, exported)


@pytest.mark.parametrize("case", reference.random_cases(100, varied=True))
def test_convolutions_and_columns_are_exact_on_integers(case, exported):
    rng = np.random.default_rng(0)
    x = reference.integers(rng, case.x_shape, np.float32)
    conv = Network([Conv2D(case.F, case.kernel, **case.geometry)], case.x_shape[1:])
    for parameter in conv.parameters().values():
        parameter[...] = reference.integers(rng, parameter.shape)
    weight, bias = conv.parameters().values()
    y = reference.conv2d(x.astype(float), weight.astype(float), bias.astype(float), case)
    np.testing.assert_array_equal(run(exported(conv), x), y)
    columns = Network([Im2Col(case.kernel, **case.columns)], case.x_shape[1:])
    cols = run(exported(columns), x)
    np.testing.assert_array_equal(cols.reshape(-1, cols.shape[-1]), reference.im2col(x, case))


def test_poolings_are_those_of_the_definition(exported):
    rng = np.random.default_rng(0)
    for case in [reference.random_pool(rng) for _ in range(40)]:
        x = reference.integers(rng, case.x_shape, np.float32)
        for layer, define in ((MaxPool2D, reference.max_pool2d), (AvgPool2D, reference.avg_pool2d)):
            net = Network([layer(case.kernel, **case.pooling)], case.x_shape[1:])
            expected = define(x.astype(float), case)
            np.testing.assert_allclose(
                run(exported(net), x), expected, rtol=1e-6, atol=1e-6, err_msg=str(case)
            )


def test_a_stride_may_skip_the_last_pixels(exported):
    net = Network([Conv2D(2, 1, stride=3, padding="same")], (8, 8, 1))
    x = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    np.testing.assert_allclose(run(exported(net), x), net.forward(x), rtol=1e-6)


@pytest.mark.parametrize("images", (0, 1, 7))
def test_the_batch_may_have_any_size(images, exported):
    net = presets.exercise()
    x = np.ones((images, 28, 28, 1), np.float32)
    y = run(exported(net), x)
    assert y.shape == (images, 10)
    np.testing.assert_allclose(y, net.forward(x), atol=1e-6)


def test_a_file_says_what_it_takes_and_returns_and_which_version_it_needs(exported):
    model = exported(presets.exercise())
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    assert (model.producer_name, model.producer_version) == ("cyconv", cyconv.__version__)
    for each, name, shape in (
        (model.graph.input, "input", ["N", 28, 28, 1]),
        (model.graph.output, "probabilities", ["N", 10]),
    ):
        assert [value.name for value in each] == [name]
        type_ = each[0].type.tensor_type
        assert type_.elem_type == onnx.TensorProto.FLOAT
        assert [axis.dim_param or axis.dim_value for axis in type_.shape.dim] == shape
    assert model.doc_string == (
        "input: float32 (N, 28, 28, 1), 8-bit pixels divided by 255; probabilities: float32 (N, 10)"
    )
    assert {each.name for each in model.graph.initializer} == set(presets.exercise().parameters())


def test_without_softmax_the_output_is_no_probability(exported):
    model = exported(Network([Flatten(), Linear(3)], (2, 2, 1)))
    assert [value.name for value in model.graph.output] == ["output"]


# Layers, and the operators that a Transpose of the channels comes before.
LAYOUTS = {
    "BatchNorm of an image": (Row(lambda: [BatchNorm()], (3, 4, 2)), ["BatchNormalization", None]),
    "BatchNorm of a line": (Row(lambda: [BatchNorm()], (6, 3)), ["BatchNormalization", None]),
    "BatchNorm of a vector": (Row(lambda: [BatchNorm()], (5,)), []),
    "one dimension": (
        Row(lambda: [Conv1D(4, 3), BatchNorm(), Tanh(), Conv1D(2, 3), Flatten()], (9, 3)),
        ["Conv", "Flatten"],
    ),
    "Softmax in the middle": (
        Row(lambda: [Conv2D(6, 3), Softmax(), Flatten(), Linear(3)], (8, 8, 2)),
        ["Conv", "Softmax"],
    ),
    "Im2Col": (
        Row(lambda: [Im2Col(3), BatchNorm(), Conv2D(6, 1), Flatten()], (6, 6, 2)),
        ["Conv", "Flatten"],
    ),
    "flat": (Row(lambda: [Linear(4), BatchNorm(), Residual([Linear(4), Tanh()])], (7,)), []),
    "Residual first": (
        Row(lambda: [Residual([Conv2D(2, 3, padding=1), BatchNorm(), ReLU()]), Flatten()],
            (5, 4, 2)),
        ["Conv", "Flatten"],
    ),
    "Residual of two layouts": (
        Row(lambda: [Residual([Conv2D(3, 1), Softmax()], [Conv2D(3, 1)]), ReLU(), Conv2D(2, 3),
                     Flatten()], (5, 5, 2)),
        ["Conv", "Softmax", "Add", "Flatten"],
    ),
    "Residual of other axes": (
        Row(lambda: [Residual([Flatten(), Linear(4)], [Conv2D(2, 3), ReLU(), Flatten()])],
            (3, 4, 1)),
        ["Conv", "Flatten"],
    ),
    "Residuals in one another": (
        Row(lambda: [Conv2D(3, 3),
                     Residual([ReLU(), Residual([Conv2D(3, 1)], [Dropout()])], [BatchNorm()]),
                     Tanh()], (5, 5, 1)),
        ["Conv", None],
    ),
    "Dropout": (Row(lambda: [Dropout()], (3, 4, 2)), []),
    "Dropout last": (Row(lambda: [Conv2D(2, 3), Dropout(), Dropout(0.1)], (4, 4, 1)),
                     ["Conv", None]),
    "pooling": (
        Row(lambda: [MaxPool2D(2), ReLU(), AvgPool2D(3, stride=1, padding=1), GlobalAvgPool2D(),
                     Linear(3)], (6, 4, 2)),
        ["MaxPool"],
    ),
    "Residual of nothing": (Row(lambda: [Residual([Dropout()])], (3, 4, 2)), []),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_move_only_where_they_must(name, exported):
    row, before = LAYOUTS[name]
    model = check_against_forward(Network(row.make(), row.input_shape), exported)
    kinds = [node.op_type for node in model.graph.node]
    pairs = itertools.pairwise((*kinds, None))
    assert [after for kind, after in pairs if kind == "Transpose"] == before


def test_weights_have_the_names_that_the_network_gives_them(exported):
    net = Network([Residual([Conv2D(2, 1), BatchNorm()], [Conv2D(2, 1)]), Softmax()], (3, 3, 1))
    names = {each.name for each in exported(net).graph.initializer}
    assert names == {*net.parameters(), *net.state()}


class Doubled(Conv2D):
    """A convolution that is not what it inherits."""

    def forward(self, x, training=False):
        return 2 * super().forward(x)


class Unchanged(LeakyReLU):
    """A LeakyReLU whose operations are not what it inherits."""

    def operations(self, program, x):
        return x


@pytest.mark.parametrize("layer", (Square, Gain, lambda: Doubled(2, 1), Unchanged))
@pytest.mark.parametrize("place", ("1", "1.body.0", "1.shortcut.0"))
def test_an_unknown_layer_is_refused_by_name_and_the_older_file_stays(layer, place, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("older")
    layer = layer()
    inside = {
        "1": layer,
        "1.body.0": Residual([layer], [Conv2D(2, 1)]),
        "1.shortcut.0": Residual([Conv2D(2, 1)], [layer]),
    }
    net = Network([LeakyReLU(), inside[place], Flatten(), Softmax()], (2, 2, 2))
    name = type(layer).__name__
    with pytest.raises(
        TypeError, match=rf"^to_onnx: {name} '{place}' does not name its ONNX operator; define"
    ):
        export.to_onnx(net, path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", REFUSED)
def test_the_zoo_says_what_is_refused(name, tmp_path):
    with pytest.raises(
        TypeError, match=r"^to_onnx: \w+ '\d+(\.\w+)*' does not name its ONNX operator; define"
    ):
        export.to_onnx(make(name), tmp_path / "net.onnx")


class ExportedSquare(Square):
    """A user's layer with a node."""

    def onnx(self, graph, value):
        return graph.node(self, "Mul", value, value)


class Cube(Square):
    """A user's layer with two nodes of one operator."""

    def forward(self, x):
        return x * x * x

    def onnx(self, graph, value):
        return graph.node(self, "Mul", value, graph.node(self, "Mul", value, value))


class ExportedGain(Gain):
    """A user's layer with a node that has a weight."""

    def onnx(self, graph, value):
        return graph.node(self, "Mul", graph.channels_last(value), weights=self.parameters)


def test_a_users_layer_can_bring_its_own_node(exported):
    layers = [Tanh(), Cube(), Conv2D(4, 3), ExportedSquare(), ExportedGain(), Conv2D(2, 3)]
    check_against_forward(Network(layers, (7, 7, 1)), exported)


def test_float64_is_refused(tmp_path):
    with pytest.raises(ValueError, match="network must be float32, got float64, for which"):
        export.to_onnx(presets.exercise(dtype="float64"), tmp_path / "net.onnx")


@pytest.mark.parametrize("layer", (lambda: Linear(2**9), lambda: Im2Col(25)))
def test_more_than_a_file_can_hold_is_refused_before_it_is_made(layer, tmp_path, monkeypatch):
    layer = layer()
    net = Network([layer] if isinstance(layer, Im2Col) else [Flatten(), layer], (28, 28, 1))
    monkeypatch.setattr(export, "MOST_BYTES", 10**6)
    with pytest.raises(ValueError, match=r"at most 1,000,000 bytes, got 1,(607,680|562,500);"):
        export.to_onnx(net, tmp_path / "net.onnx")


def test_the_columns_of_a_large_window_need_no_memory_to_be_refused(tmp_path):
    net = Network([Im2Col(300)], (300, 300, 1))
    with pytest.raises(ValueError, match=r"got 32,400,000,000;"):
        export.to_onnx(net, tmp_path / "net.onnx")


def test_without_onnx_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"to_onnx: needs onnx .* 'cyconv\[onnx\]'"):
        export.to_onnx(presets.exercise(), tmp_path / "net.onnx")
