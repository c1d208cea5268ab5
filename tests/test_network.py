"""Networks: the fast step equals the layers, in any number of threads and in little memory."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, presets
from cyconv.layers import Conv2D, Flatten, Im2Col, Layer, LeakyReLU, Linear, Residual, Softmax
from tests import optimizer_reference, reference
from tests.gradcheck import check_gradient, sides_of_chain
from tests.steps import (
    THREADS,
    assert_same_gradients,
    copies,
    in_float64,
    loss_and_gradients,
    relative_error_bound,
    trained,
)
from tests.zoo import ALL_NETWORKS, NETWORKS, Square, batch, network


@pytest.fixture(params=ALL_NETWORKS)
def name(request):
    """Return the name of each network in turn."""
    return request.param


@pytest.mark.parametrize("name", ["exercise", *NETWORKS])
def test_gradients_of_a_whole_network_are_the_differences_of_its_loss(name, count):
    net = network(name, dtype=np.float64)
    pixels, labels = batch(net, images=2)
    x = pixels / 255
    rng = np.random.default_rng(1)
    for key, parameter in net.parameters().items():
        if key.endswith("bias"):  # zero would put what sees only padding onto a kink
            parameter[...] = rng.uniform(-0.1, 0.1, parameter.shape)
    _, dx, gradients = loss_and_gradients(net, x, labels)

    def loss():
        logits, sides = sides_of_chain(net.layers[:-1], x, training=True)
        return reference.cross_entropy(logits, labels)[0], sides

    most = count(5, 20, 40) * (4 if name == "exercise" else 1)
    check_gradient(loss, x, dx, "x", most=most)
    for key, parameter in net.parameters().items():
        check_gradient(loss, parameter, gradients[key], key, most=most)


def test_the_answer_to_an_image_does_not_depend_on_the_batch_around_it(name):
    net = network(name)
    x, _ = batch(net, images=33)
    together = net.forward(x)
    for images in (1, 2, 5, 13, 32):
        parts = [net.forward(x[first : first + images]) for first in range(0, len(x), images)]
        np.testing.assert_array_equal(np.concatenate(parts), together, err_msg=f"{images} at once")


@pytest.mark.parametrize("images", (2, 37))
def test_a_training_step_is_forward_backward_and_adam(name, images):
    net = network(name)
    x, labels = batch(net, images)
    x = x / np.float32(255)
    before, optimizer = copies(net.parameters()), Adam(0.01)
    twin = in_float64(net, name)
    expected_loss, _, expected = loss_and_gradients(twin, np.float64(x), labels)
    bound = relative_error_bound(net, images)
    loss = net.train_step(x, labels, optimizer)
    assert type(loss) is float
    assert abs(loss - expected_loss) <= bound * max(abs(expected_loss), 1)
    assert_same_gradients(net, expected, bound)
    for key, gradient in net.gradients().items():
        adam = optimizer_reference.Adam(gradient.size, 0.01)
        moved = adam.step(np.float64(before[key]).ravel(), np.float64(gradient).ravel())
        # A handful of roundings of a step of at most 0.01, and that of the sum.
        allowed = 2.0**-24 * (np.abs(moved) + 16 * 0.01)
        assert (np.abs(net.parameters()[key].ravel() - moved) <= allowed).all(), key


def test_steps_are_complete_when_buffers_start_as_nan(name, request):
    def bits():
        net, optimizer = network(name), Adam()
        x, labels = batch(net)
        losses = [net.train_step(x, labels, optimizer) for _ in range(2)]
        return losses, net._gradients.tobytes(), net.predict_proba(x).tobytes()

    expected = bits()
    shapes = request.getfixturevalue("nan_buffers")
    assert bits() == expected
    assert shapes


def test_the_same_bits_for_any_number_of_threads():
    assert len({trained("exercise", 50, 100, threads) for threads in THREADS}) == 1


def test_the_number_of_threads_may_change_between_steps():
    counts = iter(THREADS * 3)

    def step(net, x, labels, optimizer):
        cyconv.set_num_threads(next(counts))
        return net.train_step(x, labels, optimizer)

    steps = 3 * len(THREADS)
    assert trained("exercise", steps, 50, 1, step) == trained("exercise", steps, 50, 1)


def test_the_size_of_the_batch_may_change_between_steps():
    net, optimizer = network("big Linear in the middle"), Adam()
    x, labels = batch(net, 40)
    for images in (40, 3, 40, 1, 17):
        twin = in_float64(net, "big Linear in the middle")
        expected = loss_and_gradients(twin, x[:images] / 255, labels[:images])[0]
        loss = net.train_step(x[:images], labels[:images], optimizer)
        assert loss == pytest.approx(expected, rel=1e-5)


def test_uint8_is_divided_by_255(name):
    x, labels = batch(network(name))
    floats = x.astype(np.float32) / np.float32(255)
    nets = network(name), network(name)
    optimizers = Adam(), Adam()
    for _ in range(3):
        one, two = (
            net.train_step(images, labels, optimizer)
            for net, images, optimizer in zip(nets, (x, floats), optimizers, strict=True)
        )
        assert one == two
    for method in (Network.forward, Network.predict, Network.predict_proba):
        np.testing.assert_array_equal(method(nets[0], x), method(nets[1], floats))
    assert nets[0].evaluate(x, labels) == nets[1].evaluate(floats, labels)


def test_the_last_axis_may_be_left_out_if_it_is_1():
    x, labels = batch(presets.exercise())
    flat = x[..., 0]
    assert flat.shape == (37, 28, 28)
    nets = presets.exercise(), presets.exercise()
    losses = [
        net.train_step(each, labels, Adam()) for net, each in zip(nets, (x, flat), strict=True)
    ]
    assert losses[0] == losses[1]
    for method in (Network.forward, Network.predict, Network.predict_proba):
        np.testing.assert_array_equal(method(nets[0], x), method(nets[0], flat))
    assert nets[0].evaluate(x, labels) == nets[0].evaluate(flat, labels)


@pytest.mark.parametrize(
    ("name", "images"),
    [("exercise", 1), ("exercise", 5000), *((name, 37) for name in ALL_NETWORKS)],
)
def test_predict_proba_and_evaluate_agree_with_forward(name, images):
    net = network(name)
    x, labels = batch(net, images)
    twin = in_float64(net, name)
    logits, _ = sides_of_chain(twin.layers[:-1], x / 255)
    expected = reference.softmax(logits)
    bound = relative_error_bound(net, 1) * (1 + np.abs(logits).max())
    for probabilities in (net.predict_proba(x), net.forward(x)):
        assert probabilities.dtype == np.float32
        assert np.abs(probabilities - expected).max() <= bound
    predicted = net.predict(x)
    assert predicted.dtype == np.int64
    assert predicted.shape == (images,)
    picked = expected[np.arange(images), predicted]
    assert (picked >= expected.max(axis=1) - 2 * bound).all()
    loss, accuracy = net.evaluate(x, labels)
    assert loss == pytest.approx(reference.cross_entropy(logits, labels)[0], abs=2 * bound)
    assert accuracy == (predicted == labels).mean()


def test_a_batch_of_none(name):
    net = network(name)
    x, labels = batch(net, 0)
    for images in (x, x.astype(np.float32), x.astype(np.float64)):
        assert net.forward(images).shape == (0, *net.output_shape)
        assert net.predict(images).shape == (0,)
        assert net.predict_proba(images).shape == (0, net.classes)
    with pytest.raises(ValueError, match=r"Network\.train_step: x must hold at least one image"):
        net.train_step(x, labels, Adam())
    with pytest.raises(ValueError, match=r"Network\.evaluate: x must hold at least one image"):
        net.evaluate(x, labels)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", ["exercise", "a user's layers"])
def test_prediction_does_not_disturb_a_backward_pass(name, dtype):
    net = network(name, dtype=dtype)
    (x, labels), (other, _) = batch(net, 5), batch(net, 5, seed=1)
    x, other = x.astype(dtype) / dtype(255), other.astype(dtype) / dtype(255)
    dy = np.ones((5, net.classes), dtype)
    dy[:, 0] = 2
    net.forward(x)
    expected = net.backward(dy)
    for disturb in (
        lambda: net.predict(other),
        lambda: net.predict_proba(other),
        lambda: net.evaluate(other, labels),
    ):
        net.forward(x)
        disturb()
        np.testing.assert_array_equal(net.backward(dy), expected)


def test_inputs_may_be_read_only_and_stay_as_they_are(name):
    net = network(name)
    x, labels = batch(net)
    for images in (x, x / np.float32(255)):
        kept = images.copy(), labels.copy()
        images.flags.writeable = labels.flags.writeable = False
        net.train_step(images, labels, Adam())
        net.predict(images)
        net.evaluate(images, labels)
        net.forward(images)
        np.testing.assert_array_equal(images, kept[0])
        np.testing.assert_array_equal(labels, kept[1])


def test_layouts_in_memory_give_the_same_bits():
    x, labels = batch(presets.exercise())
    x = x / np.float32(255)
    doubled = np.repeat(x, 2, axis=0)[::2]
    losses = [
        presets.exercise().train_step(images, answers, Adam())
        for images, answers in (
            (x, labels),
            (np.asfortranarray(x), labels.astype(np.uint8)),
            (np.flip(np.flip(x).copy()), np.repeat(labels, 2)[::2]),
            (doubled, labels.tolist()),
        )
    ]
    assert len(set(losses)) == 1


class InPlace(Layer):
    """Twice the input, computed where the input is."""

    def forward(self, x):
        x *= 2
        return x

    def backward(self, dy):
        dy *= 2
        return dy


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(lambda: [InPlace(), Conv2D(2, 3)], id="first"),
        pytest.param(lambda: [Conv2D(2, 3), InPlace()], id="in the middle"),
        pytest.param(lambda: [Residual([InPlace()]), Conv2D(2, 3)], id="in a branch"),
    ],
)
def test_a_users_layer_that_computes_in_place_changes_no_array_of_anybody_else(layers, dtype):
    net = Network([*layers(), Flatten(), Linear(3), Softmax()], (5, 5, 1))
    x, labels = np.random.default_rng(0).random((6, 5, 5, 1)).astype(dtype), np.arange(6) % 3
    dy, kept = np.ones((6, 3), dtype), x.copy()
    y = net.forward(x)
    net.backward(dy)
    np.testing.assert_array_equal(net.predict_proba(x), y)
    net.predict(x)
    net.evaluate(x, labels)
    net.train_step(x, labels, Adam())
    net.fit(x, labels, 1)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(dy, 1)


# Refusals that are about the data, not the arguments.


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(lambda: [Conv2D(2, 3), LeakyReLU(), Flatten(), Linear(3)], id="conv"),
        pytest.param(lambda: [Flatten(), Softmax(), Linear(3)], id="Softmax first"),
        pytest.param(lambda: [Conv2D(2, 1, stride=2), Flatten(), Linear(3)], id="pixels not read"),
        pytest.param(lambda: [Square(), Flatten(), Linear(3)], id="a user's layer"),
    ],
)
def test_predict_refuses_images_that_are_not_finite(layers, value):
    net = Network([*layers(), Softmax()], (5, 5, 1))
    x = np.zeros((7, 5, 5, 1), np.float32)
    x[4, 1, 1] = value
    for method in (net.predict, net.predict_proba):
        with pytest.raises(ValueError, match=f"{method.__name__}: x must be finite.* image 4"):
            method(x)


def test_predict_refuses_weights_that_have_diverged():
    net = presets.exercise()
    net.parameters()["2.bias"][0] = np.inf
    with pytest.raises(FloatingPointError, match=r"Network\.predict: .*weights have diverged"):
        net.predict(np.zeros((1, 28, 28, 1), np.float32))


@pytest.mark.parametrize("images", (1, 7))
def test_a_predictor_has_the_bits_of_predict(name, images):
    net = network(name)
    predictor = net.predictor(images)
    pixels, _ = batch(net, images)
    for x in (pixels, pixels / np.float32(255), pixels / 255, (pixels / np.float32(255))[:, ::-1]):
        cyconv.set_num_threads(2)
        np.testing.assert_array_equal(predictor(x), net.predict(x))
        cyconv.set_num_threads(1)
        np.testing.assert_array_equal(predictor(x), net.predict(x))
        if net.ends_with_softmax:
            assert predictor.proba(x).tobytes() == net.predict_proba(x).tobytes()


def test_a_predictor_sees_what_training_does_and_can_be_shared_and_copied():
    net = presets.resnet8()
    x, labels = batch(net, 16)
    predictor = net.predictor(16)
    for _ in range(3):
        net.train_step(x, labels, cyconv.Adam(0.01))
        expected = net.predict_proba(x).tobytes()
        with ThreadPoolExecutor(4) as threads:
            assert {p.tobytes() for p in threads.map(predictor.proba, [x] * 20)} == {expected}
        assert pickle.loads(pickle.dumps(predictor)).proba(x).tobytes() == expected


def test_a_predictor_sees_each_number_that_is_changed_in_place():
    net = presets.resnet8()
    x, _ = batch(net, 2)
    predictor = net.predictor(2)
    seen = set()
    for array in (*net.parameters().values(), *net.state().values()):
        array.flat[-1] += 0.5
        expected = copy.deepcopy(net).predict_proba(x).tobytes()
        assert predictor.proba(x).tobytes() == net.predict_proba(x).tobytes() == expected
        seen.add(expected)
    assert len(seen) > 40  # of 47: some channels are cut off behind


def test_a_predictor_refuses_what_it_was_not_made_for():
    net = presets.exercise()
    predictor = net.predictor()
    for shape in ((2, 28, 28, 1), (0, 28, 28, 1)):
        with pytest.raises(ValueError, match=r"Predictor: x must have shape \(1, 28, 28, 1\), got"):
            predictor(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"Predictor: x must have shape \(N, 28, 28, 1\), got"):
        predictor([[[[0.5]]]])
    with pytest.raises(ValueError, match=r"Predictor: x must be finite.* image 0"):
        predictor(np.full((1, 28, 28, 1), np.nan, np.float32))
    with pytest.raises(TypeError, match="Predictor: x must"):
        predictor(np.zeros((1, 28, 28, 1), np.int32))
    with pytest.raises(ValueError, match=r"Network\.predictor: batch must be at least 1, got 0"):
        net.predictor(0)
    with pytest.raises(ValueError, match=r"Predictor\.proba: the network must end with Softmax"):
        Network([Flatten(), Linear(3)], (2, 2, 1)).predictor().proba(np.zeros((1, 2, 2, 1)))
    flat = Network([Linear(3)], (4,))
    backwards = np.arange(4, dtype=np.float32)[None, ::-1]
    np.testing.assert_array_equal(flat.predictor()(backwards), flat.predict(backwards))
    net.parameters()["2.bias"][0] = np.inf
    with pytest.raises(FloatingPointError, match=r"Predictor: .*weights have diverged"):
        predictor(np.zeros((1, 28, 28, 1), np.float32))


def test_a_convolution_of_one_padded_pixel_is_no_linear_layer():
    layers = [Conv2D(512, 1, padding=1), Flatten(), Linear(10), Softmax()]
    net = Network(layers, input_shape=(1, 1, 256))
    x = np.random.default_rng(0).random((3, 1, 1, 256), np.float32)
    np.testing.assert_allclose(net.predict_proba(x), net.forward(x), rtol=1e-5)


@pytest.mark.parametrize("inherited", [LeakyReLU, Softmax])
def test_a_layer_that_changes_forward_and_inherits_operations_is_run_as_it_says(inherited):
    class Halved(inherited):
        def forward(self, x):
            return super().forward(x) / 2

        def backward(self, dy):
            return super().backward(dy) / 2

    x = np.random.default_rng(0).random((3, 5), np.float32) - 0.5
    np.testing.assert_array_equal(
        Network([Halved()], (5,)).forward(x), Network([inherited()], (5,)).forward(x) / 2
    )
    labels = np.array([0, 1, 2])
    nets = [
        Network([Linear(4), Halved(), Softmax()], (5,), dtype=d) for d in ("float32", "float64")
    ]
    losses = [
        net.train_step(x.astype(d), labels, Adam()) for net, d in zip(nets, "fd", strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    np.testing.assert_allclose(nets[0].predict_proba(x), nets[0].forward(x), rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Conv2D(1, 1, padding=((2**31, 2**31 - 1), (2**31, 2**31 - 1))),
        lambda: Im2Col(2**16, padding=((2**16, 2**16 - 2), (2**16, 2**16 - 2))),
    ],
)
def test_an_output_beyond_64_bits_is_refused_when_the_network_is_made(layer):
    with pytest.raises(OverflowError, match=r"'0': .* more than an address can hold"):
        Network([layer()], input_shape=(1, 1, 1))
