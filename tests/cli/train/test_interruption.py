"""Ctrl-C in cyconv train: the step ends, the run is saved, and it goes on to the same bits."""

import signal

import pytest

from cyconv.cli import main
from cyconv.runs import load_training
from tests.cli.train.runs import FILES, SHORT, bits, child


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        pytest.param("at(Adam, 'step', 1)", "epoch 1, step 1", marks=pytest.mark.long),
        ("at(Adam, 'step', 22)", "epoch 1, step 22"),
        ("at(Network, 'evaluate', 1)", "epoch 1"),
        pytest.param("at(Adam, 'step', 30)", "epoch 2, step 8", marks=pytest.mark.long),
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


def test_a_signal_that_the_parent_ignores_stays_ignored():
    """As of a job in the background of a script."""
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nat(Adam, 'step', 3, times=2)"
    done = child(ignored, *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "test accuracy" in done.stdout


def test_a_handler_that_is_not_pythons_is_left_alone():
    done = child("signal.getsignal = lambda _: None\nsignal.signal = None", *SHORT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_note_of_ctrl_c_is_not_written_to_a_file_that_has_the_number_of_stderr(tmp_path):
    """The file is opened where stderr was, before the command begins."""
    path = tmp_path / "file"
    patch = f"os.close(2); sys.stderr = None; file = open({str(path)!r}, 'w')\nat(Adam, 'step', 3)"
    assert child(patch, *SHORT).returncode == 130
    assert path.read_bytes() == b""
