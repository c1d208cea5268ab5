"""No check of the gate can be taken out without a test that fails."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of memory and time are Linux's")
def test_each_check_is_missed_when_it_is_gone(count, figure):
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutate", *count(["--sample", "1"], ["--sample", "4"], [])],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    noticed = done.stdout.splitlines()[-1].split()[0]
    figure("mutants of the gate, each noticed by a test", int(noticed))
