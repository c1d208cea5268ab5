"""cyconv train as a person runs it: on a terminal, through a pipe, stopped and resumed."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cyconv import Adam, Network, __version__, checkpoint, datasets, errors, files, presets
from cyconv.checkpoint import load_training, save_training
from cyconv.cli import main, train
from cyconv.training import KeepBest, Progress

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


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Draw no pictures where they are not what is tested: that takes a second."""
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)


def never_stopped(folder, arguments):
    """Return the folder of a run that was never stopped, without pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.style", None)
        assert main([*arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run of two epochs that was never stopped."""
    return never_stopped(tmp_path_factory.mktemp("whole"), SHORT)


def test_it_shows_the_network_each_epoch_and_the_accuracy(capsys):
    assert main(SHORT) == 0
    out, err = capsys.readouterr()
    assert "digits: 1,375 training, 125 validation and 297 test images" in out
    assert "Conv2D(16, kernel_size=4, stride=1, padding=0)" in out and "4,934 parameters" in out
    assert [(epoch, epochs, mark) for epoch, epochs, _, mark in rows(out)] == [
        ("1", "2", None),
        ("2", "2", None),
    ]
    best, last = out.splitlines()[-2:]
    assert re.fullmatch(r"best epoch [12]: validation accuracy [01]\.\d{4}", best)
    assert re.fullmatch(r"test accuracy [01]\.\d{4}", last)
    assert err == ""  # no progress bar where there is no terminal


def test_the_accuracy_is_that_of_the_best_epoch(whole, capsys):
    record = json.loads((whole / "history.json").read_text())
    accuracies = record["history"]["val_accuracy"]
    assert record["best_epoch"] == 1 + accuracies.index(max(accuracies))
    network = Network.load(whole / "model.safetensors")
    (x, labels), test = datasets.load_digits()
    assert network.evaluate(*test)[1] == record["test_accuracy"]
    assert network.evaluate(x[-125:], labels[-125:])[1] == max(accuracies)


def test_the_same_command_prints_the_same_accuracy_for_any_number_of_threads(capsys):
    lines = set()
    for threads in ("1", "2", "3"):
        assert main([*SHORT, "--threads", threads]) == 0
        lines.add(capsys.readouterr().out.splitlines()[-1])
    assert len(lines) == 1


def test_out_holds_the_run_the_model_and_the_history(tmp_path, capsys):
    folder = tmp_path / "new" / "run"
    options = ("--batch-size", "50", "--seed", "7", "--schedule", "onecycle", "--early-stop", "9")
    assert main([*SHORT, "--out", str(folder), *options]) == 0
    assert {path.name for path in folder.iterdir()} == FILES
    record = json.loads((folder / "history.json").read_text())
    assert (record["dataset"], record["batch_size"], record["seed"]) == ("digits", 50, 7)
    assert (record["schedule"], record["early_stop"]) == ("onecycle", 9)
    assert (record["preset"], record["epochs"], record["learning_rate"]) == ("exercise", 2, 0.002)
    assert record["cyconv"] == __version__
    assert {len(values) for values in record["history"].values()} == {2}
    out = capsys.readouterr().out
    assert rows(out)[-1][3] == "  saved"
    assert f"the best network is {folder / 'model.safetensors'};" in out
    assert f"test accuracy {record['test_accuracy']:.4f}" in out
    assert "no pictures: " in out and "pip install 'cyconv[plot]'" in out


def test_with_matplotlib_there_are_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | PICTURES
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    assert "no pictures" not in capsys.readouterr().out


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


def test_a_finished_run_that_is_resumed_tells_its_result_again(whole, tmp_path, capsys):
    before = bits(whole)
    assert main(["train", "--resume", str(whole)]) == 0
    out = capsys.readouterr().out
    assert f"{whole} goes on after epoch 2" in out and rows(out) == []
    record = json.loads((whole / "history.json").read_text())
    assert out.splitlines()[-1] == f"test accuracy {record['test_accuracy']:.4f}"
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


