"""Checkpoints of training runs: a run goes on to the same bits, and only a whole one loads."""

import numpy as np
import pytest

import cyconv
from cyconv import CheckpointError, Network, checkpoint
from cyconv.checkpoint import Training, load_training, save_training
from tests.checkpoint.samples import refused, tiny
from tests.test_training import STOPS, Run, Stop


def saved_and_loaded(run, path):
    """Return the run that comes back from a file."""
    save_training(Training(run.network, run.optimizer, run.progress, run.best), path)
    again, training = Run(), load_training(path)
    vars(again).update(vars(training))
    return again


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_a_training_run_comes_back_from_anywhere_and_ends_with_the_same_bits(dtype, tmp_path):
    whole = Run(dtype)
    whole.train()
    for steps in (0, *STOPS):
        run = Run(dtype)
        if steps != 0:
            run.train(Stop(steps))
        again = saved_and_loaded(run, tmp_path / "run")
        assert again.bits() == run.bits()
        assert again.progress == run.progress
        again.train()
        assert again.bits() == whole.bits()
    assert saved_and_loaded(whole, tmp_path / "run").bits() == whole.bits()


def test_a_run_saved_and_loaded_after_each_step_is_the_same_run(tmp_path):
    whole, run = Run(), Run()
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
    training = Training(tiny(), adam, best=checkpoint.KeepBest(4), settings=settings)
    save_training(training, tmp_path / "run")
    again = load_training(tmp_path / "run")
    assert (again.settings, again.best.patience) == (settings, 4)
    assert repr(again.optimizer) == repr(cyconv.Adam(float(adam.learning_rate), (0.8, 0.99), 1e-7))
    save_training(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "run").read_bytes()


def test_a_network_and_a_training_run_are_not_taken_for_each_other(file, tmp_path):
    save_training(Training(tiny(), cyconv.Adam()), tmp_path / "run")
    with pytest.raises(CheckpointError, match="run: this is a training run, which cyconv train"):
        Network.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="its format must be 'cyconv training 1'"):
        load_training(file)


@pytest.fixture(scope="module")
def trained():
    """Return the tensors and the header of a run after six steps."""
    run, written = Run(), []
    run.train(Stop(6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_write", lambda path, *content: written.extend(content))
        save_training(Training(run.network, run.optimizer, run.progress, run.best), "")
    return written


HOSTILE_RUNS = {
    "no optimizer": {"adam": None},
    "an optimizer with more": {"adam": {"learning_rate": 0.1, "momentum": 1}},
    "a rate that is not a number": {"adam": {"learning_rate": "0.1"}},
    "an infinite rate": {"adam": {"learning_rate": float("inf")}},
    "betas of 1": {"adam": {"betas": [0.9, 1]}},
    "no t": {"t": None},
    "a t that is not a number": {"t": "6"},
    "a negative t": {"t": -6},
    "no steps with means": {"t": 0},
    "no progress": {"progress": None},
    "a progress with more": {"progress": {"steps": 6}},
    "a negative epoch": {"progress": {"epoch": -1}},
    "an epoch without history": {"progress": {"epoch": 10**9}},
    "a batch that is not an integer": {"progress": {"batch": 2.5}},
    "a loss that is not a number": {"progress": {"loss": float("nan")}},
    "seconds that are not a number": {"progress": {"seconds": "1"}},
    "a list of history": {"progress": {"history": []}},
    "a history with more": {"progress": {"history": {"loss": [1], "seconds": [1], "x": []}}},
    "a history with words": {"progress": {"history": {"loss": ["x"], "seconds": [1]}}},
    "a history without seconds": {"progress": {"history": {"loss": [1], "seconds": []}}},
    "a history without losses": {"progress": {"history": {"seconds": [1]}}},
    "too long a history": {"progress": {"history": {"loss": [1, 1], "seconds": [1]}}},
    "no best": {"best": None},
    "a best without patience": {"best": {}},
    "a best patience of 0": {"best": {"patience": 0, "epoch": 1, "accuracy": 0.5}},
    "a best epoch of zero": {"best": {"patience": 1, "epoch": 0, "accuracy": 0.5}},
    "a missing accuracy": {"best": {"patience": 1, "epoch": 1, "accuracy": None}},
    "an accuracy that is not a number": {
        "best": {"patience": 1, "epoch": 1, "accuracy": float("nan")}
    },
    "settings that are a list": {"settings": []},
    "no settings": {"settings": None},
}


@pytest.mark.parametrize("what", HOSTILE_RUNS)
def test_a_hostile_training_run_with_a_true_digest_is_refused(what, trained, tmp_path):
    tensors, header = trained
    ((name, change),) = HOSTILE_RUNS[what].items()
    if name in ("adam", "progress") and isinstance(change, dict):
        change = {**header[name], **change}
    changed = checkpoint._encode(tensors, {**header, name: change})
    assert "\n" not in refused(tmp_path / "run", changed, load_training)


def test_a_training_run_without_one_of_its_parts_is_refused(trained, tmp_path):
    tensors, header = trained
    path = tmp_path / "run"
    path.write_bytes(checkpoint._encode(tensors, header))
    assert load_training(path).progress.batch == 2
    for name in header.keys() - {"format"}:
        part = {key: value for key, value in header.items() if key != name}
        refused(path, checkpoint._encode(tensors, part), load_training)
    for name in tensors:
        part = {key: value for key, value in tensors.items() if key != name}
        refused(path, checkpoint._encode(part, header), load_training)
        for other in (tensors[name][:1], tensors[name].astype(np.float64)):
            changed = {**tensors, name: other}
            refused(path, checkpoint._encode(changed, header), load_training)
