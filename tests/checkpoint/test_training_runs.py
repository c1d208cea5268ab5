"""Checkpoints of training runs: they go on to the same bits, and hostile ones are refused."""

import numpy as np
import pytest

import cyconv
from cyconv import CheckpointError, Network, container
from cyconv.losses import CrossEntropy
from cyconv.runs import Training, load_training, save_training
from cyconv.schedules import cosine
from cyconv.training import KeepBest
from tests.checkpoint.samples import refused, tiny
from tests.test_resume import KINDS, STOPS, Run, Stop


class Sign:
    """An optimizer that is not one of cyconv's: a step of one size against each sign."""

    def __init__(self, size):
        self.config = {"size": size}
        self.taken = np.zeros(3, np.int8)

    def step(self, parameters, gradients):
        parameters -= self.config["size"] * np.sign(gradients)
        self.taken[0] += 1

    def state(self):
        return {"taken": self.taken}

    def load_state(self, state, parameters):
        self.taken[...] = state["taken"]


def test_an_optimizer_of_ones_own_is_saved_if_both_sides_are_given_its_class(tmp_path):
    path, training = tmp_path / "run", Training(tiny(), Sign(0.5))
    training.optimizer.step(np.zeros(3), np.ones(3))
    with pytest.raises(TypeError, match=r"save_training: Sign is not an optimizer of cyconv\.opt"):
        save_training(training, path)
    assert not path.exists()
    save_training(training, path, [Sign])
    with pytest.raises(CheckpointError, match="unknown optimizer 'Sign'"):
        load_training(path)
    again = load_training(path, optimizers=[Sign]).optimizer
    assert (type(again), again.config, again.taken[0]) == (Sign, {"size": 0.5}, 1)


def test_what_has_the_name_of_an_optimizer_is_not_taken_for_it(tmp_path):
    class Adam(cyconv.Adam):
        pass

    training = Training(tiny(), Adam())
    with pytest.raises(TypeError, match="save_training: Adam is not an optimizer of cyconv"):
        save_training(training, tmp_path / "run")
    with pytest.raises(ValueError, match="save_training: optimizers has a second class of the nam"):
        save_training(training, tmp_path / "run", [Adam])
    with pytest.raises(TypeError, match="load_training: optimizers must be classes, got 5"):
        load_training(tmp_path / "run", [5])
    del Sign.load_state
    with pytest.raises(TypeError, match="save_training: Sign has no load_state, so it cannot be"):
        save_training(Training(tiny(), Sign(1)), tmp_path / "run", [Sign])


def test_a_schedule_without_a_name_is_not_saved(tmp_path):
    training = Training(tiny(), cyconv.Adam(), schedule=lambda step, steps: 1)
    with pytest.raises(TypeError, match="save_training: schedule must be one of constant, cosine"):
        save_training(training, tmp_path / "run")
    training.schedule = cosine
    save_training(training, tmp_path / "run")
    assert load_training(tmp_path / "run").schedule == "cosine"


def test_a_run_of_the_older_format_is_refused_by_its_name(tmp_path):
    path = tmp_path / "run"
    for load in (Network.load, load_training):
        text = refused(path, container.encode({}, {"format": "cyconv training 1"}), load)
        assert "this is a training run of an older cyconv" in text


def saved_and_loaded(run, path):
    """Return the run that comes back from a file."""
    save_training(
        Training(run.network, run.optimizer, run.progress, run.best, {}, run.schedule, run.loss),
        path,
    )
    again, training = Run(run.dtype, run.kind), load_training(path)
    average = run.progress.average
    assert training.ema == (None if average is None else average.decay)
    assert (training.schedule, repr(training.loss)) == (run.schedule, repr(run.loss))
    vars(again).update(vars(training))
    return again


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_run_comes_back_from_anywhere_and_ends_with_the_same_bits(kind, dtype, tmp_path):
    whole = Run(dtype, kind)
    whole.train()
    for steps in (0, *STOPS):
        run = Run(dtype, kind)
        if steps != 0:
            run.train(Stop(steps))
        again = saved_and_loaded(run, tmp_path / "run")
        assert again.bits() == run.bits()
        assert again.progress == run.progress
        again.train()
        assert again.bits() == whole.bits()
    assert saved_and_loaded(whole, tmp_path / "run").bits() == whole.bits()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_saved_and_loaded_after_each_step_is_the_same_run(kind, tmp_path):
    whole, run = Run(kind=kind), Run(kind=kind)
    whole.train()
    for _ in range(12):
        run = saved_and_loaded(run, tmp_path / "run")
        run.train(Stop(1))
    run.train()
    assert run.bits() == whole.bits()


