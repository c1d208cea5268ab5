"""All tests are shared among workers; a named file, a debugger and a worker's own tests are not."""

from types import SimpleNamespace

import pytest

from cyconv.threads import available_cores
from tests.conftest import pytest_cmdline_main

SOURCES = pytest.Config.ArgsSource


@pytest.mark.parametrize(
    ("source", "given", "usepdb", "worker", "expected"),
    [
        (SOURCES.TESTPATHS, None, False, None, available_cores()),
        (SOURCES.ARGS, None, False, None, None),
        (SOURCES.TESTPATHS, 0, False, None, 0),
        (SOURCES.TESTPATHS, None, True, None, None),
        (SOURCES.TESTPATHS, None, False, "gw0", None),  # or it would start workers without end
    ],
)
def test_who_starts_workers(source, given, usepdb, worker, expected, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    option = SimpleNamespace(numprocesses=given, usepdb=usepdb)
    pytest_cmdline_main(SimpleNamespace(args_source=source, option=option))
    assert option.numprocesses == expected


def test_without_pytest_xdist_there_is_one_process():
    option = SimpleNamespace(usepdb=False)
    pytest_cmdline_main(SimpleNamespace(args_source=SOURCES.TESTPATHS, option=option))
    assert vars(option) == {"usepdb": False}
