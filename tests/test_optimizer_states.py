"""What optimizers keep of their steps: told, loaded, copied, and whole whatever interrupts one."""

import copy
import pickle
import sys

import numpy as np
import pytest

import cyconv
from cyconv import Adam, checks, optimizers
from cyconv.optimizers import SGD, AdamW  # noqa: F401 - what eval finds
from tests.test_optimizers import KINDS, made


@pytest.mark.parametrize("name", KINDS)
def test_an_optimizer_tells_what_it_is_and_what_it_has_kept(name):
    optimizer, parameters = made(name), np.ones(5, np.float32)
    again = type(optimizer)(**optimizer.config)
    assert repr(again) == repr(optimizer) == repr(eval(repr(optimizer)))
    assert optimizer.config.items() >= KINDS[name][1].items()
    (count,) = optimizer.state().values()
    assert (count.shape, count.dtype, count) == ((), np.int64, 0)
    optimizer.step(parameters, parameters.copy())
    state = optimizer.state()
    assert list(state) == ["t", *optimizer.arrays] and state["t"] == optimizer.t == 1
    assert all(state[key].shape == (5,) for key in optimizer.arrays)
    kept, twin = {key: array.copy() for key, array in state.items()}, parameters.copy()
    again.load_state(kept, twin)
    for _ in range(3):
        optimizer.step(parameters, np.ones(5, np.float32))
        again.step(twin, np.ones(5, np.float32))
    np.testing.assert_array_equal(parameters, twin)
    assert all(np.array_equal(again.state()[key], state[key]) for key in state)
    assert kept["t"] == 1  # what was given stays as it was


OTHER = {  # what each argument may be changed to
    "learning_rate": 0.02, "max_norm": 0.5, "betas": [0.5, 0.6], "eps": 1e-3, "weight_decay": 0.3,
    "momentum": 0.4, "nesterov": True,
}  # fmt: skip


@pytest.mark.parametrize("steps", (0, 3))
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in KINDS for n in made(k).config])
def test_an_argument_that_is_changed_is_the_one_of_the_next_step(kind, name, steps):
    optimizer, parameters = made(kind), np.ones(5, np.float32)
    if name == "nesterov":
        optimizer.momentum = 0.4
    again = type(optimizer)(**optimizer.config | {name: OTHER[name]})
    for _ in range(steps):
        optimizer.step(parameters, np.ones(5, np.float32))
    if name == "momentum" and steps and not optimizer.momentum:
        with pytest.raises(ValueError, match=r"^SGD: momentum must stay 0 after a step without it"):
            optimizer.momentum = 0.4
        return
    setattr(optimizer, name, OTHER[name])
    assert repr(optimizer) == repr(again)
    twin = parameters.copy()
    again.load_state(optimizer.state(), twin)
    for _ in range(3):
        optimizer.step(parameters, np.ones(5, np.float32))
        again.step(twin, np.ones(5, np.float32))
    np.testing.assert_array_equal(parameters, twin)
    assert list(again.state()) == list(optimizer.state()) == ["t", *again.arrays]


def test_a_momentum_that_is_given_up_leaves_nothing_behind():
    optimizer, parameters = SGD(0.1, 0.9), np.ones(5, np.float32)
    optimizer.step(parameters, parameters.copy())
    optimizer.momentum = 0
    plain, twin = SGD(0.1), parameters.copy()
    plain.load_state(optimizer.state(), twin)
    optimizer.step(parameters, np.ones(5, np.float32))
    plain.step(twin, np.ones(5, np.float32))
    np.testing.assert_array_equal(parameters, twin)
    with pytest.raises(
        ValueError, match=r"^SGD: momentum must stay 0 after a step without it, got"
    ):
        optimizer.momentum = 0.9


@pytest.mark.parametrize(
    "copied", (copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x)))
)
@pytest.mark.parametrize("name", KINDS)
def test_a_copy_goes_on_with_the_copy_of_a_network(name, copied):
    x, labels = np.random.default_rng(0).random((4, 3), np.float32), [0, 1, 1, 0]
    net = cyconv.Network([cyconv.layers.Linear(2), cyconv.layers.Softmax()], (3,))
    optimizer = made(name)
    net.train_step(x, labels, optimizer)
    together = copy.deepcopy((net, optimizer)), pickle.loads(pickle.dumps((net, optimizer)))
    apart = copied(net), copied(optimizer)
    for pair in (*together, apart):
        losses = [pair[0].train_step(x, labels, pair[1]) for _ in range(3)]
        assert losses[2] < losses[0] and pair[1].t == 4
        with pytest.raises(RuntimeError, match="belongs to another network; make a new one"):
            net.train_step(x, labels, pair[1])  # it has found its own
    for _ in range(3):
        net.train_step(x, labels, optimizer)  # which no copy has touched
    for other, _ in (*together, apart):
        np.testing.assert_array_equal(other._parameters, net._parameters)


def test_a_copy_does_not_go_on_with_a_network_of_another_size():
    optimizer = Adam()
    optimizer.step(np.zeros(3), np.ones(3))
    for parameters in (np.zeros(4), np.zeros(3, np.float32)):
        for each in (optimizer, copy.deepcopy(optimizer)):
            with pytest.raises(
                RuntimeError,
                match="Adam: this optimizer belongs to another network, of 3 parameters in "
                f"float64, and this one has {parameters.size} in {parameters.dtype}; make a new",
            ):
                each.step(parameters, np.ones_like(parameters))