def test_settings_patience_and_a_rate_of_numpy_come_back(tmp_path):
    settings = {"epochs": 3, "name": 'a "name" é', "rates": [0.1, None], "sha256": "0" * 64}
    adam = cyconv.Adam(np.float32(0.1), (0.8, 0.99), 1e-7)
    adam.learning_rate *= np.float32(0.3)
    training = Training(tiny(), adam, best=KeepBest(4), settings=settings)
    save_training(training, tmp_path / "run")
    again = load_training(tmp_path / "run")
    assert (again.settings, again.best.patience) == (settings, 4)
    assert repr(again.optimizer) == repr(cyconv.Adam(float(adam.learning_rate), (0.8, 0.99), 1e-7))
    save_training(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "run").read_bytes()


def test_a_network_and_a_training_run_are_not_taken_for_each_other(tmp_path):
    tiny().save(tmp_path / "net")
    save_training(Training(tiny(), cyconv.Adam()), tmp_path / "run")
    with pytest.raises(CheckpointError, match="run: this is a training run, which cyconv train"):
        Network.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="its format must be 'cyconv training 2'"):
        load_training(tmp_path / "net")


@pytest.fixture(scope="module")
def trained():
    """Return the tensors and the header of a run after six steps."""
    run, written = Run(kind="state"), []
    run.train(Stop(6))
    training = Training(run.network, run.optimizer, run.progress, run.best)
    training.loss = CrossEntropy(0.1, [1, 2, 3, 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "write", lambda path, *content: written.extend(content))
        save_training(training, "")
    return written


HOSTILE_RUNS = {
    "no optimizer": {"optimizer": None},
    "a list for an optimizer": {"optimizer": ["Adam"]},
    "an optimizer without a type": {"optimizer": {"type": None}},
    "an optimizer of a list": {"optimizer": {"type": ["Adam"]}},
    "a negative decay": {"optimizer": {"weight_decay": -1}},
    "an optimizer with other arrays": {
        "optimizer": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9}
    },
    "an optimizer without arrays": {"optimizer": {"type": "SGD", "learning_rate": 0.1}},
    "the base class of optimizers": {"optimizer": {"type": "BaseOptimizer"}},
    "an optimizer from elsewhere": {"optimizer": {"type": "os.system"}},
    "an optimizer with more": {"optimizer": {"momentum": 1}},
    "an optimizer with a self": {"optimizer": {"self": 1}},
    "a rate that is none": {"optimizer": {"learning_rate": "0.1"}},
    "an endless rate": {"optimizer": {"learning_rate": float("inf")}},
    "a rate of 400 digits": {"optimizer": {"learning_rate": 10**400}},
    "betas of 1": {"optimizer": {"betas": [0.9, 1]}},
    "a norm of 0": {"optimizer": {"max_norm": 0}},
    "no schedule": {"schedule": None},
    "an unknown schedule": {"schedule": "find"},
    "a schedule of a list": {"schedule": ["cosine"]},
    "a number for a loss": {"loss": 5},
    "a loss without a type": {"loss": {}},
    "an unknown loss": {"loss": {"type": "mean"}},
    "a smoothing of 1": {"loss": {"type": "CrossEntropy", "label_smoothing": 1}},
    "a loss of nothing": {"loss": {"type": "CrossEntropy", "class_weight": [0, 0, 0, 0]}},
    "a loss of more classes": {"loss": {"type": "CrossEntropy", "class_weight": [1] * 5}},
    "a loss of words": {"loss": {"type": "CrossEntropy", "class_weight": "1111"}},
    "no average beside one": {"progress": {"average": None}},
    "a number for an average": {"progress": {"average": 0.9}},
    "an average of nothing": {"progress": {"average": {}}},
    "a decay of 1": {"progress": {"average": {"decay": 1, "kept": True, "worn": True}}},
    "a decay of words": {"progress": {"average": {"decay": "1", "kept": True, "worn": True}}},
    "an average that is not kept": {
        "progress": {"average": {"decay": 0.9, "kept": False, "worn": True}}
    },
    "an average that is not worn": {
        "progress": {"average": {"decay": 0.9, "kept": True, "worn": False}}
    },
    "an average worn in part": {"progress": {"average": {"decay": 0.9, "kept": 1, "worn": 1}}},
    "no progress": {"progress": None},
    "a progress with more": {"progress": {"steps": 6}},
    "a negative epoch": {"progress": {"epoch": -1}},
    "an epoch without history": {"progress": {"epoch": 10**9}},
    "a batch that is no number": {"progress": {"batch": 2.5}},
    "a loss that is none": {"progress": {"loss": float("nan")}},
    "seconds that are none": {"progress": {"seconds": "1"}},
    "a list of history": {"progress": {"history": []}},
    "a history with more": {"progress": {"history": {"loss": [1], "seconds": [1], "x": []}}},
    "a history with words": {"progress": {"history": {"loss": ["x"], "seconds": [1]}}},
    "a history without seconds": {"progress": {"history": {"loss": [1], "seconds": []}}},
    "a history without losses": {"progress": {"history": {"seconds": [1]}}},
    "too long a history": {"progress": {"history": {"loss": [1, 1], "seconds": [1]}}},
    "no best": {"best": None},
    "a best patience of 0": {"best": {"patience": 0}},
    "a best epoch of none": {"best": {"epoch": 0}},
    "an accuracy that is none": {"best": {"accuracy": None}},
    "an accuracy that is no number": {"best": {"accuracy": float("nan")}},
    "a best epoch after more steps than there were": {"best": {"steps": 7}},
    "a negative number of steps of the best": {"best": {"steps": -1}},
    "a fraction of steps of the best": {"best": {"steps": 0.5}},
    "settings that are a list": {"settings": []},
    "no settings": {"settings": None},
}


