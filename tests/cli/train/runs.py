"""What the tests of cyconv train share: short runs, and how to read what they leave and print."""

import re
import subprocess
import sys

import pytest

from cyconv.cli import main
from cyconv.runs import load_training

SHORT = ("train", "--dataset", "digits", "--epochs", "2")
FILES = {"checkpoint.safetensors", "model.safetensors", "history.json"}
PICTURES = {"history.png", "filters.png", "confusion.png", "mistakes.png"}
ROW = re.compile(
    r" +(\d+)/(\d+) +[\d.]+ +[\d.]+ +([01]\.\d{4}) +[\d,]+(  saved)?"
)  # epoch, epochs, validation accuracy


def rows(out):
    """Return (epoch, epochs, validation accuracy, mark) of each epoch that was printed."""
    return [match.groups() for match in map(ROW.fullmatch, out.splitlines()) if match]


def bits(folder):
    """Return all that two runs must have in common, whenever they were stopped."""
    training = load_training(folder / "checkpoint.safetensors")
    best, progress = training.best, training.progress
    history = {**vars(progress.history), "seconds": None}
    state = training.optimizer.state().values()
    arrays = (training.network._parameters, *state, *best.arrays)
    return (
        [array.tobytes() for array in arrays],
        (
            repr(training.optimizer),
            best.epoch,
            progress.epoch,
            progress.batch,
            progress.loss,
            history,
        ),
        (folder / "model.safetensors").read_bytes(),
    )


def never_stopped(folder, arguments):
    """Return the folder of a run that was never stopped, without pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.style", None)
        assert main([*arguments, "--out", str(folder)]) == 0
    return folder


CHILD = """
import os, signal, sys, time
sys.modules["matplotlib"] = None
from cyconv.cli import main
from cyconv.network import Network
from cyconv.optimizers import Adam

# Whoever runs the tests in the background of a shell has it ignored, and a child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def at(owner, name, call, times=1):
    original, calls = getattr(owner, name), 0
    def called(*arguments):
        nonlocal calls
        calls += 1
        if calls == call:
            interrupt(times)
        return original(*arguments)
    setattr(owner, name, called)

{patch}
sys.exit(main(sys.argv[1:]))
"""


def child(patch, *arguments, **options):
    """Run the command in a process in which a patch sends the signal of Ctrl-C."""
    code = CHILD.format(patch=patch)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def refusal(arguments, capsys):
    """Return the one line that a command which exits with 1 prints."""
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("cyconv train: ") and err.count("\n") == 1 and rows(out) == []
    return err
