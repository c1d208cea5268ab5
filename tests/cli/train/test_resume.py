"""cyconv train --resume: a run goes on as it began, and nothing else is taken for a run."""

import json

import numpy as np
import pytest

from cyconv import Adam, Network, datasets, presets
from cyconv.cli import main
from cyconv.runs import Training, load_training, save_training
from cyconv.training import KeepBest, Progress
from tests.cli.train.runs import SHORT, bits, child, refusal, rows


def test_a_finished_run_that_is_resumed_tells_its_result_again(whole, tmp_path, capsys):
    before = bits(whole)
    assert main(["train", "--resume", str(whole)]) == 0
    out = capsys.readouterr().out
    assert f"{whole} goes on after epoch 2" in out and rows(out) == []
    record = json.loads((whole / "history.json").read_text())
    assert f"\ntest accuracy {record['test_accuracy']:.4f}\n" in out
    assert bits(whole) == before


def test_a_model_that_a_killed_run_had_not_yet_written_is_written_when_it_is_resumed(
    whole, tmp_path
):
    (tmp_path / "checkpoint.safetensors").write_bytes(
        (whole / "checkpoint.safetensors").read_bytes()
    )
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)
    assert json.loads((tmp_path / "history.json").read_text())["test_accuracy"]


@pytest.mark.parametrize("option", ("--epochs=3", "--seed=0", "--out=x", "--preset=wide",
                                    "--dataset=digits", "--early-stop=1", "--schedule=cosine",
                                    "--batch-size=1", "--learning-rate=1",
                                    "--optimizer=sgd"))  # fmt: skip
def test_resume_takes_no_option_that_would_change_the_run(option, whole, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--resume", str(whole), option])
    assert stopped.value.code == 2
    name = option.partition("=")[0]
    assert f"--resume goes on as the run began: leave out {name}\n" in capsys.readouterr().err


KINDS = {"adamw": "AdamW", "sgd": "SGD"}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_with_another_optimizer_trains_stops_and_goes_on_to_the_same_bits(
    name, tmp_path, capsys
):
    option = ("--optimizer", name)
    assert main([*SHORT, *option, "--out", str(tmp_path / "whole")]) == 0
    out = capsys.readouterr().out
    assert float(rows(out)[-1][2]) > 0.6
    patch = f"from cyconv.optimizers import OPTIMIZERS\nat(OPTIMIZERS[{KINDS[name]!r}], 'step', 30)"
    assert child(patch, *SHORT, *option, "--out", tmp_path / "stopped").returncode == 130
    assert main(["train", "--resume", str(tmp_path / "stopped")]) == 0
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")
    record = json.loads((tmp_path / "whole" / "history.json").read_text())
    assert record["optimizer"].startswith(KINDS[name]) and record["schedule"] == "cosine"


def test_there_must_be_a_run_to_resume(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        err = refusal(["train", "--resume", folder], capsys)
        assert f"{folder} holds no run: there is no checkpoint.safetensors in it" in err
    assert not (tmp_path / "none").exists()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no run")
    assert "this is not a complete safetensors file" in refusal(
        ["train", "--resume", tmp_path], capsys
    )
    presets.exercise().save(tmp_path / "checkpoint.safetensors")
    assert "its format must be" in refusal(["train", "--resume", tmp_path], capsys)


def test_a_run_goes_on_with_its_own_data_only(tmp_path, monkeypatch, capsys):
    assert child("at(Adam, 'step', 30)", *SHORT, "--out", tmp_path).returncode == 130
    (x, labels), test = datasets.load_digits()
    for train_set in ((x[::-1].copy(), labels), (x, (labels + 1) % 10)):
        monkeypatch.setattr(datasets, "load_digits", lambda train_set=train_set: (train_set, test))
        err = refusal(["train", "--resume", tmp_path], capsys)
        assert f"{tmp_path} was trained on other data; name their folder with --data" in err


SETTINGS = {"preset": "exercise", "epochs": 2, "batch_size": 64, "seed": 0, "dataset": "digits"}
HOSTILE = {
    "epochs that are not a number": {"epochs": "2"},
    "true epochs": {"epochs": True},
    "no epochs": {"epochs": None},
    "epochs in part": {"epochs": 2.5},
    "a batch of zero": {"batch_size": 0},
    "a negative batch": {"batch_size": -64},
    "a batch of a list": {"batch_size": [64]},
    "a negative seed": {"seed": -1},
    "a seed of a mapping": {"seed": {}},
    "an unknown data set": {"dataset": "../../etc"},
    "a data set that is not a name": {"dataset": 5},
    "another data set's digest": {"data_sha256": "0" * 64},
    "a digest that is not text": {"data_sha256": 5},
    "another network": {"network": Network([presets.Conv2D(10, 5), presets.Softmax()], (5, 5, 1))},
    "a network without images": {"network": Network([presets.Linear(10)], (784,))},
    "too far a step": {"progress": Progress(0, 10**30)},
    "too large a t": {"t": 2**63 - 1},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_checkpoint_with_a_true_digest_is_refused_in_one_line(
    what, whole, tmp_path, capsys
):
    digest = load_training(whole / "checkpoint.safetensors").settings["data_sha256"]
    change = dict(HOSTILE[what])
    training = Training(
        change.pop("network", presets.exercise()),
        Adam(),
        change.pop("progress", Progress()),
        settings={**SETTINGS, "data_sha256": digest},
    )
    if "t" in change:
        training.optimizer._count[0] = change.pop("t")
        training.optimizer._kept = {
            name: np.ones_like(training.network._parameters) for name in ("m", "v")
        }
    training.settings.update(change)
    save_training(training, tmp_path / "checkpoint.safetensors")
    error = refusal(["train", "--resume", tmp_path], capsys)
    # And not only because other data were found, or none.
    assert ("dataset must be one of" in error) == (what == "an unknown data set")


def test_a_training_run_of_another_program_is_not_a_run_of_this_command(tmp_path, capsys):
    save_training(
        Training(presets.exercise(), Adam(), best=KeepBest(3)),
        tmp_path / "checkpoint.safetensors",
    )
    for arguments in (["train", "--resume", tmp_path], [*SHORT, "--out", tmp_path]):
        err = refusal(arguments, capsys)
        assert "this is not a run of cyconv train: it has no preset" in err
