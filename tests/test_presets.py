"""The networks with names: their sizes, their gradients, and the same bits for any threads."""

import os

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, presets
from cyconv.layers import BatchNorm, Dropout
from cyconv.runs import Training, load_training, save_training
from tests import reference
from tests.gradcheck import check_gradient, sides_of_chain
from tests.zoo import PRESETS, Still, batch

THREADS = [n for n in (1, 2, 3, 5) if n <= 4 * (os.cpu_count() or 1)]
# As small as the layers allow, so that differences of many parameters take seconds.
SMALL = {
    "exercise": (24, 24, 1),
    "wide": (10, 10, 1),
    "lenet5": (12, 12, 1),
    "mnist_convnet": (10, 10, 1),
    "vgg_small": (8, 8, 3),
    "resnet8": (8, 8, 3),
    "resnet20": (8, 8, 3),
}
SIZES = {
    "exercise": 4_934,
    "wide": 3_297_514,
    "lenet5": 61_706,
    "mnist_convnet": 34_826,
    "vgg_small": 308_394,
    "resnet8": 78_042,
    "resnet20": 272_474,
}


def test_every_preset_is_in_the_tables():
    public = {
        name
        for name, value in vars(presets).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == presets.__name__
    }
    assert public == set(PRESETS) == set(SMALL) == set(SIZES)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes(name):
    net = getattr(presets, name)()
    assert sum(array.size for array in net.parameters().values()) == SIZES[name]
    assert net.output_shape == (10,)
    other = getattr(presets, name)(input_shape=(33, 35, 2), classes=3)
    assert other.input_shape == (33, 35, 2)
    assert other.predict(np.zeros((2, 33, 35, 2), np.uint8)).max() < 3


def test_parameters_are_in_the_order_of_the_layers_body_before_shortcut():
    names = list(presets.resnet8().parameters())
    assert names[:4] == ["0.weight", "1.weight", "1.bias", "3.body.0.weight"]
    assert [name for name in names if name.startswith("5.")] == [
        "5.body.0.weight",
        "5.body.1.weight",
        "5.body.1.bias",
        "5.body.3.weight",
        "5.body.4.weight",
        "5.body.4.bias",
        "5.shortcut.0.weight",
        "5.shortcut.1.weight",
        "5.shortcut.1.bias",
    ]
    assert list(presets.resnet8().state())[:2] == ["1.running_mean", "1.running_var"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_step_that_trains_has_the_differences_of_the_loss_as_gradients(name, count):
    net = getattr(presets, name)(dtype=np.float64, input_shape=SMALL[name])
    rng = np.random.default_rng(1)
    for key, parameter in net.parameters().items():
        if key.endswith("bias"):  # zero would put what sees only padding onto a kink
            parameter[...] = rng.uniform(-0.1, 0.1, parameter.shape)
    x, labels = rng.random((3, *net.input_shape)), rng.integers(0, 10, 3)

    def loss():
        logits, sides = sides_of_chain(net.layers[:-1], x, training=True)
        return reference.cross_entropy(logits, labels)[0], sides

    value = net.train_step(x, labels, Still())
    net._steps[0] = 0  # the same random numbers again
    assert value == pytest.approx(loss()[0], rel=1e-9)
    for key, parameter in net.parameters().items():
        check_gradient(loss, parameter, net.gradients()[key], key, most=count(1, 3, 6), least=0.5)
    probabilities = net.forward(x, training=True)
    rows = np.arange(len(x))
    dy = np.zeros_like(probabilities)
    dy[rows, labels] = -1 / (probabilities[rows, labels] * len(x))
    check_gradient(loss, x, net.backward(dy), "x", most=count(4, 15, 30))


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_bits_for_any_number_of_threads(name):
    bits = set()
    for threads in THREADS:
        cyconv.set_num_threads(threads)
        net, optimizer = getattr(presets, name)(), Adam()
        x, labels = batch(net, 13)
        losses = [net.train_step(x, labels, optimizer) for _ in range(2)]
        arrays = net._parameters, net._state, net.predict_proba(x)
        bits.add((*losses, *(array.tobytes() for array in arrays)))
    assert len(bits) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_goes_on_to_the_same_bits_from_a_file(name, tmp_path):
    net, optimizer = getattr(presets, name)(), Adam()
    x, labels = batch(net, 5)
    net.train_step(x, labels, optimizer)
    save_training(Training(net, optimizer), tmp_path / "run")
    net.save(tmp_path / "net")
    again = load_training(tmp_path / "run")
    assert Network.load(tmp_path / "net").predict_proba(x).tobytes() == (
        net.predict_proba(x).tobytes()
    )
    losses = [
        each.network.train_step(x, labels, each.optimizer)
        for each in (Training(net, optimizer), again)
    ]
    assert losses[0] == losses[1]
    for mine, theirs in zip(net._arenas, again.network._arenas, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_dropout_drops_its_share_anew_for_each_step_layer_and_image():
    net = Network([Dropout(0.3), Dropout(0.3)], (10_000,), seed=4)
    x = np.ones((2, 10_000), np.float32)
    masks = []
    for step in (0, 1):
        net._steps[0] = step
        y = net.forward(x, training=True)
        assert set(np.unique(y)) <= {0, np.float32(1 / 0.7), np.float32(1 / 0.7) ** 2}
        kept = [(net.layers[i].forward(x, training=True) > 0)[0] for i in (0, 1)]
        assert not np.array_equal(*kept)
        masks += [*(y > 0)]
    for mask in masks:
        assert abs(mask.mean() - 0.49) < 5 * np.sqrt(0.49 * 0.51 / 10_000)
    assert len({mask.tobytes() for mask in masks}) == 4
    np.testing.assert_array_equal(net.forward(x), x)


def test_philox_is_the_published_generator():
    # The first known-answer test of Random123 (kat_vectors): zeros for counter and key.
    from cyconv._core import of

    first = of("float32").dropout.numbers(0, 0, 0, 0, 0)[:4]
    assert [hex(int(number)) for number in first] == [
        "0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8",
    ]  # fmt: skip


def test_running_statistics_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4, 3, 5)) * 3 + 10
    net = Network([BatchNorm(momentum=0.25)], (4, 3, 5), dtype=np.float64)
    mean, var = np.zeros(5), np.ones(5)
    for _ in range(3):
        y = net.forward(x, training=True)
        mean = 0.75 * mean + 0.25 * x.mean((0, 1, 2))
        var = 0.75 * var + 0.25 * x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(net.state()["0.running_mean"], mean, 1e-12)
    np.testing.assert_allclose(net.state()["0.running_var"], var, 1e-12)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, 1e-9, 1e-9)
    np.testing.assert_allclose(net.forward(x), (x - mean) / np.sqrt(var + 1e-5), 1e-9, 1e-9)
