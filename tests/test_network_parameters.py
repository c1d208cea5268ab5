"""Networks: parameters by name and number, and what it is all for: they learn."""

import math

import numpy as np
import pytest

import cyconv
from cyconv import Adam, presets
from tests.zoo import batch


def test_parameters_are_named_views():
    net = presets.wide()
    shapes = {name: array.shape for name, array in net.parameters().items()}
    assert shapes == {
        "0.weight": (6, 6, 1, 32),
        "0.bias": (32,),
        "2.weight": (6, 6, 32, 64),
        "2.bias": (64,),
        "5.weight": (3136, 1024),
        "5.bias": (1024,),
        "7.weight": (1024, 10),
        "7.bias": (10,),
    }
    assert {name: array.shape for name, array in net.gradients().items()} == shapes
    x, labels = batch(net, 2)
    before = net.predict_proba(x)
    net.parameters()["7.bias"][3] = 50
    after = net.predict_proba(x)
    assert (after[:, 3] > 0.999).all()
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(net.forward(x).argmax(axis=1), [3, 3])
    gradients = net.gradients()
    net.train_step(x, labels, Adam())
    assert all(gradient.any() for gradient in gradients.values())


def test_the_presets_have_the_sizes_of_the_course():
    sizes = [
        sum(array.size for array in preset().parameters().values())
        for preset in (presets.exercise, presets.wide)
    ]
    conv = [8 * 8 * 1 * 4 + 4, 6 * 6 * 4 * 8 + 8, 4 * 4 * 8 * 16 + 16, 3 * 3 * 16 * 10 + 10]
    assert sizes[0] == sum(conv) == 4934
    assert sizes[1] == (36 * 32 + 32) + (36 * 32 * 64 + 64) + (3136 * 1024 + 1024) + 10250
    assert presets.exercise().output_shape == presets.wide().output_shape == (10,)


def test_a_seed_decides_the_weights():
    def bits(seed):
        return presets.exercise(seed)._parameters.tobytes()

    assert bits(3) == bits(3)
    assert bits(3) != bits(4)
    assert bits(0) == presets.exercise()._parameters.tobytes()


def test_weights_are_xavier_uniform_and_biases_zero():
    for name, array in presets.wide().parameters().items():
        if name.endswith("bias"):
            assert not array.any()
        else:
            # Glorot & Bengio 2010, equation 16: the variance is 2 / (fan_in + fan_out), where the
            # kernel's size multiplies both fans, and uniform numbers reach sqrt(3 variance).
            *kernel, features, filters = array.shape
            variance = 2 / (math.prod(kernel) * (features + filters))
            assert np.abs(array).max() <= np.float32(math.sqrt(3 * variance))
            assert np.abs(array).max() > 0.99 * math.sqrt(3 * variance)
            assert abs(array.mean()) < 5 * math.sqrt(variance / array.size)
            assert array.var() == pytest.approx(variance, rel=5 / math.sqrt(array.size))


def test_a_summary_names_layers_shapes_and_parameters():
    text = presets.exercise().summary()
    for piece in ("Conv2D(4, kernel_size=8, stride=2", "(11, 11, 4)", "260", "4,934", "Softmax"):
        assert piece in text


# What it is all for.


@pytest.fixture(scope="module")
def digits():
    return cyconv.datasets.load_digits()


def test_it_learns_the_small_digits(digits):
    (x, labels), held = digits
    net = presets.exercise()
    assert net.evaluate(*held)[1] < 0.3
    history = net.fit(x, labels, epochs=15, batch_size=32, optimizer=Adam(0.003))
    assert history.loss[-1] < history.loss[0] / 4
    assert net.evaluate(*held)[1] > 0.85


def test_it_learns_mnist(mnist):
    (x, labels), held = mnist
    net = presets.exercise()
    net.fit(x, labels, epochs=1, batch_size=64, optimizer=Adam(0.002))
    assert net.evaluate(*held)[1] > 0.93
