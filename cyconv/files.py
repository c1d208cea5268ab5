"""Reading nothing but files, and writing files that are never half written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeAlias

if sys.platform != "win32":
    import fcntl

FilePath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

ABANDONED = 24 * 3600  # seconds without a byte, after which nobody is writing a file any more
TEMPORARY = re.compile(r"\.cyconv-[0-9a-f]{32}\.tmp")  # a name that nobody gives to a file


@contextmanager
def opened(path: FilePath, error: type[Exception]) -> Iterator[BufferedReader]:
    """Open a file to read.

    A device, which may have no end, and a pipe, which may have no writer, are not opened but
    refused by `error`.
    """
    path = _text(path)
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # what open says of a folder is clear
        raise error(f"{path}: this is {_kind(mode)}; copy what it holds to a file and name that")
    with _naming(path, None), open(path, "rb") as file:
        yield file


@contextmanager
def replacement(path: FilePath) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when it is complete and on disk.

    It lies in the same folder, takes over owner and mode of the older file, and vanishes on an
    error, which names `path`. Of a link, the file that it leads to is replaced.
    """
    path = _text(path)
    older = _older(path)
    target = Path(os.path.realpath(path) if os.path.islink(path) else path)
    if older and not target.exists():  # as of an open file by its link in /proc
        raise FileNotFoundError(errno.ENOENT, "the file has no name any more", path)
    temporary = target.with_name(f".cyconv-{uuid.uuid4().hex}.tmp")
    _sweep(target.parent)

    def create(name: str, flags: int) -> int:
        """Open a file, for no more people than the older one."""
        return os.open(name, flags, older.st_mode & 0o777 if older else 0o666)

    with _naming(path, str(temporary)), ExitStack() as until_replaced:
        try:
            with open(temporary, "xb", opener=create) as file:
                until_replaced.enter_context(_held(file))
                if older:
                    _take_over(older, target, temporary)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink()


def _text(path: FilePath) -> str:
    """Return a path as text, or raise ValueError if no file can have that name."""
    text = os.fsdecode(path)
    if "\0" in text:
        raise ValueError(f"path must name a file, got {text!r}")
    return text


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, unless it is there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileExistsError(
            errno.EEXIST,
            "it must be a folder, but is a file or a link to nothing; name another, or remove it",
            error.filename,
        ) from error


def _older(path: str) -> os.stat_result | None:
    """Return what is known of the file that `path` leads to, or None if there is none.

    Raise an error unless it may be written over.
    """
    if not os.path.basename(path):
        raise ValueError(f"path must name a file, got {path!r}")
    try:
        older = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(older.st_mode):
        raise IsADirectoryError(errno.EISDIR, "path must name a file, this is a folder", path)
    if not stat.S_ISREG(older.st_mode):
        raise FileExistsError(
            errno.EEXIST, f"this is {_kind(older.st_mode)}, which no file replaces; name one", path
        )
    # Root may write all files, but who takes this right from a file means root too.
    if not (older.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, "the file is read-only; name another", path)
    return older


def _kind(mode: int) -> str:
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def _take_over(older: os.stat_result, target: Path, temporary: Path) -> None:
    """Give a new file the owner and the mode of an older one, as far as this user may."""
    if sys.platform != "win32":
        with suppress(OSError):
            os.chown(temporary, older.st_uid, older.st_gid)
    with suppress(OSError):
        shutil.copystat(target, temporary)  # access control lists too
        os.utime(temporary)


@contextmanager
def _naming(path: str, temporary: str | None) -> Iterator[None]:
    """Give the name of a file to an error of the system that has none, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        text = error.strerror
        if temporary and error.errno == errno.EBUSY:
            text = "this is a mount point, which no file replaces; mount its folder instead"
        raise OSError(error.errno, text, path) from error


@contextmanager
def _held(file: BinaryIO) -> Iterator[None]:
    """Keep a file from being swept, also after it is closed."""
    if sys.platform == "win32":  # which removes no open file, and renames none
        yield
        return
    lock = os.dup(file.fileno())
    try:
        with suppress(OSError):  # where no file can be locked, none is swept
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed have left behind."""
    with suppress(OSError):
        for file in folder.iterdir():
            if TEMPORARY.fullmatch(file.name):
                with suppress(OSError):
                    if time.time() - file.stat().st_mtime > ABANDONED and not _is_held(file):
                        file.unlink()


def _is_held(file: Path) -> bool:
    """Tell whether a file is being written, whatever the clock says; raise OSError if unknown."""
    if sys.platform == "win32":
        return False
    with opened(file, OSError) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
