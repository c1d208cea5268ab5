"""Cross-entropy: finite wherever the true value is, and with the right gradient."""

import copy
import math
import pickle

import numpy as np
import pytest

import cyconv
from cyconv.losses import CrossEntropy, cross_entropy
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


@pytest.mark.parametrize(("dtype", "power"), [(np.float32, -102), (np.float64, -998)])
def test_a_gradient_close_to_subnormal_is_zero(dtype, power):
    exponents = np.array([power + 1, power - 1, power - 20])
    logits = np.array([[0.0, *exponents * math.log(2)]], dtype)
    _, dlogits = cross_entropy(logits, [0])
    np.testing.assert_allclose(dlogits[0, 1], 2.0 ** (power + 1), rtol=1e-4)
    np.testing.assert_array_equal(dlogits[0, 2:], 0)


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


def random_losses(count):
    """Yield (loss, logits, labels) of random smoothing, weights, shapes and sizes of logits."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        rows, classes = rng.integers(1, 9), rng.integers(1, 7)
        labels = rng.integers(0, classes, rows)
        weight = rng.random(classes) * (rng.random(classes) < 0.7) * 10.0 ** rng.integers(-3, 4)
        weight[labels[0]] = 0.5
        loss = CrossEntropy(
            rng.choice([0, rng.random()]), [None, weight, list(weight)][rng.integers(3)]
        )
        yield loss, rng.normal(size=(rows, classes)) * 10.0 ** rng.integers(-2, 3), labels


def test_smoothed_and_weighted_it_is_the_definition():
    for loss, logits, labels in random_losses(200):
        expected = reference.cross_entropy(logits, labels, loss.label_smoothing, loss.class_weight)
        value, gradient = loss(logits, labels)
        assert value == pytest.approx(expected[0], rel=1e-13, abs=1e-14)
        scale = max(1.0, np.abs(expected[1]).max())
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-14 * scale)


def test_smoothed_and_weighted_it_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    for loss, logits, labels in random_losses(200):
        weight = None if loss.weight is None else torch.tensor(loss.weight)
        theirs = torch.nn.CrossEntropyLoss(weight, label_smoothing=loss.label_smoothing)
        x = torch.from_numpy(logits).requires_grad_()
        expected = theirs(x, torch.from_numpy(labels))
        expected.backward()
        value, gradient = loss(logits, labels)
        assert value == pytest.approx(expected.item(), rel=1e-12, abs=1e-13)
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_the_gradient_is_the_difference_of_every_loss():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5)), np.array([0, 4, 2, 2])
    for loss in (CrossEntropy(0.3), CrossEntropy(0, rng.random(5)), CrossEntropy(0.1, range_(5))):
        gradient = loss(logits, labels)[1]
        check_gradient(
            lambda loss=loss: (loss(logits, labels)[0], None), logits, gradient, "logits"
        )


def range_(classes):
    return [float(each) for each in range(classes)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_arguments_or_with_weights_of_one_it_has_the_bits_of_the_plain_one(dtype):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(33, 7)).astype(dtype), rng.integers(0, 7, 33)
    expected = cross_entropy(logits, labels)
    for loss in (CrossEntropy(), CrossEntropy(0, [1] * 7)):
        value, gradient = loss(logits, labels)
        assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loss_has_the_same_bits_for_any_number_of_threads(dtype):
    rng, results = np.random.default_rng(0), set()
    logits, labels = rng.normal(size=(301, 7)).astype(dtype), rng.integers(0, 7, 301)
    for threads in (1, 2, 3):
        cyconv.set_num_threads(threads)
        value, gradient = CrossEntropy(0.1, range_(7))(logits, labels)
        results.add((value, gradient.tobytes()))
    assert len(results) == 1


def test_a_class_without_weight_adds_nothing_even_where_it_is_impossible():
    logits = np.array([[0.0, -math.inf, 0.0], [1.0, 2.0, -math.inf]])
    loss, gradient = CrossEntropy(0, [1, 0, 1])(logits, [0, 1])
    assert loss == pytest.approx(math.log(2))
    np.testing.assert_allclose(gradient, [[-0.5, 0, 0.5], [0, 0, 0]])
    loss, gradient = CrossEntropy(0.3, [1, 0, 1])(logits[:1], [0])
    assert math.isfinite(loss) and np.isfinite(gradient).all()
    assert CrossEntropy(0.3)(logits, [0, 1])[0] == math.inf


def test_the_scale_is_one_over_the_weights_of_the_labels():
    labels = np.array([0, 2, 2])
    assert CrossEntropy(0.5).scale(labels, 3) == 1 / 3
    assert CrossEntropy(0, [1, 9, 0.5]).scale(labels, 3) == 0.5
    # A huge sum of losses, and a mean that a double can hold.
    logits = np.array([[1e308, -0.7e308]] * 3)
    assert CrossEntropy()(logits, [1, 1, 1])[0] == pytest.approx(1.7e308)


def test_a_loss_tells_what_it_is():
    for loss in (CrossEntropy(), CrossEntropy(0.25, np.array([1, 0, 2], np.float32))):
        again = CrossEntropy(**loss.config)
        assert repr(again) == repr(loss) == repr(eval(repr(loss)))
    assert repr(loss) == "CrossEntropy(label_smoothing=0.25, class_weight=(1.0, 0.0, 2.0))"


@pytest.mark.parametrize(
    "copied", (lambda x: x, copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)))
)
@pytest.mark.parametrize("weights", (None, [1, 0, 2], np.array([1.0, 0.0, 2.0])))
def test_what_a_loss_tells_is_what_it_computes(weights, copied):
    loss = copied(CrossEntropy(0.25, weights))
    logits, labels = np.arange(6.0).reshape(2, 3), [0, 2]
    before, told = loss(logits, labels)[0], repr(loss)
    for name in ("label_smoothing", "class_weight", "weight"):
        for change in (
            lambda name=name: setattr(loss, name, 0.5),
            lambda name=name: delattr(loss, name),
        ):
            with pytest.raises(
                AttributeError, match=rf"^CrossEntropy: {name} cannot be changed an"
            ):
                change()
    if weights is not None:
        weights[1] = 50  # of which the loss has its own
        with pytest.raises(ValueError, match="read-only"):
            loss.weight[1] = 50
        with pytest.raises(ValueError, match="WRITEABLE"):
            loss.weight.flags.writeable = True
        weights[1] = 0
    assert (loss(logits, labels)[0], repr(loss)) == (before, told)


def test_a_loss_of_ones_own_has_attributes_of_its_own():
    class Scaled(CrossEntropy):
        def __init__(self, share):
            super().__init__(label_smoothing=share / 2)
            self.share = share

    loss = Scaled(0.5)
    loss.share = 1
    assert (loss.share, loss.label_smoothing) == (1, 0.25)
    del loss.share


ZEROS = np.zeros((2, 3))
MISTAKES = {
    "a smoothing of 1": (lambda: CrossEntropy(1), ValueError, "label_smoothing must be below 1"),
    "a negative one": (lambda: CrossEntropy(-0.1), ValueError, "label_smoothing must be below 1"),
    "one that is none": (lambda: CrossEntropy(math.nan), ValueError, "label_smoothing must be"),
    "a huge one": (lambda: CrossEntropy(10**400), ValueError, "label_smoothing must be"),
    "a word": (lambda: CrossEntropy("0.1"), TypeError, "label_smoothing must be a number"),
    "true": (lambda: CrossEntropy(True), TypeError, "label_smoothing must be a number, got True"),
    "a weight": (lambda: CrossEntropy(0, 1.0), TypeError, "class_weight must be a sequence of num"),
    "words": (lambda: CrossEntropy(0, "111"), TypeError, "class_weight must be a sequence of num"),
    "no weights": (lambda: CrossEntropy(0, []), TypeError, "class_weight must be a sequence of n"),
    "a matrix": (lambda: CrossEntropy(0, ZEROS), TypeError, "class_weight must be a sequence of"),
    "a word in it": (lambda: CrossEntropy(0, [1, "1"]), TypeError, "class_weight[1] must be a num"),
    "a negative weight": (
        lambda: CrossEntropy(0, [1, -1]),
        ValueError,
        "class_weight[1] must be f",
    ),
    "an endless one": (lambda: CrossEntropy(0, [math.inf]), ValueError, "class_weight[0] must be"),
    "weights of 0": (
        lambda: CrossEntropy(0, [0, 0]),
        ValueError,
        "class_weight must have one that",
    ),
    "too few": (
        lambda: CrossEntropy(0, [1, 1])(ZEROS, [0, 1]),
        ValueError,
        "class_weight must have 3 numbers, one for each class, got 2",
    ),
    "too many": (
        lambda: CrossEntropy(0, [1] * 4)(ZEROS, [0, 1]),
        ValueError,
        "class_weight must have 3 numbers, one for each class, got 4",
    ),
    "a batch without weight": (
        lambda: CrossEntropy(0, [1, 0, 0])(ZEROS, [1, 2]),
        ValueError,
        "class_weight of the batch's labels must have a sum to divide by, got 0",
    ),
    "a batch of too much weight": (
        lambda: CrossEntropy(0, [1e308] * 3)(ZEROS, [1, 2]),
        ValueError,
        "class_weight of the batch's labels must have a sum to divide by, got inf",
    ),
    "a batch of too little weight": (
        lambda: CrossEntropy(0, [5e-324] * 3)(ZEROS, [1, 2]),
        ValueError,
        "class_weight of the batch's labels must have a sum to divide by, got 9.88",
    ),
    "an empty batch": (
        lambda: CrossEntropy(0.1)(ZEROS[:0], np.zeros(0, int)),
        ValueError,
        "the mean of no losses is undefined, got an empty batch",
    ),
    "float16": (lambda: CrossEntropy()(np.float16(ZEROS), [0, 1]), TypeError, "logits must be"),
    "a row": (lambda: CrossEntropy()(ZEROS[0], [0]), ValueError, "logits must have shape (N, cl"),
    "a label too far": (lambda: CrossEntropy()(ZEROS, [0, 3]), ValueError, "labels must be from 0"),
    "a label too many": (lambda: CrossEntropy()(ZEROS, [0, 1, 2]), ValueError, "labels must have"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_named(what):
    call, error, text = MISTAKES[what]
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value).startswith(f"CrossEntropy: {text}"), raised.value
    assert len(str(raised.value)) < 400
