"""Files: nothing else is read or replaced, and nothing of a file but its content is changed."""

import errno
import importlib.util
import os
import signal
import socket
import stat
import struct

import numpy as np
import pytest

from cyconv import Adam, CheckpointError, DataFormatError, Network, files, plots
from cyconv.datasets import read_idx
from cyconv.export import to_onnx
from cyconv.images import read_digit
from cyconv.runs import Training, load_training, save_training
from tests.checkpoint.samples import tiny

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, links and modes are POSIX's")

READERS = {
    "read_idx": (read_idx, DataFormatError),
    "Network.load": (Network.load, CheckpointError),
    "load_training": (load_training, CheckpointError),
}
if importlib.util.find_spec("PIL"):
    READERS["read_digit"] = (read_digit, DataFormatError)
WRITERS = {
    "Network.save": lambda path: tiny().save(path),
    "save_training": lambda path: save_training(Training(tiny(), Adam()), path),
    "plots": lambda path: plots.confusion(np.eye(2, dtype=np.int64), path),
    "to_onnx": lambda path: to_onnx(tiny(), path),
}
every_reader = pytest.mark.parametrize("name", READERS)


@pytest.fixture(params=WRITERS)
def write(request):
    """Return a function that writes a file."""
    pytest.importorskip({"plots": "matplotlib", "to_onnx": "onnx"}.get(request.param, "numpy"))
    return WRITERS[request.param]


@pytest.fixture(autouse=True)
def soon():
    """End a test that waits for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def device(path, minor):
    """Make a device like /dev/null (3) or /dev/zero (5)."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        pytest.skip("only root makes devices, and not everywhere")


def bind(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(path))  # the names of sockets are short


OTHERS = {
    "a pipe": os.mkfifo,
    "a socket": bind,
    "a device": lambda path: device(path, 3),
    "a device without an end": lambda path: device(path, 5),
}
every_other = pytest.mark.parametrize("kind", OTHERS)


@every_reader
@every_other
def test_what_is_not_a_file_is_not_read(name, kind, tmp_path):
    read, error = READERS[name]
    OTHERS[kind](tmp_path / "other")
    with pytest.raises(error, match=f"other: this is {kind[:8].rstrip()}.*; copy what it holds"):
        read(tmp_path / "other")


@every_other
def test_what_is_not_a_file_is_not_replaced(write, kind, tmp_path):
    path = tmp_path / "other.png"
    OTHERS[kind](path)
    before = path.stat()
    with pytest.raises(FileExistsError, match=f"this is {kind[:8].rstrip()}.*: '{path}'"):
        write(path)
    assert path.stat() == before and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["", "folder", "folder/", "new/", ".", "folder/.."])
def test_a_path_names_a_file(write, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    with pytest.raises((ValueError, IsADirectoryError), match="path must name a file"):
        write(name)
    assert os.listdir(".") == ["folder"] and os.listdir("folder") == []


@pytest.mark.parametrize("form", [str, os.fsencode, lambda path: path])
def test_a_path_may_be_text_bytes_or_an_object(form, tmp_path):
    path = form(tmp_path / "file")
    tiny().save(path)
    assert Network.load(path).layers
    save_training(Training(tiny(), Adam()), path)
    assert load_training(path).network.layers
    with files.replacement(path) as file:
        file.write(struct.pack(">2I", 2049, 1) + b"\7")
    assert read_idx(path) == [7]
    for read, error in READERS.values():
        (tmp_path / "file").write_bytes(b"damaged")
        with pytest.raises(error, match=rf"^{tmp_path}/file: "):
            read(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o755])
