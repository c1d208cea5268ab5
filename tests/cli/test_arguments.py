"""The arguments of all commands: each help page fits a screen, and each mistake has a line."""

import pytest

from cyconv.cli import main


@pytest.mark.parametrize(
    "command", ("train", "evaluate", "predict", "export", "verify", "bench", "info")
)
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
