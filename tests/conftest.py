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
from cyconv.threads import available_cores

TIERS = ("short", "ci", "nightly")


def pytest_addoption(parser):
    parser.addoption("--counts", choices=TIERS, default="short", help="how much each test tries")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, if it is there, reads its options
def pytest_cmdline_main(config):
    """Share all tests among workers, one a core, if -n and a debugger say nothing else."""
    options = config.option
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    free = getattr(options, "numprocesses", 0) is None and not options.usepdb
    if everything and free and "PYTEST_XDIST_WORKER" not in os.environ:  # not in a worker again
        options.numprocesses, options.dist = available_cores(), "worksteal"


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config, items):
    """Skip the tests marked `long` if counts are short; mark those whose counts differ besides."""
    short = pytest.mark.skip(reason="takes long: --counts ci")
    for item in items:
        if item.get_closest_marker("long"):
            if config.getoption("counts") == "short":
                item.add_marker(short)
        elif "count" in item.fixturenames:
            item.add_marker("long")


@pytest.fixture
def count(request):
    """Return f(short, ci, nightly), which returns the one that --counts names."""
    tier = TIERS.index(request.config.getoption("counts"))
    return lambda *counts: counts[tier]


@pytest.fixture
def figure(record_property):
    """Return f(name, value), which adds a row to the table at the end of the run."""
    return lambda name, value: record_property(
        name, f"{value:,}" if isinstance(value, int) else str(value)
    )


def pytest_terminal_summary(terminalreporter):
    """Print what the tests have counted and measured."""
    reports = terminalreporter.getreports("passed")
    figures = sorted(pair for report in reports for pair in report.user_properties)
    if figures:
        terminalreporter.section("figures")
        width = max(len(name) for name, _ in figures)
        for name, value in figures:
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
            timeout=300,  # only what hangs takes as long
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
