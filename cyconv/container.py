"""The file of a checkpoint: safetensors, with a header and the digest of all its bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

from cyconv.errors import CheckpointError
from cyconv.files import FilePath, opened, replacement

MOST_HEADER = 2**24  # bytes; that of a run of 10,000 epochs of 1,000 layers has two million
# In the JSON inside the header's JSON; its own bytes count as zeros in it.
DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
# What reading a foreign or malicious file can raise.
BAD: tuple[type[Exception], ...] = (
    safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    RecursionError, MemoryError, OverflowError,
)  # fmt: skip


def write(path: FilePath, tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Write a file, which replaces an older one only when it is complete."""
    with replacement(path) as file:
        file.write(encode(tensors, header))


def encode(tensors: dict[str, np.ndarray], header) -> bytes:
    """Return a file that holds the digest of all its bytes: the same bytes for the same content."""
    # A view of the arena is contiguous; anything else safetensors would write scrambled.
    whole = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    text = json.dumps({"header": header, "sha256": "0" * 64}, sort_keys=True)
    data = safetensors.numpy.save(whole, {"cyconv": text})
    length = int.from_bytes(data[:8], "little")
    if length > MOST_HEADER:
        raise ValueError(
            f"save: layers, history and settings must take at most {MOST_HEADER:,} bytes as JSON, "
            f"got {length:,}; leave the largest out of the settings"
        )
    match = _find_digest(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[: match.start(1)] + digest + data[match.end(1) :]


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the header of a file, which has a format, its digest checked."""
    with opened(path, CheckpointError) as file:
        try:
            data, metadata = _content(file)
            tensors = safetensors.numpy.load(data)
            match = _find_digest(data)
            digest = hashlib.sha256(data[: match.start(1)] + b"0" * 64)
            digest.update(memoryview(data)[match.end(1) :])
            damaged = digest.hexdigest().encode() != match[1]
            header = json.loads(metadata["cyconv"])["header"]
            header["format"]
        except BAD as error:
            raise CheckpointError(
                f"{path}: this is not a complete safetensors file of cyconv ({_reason(error)})"
            ) from None
    if damaged:
        raise CheckpointError(f"{path}: the file is damaged; its digest does not match its content")
    return tensors, header


def _content(file: BinaryIO) -> tuple[bytes, dict[str, str]]:
    """Return all bytes of a file, and the metadata in them.

    Before much memory is taken, the header must be that of a file of this size.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header takes {length:,} bytes, of at most {MOST_HEADER:,}")
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    described = 8 + length + max((each["data_offsets"][1] for each in header.values()), default=0)
    if described != size:
        raise ValueError(f"it describes {described:,} bytes, the file has {size:,}")
    file.seek(0)
    return file.read(size), metadata


@contextmanager
def judged(path: str) -> Iterator[None]:
    """Turn what a bad description raises into a CheckpointError."""
    try:
        yield
    except BAD as error:
        raise CheckpointError(
            f"{path}: the description in it is not valid: {_reason(error)}"
        ) from None


def _find_digest(data: bytes) -> re.Match[bytes]:
    """Return where in the header the digest is: after all settings, whatever these may hold."""
    matches = list(DIGEST.finditer(data, 8, 8 + int.from_bytes(data[:8], "little")))
    if not matches:
        raise ValueError("it has no header of cyconv")
    return matches[-1]


def _reason(error: Exception) -> str:
    """Return what an error says, in which a file may have put anything, fit for a terminal."""
    text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    if isinstance(error, MemoryError):
        text = "it takes more memory than there is"
    return "".join(each if each.isprintable() else " " for each in text)[:300]
