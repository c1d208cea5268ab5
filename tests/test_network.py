"""Networks: the fast step equals the layers, in any number of threads and in little memory."""

import concurrent.futures
import copy
import math
import os
import pickle
import sys

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, presets
from cyconv.layers import Conv2D, Flatten, Im2Col, LeakyReLU, Linear, Softmax
from tests import reference
from tests.gradcheck import check_gradient, sides_of_chain
from tests.zoo import ALL_NETWORKS, NETWORKS, Square, batch, network

THREADS = [n for n in (1, 2, 3, 5) if n <= 4 * (os.cpu_count() or 1)]


@pytest.fixture(params=ALL_NETWORKS)
def name(request):
    """Return the name of each network in turn."""
    return request.param


def in_float64(net, name):
    """Return the same network with the same parameters in float64."""
    twin = network(name, dtype=np.float64)
    for key, parameter in twin.parameters().items():
        parameter[...] = net.parameters()[key]
    return twin


def copies(arrays):
    return {key: array.copy() for key, array in arrays.items()}


def loss_and_gradients(net, x, labels):
    """Return the loss by its definition, and the gradients by `Network.backward`."""
    probabilities = net.forward(x, training=True)
    rows = np.arange(len(x))
    dy = np.zeros_like(probabilities)
    dy[rows, labels] = -1 / (probabilities[rows, labels] * len(x))
    dx = net.backward(dy)
    return -np.log(probabilities[rows, labels]).mean(), dx, copies(net.gradients())


@pytest.mark.parametrize("name", ["exercise", *NETWORKS])
def test_gradients_of_a_whole_network_are_the_differences_of_its_loss(name):
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

    most = 150 if name == "exercise" else 40
    check_gradient(loss, x, dx, "x", most=most)
    for key, parameter in net.parameters().items():
        check_gradient(loss, parameter, gradients[key], key, most=most)


def relative_error_bound(net, images):
    """Return the sum over all products of a step of the bound on a sum of K products.

    Each layer's sums run over its taps forward, over filters and taps for dx, and over the
    batch's pixels for dweight; errors of different layers add up to first order.
    """
    total = 0.0
    for layer in net.layers:
        total += reference.relative_bound(np.float64(layer.output_shape[-1]))
        for parameter in layer.parameters.values():
            taps, F = parameter.size // parameter.shape[-1], parameter.shape[-1]
            pixels = images * math.prod(layer.output_shape[:-1])
            total += reference.relative_bound(np.array([taps, F * taps, pixels], float)).sum()
    return total


def assert_same_gradients(net, expected, bound):
    """Check gradients in float32 against those in float64.

    One that is zero by nature, as that of a bias before a batch normalisation, is a sum that
    cancels: it is held against the whole gradient.
    """
    whole = np.linalg.norm([np.linalg.norm(gradient) for gradient in expected.values()])
    assert net.gradients().keys() == expected.keys()
    for key, gradient in net.gradients().items():
        error = np.linalg.norm(gradient - expected[key])
        scale = max(np.linalg.norm(expected[key]), 0.01 * whole)
        assert error <= bound * scale, f"{key}: {error / scale:.3g} > {bound:.3g}"


@pytest.mark.parametrize("images", (2, 37, 300))
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
        adam = reference.Adam(gradient.size, 0.01)
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


def trained(name, steps, images, threads, step=Network.train_step):
    """Return all bits of a network's parameters and losses after some steps."""
    cyconv.set_num_threads(threads)
    net, optimizer = network(name), Adam()
    x, labels = batch(net, images)
    losses = [step(net, x, labels, optimizer) for _ in range(steps)]
    return np.array(losses).tobytes() + net._parameters.tobytes() + net.predict_proba(x).tobytes()


@pytest.mark.parametrize(
    ("name", "steps", "images"),
    [("exercise", 50, 100), ("wide", 50, 37), *((name, 4, 37) for name in NETWORKS)],
)
def test_the_same_bits_for_any_number_of_threads(name, steps, images):
    assert len({trained(name, steps, images, threads) for threads in THREADS}) == 1


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


# Parameters, by name and by number.


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


# Memory, threads and processes.


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_memory_does_not_grow_with_the_batch(python):
    printed = python(
        """
        import resource, sys
        import numpy as np
        import cyconv

        def peak():
            size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return size if sys.platform == "darwin" else 1024 * size

        net, optimizer = cyconv.presets.exercise(), cyconv.Adam()
        x, labels = np.ones((8192, 28, 28, 1), np.float32), np.zeros(8192, int)
        net.train_step(x[:64], labels[:64], optimizer)
        before = peak()
        net.train_step(x, labels, optimizer)
        print(peak() - before)
        """
    )
    assert int(printed) < 32 * 2**20


