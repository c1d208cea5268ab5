"""The files of checkpoints: a save that fails leaves the older one, and no other."""

import errno
import io
import os
import time
import uuid

import pytest

from cyconv import Network, files
from cyconv.layers import Flatten, Linear
from tests.checkpoint.samples import tiny
from tests.zoo import Square


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_saved_file_has_the_mode_of_any_other(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"")
    assert file.stat().st_mode == other.stat().st_mode


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Network.load(tmp_path / "none")
    with pytest.raises(OSError, match=tmp_path.name):
        Network.load(tmp_path)
    with pytest.raises(OSError, match="none"):
        tiny().save(tmp_path / "none" / "net")


def test_a_layer_that_a_file_cannot_name_is_refused_and_nothing_is_written(tmp_path):
    net = Network([Square(), Flatten(), Linear(2)], (2, 2, 1))
    with pytest.raises(TypeError, match=r"Network\.save: Square '0'"):
        net.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile(io.FileIO):
    """A file that may be opened, but not written or flushed, as `fault` says."""

    fault = "write"

    def write(self, data):
        return full() if self.fault == "write" else super().write(data)

    def flush(self):
        return full() if self.fault == "flush" else super().flush()


@pytest.mark.parametrize("step", ("write", "flush", "fsync", "replace"))
def test_a_save_that_fails_leaves_the_older_file_and_no_other(file, monkeypatch, step):
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        if step in ("write", "flush"):
            patch.setattr(FullFile, "fault", step)
            patch.setattr(files, "open", FullFile, raising=False)
        else:
            patch.setattr(os, step, full)
        # A write or fsync does not know the name of its file; a person needs it.
        with pytest.raises(OSError, match=f"No space left on device: '{file}'$") as caught:
            tiny(1).save(file)
        assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    tiny(1).save(file)
    assert file.read_bytes() != before
    assert os.listdir(file.parent) == [file.name]


def test_what_killed_writers_left_is_removed_when_it_is_old_and_nothing_else(file):
    def put(name, hours):
        (file.parent / name).write_bytes(b"")
        then = time.time() - 3600 * hours
        os.utime(file.parent / name, (then, then))

    left = uuid.uuid4().hex
    put(f".cyconv-{left}.tmp", 25)
    # A backup may be named by its MD5.
    kept = {f".cyconv-{uuid.uuid4().hex}.tmp": 23, f"{file.name}.{left}": 25, left: 25,
            f".cyconv-{left}.tmp0": 25, f".cyconv-{left[1:]}.tmp": 25}  # fmt: skip
    for name, hours in kept.items():
        put(name, hours)
    tiny(1).save(file)
    assert sorted(os.listdir(file.parent)) == sorted([file.name, *kept])


def test_an_error_of_who_writes_stays_as_it_is(tmp_path):
    for error in (OSError("no mirror"), FileNotFoundError(errno.ENOENT, "gone", "font")):
        with pytest.raises(type(error)) as caught, files.replacement(tmp_path / "file"):
            raise error
        assert caught.value is error
    assert not os.listdir(tmp_path)
