"""The IDX format of the MNIST files: a big-endian header, then one byte per pixel or label."""

import math
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from cyconv.errors import DataFormatError
from cyconv.files import FilePath, opened

_EXTENTS = {2051: 3, 2049: 1}  # magic number -> extents in the header: images, labels
_KINDS = {  # third byte -> what all IDX files may hold
    8: "bytes",
    9: "signed bytes",
    11: "16-bit integers",
    12: "32-bit integers",
    13: "32-bit floats",
    14: "64-bit floats",
}
_MAX_BYTES = 2**31
_MAX_MEMBERS = 2**16  # of a gzip file, so that none of many empty ones takes long
_MAX_PADDING = 2**24  # zeros behind them; a hole may be as large as the disk
_PIECE_BYTES = 2**16  # each of many small gzip members copies what is left of a piece
_GZIP = b"\x1f\x8b"


def read_idx(path: FilePath, shape: tuple[int, ...] | None = None) -> npt.NDArray[np.uint8]:
    """Read the images or labels of an IDX file, raw or gzip.

    The file is not trusted: memory grows with the bytes that arrive, not with what the header
    promises, and reading stops at the first byte beyond that promise.

    Parameters
    ----------
    path : str, bytes or path-like
        The file. Whether it is gzip is told from its content, not from its name.
    shape : sequence of int, optional
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
    path = os.fsdecode(path)
    if shape is not None:
        shape = tuple(np.atleast_1d(shape).tolist())
    data = bytearray()
    with opened(path, DataFormatError) as file:
        pieces = _contents(file)
        _extend(data, pieces, 4)
        magic = int.from_bytes(data[:4], "big")
        if len(data) < 4 or magic not in _EXTENTS:
            raise DataFormatError(
                f"{path}: an IDX file begins with the number 2051 (images) or 2049 (labels), "
                f"this one with {bytes(data[:4])!r}{_other_kind(data)}"
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


def _other_kind(data: bytearray) -> str:
    """Return what an IDX file that is neither images nor labels holds, if it is one."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _KINDS:
        return ""
    return f": {_KINDS[data[2]]} of {data[3]} axes"


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
    if not piece.startswith(_GZIP):
        while piece:
            yield piece
            piece = file.read(_PIECE_BYTES)
        return
    zeros = 0
    for _ in range(_MAX_MEMBERS):
        rest = yield from _member(file, piece)
        while not (piece := rest.lstrip(b"\0")) and zeros < _MAX_PADDING:
            zeros += len(rest)
            if not (rest := file.read(_PIECE_BYTES)):
                return
        piece += file.read(1) if len(piece) == 1 else b""
        if not piece.startswith(_GZIP):
            raise DataFormatError(
                f"{file.name}: other bytes follow the gzip data; the file is damaged, copy it again"
            )
    raise DataFormatError(
        f"{file.name}: the gzip data have more than {_MAX_MEMBERS} members; pack the content again"
    )


def _member(file: BinaryIO, piece: bytes) -> Generator[bytes, None, bytes]:
    """Yield the content of the gzip member that begins with `piece`, and goes on in the file.

    Return what was read beyond its end.
    """
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: the gzip wrapper, with its CRC
    while True:
        try:
            content = unzip.decompress(piece, _PIECE_BYTES)
        except zlib.error as error:
            raise DataFormatError(
                f"{file.name}: the gzip data are damaged ({error}); copy the file again"
            ) from error
        yield content
        if unzip.eof:
            return unzip.unused_data
        piece = unzip.unconsumed_tail or file.read(_PIECE_BYTES)
        if not piece:
            raise DataFormatError(
                f"{file.name}: the gzip data end before their checksum, after {file.tell()} bytes; "
                "the file is cut, copy it again"
            )
