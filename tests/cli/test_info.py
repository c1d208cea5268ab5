"""cyconv info as a person runs it, on this machine and on others."""

import hashlib
import json

import pytest

from cyconv import __version__, measure
from cyconv.cli import info, main
from cyconv.datasets import mnist


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Look for MNIST in the test's own folders, and fail where a download would begin."""
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.setenv("CYCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "download", None)


def rows(capsys):
    """Return what `cyconv info` prints, by the names of its lines."""
    assert main(["info"]) == 0
    return dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())


def test_it_names_what_decides_speed(capsys):
    shown = rows(capsys)
    assert shown["cyconv"] == __version__
    assert {"BLAS", "OpenMP", "SIMD", "threads", "processor", "data"} <= shown.keys()
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_processor_and_caches_as_linux_tells_them(monkeypatch, tmp_path, capsys):
    for i, words in enumerate(("1 Data 48K", "1 Instruction 32K", "2 Unified 1280K")):
        (tmp_path / f"index{i}").mkdir()
        for name, word in zip(("level", "type", "size"), words.split(), strict=True):
            (tmp_path / f"index{i}" / name).write_text(word + "\n")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Deep Thought 42\nflags\t: x\n")
    monkeypatch.setattr(info, "CACHES", tmp_path)
    monkeypatch.setattr(measure, "PROCESSOR", tmp_path / "cpuinfo")
    shown = rows(capsys)
    assert shown["caches"] == "L1d 48 KiB, L2 1280 KiB"
    assert shown["processor"].startswith("Deep Thought 42, ")
    with open(tmp_path / "cpuinfo", "a") as file:
        file.write("cpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Another One\n")
    assert ", family 6 model 85, " in rows(capsys)["processor"]
    (tmp_path / "index0" / "size").unlink()
    assert "caches" not in rows(capsys)


def test_where_the_system_says_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(info, "CACHES", tmp_path / "none")
    monkeypatch.setattr(measure, "PROCESSOR", tmp_path / "none")
    monkeypatch.setattr(measure.platform, "machine", lambda: "abacus")
    shown = rows(capsys)
    assert "caches" not in shown and shown["processor"] == "abacus"


def test_it_says_where_mnist_is(monkeypatch, tmp_path, capsys):
    assert rows(capsys)["data"] == "no MNIST here: cyconv train downloads it"
    assert not (tmp_path / "cache").exists()
    files = [file._replace(sha256=hashlib.sha256(b"x").hexdigest()) for file in mnist.FILES]
    monkeypatch.setattr(mnist, "FILES", tuple(files))
    for folder in ("cache", "own"):
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / f"{file.name}.gz").write_bytes(b"x")
    assert rows(capsys)["data"] == f"MNIST in {tmp_path / 'cache'}"
    (tmp_path / "cache" / f"{files[2].name}.gz").write_bytes(b"damaged")
    assert rows(capsys)["data"] == "no MNIST here: cyconv train downloads it"
    monkeypatch.setenv("CYCONV_DATA", str(tmp_path / "own"))
    assert rows(capsys)["data"] == f"MNIST in {tmp_path / 'own'}"


def test_extras_that_are_complete_and_what_the_others_lack(monkeypatch, capsys):
    requirements = [
        "numpy>=1.25",
        'pytest>=8; extra == "test"',
        "numpy; python_version > '3' and extra == 'plot'",
        'no-such-library>=1; extra == "bench"',
        'pytest; extra == "bench"',
        'neither.this[x]; extra == "bench"',
        'cyconv[test,plot]; extra == "all"',
    ]
    monkeypatch.setattr(info.metadata, "requires", lambda name: requirements)
    assert rows(capsys)["extras"] == "test, plot; bench lacks no-such-library and neither.this"
    monkeypatch.setattr(info.metadata, "requires", lambda name: None)
    assert "extras" not in rows(capsys)


def test_a_user_without_a_home_folder_is_told_so(monkeypatch, capsys):
    monkeypatch.delenv("CYCONV_CACHE")
    monkeypatch.setattr(mnist.Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError))
    assert "CYCONV_CACHE" in rows(capsys)["data"]