def test_a_file_keeps_its_mode_and_is_open_to_nobody_more_meanwhile(mode, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(mode)
    with files.replacement(path):
        (temporary,) = (each for each in tmp_path.iterdir() if each != path)
        assert stat.S_IMODE(temporary.stat().st_mode) & ~mode == 0
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_where_modes_cannot_be_changed_a_file_is_not_opened_to_more(tmp_path, monkeypatch):
    def unable(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(0o600)
    monkeypatch.setattr(files.shutil, "copystat", unable)
    tiny().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root gives files away")
def test_a_file_keeps_its_owner(write, tmp_path):
    path = tmp_path / "file.png"
    path.write_bytes(b"")
    os.chown(path, 1234, 4321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_a_file_without_the_right_to_write_is_not_replaced(write, tmp_path):
    path = tmp_path / "file.png"
    path.write_bytes(b"older")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=f"read-only.*: '{path}'"):
        write(path)
    assert path.read_bytes() == b"older" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing yet"])
def test_a_link_stays_and_its_target_is_replaced(write, there, tmp_path):
    target, link = tmp_path / "folder" / "target.png", tmp_path / "link.png"
    target.parent.mkdir()
    if there:
        target.write_bytes(b"")
    (tmp_path / "other.png").symlink_to("folder/target.png")
    link.symlink_to("other.png")
    write(link)
    assert os.readlink(link) == "other.png" and target.stat().st_size > 0
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="only Linux has these links")
def test_an_open_file_without_a_name_is_not_replaced_by_another(write, tmp_path):
    with open(tmp_path / "file", "xb") as file:
        os.remove(tmp_path / "file")
        (tmp_path / "link.png").symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(FileNotFoundError, match=f"no name any more: '{tmp_path}/link.png'"):
            write(tmp_path / "link.png")
    assert os.listdir(tmp_path) == ["link.png"]


def test_another_name_of_a_file_keeps_the_older_content(write, tmp_path):
    """As a snapshot of hard links needs it."""
    path, snapshot = tmp_path / "file.png", tmp_path / "snapshot"
    path.write_bytes(b"older")
    os.link(path, snapshot)
    write(path)
    assert snapshot.read_bytes() == b"older" and path.stat().st_size > 5


@every_reader
def test_a_name_that_no_file_can_have_is_named_by_readers(name):
    for path in ("fi\0le", b"fi\0le"):
        with pytest.raises(ValueError, match=r"path must name a file, got 'fi\\x00le'"):
            READERS[name][0](path)


def test_a_name_that_no_file_can_have_is_named_by_writers(write):
    for path in ("fi\0le.png", b"fi\0le.png"):
        with pytest.raises(ValueError, match=r"path must name a file, got 'fi\\x00le.png'"):
            write(path)


def test_a_name_may_be_as_long_as_the_system_lets_it(write, tmp_path):
    name = (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) * "n" + ".png"
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OSError, match=f"'{tmp_path}/n+x.png'") as caught:
        write(tmp_path / f"{name[:-4]}x.png")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_mount_point_is_named_as_one(tmp_path, monkeypatch):
    def busy(source, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(OSError, match=f"mount its folder instead: '{tmp_path}/file'"):
        tiny().save(tmp_path / "file")
    assert not os.listdir(tmp_path)


def test_a_clock_that_jumps_takes_no_file_from_who_writes_it(tmp_path, monkeypatch):
    now = files.time.time()
    with files.replacement(tmp_path / "file") as file:
        file.write(b"content")
        monkeypatch.setattr(files.time, "time", lambda: now + 10 * files.ABANDONED)
        tiny().save(tmp_path / "file")
        tiny().save(tmp_path / "other")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_a_clock_that_jumps_between_the_last_byte_and_the_name_does_not_either(
    tmp_path, monkeypatch
):
    now, replace = files.time.time(), os.replace

    def jump(source, target):
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(files.time, "time", lambda: now + 10 * files.ABANDONED)
        tiny().save(tmp_path / "other")
        replace(source, target)

    monkeypatch.setattr(os, "replace", jump)
    tiny().save(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_what_has_the_name_of_a_leftover_may_be_anything(tmp_path):
    left = tmp_path / f".cyconv-{'0' * 32}.tmp"
    os.mkfifo(left)
    os.utime(left, (0, 0))
    tiny().save(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == [left.name, "file"]


def test_a_hole_of_40_gigabytes_takes_no_memory(tmp_path, python, count):
    """Also behind a good file, and where the header promises much: in the end, all that it may."""
    paths = [tmp_path / file for file in ("zeros", "good", "promised")]
    paths[0].write_bytes(b"")
    tiny().save(paths[1])
    paths[2].write_bytes(struct.pack(">2I", 2049, count(2**27, 2**31, 2**31)))
    for path in paths:
        try:
            os.truncate(path, 40 * 10**9)
        except OSError:
            pytest.skip("no file may be so large here")
    said = python(
        f"""
        import resource
        from tests.test_files import READERS
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
        for read, error in READERS.values():
            for path in {list(map(str, paths))}:
                try:
                    read(path)
                except error as refusal:
                    print(refusal)
        """
    )
    for path, line in zip(len(READERS) * paths, said.splitlines(), strict=True):
        assert line.startswith(f"{path}: "), said


def test_memory_that_is_not_there_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    tiny().save(path)

    def full(data):
        raise MemoryError

    monkeypatch.setattr("safetensors.numpy.load", full)
    with pytest.raises(CheckpointError, match=r"file: .*more memory than there is"):
        Network.load(path)


def test_a_folder_that_cannot_be_made_is_told_what_to_do(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError, match=f"must be a folder.*: '{tmp_path}/{name}'"):
            files.make_folder(tmp_path / name)
    files.make_folder(tmp_path / "new" / "folder")
    files.make_folder(tmp_path / "new" / "folder")
