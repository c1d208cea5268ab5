"""The arguments of all commands: each help page fits a screen, and each mistake has a line."""

import argparse
import os
import sys

import pytest

from cyconv.cli import evaluate, export, main, predict

COMMANDS = "train", "evaluate", "predict", "export", "verify", "bench", "info"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_page_fits_a_screen_and_has_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"  cyconv {command} ") for line in lines)
    assert len(lines) <= 24 and max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "--epochs", "0"], "--epochs: must be a whole number of at least 1, got '0'"),
        (["train", "--epochs", "two"], "--epochs: must be a whole number"),
        (["train", "--batch-size", "-1"], "--batch-size: must be a whole number"),
        (["train", "--learning-rate", "nan"], "--learning-rate: must be a number above 0"),
        (["train", "--learning-rate", "0"], "--learning-rate: must be a number above 0"),
        (["train", "--early-stop", "0"], "--early-stop: must be a whole number of at least 1"),
        (["train", "--schedule", "steep"], "--schedule: invalid choice: 'steep'"),
        (["train", "--seed", "-1"], "--seed: must be a whole number of at least 0"),
        (["train", "--seed", str(2**64)], "--seed: must be from 0 to 18446744073709551615"),
        (["train", "--threads", "100000"], "--threads: must be from 1 to"),
        (["train", "--preset", "deep"], "--preset: invalid choice"),
        (["train", "--dataset", "digits", "--data", "."], "--data is a folder of MNIST"),
        (["train", "--out", ""], "--out: must be a name"),
        (["train", "--data="], "--data: must be a name"),
        (["evaluate", ""], "MODEL: must be a name"),
        (["train", "more"], "unrecognized arguments: more"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_line_that_helps(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_a_tilde_is_the_home_of_the_user_in_every_path(tmp_path, monkeypatch, capsys):
    """A shell replaces it in --out ~/run, but not in --out=~/run."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    assert main(["train", "--dataset", "digits", "--epochs", "1", "--out=~/run"]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert main(["train", "--resume=~/run"]) == 0
    capsys.readouterr()
    model = "~/run/model.safetensors"
    for arguments in (
        ["evaluate", model, "--data=~/none"],
        ["train", "--data=~/none"],
        ["evaluate", "~/none"],
    ):
        assert main(arguments) == 1
        assert f"{tmp_path}{os.sep}none" in capsys.readouterr().err
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for module in (export, evaluate, predict):
        module.add(commands)
    assert parser.parse_args(["export", model, "~/d.onnx"]).file == str(tmp_path / "d.onnx")
    assert parser.parse_args(["predict", model, "~/3.png"]).images == [str(tmp_path / "3.png")]
    assert parser.parse_args(["evaluate", model, "--plots=~/new"]).plots == tmp_path / "new"


def test_the_encoding_of_every_file_is_named(python):
    """Else it is that of the user's language."""
    python(
        """
        import warnings
        warnings.simplefilter("error", EncodingWarning)
        from cyconv.cli import main
        main(["info"])
        main(["train", "--dataset", "digits", "--epochs", "1"])
        """,
        PYTHONWARNDEFAULTENCODING="1",
    )


def test_alone_it_lists_its_commands(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in out
