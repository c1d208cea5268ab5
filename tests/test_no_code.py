"""No file runs code, and none makes another one be read."""

import gzip
import io
import pickle

import numpy as np
import pytest

from cyconv import CheckpointError, DataFormatError, Network, datasets
from cyconv.datasets import digits, mnist
from cyconv.images import read_digit
from cyconv.runs import load_training
from tests.hostile import code

READERS = {
    "read_idx": (datasets.read_idx, DataFormatError),
    "read_digit": (read_digit, DataFormatError),
    "Network.load": (Network.load, CheckpointError),
    "load_training": (load_training, CheckpointError),
}


def believe(content):
    """Do with a file what no reader of ours may do."""
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if content.startswith((b"\x93NUMPY", b"PK")):
        loaded = np.load(io.BytesIO(content), allow_pickle=True)
        return loaded["images"] if content.startswith(b"PK") else loaded
    return pickle.loads(content)


@pytest.mark.parametrize("name", code.pickled(""))
def test_the_trap_springs_where_a_file_is_believed(name, tmp_path):
    believe(code.pickled(tmp_path / "trap")[name])
    assert (tmp_path / "trap").is_dir()


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_runs_what_a_file_names(reader, tmp_path):
    if reader == "read_digit":
        pytest.importorskip("PIL", reason="needs the extra image")
    read, error = READERS[reader]
    for content in code.pickled(tmp_path / "trap").values():
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(error, match="file: "):
            read(tmp_path / "file")
    assert not (tmp_path / "trap").exists()


def test_no_data_set_runs_what_a_file_names(tmp_path, monkeypatch):
    files = code.pickled(tmp_path / "trap")
    for file in mnist.FILES:
        (tmp_path / f"{file.name}.gz").write_bytes(files["gzip"])
    with pytest.raises(DataFormatError, match="begins with the number 2051"):
        datasets.load_mnist(tmp_path)
    monkeypatch.setattr(digits, "__file__", str(tmp_path / "digits.py"))
    for content in files.values():
        (tmp_path / "digits.npz").write_bytes(content)
        with pytest.raises(ValueError, match="allow_pickle="):
            datasets.load_digits()
    assert not (tmp_path / "trap").exists()


def test_what_an_onnx_file_names_is_not_opened(tmp_path, python):
    pytest.importorskip("PIL", reason="needs the extra image")
    (tmp_path / "model").write_bytes(code.onnx_elsewhere("weights"))
    (tmp_path / "weights").write_bytes(bytes(16))
    opened = python(
        """
        import os, sys
        from tests.test_no_code import READERS

        path = os.environ["MODEL"]
        for read, error in READERS.values():
            try:
                read(path)  # also imports what it needs
            except error:
                pass
        sys.addaudithook(lambda event, given: event == "open" and print(given[0]))
        for read, error in READERS.values():
            try:
                read(path)
            except error:
                pass
        """,
        MODEL=str(tmp_path / "model"),
    )
    assert opened.splitlines() == [str(tmp_path / "model")] * len(READERS)
