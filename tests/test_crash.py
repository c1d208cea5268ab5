"""Training runs that are killed, and disks that are full: what was announced is never lost."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from cyconv import Network
from cyconv.cli import main
from cyconv.files import TEMPORARY
from cyconv.runs import load_training
from tests.cli.train.runs import FILES, bits, never_stopped, rows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")

# Half of the time goes into saving, so that kills meet it.
CODE = """
import sys
sys.modules["matplotlib"] = None
from cyconv.cli import main, report
report.SAVING = 0.5
sys.exit(main(sys.argv[1:]))
"""
ARGUMENTS = ("train", "--dataset", "digits", "--epochs", "40", "--batch-size", "125")


def start(*arguments, **options):
    """Start the command in a process of its own, of which each line is seen at once."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", CODE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_and_kill(arguments, first_line, seconds):
    """Return the exit code and the output of a command that is killed.

    The kill comes so many seconds after a line that begins with `first_line`, if the command has
    not ended by itself until then.
    """
    with start(*arguments) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(first_line):
                break
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout
        error = process.stderr.read()
    assert error == ""
    return process.returncode, "".join(lines)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Draw no pictures in this process either."""
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of the run that nobody has killed."""
    return never_stopped(tmp_path_factory.mktemp("whole"), ARGUMENTS)


def command(folder):
    """Return the arguments that begin the run in a folder, or go on with it."""
    if (folder / "checkpoint.safetensors").exists():
        return ["train", "--resume", folder]
    return [*ARGUMENTS, "--out", folder]


def leftovers(folder):
    """Return the files that writers which were killed have left."""
    return [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]


def test_a_run_that_is_killed_again_and_again_loses_nothing_that_was_announced(
    whole, tmp_path, count, figure
):
    wanted, kills, runs, left = count(2, 20, 500), 0, 0, 0
    dice = random.Random(0)
    expected = bits(whole)
    while kills < wanted:
        folder, code, place = tmp_path / str(runs), -signal.SIGKILL, (0, 0)
        checkpoint = folder / "checkpoint.safetensors"
        while code != 0 and kills < wanted:
            # While the run is read and its folder made whole, or while it trains and saves.
            early = dice.random() < 0.2
            first_line, longest = ("cyconv", 0.05) if early else ("  epoch ", 0.3)
            threads = ("--threads", dice.randint(1, 3))
            code, out = run_and_kill(
                [*command(folder), *threads], first_line, dice.uniform(0, longest)
            )
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            announced = max([int(epoch) for epoch, *_, mark in rows(out) if mark], default=0)
            if not checkpoint.exists():
                assert early and announced == 0
                continue
            progress = load_training(checkpoint).progress
            assert (progress.epoch, progress.batch) >= max(place, (announced, 0))
            place = (progress.epoch, progress.batch)
            if (folder / "model.safetensors").exists():
                Network.load(folder / "model.safetensors")
        left += len(leftovers(folder))
        for path in leftovers(folder):
            os.utime(path, (0, 0))  # as if that had been long ago
        assert main(list(map(str, command(folder)))) == 0
        assert bits(folder) == expected
        assert {path.name for path in folder.iterdir()} == FILES
        runs += 1
    figure("kills of a training run, resumed to the same bits", f"{kills:,} in {runs} runs")
    figure("files that the killed runs left half written, all removed later", left)


def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_the_older_one(whole, tmp_path, figure):
    """A limit for the size of a file: the first checkpoint fits, one with Adam's means does not."""
    resource = pytest.importorskip("resource")
    limit = 50_000
    assert (whole / "checkpoint.safetensors").stat().st_size > limit

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with start(*ARGUMENTS, "--out", tmp_path, preexec_fn=limited) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    checkpoint = tmp_path / "checkpoint.safetensors"
    assert err == (
        f"cyconv train: [Errno {errno.EFBIG}] File too large: '{checkpoint}'; {checkpoint} holds "
        f"the run after epoch 0, where cyconv train --resume {tmp_path} goes on\n"
    )
    assert not leftovers(tmp_path) and not [row for row in rows(out) if row[3]]
    assert load_training(checkpoint).optimizer.t == 0
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)
