"""Writing files that are never half written."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ABANDONED = 24 * 3600  # seconds without a byte, after which nobody is writing a file any more


@contextmanager
def replacement(path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when it is complete and on disk.

    It lies in the same folder, and vanishes on an error, which names `path`.
    """
    path = Path(path)
    _sweep(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sweep(path: Path) -> None:
    """Remove what writers of `path` that were killed have left behind."""
    with suppress(OSError):
        for file in path.parent.iterdir():
            name, _, ending = file.name.rpartition(".")
            if (
                name == path.name
                and re.fullmatch("[0-9a-f]{32}", ending)
                and time.time() - file.stat().st_mtime > ABANDONED
            ):
                file.unlink()