CHILD = """
import os, signal, sys, time
sys.modules["matplotlib"] = None
from cyconv.cli import main
from cyconv.network import Network
from cyconv.optimizers import Adam

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


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        ("at(Adam, 'step', 1)", "epoch 1, step 1"),
        ("at(Adam, 'step', 13)", "epoch 1, step 13"),
        ("at(Adam, 'step', 22)", "epoch 1, step 22"),
        ("at(Network, 'evaluate', 1)", "epoch 1"),
        ("at(Adam, 'step', 30)", "epoch 2, step 8"),
        ("at(os, 'fsync', 1)", "epoch 1, step 1"),  # at the beginning
    ],
)
def test_ctrl_c_finishes_the_step_saves_and_the_run_goes_on_to_the_same_bits(
    patch, place, whole, tmp_path
):
    stopped = child(patch, *SHORT, "--out", tmp_path)
    assert stopped.returncode == 130
    assert stopped.stderr == "\nstopping after this step; once more stops at once\n"
    assert stopped.stdout.splitlines()[-1] == (
        f"stopped after {place}; {tmp_path}/checkpoint.safetensors holds the run after {place}, "
        f"where cyconv train --resume {tmp_path} goes on"
    )
    assert {path.name for path in tmp_path.iterdir()} <= FILES
    assert main(["train", "--resume", str(tmp_path), "--threads", "3"]) == 0
    assert bits(tmp_path) == bits(whole)


@pytest.mark.parametrize("patch", ("at(Network, 'evaluate', 2)", "at(Adam, 'step', 44)"))
def test_ctrl_c_when_all_steps_are_done_still_leaves_a_run_to_resume(patch, whole, tmp_path):
    code = child(patch, *SHORT, "--out", tmp_path).returncode
    assert code == (0 if "evaluate" in patch else 130)
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_ctrl_c_while_a_file_is_written_waits_for_the_file(whole, tmp_path):
    """The second of the files of the last epoch, with a disk that takes its time."""
    slow = """
original = os.fsync
def fsync(descriptor):
    time.sleep(0.05)
    original(descriptor)