def test_an_optimizer_goes_on_with_a_network_that_was_loaded_by_the_advice_of_its_error(tmp_path):
    net, optimizer = cyconv.presets.exercise(), Adam()
    x, labels = np.ones((2, 28, 28), np.float32), [0, 1]
    net.train_step(x, labels, optimizer)
    net.save(tmp_path / "net")
    loaded = cyconv.Network.load(tmp_path / "net")
    apart = pickle.loads(pickle.dumps(optimizer))
    with pytest.raises(
        RuntimeError, match=r"that was loaded .* give it copy.deepcopy\(optimizer\)"
    ):
        loaded.train_step(x, labels, optimizer)
    twin = copy.deepcopy(loaded)
    losses = [
        [each.train_step(x, labels, taken) for _ in range(3)]
        for each, taken in (
            (loaded, copy.deepcopy(optimizer)),
            (twin, apart),
            (net, optimizer),
        )
    ]
    assert losses[0] == losses[1] == losses[2]


class Untouched:
    """Two steps' worth of an optimizer, and what it must be before or after the second."""

    def __init__(self, name, steps):
        self.optimizer, self.parameters = made(name), np.ones(6)
        self.gradients = np.array([1.0, -2, 30, 4, 5, 0])
        for _ in range(steps):
            self.step()

    def step(self):
        self.optimizer.step(self.parameters, self.gradients)

    def bits(self):
        state = self.optimizer.state()
        return self.parameters.tobytes(), {key: array.tobytes() for key, array in state.items()}


@pytest.mark.parametrize("before", (0, 1))
@pytest.mark.parametrize("name", KINDS)
def test_a_step_interrupted_anywhere_is_taken_or_not(name, before):
    """Ctrl-C at each line of Python that a step runs."""
    expected = [Untouched(name, steps).bits() for steps in (before, before + 1)]
    outcomes, line = [], 0
    while not outcomes or outcomes[-1] is not None:
        line += 1
        run, left = Untouched(name, before), line

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename in (optimizers.__file__, checks.__file__):
                left -= event in ("line", "return")
                if left == 0:
                    raise KeyboardInterrupt
                return trace
            return None

        try:
            sys.settrace(trace)
            run.step()
            sys.settrace(None)
            outcomes.append(None)
        except KeyboardInterrupt:
            sys.settrace(None)
            outcomes.append(expected.index(run.bits()))
            for _ in range(before + 1 - run.optimizer.t):
                run.step()  # it goes on as if nothing had happened
            assert run.bits() == expected[1]
        finally:
            sys.settrace(None)
    assert (
        outcomes.count(0) > 20 and outcomes.count(1) >= 1 and sorted(outcomes[:-1]) == outcomes[:-1]
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_step_without_memory_is_not_taken(name, monkeypatch):
    expected = [Untouched(name, steps).bits() for steps in range(2)]

    def fail(*_):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise MemoryError
        return np.zeros(6)

    for most in range(3):
        run, calls = Untouched(name, 0), most
        with monkeypatch.context() as patch:
            patch.setattr(np, "zeros_like", fail)
            patch.setattr(np, "empty", fail)
            try:
                run.step()
            except MemoryError:
                assert run.bits() == expected[0]
                continue
        assert run.bits() == expected[1]


STATE = {"t": np.array(2), "m": np.ones(3), "v": np.ones(3)}
STATES = {
    "nothing": ({}, TypeError, "t must be an array of shape () and int64, got None"),
    "t as a number": ({**STATE, "t": 2}, TypeError, "t must be an array"),
    "t in a row": ({**STATE, "t": np.array([2])}, TypeError, "t must be an array"),
    "t with a fraction": ({**STATE, "t": np.array(2.0)}, TypeError, "t must be an array"),
    "a negative t": ({**STATE, "t": np.array(-1)}, ValueError, "t must be at least 0 and below"),
    "a huge t": ({**STATE, "t": np.array(2**53)}, ValueError, "t must be at least 0 and below"),
    "arrays of no steps": ({**STATE, "t": np.array(0)}, ValueError, "after 0 steps the state has"),
    "an array too few": ({"t": STATE["t"], "m": STATE["m"]}, ValueError, "after 2 steps the state"),
    "one too many": ({**STATE, "velocity": STATE["m"]}, ValueError, "after 2 steps the state has"),
    "another size": (
        {**STATE, "m": np.ones(4)},
        ValueError,
        "m must be flat, contiguous and of sh",
    ),
    "another type": ({**STATE, "v": np.ones(3, np.float32)}, TypeError, "v must be float64 as the"),
    "a list": ({**STATE, "v": [1.0] * 3}, TypeError, "v must be an array of float32 or float64"),
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(what):
    state, error, text = STATES[what]
    run = Untouched("Adam", 1)
    before = run.bits()
    with pytest.raises(error) as raised:
        run.optimizer.load_state(state, np.zeros(3))
    assert str(raised.value).startswith(f"Adam.load_state: {text}"), raised.value
    assert run.bits() == before
    run.optimizer.load_state({**STATE, "t": np.array(2**53 - 1)}, np.zeros(3))
    run.optimizer.step(np.zeros(3), np.ones(3))