# The number of steps is a tensor.
COUNTS = {
    "no steps with means": np.zeros((), np.int64),
    "a negative number of steps": np.full((), -6, np.int64),
    "more steps than a double counts": np.full((), 2**53, np.int64),
    "steps in a row": np.full(1, 6, np.int64),
    "steps in half the bits": np.full((), 6, np.int32),
    "steps without a sign": np.full((), 6, np.uint64),
    "a fraction of steps": np.full((), 6.0),
}


@pytest.mark.parametrize("what", COUNTS)
def test_a_number_of_steps_that_is_none_is_refused(what, trained, tmp_path):
    tensors, header = trained
    changed = container.encode({**tensors, "optimizer.t": COUNTS[what]}, header)
    assert "AdamW.load_state: " in refused(tmp_path / "run", changed, load_training)


@pytest.mark.parametrize("what", HOSTILE_RUNS)
def test_a_hostile_training_run_with_a_true_digest_is_refused(what, trained, tmp_path):
    tensors, header = trained
    ((name, change),) = HOSTILE_RUNS[what].items()
    if name in ("optimizer", "progress", "best") and isinstance(change, dict):
        change = change if "type" in change else {**header[name], **change}
    changed = container.encode(tensors, {**header, name: change})
    assert "\n" not in refused(tmp_path / "run", changed, load_training)


def test_a_training_run_without_one_of_its_parts_is_refused(trained, tmp_path):
    tensors, header = trained
    path = tmp_path / "run"
    path.write_bytes(container.encode(tensors, header))
    assert load_training(path).progress.batch == 2
    for part in ("optimizer.m", "optimizer.t", "best.parameters", "average.parameters"):
        assert part in tensors
    for name in header.keys() - {"format"}:
        part = {key: value for key, value in header.items() if key != name}
        refused(path, container.encode(tensors, part), load_training)
    for name in tensors:
        part = {key: value for key, value in tensors.items() if key != name}
        refused(path, container.encode(part, header), load_training)
        one = tensors[name]
        others = (
            one[..., np.newaxis],
            one.astype(np.float64),
            np.ones(one.size + 1) if one.ndim else one - 7,
        )
        for other in others:
            changed = {**tensors, name: other}
            refused(path, container.encode(changed, header), load_training)
        refused(path, container.encode({**tensors, f"{name}2": one}, header), load_training)
