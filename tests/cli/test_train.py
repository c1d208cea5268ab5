"""cyconv train as a person runs it."""

import json
import re

import pytest

from cyconv import Network, __version__, datasets, errors
from cyconv.cli import main

SHORT = ("train", "--dataset", "digits", "--epochs", "2")


def test_it_shows_the_network_each_epoch_and_the_accuracy(capsys):
    assert main(SHORT) == 0
    out, err = capsys.readouterr()
    assert "digits: 1,500 training and 297 test images" in out
    assert "Conv2D(16, kernel_size=4, stride=1, padding=0)" in out and "4,934 parameters" in out
    assert re.findall(r"^epoch (\d)/2 ", out, re.M) == ["1", "2"]
    assert re.fullmatch(r"test accuracy [01]\.\d{4}", out.splitlines()[-1])
    assert "step" not in err  # no progress bar where there is no terminal


def test_the_same_command_prints_the_same_accuracy_for_any_number_of_threads(capsys):
    lines = set()
    for threads in ("1", "2", "3"):
        assert main([*SHORT, "--threads", threads]) == 0
        lines.add(capsys.readouterr().out.splitlines()[-1])
    assert len(lines) == 1


def test_out_holds_the_history(tmp_path, capsys):
    folder = tmp_path / "new" / "run"
    assert main([*SHORT, "--out", str(folder), "--batch-size", "50", "--seed", "7"]) == 0
    record = json.loads((folder / "history.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["history.json", "model.safetensors"]
    network = Network.load(folder / "model.safetensors")
    assert network.evaluate(*datasets.load_digits()[1])[1] == record["test_accuracy"]
    assert (record["dataset"], record["batch_size"], record["seed"]) == ("digits", 50, 7)
    assert record["cyconv"] == __version__
    assert {len(values) for values in record["history"].values()} == {2}
    assert f"test accuracy {record['test_accuracy']:.4f}" in capsys.readouterr().out
    assert record["test_accuracy"] == record["history"]["val_accuracy"][-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "--epochs", "0"], "--epochs: must be a whole number of at least 1, got '0'"),
        (["train", "--epochs", "two"], "--epochs: must be a whole number"),
        (["train", "--batch-size", "-1"], "--batch-size: must be a whole number"),
        (["train", "--learning-rate", "nan"], "--learning-rate: must be a number above 0"),
        (["train", "--learning-rate", "0"], "--learning-rate: must be a number above 0"),
        (["train", "--seed", "-1"], "--seed: must be a whole number of at least 0"),
        (["train", "--threads", "100000"], "--threads: must be from 1 to"),
        (["train", "--preset", "deep"], "--preset: invalid choice"),
        (["train", "--dataset", "digits", "--data", "."], "--data is a folder of MNIST"),
        (["train", "more"], "unrecognized arguments: more"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: command"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_line_that_helps(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_a_folder_without_mnist_is_an_error(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert str(tmp_path) in err and "train-images-idx3-ubyte" in err and "Traceback" not in err


def test_offline_auto_says_why_and_takes_the_digits(monkeypatch, capsys):
    def offline(directory=None):
        raise errors.DownloadError("no mirror has sent it")

    monkeypatch.setattr(datasets, "load_mnist", offline)
    assert main(["train", "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "no mirror has sent it" in out and "trains on the small digits" in out
    assert main(["train", "--epochs", "1", "--dataset", "mnist"]) == 1
    assert "no mirror has sent it" in capsys.readouterr().err
