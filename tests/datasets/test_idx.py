"""read_idx returns exactly what a file holds, or says with a DataFormatError what is wrong."""

import gzip
import math
import struct
import tracemalloc
import zlib
from functools import partial

import numpy as np
import pytest

from cyconv.datasets import read_idx
from cyconv.errors import DataFormatError
from tests.datasets.conftest import idx_bytes

MIB = 2**20
IMAGES = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([5, 0, 4, 1, 9], np.uint8)


@pytest.fixture
def read(tmp_path):
    """Return a function that reads bytes as a file."""
    path = tmp_path / "file"

    def read(content, shape=None):
        path.write_bytes(content)
        return read_idx(path, shape)

    return read


def outcome(read, content):
    """Return the array, or None for a DataFormatError; any other exception fails the test."""
    try:
        return read(content)
    except DataFormatError:
        return None


def zeros(mebibytes, extents):
    """Return the gzip of an IDX header that promises the extents, and of so many zeros."""
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(struct.pack(">4I", 2051, *extents))]
    parts += [packer.compress(bytes(MIB)) for _ in range(mebibytes)]
    return b"".join([*parts, packer.flush()])


# Without the time: workers name a case by its bytes, and must agree.
zipped = partial(gzip.compress, mtime=0)


def peak(read, content):
    """Return the largest memory in use while content, which is refused, is read."""
    tracemalloc.start()
    try:
        with pytest.raises(DataFormatError):
            read(content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("array", [IMAGES, LABELS, LABELS[:1]], ids=["images", "labels", "one"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_what_was_written_is_read(read, array, pack):
    result = read(pack(idx_bytes(array)), array.shape)
    np.testing.assert_array_equal(result, array, strict=True)
    assert result.flags.c_contiguous


def test_a_file_larger_than_any_piece_is_read(read):
    images = np.random.default_rng(0).integers(0, 9, (7, 700, 1000), np.uint8)
    for content in (idx_bytes(images), gzip.compress(idx_bytes(images), 1)):
        np.testing.assert_array_equal(read(content), images, strict=True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "begins with the number 2051"),
        (b"\0\0\x08", "begins with the number 2051"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (struct.pack(">3I", 2051, 5, 4), "takes 16 bytes, the file holds 12"),
        (struct.pack(">4I", 2051, 5, 0, 3), r"at least 1.*\(5, 0, 3\)"),
        (struct.pack(">2I", 2049, 0), r"at least 1.*\(0,\)"),
        (struct.pack(">4I", 2051, 2**11, 2**10, 2**10 + 1), "at most 2147483648"),
        (struct.pack(">4I", 2051, *[2**32 - 1] * 3), "at most 2147483648"),
        (idx_bytes(IMAGES)[:-1], "76 bytes with itself.* only 75"),
        (idx_bytes(IMAGES) + b"\0", "76 bytes with itself.* more"),
        (zipped(idx_bytes(IMAGES)[:-1]), "only 75"),
        (zipped(idx_bytes(IMAGES) + b"\0"), "holds more"),
        (zipped(idx_bytes(IMAGES))[:-1], "end before their checksum"),
        (zipped(idx_bytes(IMAGES)) + b"\0x", "other bytes follow"),
        (zipped(idx_bytes(IMAGES)) * 2, "holds more"),
        (struct.pack(">3I", 0x0C02, 1, 1) + bytes(4), "2051.*: 32-bit integers of 2 axes"),
        (struct.pack(">2I", 0x0E01, 1) + bytes(8), "2051.*: 64-bit floats of 1 axes"),
        (zipped(zipped(idx_bytes(IMAGES))), "begins with the number 2051"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_numbers(read, tmp_path, content, text):
    with pytest.raises(DataFormatError, match=f"{tmp_path.name}.*file: .*{text}"):
        read(content)


MEMBERS = [zipped(idx_bytes(IMAGES)[at : at + 7]) for at in range(0, 76, 7)]
BORDERS = range(2**16 - len(MEMBERS[0]) - 2, 2**16 - len(MEMBERS[0]) + 2)


@pytest.mark.parametrize(
    "content",
    [
        b"".join(MEMBERS),
        b"".join(MEMBERS) + bytes(512),
        bytes(99).join([*MEMBERS, zipped(b"")]),
        *(MEMBERS[0] + bytes(zeros) + b"".join(MEMBERS[1:]) for zeros in BORDERS),
    ],
    ids=["members", "padding", "padding everywhere", *(f"{zeros} zeros" for zeros in BORDERS)],
)
def test_members_and_padding_are_gzip(read, content):
    """In the last cases a member begins around the border of two pieces that are read."""
    assert gzip.decompress(content) == idx_bytes(IMAGES)
    np.testing.assert_array_equal(read(content), IMAGES, strict=True)


def test_a_shape_may_be_any_sequence(read):
    for shape in ([5], (5,), np.array([5])):
        assert read(idx_bytes(LABELS), shape).shape == (5,)


def test_another_shape_than_required_is_refused(read):
    with pytest.raises(DataFormatError, match=r"must be \(6, 4, 3\).* promises \(5, 4, 3\)"):
        read(idx_bytes(IMAGES), (6, 4, 3))
    with pytest.raises(DataFormatError, match=r"must be \(5,\).* promises \(5, 4, 3\)"):
        read(idx_bytes(IMAGES), (5,))


def test_a_missing_file_and_a_wrong_kind_of_path_keep_their_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent")
    for path in (None, 0, ["file"]):
        with pytest.raises(TypeError, match="PathLike"):
            read_idx(path)


def test_every_flipped_bit_of_a_raw_file_is_refused_or_is_that_bit_of_the_data(read):
    content = idx_bytes(IMAGES)
    for bit in range(8 * len(content)):
        mutant = bytearray(content)
        mutant[bit // 8] ^= 1 << bit % 8
        result = outcome(read, mutant)
        if bit // 8 < 16:
            assert result is None, f"bit {bit} of the header"
        else:
            assert result.tobytes() == mutant[16:]


def test_every_flipped_bit_of_a_gzip_file_is_refused_or_without_effect(read):
    content = zipped(idx_bytes(IMAGES))
    refused = 0
    for bit in range(8 * len(content)):
        mutant = bytearray(content)
        mutant[bit // 8] ^= 1 << bit % 8
        result = outcome(read, mutant)
        refused += result is None
        assert result is None or np.array_equal(result, IMAGES), f"bit {bit}"
    assert refused >= 8 * (len(content) - 10), "only bits of the 10 bytes of header are free"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_every_cut_is_refused(read, pack):
    content = pack(idx_bytes(IMAGES))
    for size in range(len(content)):
        assert outcome(read, content[:size]) is None, f"cut to {size} bytes"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_no_mutation_ends_in_another_exception(read, pack):
    rng = np.random.default_rng(1)
    content = pack(idx_bytes(IMAGES))
    for _ in range(1000):
        mutant = bytearray(content)
        for position in rng.integers(0, len(mutant), rng.integers(1, 5)):
            mutant[position] = rng.integers(256)
        start, stop = np.sort(rng.integers(0, len(mutant), 2))
        if rng.random() < 0.3:
            del mutant[start:stop]
        elif rng.random() < 0.3:
            mutant[start:start] = mutant[start:stop]
        result = outcome(read, mutant)
        assert result is None or result.nbytes == math.prod(result.shape)


@pytest.mark.parametrize(
    ("mebibytes", "extents"),
    [(100, (1, 28, 28)), (100, (2**16, 2**10, 2**10)), (1, (2**11, 2**10, 2**10))],
    ids=["more than promised", "promise too large", "promise not kept"],
)
def test_a_bomb_takes_no_memory(read, mebibytes, extents):
    assert peak(read, zeros(mebibytes, extents)) < 8 * MIB


def test_a_long_file_takes_little_more_than_its_data(read):
    cut = zeros(100, (100, 1024, 1024))[:-1]
    assert peak(read, cut) < (100 + 64) * MIB