@pytest.mark.parametrize("name", ["exercise", "big Linear in the middle", "a user's layers"])
def test_many_python_threads_may_predict_on_one_network(name):
    net = network(name)
    x, labels = batch(net, 300)
    expected = net.predict_proba(x).tobytes(), net.evaluate(x, labels)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        probabilities = [pool.submit(net.predict_proba, x) for _ in range(64)]
        scores = [pool.submit(net.evaluate, x, labels) for _ in range(32)]
        assert {future.result(60).tobytes() for future in probabilities} == {expected[0]}
        assert {future.result(60) for future in scores} == {expected[1]}


def test_many_python_threads_may_train_networks_of_their_own():
    def job(seed):
        net, optimizer = presets.exercise(seed), Adam()
        x, labels = batch(net, 50, seed)
        return [net.train_step(x, labels, optimizer) for _ in range(5)]

    expected = [job(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(job, range(8))) == expected


def test_steps_of_many_python_threads_on_one_network_come_one_after_another():
    nets, optimizers = (presets.exercise(), presets.exercise()), (Adam(), Adam())
    x, labels = batch(nets[0], 50)
    expected = [nets[0].train_step(x, labels, optimizers[0]) for _ in range(64)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        steps = [pool.submit(nets[1].train_step, x, labels, optimizers[1]) for _ in range(64)]
        assert {step.result(60) for step in steps} == set(expected)
    np.testing.assert_array_equal(nets[1]._parameters, nets[0]._parameters)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_after_training_gives_the_same_bits(python):
    printed = python(
        """
        import os
        import numpy as np
        import cyconv

        cyconv.set_num_threads(2)
        net, optimizer = cyconv.presets.exercise(), cyconv.Adam()
        rng = np.random.default_rng(0)
        x, labels = rng.random((200, 28, 28, 1), np.float32), rng.integers(0, 10, 200)
        net.train_step(x, labels, optimizer)

        def work():
            net.train_step(x, labels, optimizer)
            return net.predict_proba(x).tobytes() + net.forward(x).tobytes()

        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writer, "wb") as out:
                out.write(work())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            theirs = file.read()
        print(os.waitpid(child, 0)[1], theirs == work(), len(theirs))
        """
    )
    assert printed.split() == ["0", "True", str(2 * 200 * 10 * 4)]


# Copies and pickles.


@pytest.fixture(params=("copy", "deepcopy", "pickle"))
def again(request):
    """Return each way to make another network of one that is there."""
    if request.param == "pickle":
        return lambda net: pickle.loads(pickle.dumps(net))
    return getattr(copy, request.param)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", ["exercise", *NETWORKS])
def test_a_copy_has_the_same_bits_and_goes_its_own_way(name, dtype, again):
    net = network(name, 3, dtype)
    x, labels = batch(net)
    net.train_step(x, labels, Adam())
    bits = net._parameters.tobytes(), net.predict_proba(x).tobytes()
    other = again(net)
    assert type(other) is Network
    assert repr(other) == repr(net)
    assert other._parameters.dtype == dtype
    assert (other._parameters.tobytes(), other.predict_proba(x).tobytes()) == bits
    loss = other.train_step(x, labels, Adam())
    assert (net._parameters.tobytes(), net.predict_proba(x).tobytes()) == bits
    assert net.train_step(x, labels, Adam()) == loss
    np.testing.assert_array_equal(other._parameters, net._parameters)


def test_a_copy_leaves_the_passes_of_the_original_behind(again):
    net = presets.exercise()
    x, labels = batch(net, 500)
    net.train_step(x, labels, Adam())
    net.forward(x)
    other = again(net)
    assert len(pickle.dumps(net)) < net._parameters.nbytes + 2**12
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        other.backward(np.ones((500, 10), np.float32))
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        other.layers[0].backward(np.ones((500, 11, 11, 4), np.float32))
    net.backward(np.ones((500, 10), np.float32))


def test_a_pickle_serves_another_process(tmp_path, python):
    net = network("a user's layers")
    x, _ = batch(net)
    (tmp_path / "net").write_bytes(pickle.dumps((net, x)))
    printed = python(
        f"""
        import pickle
        net, x = pickle.loads(open({str(tmp_path / "net")!r}, "rb").read())
        print(net.predict_proba(x).tobytes().hex())
        """
    )
    assert printed.strip() == net.predict_proba(x).tobytes().hex()


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
