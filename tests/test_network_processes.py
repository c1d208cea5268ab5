"""Networks in little memory, many threads and processes, and their copies."""

import concurrent.futures
import contextlib
import copy
import os
import pickle
import signal
import sys

import numpy as np
import pytest

from cyconv import Adam, Network, presets
from cyconv.layers import BatchNorm, Conv2D, Flatten, Linear, Softmax
from tests.zoo import ALL_NETWORKS, NETWORKS, batch, network


@pytest.fixture(params=ALL_NETWORKS)
def name(request):
    """Return the name of each network in turn."""
    return request.param


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


def inside_an_optimizer(step):
    class Optimizer(Adam):
        def step(self, parameters, gradients):
            step()

    return Optimizer(), contextlib.nullcontext()


def inside_a_signal_handler(step):
    class Optimizer(Adam):
        def step(self, parameters, gradients):
            signal.raise_signal(signal.SIGINT)

    @contextlib.contextmanager
    def handled():
        before = signal.signal(signal.SIGINT, lambda *_: step())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    return Optimizer(), handled()


@pytest.mark.parametrize("inside", (inside_an_optimizer, inside_a_signal_handler))
@pytest.mark.parametrize("method", ("train_step", "fit"))
def test_a_step_inside_a_step_of_the_same_network_is_refused(method, inside):
    net, twin = presets.exercise(), presets.exercise()
    x, labels = batch(net, 20)

    def step():
        twin.train_step(x, labels, Adam())  # of another network
        getattr(net, method)(x, labels, optimizer=Adam())

    optimizer, handled = inside(step)
    text = rf"^Network\.{method}: a step of this network is under way in this thread.*deepcopy"
    with handled, pytest.raises(RuntimeError, match=text):
        net.train_step(x, labels, optimizer)
    net.train_step(x, labels, Adam())
    np.testing.assert_array_equal(net._parameters, twin._parameters)


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


class Filters(Network):
    """A network whose constructor has arguments of its own, and which has attributes."""

    def __init__(self, filters, *, name):
        self.name = name
        self.first = Conv2D(filters, 3)
        layers = [self.first, BatchNorm(), Flatten(), Linear(3), Softmax()]
        super().__init__(layers, (5, 5, 1), seed=filters)
        self.filters, self.last = [filters], self.layers[-2]


def test_a_subclass_is_copied_without_its_constructor_and_keeps_its_attributes(again):
    net = Filters(2, name="mine")
    x, labels = batch(net)
    net.train_step(x, labels, Adam())
    other = again(net)
    assert type(other) is Filters
    assert (other.name, other.filters, other.steps) == ("mine", [2], 1)
    assert (other.first, other.last) == (other.layers[0], other.layers[3])
    assert other.predict_proba(x).tobytes() == net.predict_proba(x).tobytes()
    assert again(other).train_step(x, labels, Adam()) == net.train_step(x, labels, Adam())


def test_a_subclass_is_loaded_without_its_constructor(tmp_path):
    net = Filters(2, name="mine")
    net.save(tmp_path / "net")
    other = Filters.load(tmp_path / "net")
    assert type(other) is Filters
    x, _ = batch(net)
    assert other.predict_proba(x).tobytes() == net.predict_proba(x).tobytes()
