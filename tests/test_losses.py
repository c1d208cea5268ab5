"""Cross-entropy: finite wherever the true value is, and with the right gradient."""

import math

import numpy as np
import pytest

import cyconv
from cyconv.losses import cross_entropy
from tests import reference
from tests.gradcheck import check_gradient

DTYPES = (np.float32, np.float64)
BIG = 3e38
TENTH = math.log(10)

# logits, label, the true loss
VALUES = [
    ([0.0] * 10, 3, TENTH),
    ([1e4] * 10, 3, TENTH),
    ([-1e4] * 10, 9, TENTH),
    ([BIG] * 10, 0, TENTH),
    ([-BIG] * 10, 0, TENTH),
    ([0.0, math.log(3)], 1, math.log(4 / 3)),
    ([0.0, math.log(3)], 0, math.log(4)),
    ([1e4, 0.0], 0, 0.0),
    ([1e4, 0.0], 1, 1e4),
    ([1e4, -1e4, 0.0], 1, 2e4),
    ([BIG, -BIG], 0, 0.0),
    ([BIG, -BIG], 1, 2 * float(np.float32(BIG))),
    ([0.0, 0.0, -math.inf], 0, math.log(2)),
    ([-math.inf, 1e4, 1e4], 2, math.log(2)),
    ([0.0, -math.inf], 1, math.inf),
    ([5.0], 0, 0.0),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("logits", "label", "expected"), VALUES)
def test_the_loss_is_finite_wherever_the_true_value_is(logits, label, expected, dtype):
    logits = np.array([logits], np.float32).astype(dtype)
    loss, gradient = cross_entropy(logits, [label])
    assert type(loss) is float
    assert loss == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert gradient.dtype == dtype
    assert np.isfinite(gradient).all()
    assert gradient.sum() == pytest.approx(0, abs=1e-6)
    assert gradient[0, label] <= 0


@pytest.mark.parametrize("value", (math.nan, math.inf))
def test_the_loss_of_nonsense_is_not_finite(value):
    assert not math.isfinite(cross_entropy(np.array([[0, value, 1]]), [0])[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", (1, 3))
def test_random_logits_against_the_definition(dtype, threads):
    cyconv.set_num_threads(threads)
    rng = np.random.default_rng(0)
    logits = (10 * rng.normal(size=(300, 7))).astype(dtype)
    labels = rng.integers(0, 7, 300)
    loss, gradient = cross_entropy(logits, labels)
    expected_loss, expected = reference.cross_entropy(logits, labels)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)


def test_the_gradient_is_the_difference_of_the_loss():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5)), np.array([0, 4, 2, 2])
    gradient = cross_entropy(logits, labels)[1]
    check_gradient(lambda: (cross_entropy(logits, labels)[0], None), logits, gradient, "logits")


def test_it_is_the_mean_over_images():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    single = [cross_entropy(logits[n : n + 1], labels[n : n + 1]) for n in range(9)]
    loss, gradient = cross_entropy(logits, labels)
    assert loss == pytest.approx(np.mean([each[0] for each in single]), rel=1e-14)
    np.testing.assert_allclose(gradient, np.concatenate([each[1] for each in single]) / 9)


def test_the_sum_does_not_depend_on_the_order_of_images():
    rng = np.random.default_rng(0)
    logits, labels = 1e3 * rng.normal(size=(1000, 3)), rng.integers(0, 3, 1000)
    order = rng.permutation(1000)
    assert cross_entropy(logits, labels)[0] == cross_entropy(logits[order], labels[order])[0]


def test_inputs_stay_as_they_are_and_outputs_are_complete(nan_buffers):
    logits, labels = np.linspace(-1, 1, 12).reshape(4, 3), np.array([0, 1, 2, 0], np.uint8)
    kept = logits.copy(), labels.copy()
    logits.flags.writeable = labels.flags.writeable = False
    loss, gradient = cross_entropy(logits, labels)
    assert math.isfinite(loss)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(logits, kept[0])
    np.testing.assert_array_equal(labels, kept[1])


def test_training_survives_logits_of_any_size():
    net = cyconv.Network([cyconv.layers.Linear(3), cyconv.layers.Softmax()], input_shape=(2,))
    net.parameters()["0.weight"][...] = 0
    for scale in (1e4, BIG):
        net.parameters()["0.bias"][...] = scale, -scale, 0
        images = np.zeros((4, 2), np.float32)
        loss = net.train_step(images, [0, 0, 0, 0], cyconv.Adam(0))
        assert loss == 0
        loss = net.train_step(images, [1, 0, 0, 0], cyconv.Adam(0))
        assert loss == pytest.approx(2 * scale / 4, rel=1e-6)
        assert np.isfinite(net.gradients()["0.bias"]).all()
