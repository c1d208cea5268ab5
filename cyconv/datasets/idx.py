"""The IDX format of the MNIST files: a big-endian header, then one byte per pixel or label."""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from cyconv.errors import DataFormatError

_EXTENTS = {2051: 3, 2049: 1}  # magic number -> extents in the header: images, labels
_MAX_BYTES = 2**31
_PIECE_BYTES = 2**20


def read_idx(
    path: str | os.PathLike[str], shape: tuple[int, ...] | None = None
) -> npt.NDArray[np.uint8]:
    """Read the images or labels of an IDX file, raw or gzip.

    The file is not trusted: memory grows with the bytes that arrive, not with what the header
    promises, and reading stops at the first byte beyond that promise.

    Parameters
    ----------
    path : str or path-like
        The file. Whether it is gzip is told from its content, not from its name.
    shape : tuple of int, optional
        What the file must hold; anything else is refused before its data are read.

    Returns
    -------
    ndarray of shape (N, H, W) for images or (N,) for labels, uint8
        C-contiguous.

    Raises
    ------
    DataFormatError
        If the file is not IDX, holds another shape, is damaged, cut, or too long.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits",
    section "File formats".
    """
    path = os.fspath(path)
    data = bytearray()
    with open(path, "rb") as file:
        pieces = _contents(file)
        _extend(data, pieces, 4)
        magic = int.from_bytes(data[:4], "big")
        if len(data) < 4 or magic not in _EXTENTS:
            raise DataFormatError(
                f"{path}: an IDX file begins with the number 2051 (images) or 2049 (labels), "
                f"this one with {bytes(data[:4])!r}"
            )
        header_bytes = 4 + 4 * _EXTENTS[magic]
        _extend(data, pieces, header_bytes)
        if len(data) < header_bytes:
            raise DataFormatError(
                f"{path}: the header takes {header_bytes} bytes, the file holds {len(data)}; "
                "it is cut, copy it again"
            )
        extents = struct.unpack_from(f">{_EXTENTS[magic]}I", data, 4)
        _check_extents(path, extents, shape)
        file_bytes = header_bytes + math.prod(extents)
        _extend(data, pieces, file_bytes + 1)
    if len(data) != file_bytes:
        held = f"only {len(data)}" if len(data) < file_bytes else "more"
        raise DataFormatError(
            f"{path}: the header promises {extents}, {file_bytes} bytes with itself, but the file "
            f"holds {held}; it is damaged, copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=header_bytes).reshape(extents)


def _check_extents(path: str, extents: tuple[int, ...], shape: tuple[int, ...] | None) -> None:
    """Refuse extents that differ from shape, that hold nothing, or that hold too much."""
    if shape is not None and extents != shape:
        raise DataFormatError(
            f"{path}: shape must be {shape}, the header promises {extents}; "
            "is it another file under this name?"
        )
    if min(extents) < 1:
        raise DataFormatError(f"{path}: every extent must be at least 1, the header has {extents}")
    if math.prod(extents) > _MAX_BYTES:
        raise DataFormatError(
            f"{path}: the header promises {extents}, {math.prod(extents)} bytes; "
            f"at most {_MAX_BYTES} are read"
        )


def _extend(data: bytearray, pieces: Iterator[bytes], size: int) -> None:
    """Append pieces to data until it holds at least size bytes, or the pieces end."""
    while len(data) < size and (piece := next(pieces, None)) is not None:
        data += piece


def _contents(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a file, unzipped if it is gzip, in pieces of bounded size."""
    piece = file.read(_PIECE_BYTES)
    if not piece.startswith(b"\x1f\x8b"):
        while piece:
            yield piece
            piece = file.read(_PIECE_BYTES)
        return
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: the gzip wrapper, with its CRC
    while piece and not unzip.eof:
        try:
            content = unzip.decompress(piece, _PIECE_BYTES)
        except zlib.error as error:
            raise DataFormatError(
                f"{file.name}: the gzip data are damaged ({error}); copy the file again"
            ) from error
        yield content
        piece = unzip.unconsumed_tail or file.read(_PIECE_BYTES)
    if not unzip.eof:
        raise DataFormatError(
            f"{file.name}: the gzip data end before their checksum, after {file.tell()} bytes; "
            "the file is cut, copy it again"
        )
    if piece or unzip.unused_data:
        raise DataFormatError(
            f"{file.name}: other bytes follow the gzip data; the file is damaged, copy it again"
        )