os.fsync = fsync
at(os, "fsync", 4)
"""
    done = child(slow, *SHORT, "--out", tmp_path)
    assert done.returncode == 0  # there was nothing left to do
    assert "stopping after this step" in done.stderr
    assert bits(tmp_path) == bits(whole)


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint(whole, tmp_path):
    stopped = child("at(Adam, 'step', 30, times=2)", *SHORT, "--out", tmp_path)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == "stopped" and "Traceback" not in stopped.stderr
    assert load_training(tmp_path / "checkpoint.safetensors").progress.epoch <= 1
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_a_second_ctrl_c_while_saving_leaves_the_older_file_and_no_other(whole, tmp_path):
    stopped = child("at(os, 'fsync', 3, times=2)", *SHORT, "--out", tmp_path)
    assert stopped.returncode == 130 and "Traceback" not in stopped.stderr
    assert {path.name for path in tmp_path.iterdir()} <= FILES
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_ctrl_c_without_a_folder_says_that_nothing_was_saved():
    stopped = child("at(Adam, 'step', 3)", *SHORT)
    assert stopped.returncode == 130
    assert stopped.stdout.splitlines()[-1] == (
        "stopped after epoch 1, step 3; nothing was saved, as --out DIR does"
    )


def test_after_the_command_ctrl_c_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    assert main(SHORT) == 0
    assert signal.getsignal(signal.SIGINT) is before


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


def refusal(arguments, capsys):
    """Return the one line that a command which exits with 1 prints."""
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("cyconv train: ") and err.count("\n") == 1 and rows(out) == []
    return err


@pytest.mark.parametrize("name", ("adamw", "sgd"))
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


KINDS = {"adamw": "AdamW", "sgd": "SGD"}


def test_there_must_be_a_run_to_resume(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        err = refusal(["train", "--resume", folder], capsys)
        assert f"{folder} holds no run: there is no checkpoint.safetensors in it" in err
    assert not (tmp_path / "none").exists()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no run")
    assert "this is no complete safetensors file" in refusal(
        ["train", "--resume", tmp_path], capsys
    )
    presets.exercise().save(tmp_path / "checkpoint.safetensors")
    assert "its format must be" in refusal(["train", "--resume", tmp_path], capsys)


def test_a_run_that_is_not_finished_is_not_overwritten(tmp_path, capsys):
    assert child("at(Adam, 'step', 30)", *SHORT, "--out", tmp_path).returncode == 130
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    err = refusal([*SHORT, "--out", tmp_path], capsys)
    assert f"{tmp_path} holds a run that is not finished: go on with --resume {tmp_path}" in err
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_run_that_is_finished_makes_room_for_a_new_one(whole, tmp_path):
    assert main([*SHORT, "--out", str(tmp_path), "--seed", "3"]) == 0
    assert bits(tmp_path) != bits(whole)
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_a_run_goes_on_with_its_own_data_only(tmp_path, monkeypatch, capsys):
    assert child("at(Adam, 'step', 30)", *SHORT, "--out", tmp_path).returncode == 130
    (x, labels), test = datasets.load_digits()
    for train_set in ((x[::-1].copy(), labels), (x, (labels + 1) % 10)):
        monkeypatch.setattr(datasets, "load_digits", lambda train_set=train_set: (train_set, test))
        err = refusal(["train", "--resume", tmp_path], capsys)
        assert f"{tmp_path} was trained on other data; name their folder with --data" in err


SETTINGS = {"preset": "exercise", "epochs": 2, "batch_size": 64, "seed": 0, "dataset": "digits"}
HOSTILE = {
    "epochs that are no number": {"epochs": "2"},
    "true epochs": {"epochs": True},
    "no epochs": {"epochs": None},
    "epochs in part": {"epochs": 2.5},
    "a batch of none": {"batch_size": 0},
    "a batch of less": {"batch_size": -64},
    "a batch of a list": {"batch_size": [64]},
    "a negative seed": {"seed": -1},
    "a seed of a mapping": {"seed": {}},
    "an unknown data set": {"dataset": "../../etc"},
    "a data set that is none": {"dataset": 5},
    "another data set's digest": {"data_sha256": "0" * 64},
    "a digest that is none": {"data_sha256": 5},
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
    training = checkpoint.Training(
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
    refusal(["train", "--resume", tmp_path], capsys)


def test_a_training_run_of_somebody_elses_is_no_run_of_this_command(tmp_path, capsys):
    save_training(
        checkpoint.Training(presets.exercise(), Adam(), best=KeepBest(3)),
        tmp_path / "checkpoint.safetensors",
    )
    for arguments in (["train", "--resume", tmp_path], [*SHORT, "--out", tmp_path]):
        err = refusal(arguments, capsys)
        assert "this is no run of cyconv train: it has no preset" in err


def test_a_run_that_diverges_names_its_step_and_the_last_good_checkpoint(tmp_path, capsys):
    rate = ("--learning-rate", "1e30", "--schedule", "constant")
    assert main([*SHORT, *rate, "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the loss is nan at epoch 1, step " in err
    assert err.endswith(f"; {tmp_path}/checkpoint.safetensors holds the run after epoch 0\n")
    assert np.isfinite(load_training(tmp_path / "checkpoint.safetensors").network._parameters).all()
    assert main([*SHORT, *rate]) == 1
    assert "; nothing was saved, as --out DIR does" in capsys.readouterr().err


def test_a_run_that_diverges_in_the_last_step_of_an_epoch_is_not_saved(tmp_path, capsys):
    assert main([*SHORT, "--learning-rate", "1e30", "--batch-size", "2000", "--out",
                 str(tmp_path)]) == 1  # fmt: skip
    out, err = capsys.readouterr()
    assert "validation data is nan after epoch 1, step 1" in err and rows(out) == []
    assert "holds the run after epoch 0" in err


@pytest.mark.parametrize("call", range(1, 10))
def test_a_disk_that_fills_up_is_told_in_one_line_and_the_run_goes_on_from_the_last_save(
    call, whole, tmp_path, monkeypatch, capsys
):
    """Three files at the beginning, three at the end, one of the history with the test accuracy."""
    calls, fsync = 0, os.fsync

    def fill(descriptor):
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(train, "SAVING", 0.9)
    monkeypatch.setattr(os, "fsync", fill)
    code = main([*SHORT, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    if calls < call:  # there were not so many files
        assert code == 0
        return
    assert code == 1
    assert err.count("\n") == 1 and f"No space left on device: '{tmp_path}/" in err
    assert {path.name for path in tmp_path.iterdir()} <= FILES
    monkeypatch.setattr(os, "fsync", fsync)
    if call == 1:
        assert not any(tmp_path.iterdir())
        return
    saved = load_training(tmp_path / "checkpoint.safetensors").progress
    assert saved.epoch >= max([int(row[0]) for row in rows(out) if row[3]], default=0)
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_a_folder_that_cannot_be_written_is_told_before_the_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert f"{tmp_path}/file/run" in refusal([*SHORT, "--out", tmp_path / "file/run"], capsys)
    assert f"{tmp_path}/file" in refusal([*SHORT, "--out", tmp_path / "file"], capsys)

    def read_only(path, mode):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(files, "open", read_only, raising=False)
    err = refusal([*SHORT, "--out", tmp_path], capsys)
    assert err == (
        f"cyconv train: [Errno 30] Read-only file system: '{tmp_path}/checkpoint.safetensors'\n"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_the_right_to_write_is_told_before_the_training(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal([*SHORT, "--out", tmp_path], capsys)


def test_through_a_pipe_there_are_lines_and_nothing_else():
    done = child("", *SHORT)
    assert done.returncode == 0 and done.stderr == ""
    assert len(rows(done.stdout)) == 2
    assert "\r" not in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("arguments", (SHORT, ("info",)))
def test_a_reader_that_has_seen_enough_is_no_error(arguments):
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


def test_a_folder_without_mnist_is_an_error(tmp_path, capsys):
    err = refusal(["train", "--data", tmp_path], capsys)
    assert str(tmp_path) in err and "train-images-idx3-ubyte" in err


def test_offline_auto_says_why_and_takes_the_digits(monkeypatch, capsys):
    def offline(directory=None):
        raise errors.DownloadError("no mirror has sent it")

    monkeypatch.setattr(datasets, "load_mnist", offline)
    assert main(["train", "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "no mirror has sent it\nMNIST is not to be had: these are the small digits" in err
    assert "digits: 1,375 training" in out
    assert main(["train", "--epochs", "1", "--dataset", "mnist"]) == 1
    assert "no mirror has sent it" in capsys.readouterr().err


def test_reporting_takes_little_of_the_time_of_training(tmp_path, monkeypatch, figure):
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
        timed(train._Report, name, "reporting")
    (x, labels), test = datasets.load_digits()
    many = np.tile(x, (40, 1, 1)), np.tile(labels, 40)  # as many as MNIST has
    monkeypatch.setattr(datasets, "load_digits", lambda: (many, test))
    assert main(["train", "--dataset", "digits", "--epochs", "10", "--out", str(tmp_path)]) == 0
    added, of_cpu = (
        kind["reporting"] / (kind["training"] - kind["reporting"] - kind["validation"])
        for kind in (wall, cpu)
    )
    figure("time added to a training run by reporting", f"{added:.1%} (of CPU time {of_cpu:.1%})")
    assert of_cpu < 0.05  # a disk may be slow, and a machine busy
