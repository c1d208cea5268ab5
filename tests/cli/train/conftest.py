"""What every test of cyconv train finds: a run to compare with, and no pictures."""

import sys

import pytest

from tests.cli.train.runs import SHORT, never_stopped


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Draw no pictures where they are not what is tested: that takes a second."""
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Return the folder of a run of two epochs that was never stopped."""
    return never_stopped(tmp_path_factory.mktemp("whole"), SHORT)
