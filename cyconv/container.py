"""The file of a checkpoint: safetensors, with a header and the digest of all its bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cyconv.errors import CheckpointError
from cyconv.files import replacement

# In the JSON inside the header's JSON; its own bytes count as zeros in it.
DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
# What reading a foreign or malicious file can raise.
BAD: tuple[type[Exception], ...] = (
    safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    RecursionError, MemoryError, OverflowError,
)  # fmt: skip


def write(path, tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Write a file, which replaces an older one only when it is complete."""
    with replacement(path) as file:
        file.write(encode(tensors, header))


def encode(tensors: dict[str, np.ndarray], header) -> bytes:
    """Return a file that holds the digest of all its bytes: the same bytes for the same content."""
    # A view of the arena is contiguous; anything else safetensors would write scrambled.
    whole = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    text = json.dumps({"header": header, "sha256": "0" * 64}, sort_keys=True)
    data = safetensors.numpy.save(whole, {"cyconv": text})
    match = _find_digest(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[: match.start(1)] + digest + data[match.end(1) :]


def read(path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the header of a file, which has a format, its digest checked."""
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.numpy.load(data)
        match = _find_digest(data)
        digest = hashlib.sha256(data[: match.start(1)] + b"0" * 64)
        digest.update(memoryview(data)[match.end(1) :])
        damaged = digest.hexdigest().encode() != match[1]
        header = json.loads(json.loads(data[8 : match.endpos])["__metadata__"]["cyconv"])["header"]
        header["format"]
    except BAD as error:
        raise CheckpointError(
            f"{path}: this is not a complete safetensors file of cyconv ({_reason(error)})"
        ) from None
    if damaged:
        raise CheckpointError(f"{path}: the file is damaged; its digest does not match its content")
    return tensors, header


@contextmanager
def judged(path) -> Iterator[None]:
    """Turn what a bad description raises into a CheckpointError."""
    try:
        yield
    except BAD as error:
        raise CheckpointError(
            f"{path}: the description in it is not valid: {_reason(error)}"
        ) from None


def _find_digest(data: bytes) -> re.Match[bytes]:
    """Return where in the header the digest is: after all settings, whatever these may hold."""
    *_, match = DIGEST.finditer(data, 8, 8 + int.from_bytes(data[:8], "little"))
    return match


def _reason(error: Exception) -> str:
    """Return what an error says, in which a file may have put anything, fit for a terminal."""
    text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return "".join(each if each.isprintable() else " " for each in text)[:300]
