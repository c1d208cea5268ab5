"""What every test finds: threads that sleep while they wait, and the real MNIST if it is here."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

# Threads that spin while they wait are quick on an idle machine and a hundred times slower on a
# busy one, as a test machine is. OpenMP reads this once, when the first kernel is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cyconv

NIGHTLY = bool(os.environ.get("CYCONV_NIGHTLY"))  # set by python -m tests.nightly
_figures = []


@pytest.fixture
def count():
    """Return f(usual, nightly), which returns one of the two."""
    return lambda usual, nightly: nightly if NIGHTLY else usual


@pytest.fixture
def figure():
    """Return f(name, value), which adds a row to the table at the end of the run."""
    return lambda name, value: _figures.append((name, value))


def pytest_terminal_summary(terminalreporter):
    """Print what the tests have counted and measured."""
    if _figures:
        terminalreporter.section("figures")
        width = max(len(name) for name, _ in _figures)
        for name, value in _figures:
            value = f"{value:,}" if isinstance(value, int) else value
            terminalreporter.write_line(f"{name:<{width}}  {value}")


@pytest.fixture(autouse=True)
def same_threads():
    """Restore the number of threads that a test changed."""
    before = cyconv.get_num_threads()
    yield
    cyconv.set_num_threads(before)


@pytest.fixture(scope="session")
def mnist():
    """Return ((x_train, y_train), (x_test, y_test)) of MNIST, if a folder with it is named."""
    if not os.environ.get("CYCONV_DATA"):
        pytest.skip("set CYCONV_DATA to a folder with the four files of MNIST")
    return cyconv.datasets.load_mnist()


@pytest.fixture
def nan_buffers(monkeypatch):
    """Let every new uninitialised array of floats hold NaN; return the list of their shapes."""
    shapes = []

    def filled(allocate):
        def empty(*arguments, **keywords):
            array = allocate(*arguments, **keywords)
            if array.dtype.kind == "f":
                array.fill(np.nan)
                shapes.append(array.shape)
            return array

        return empty

    monkeypatch.setattr(np, "empty", filled(np.empty))
    monkeypatch.setattr(np, "empty_like", filled(np.empty_like))
    return shapes


@pytest.fixture(scope="session")
def python():
    """Return f(code, **environment), which returns what a process of its own prints."""

    def run(code, **environment):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
