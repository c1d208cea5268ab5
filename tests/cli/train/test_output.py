"""What cyconv train prints, on a terminal and through a pipe, and that the figures are true."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from cyconv import Network, datasets, errors
from cyconv.cli import main, train
from cyconv.training import KeepBest
from tests.cli.train.runs import SHORT, child, refusal, rows


def test_it_shows_the_network_each_epoch_and_the_accuracy(capsys):
    assert main(SHORT) == 0
    out, err = capsys.readouterr()
    assert "digits: 1,375 training, 125 validation and 297 test images" in out
    assert "Conv2D(16, kernel_size=4)" in out and "4,934 parameters" in out
    assert [(epoch, epochs, mark) for epoch, epochs, _, mark in rows(out)] == [
        ("1", "2", None),
        ("2", "2", None),
    ]
    best, last = out.splitlines()[-2:]
    assert re.fullmatch(r"best epoch [12]: validation accuracy [01]\.\d{4}", best)
    assert re.fullmatch(r"test accuracy [01]\.\d{4}", last)
    assert err == ""  # no progress bar where there is no terminal


@pytest.mark.parametrize(
    "preset", ("mnist_convnet", pytest.param("resnet8", marks=pytest.mark.long))
)
def test_any_preset_is_trained_read_and_kept(preset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    folder = str(tmp_path / "run")
    assert main(["train", *SHORT[1:3], "--epochs", "1", "--preset", preset, "--out", folder]) == 0
    accuracy = re.search(r"test (accuracy [\d.]+)", capsys.readouterr().out)[1]
    assert main(["evaluate", f"{folder}/model.safetensors", "--dataset", "digits"]) == 0
    assert accuracy in capsys.readouterr().out


def test_the_accuracy_is_that_of_the_best_epoch(whole, capsys):
    record = json.loads((whole / "history.json").read_text())
    accuracies = record["history"]["val_accuracy"]
    assert record["best_epoch"] == 1 + accuracies.index(max(accuracies))
    network = Network.load(whole / "model.safetensors")
    (x, labels), test = datasets.load_digits()
    assert network.evaluate(*test)[1] == record["test_accuracy"]
    assert network.evaluate(x[-125:], labels[-125:])[1] == max(accuracies)


def test_early_stop_ends_the_run_and_takes_the_best_epoch(tmp_path, monkeypatch, capsys):
    accuracies = [0.5, 0.75, 0.5, 0.75, 0.99]
    seen, evaluate = [], Network.evaluate

    def evaluated(network, x, labels):
        if len(labels) != 125:  # the test images
            return evaluate(network, x, labels)
        seen.append(network._parameters.copy())
        return 1.0, accuracies[len(seen) - 1]

    monkeypatch.setattr(Network, "evaluate", evaluated)
    arguments = ("train", "--dataset", "digits", "--epochs", "5", "--early-stop", "2")
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [row[0] for row in rows(out)] == ["1", "2", "3", "4"]
    assert "best epoch 2: validation accuracy 0.7500" in out
    network = Network.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(network._parameters, seen[1])
    assert main(["train", "--resume", str(tmp_path)]) == 0  # it is finished
    again = capsys.readouterr().out
    assert rows(again) == []
    assert again.splitlines()[-2:] == out.splitlines()[-2:]


def test_the_same_command_prints_the_same_accuracy_for_any_number_of_threads(capsys):
    lines = set()
    for threads in ("1", "2", "3"):
        assert main([*SHORT, "--threads", threads]) == 0
        lines.add(capsys.readouterr().out.splitlines()[-1])
    assert len(lines) == 1


def test_through_a_pipe_there_are_lines_and_nothing_else():
    done = child("", *SHORT)
    assert done.returncode == 0 and done.stderr == ""
    assert len(rows(done.stdout)) == 2
    assert "\r" not in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("arguments", (SHORT, ("info",)))
def test_a_reader_that_has_seen_enough_is_not_an_error(arguments):
    with subprocess.Popen(
        [sys.executable, "-m", "cyconv", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def screen(data, columns):
    """Return the lines that a terminal shows after these bytes."""
    lines, at = [""], 0
    for char in data.decode().replace("\r\n", "\n"):
        if char == "\n":
            lines.append("")
            at = 0
        elif char == "\r":
            at = 0
        else:
            lines[-1] = lines[-1][:at] + char + lines[-1][at + 1 :]
            at += 1
            assert at <= columns
    return [line.rstrip() for line in lines]


def test_on_a_terminal_there_is_a_bar_that_leaves_nothing_behind():
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with subprocess.Popen([sys.executable, "-m", "cyconv", *SHORT], stdin=terminal,
                          stdout=terminal, stderr=terminal) as process:  # fmt: skip
        os.close(terminal)
        data = b""
        while True:
            try:
                piece = os.read(controller, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            data += piece
    os.close(controller)
    assert process.returncode == 0
    assert data.count(b"| 0/22 [") == 2  # a bar for each epoch
    shown = screen(data, 100)
    assert not [line for line in shown if "step" in line or "|" in line]
    assert len(rows("\n".join(shown))) == 2
    assert re.fullmatch(r"test accuracy [01]\.\d{4}", shown[-2])


def test_a_folder_without_mnist_is_an_error(tmp_path, capsys):
    err = refusal(["train", "--data", tmp_path], capsys)
    assert str(tmp_path) in err and "train-images-idx3-ubyte" in err


def test_offline_auto_says_why_and_takes_the_digits(monkeypatch, capsys):
    def offline(directory=None):
        raise errors.DownloadError("no mirror has sent it")

    monkeypatch.setattr(datasets, "load_mnist", offline)
    assert main(["train", "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "no mirror has sent it\nMNIST is not available; using the digits" in err
    assert "digits: 1,375 training" in out
    assert main(["train", "--epochs", "1", "--dataset", "mnist"]) == 1
    assert "no mirror has sent it" in capsys.readouterr().err


def test_reporting_takes_little_of_the_time_of_training(tmp_path, monkeypatch, count, figure):
    """Bars, rows, the best epoch and all files, but for the pictures after the training."""
    wall = dict.fromkeys(("training", "reporting", "validation"), 0.0)
    cpu = wall.copy()
    running = []

    def timed(owner, name, what):
        method = getattr(owner, name)

        def call(*arguments, **keywords):
            if what in running:  # one report calls another
                return method(*arguments, **keywords)
            running.append(what)
            start, start_cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*arguments, **keywords)
            finally:
                wall[what] += time.perf_counter() - start
                cpu[what] += time.thread_time() - start_cpu
                running.remove(what)

        monkeypatch.setattr(owner, name, call)

    timed(Network, "fit", "training")
    timed(Network, "evaluate", "validation")
    timed(KeepBest, "on_epoch_end", "reporting")
    for name in ("on_epoch_begin", "on_batch_end", "on_epoch_end", "save"):
        timed(train.Report, name, "reporting")
    (x, labels), test = datasets.load_digits()
    many = np.tile(x, (40, 1, 1)), np.tile(labels, 40)  # as many as MNIST has
    monkeypatch.setattr(datasets, "load_digits", lambda: (many, test))
    epochs = ("--epochs", str(count(2, 5, 10)))
    assert main(["train", "--dataset", "digits", *epochs, "--out", str(tmp_path)]) == 0
    added, of_cpu = (
        kind["reporting"] / (kind["training"] - kind["reporting"] - kind["validation"])
        for kind in (wall, cpu)
    )
    figure("time added to a training run by reporting", f"{added:.1%} (of CPU time {of_cpu:.1%})")
    assert of_cpu < 0.05  # a disk may be slow, and a machine busy
