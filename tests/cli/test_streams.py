"""Standard streams that are closed, full, or cannot encode a name: no result and no run is lost."""

import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr

import numpy as np
import pytest

from cyconv import Network
from cyconv.cli import main
from cyconv.cli.report import Interrupt
from cyconv.cli.streams import Errors
from cyconv.layers import Flatten, Linear, Softmax
from cyconv.runs import load_training
from tests.cli.train.runs import SHORT, bits, never_stopped, rows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the shell's redirections")
QUIET = (
    "import sys; sys.modules['matplotlib'] = None; from cyconv.cli import main; sys.exit(main())"
)
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


def in_ci(*values):
    """Return parameters that are tried when counts are not short."""
    return pytest.param(*values, marks=pytest.mark.long)


def shell(redirections, *arguments, **environment):
    """Run the command with the redirections of a shell."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", sys.executable, "-c", QUIET, *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        timeout=60,
    )


@pytest.mark.parametrize("closed", (">&-", "2>&-", "<&- >&- 2>&-", in_ci("<&-"), in_ci(">&- 2>&-")))
def test_a_closed_stream_changes_nothing_else(closed):
    done = shell(closed, *SHORT)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("names", (["stdout"], ["stderr"], ["stdin", "stdout", "stderr"]))
def test_a_stream_that_a_program_has_closed_changes_nothing_else(names):
    code = "import sys; from cyconv.cli import main\n" + "".join(
        f"sys.{name}.close()\n" for name in names
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(main(['info']))"], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == ("stdout" not in names)


class Least:
    """A stream that can be written, and nothing else."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        if "full" in self.text:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stream_need_only_be_written(tmp_path, monkeypatch):
    out, err = Least(), Least()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["info"]) == 0 and "OpenMP" in out.text and not err.text
    assert main(["evaluate", str(tmp_path / "full")]) == 1 and "full" in err.text
    Network([Flatten(), Linear(10), Softmax()]).save(tmp_path / "full")
    assert main(["evaluate", str(tmp_path / "full"), "--dataset", "digits"]) == 1
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
    try:
        with redirect_stderr(Errors(err)), Interrupt() as stop:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.noted


def test_no_file_of_a_run_gets_the_number_of_a_closed_stream(tmp_path):
    code = (
        "import os, sys; from cyconv.cli import main\nmain(['info'])\n"
        "numbers = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        "open(sys.argv[1], 'w').write(' '.join(numbers))"
    )
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")
    path = tmp_path / "numbers"
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, path]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert path.read_text().split() == ["/dev/null"] * 3


@pytest.mark.parametrize("encoding", ("cp1252", in_ci("latin-1:strict")))
def test_a_name_that_the_output_cannot_encode_is_printed_with_escapes(encoding, tmp_path):
    folder = tmp_path / "数"
    done = shell("", *SHORT, "--out", folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u6570/model.safetensors" in done.stdout and b"test accuracy" in done.stdout
    command = ("evaluate", folder / "model.safetensors", "--dataset", "digits")
    done = shell("", *command, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"") and b"\\u6570" in done.stdout


def test_a_terminal_is_given_no_orders(tmp_path, capsys):
    """Neither by the name of a file nor by what is in one."""
    order, shown = "\x1b[2J\x07\x9b8m\u202e", r"\x1b[2J\x07\x9b8m\u202e"
    model, picture = tmp_path / "model.safetensors", tmp_path / f"{order}.png"
    Network([Flatten(), Linear(10), Softmax()]).save(model)
    picture.write_bytes(b"P5 28 28 255\n" + np.full((28, 28), 255, np.uint8).tobytes())
    history = {"dataset": order, "data_sha256": ""}
    (tmp_path / "history.json").write_text(json.dumps(history), encoding="utf-8")
    assert main(["evaluate", str(model), "--dataset", "digits"]) == 0
    assert f"was trained on {shown}, not on this digits" in capsys.readouterr().err
    commands = [["evaluate", str(picture)]]
    if importlib.util.find_spec("PIL"):
        commands.append(["predict", str(model), str(picture)])
    for arguments in commands:
        assert main(arguments) == 1
        err = capsys.readouterr().err
        assert f"{shown}.png" in err and err.count("\n") == 1 and order[0] not in err
    shutil.copy(model, tmp_path / order)
    assert main(["evaluate", str(tmp_path / order), "--dataset", "digits"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path}/{shown} on the 297") and order[0] not in out


@pytest.mark.parametrize("error", (MemoryError, OSError, ValueError))
def test_an_error_without_a_text_is_told_too(error, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(Network, "load", fail)
    assert main(["evaluate", "model"]) == 1
    assert re.fullmatch(r"cyconv evaluate: \w.+\n", capsys.readouterr().err)


@FULL
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        *((("--help",), "1"), (("info",), ""), (SHORT, "1")),
        *(in_ci((), ""), in_ci(("info",), "1"), in_ci(SHORT, "")),
    ],
)
def test_a_full_disk_behind_the_output_is_told_in_one_line(arguments, unbuffered):
    done = shell("> /dev/full", *arguments, PYTHONUNBUFFERED=unbuffered)
    name = f"cyconv {arguments[0]}" if arguments and arguments[0].isalpha() else "cyconv"
    assert done.returncode == 1
    assert done.stderr.decode() == f"{name}: standard output: No space left on device\n"


@FULL
def test_a_full_disk_behind_the_errors_changes_nothing():
    done = shell("2> /dev/full", *SHORT)
    assert done.returncode == 0 and len(rows(done.stdout.decode())) == 2
    assert shell("2> /dev/full", "evaluate", "nothing").returncode == 1


@pytest.mark.parametrize(
    ("redirection", "text"),
    [
        ("| true", "Broken pipe"),
        pytest.param("> /dev/full", "No space left on device", marks=FULL),
    ],
)
def test_a_run_whose_output_breaks_is_saved_and_goes_on_to_the_same_bits(
    redirection, text, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    folder = tmp_path / "run"
    done = shell(redirection, *SHORT, "--out", folder)
    assert done.stderr.decode() == (
        f"cyconv train: standard output: {text}; {folder}/checkpoint.safetensors holds the run "
        f"after epoch 1, where cyconv train --resume {folder} goes on\n"
    )
    assert load_training(folder / "checkpoint.safetensors").progress.epoch == 1
    assert main(["train", "--resume", str(folder)]) == 0
    assert bits(folder) == bits(never_stopped(tmp_path / "whole", SHORT))
