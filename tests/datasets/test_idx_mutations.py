"""read_idx on damaged files by the hundred thousand: what the format says, or DataFormatError."""

import gzip
import math
import os
import zlib
from datetime import date

import numpy as np
import pytest

from cyconv.datasets import load_digits, load_mnist, read_idx
from cyconv.errors import DataFormatError
from tests.attacks import Mutants, attack, mutate
from tests.datasets.conftest import idx_bytes
from tests.hostile.idx import zipped


@pytest.fixture(scope="module")
def originals():
    """Return small IDX files, half of them cut from real digits: those of MNIST, if it is here."""
    folder = os.environ.get("CYCONV_DATA")
    (images, labels), _ = load_mnist(folder) if folder else load_digits()
    made = np.arange(60, dtype=np.uint8)
    return [idx_bytes(a) for a in (made.reshape(5, 4, 3), made[:5], images[:2], labels[:10])]


def promised(content):
    """Return the shape and the data of an IDX file, or None if it is none."""
    numbers = np.frombuffer(content[: len(content) // 4 * 4], ">u4").tolist()
    count = {2051: 3, 2049: 1}.get(numbers[0]) if numbers else None
    if count is None or len(numbers) <= count:
        return None
    shape, data = tuple(numbers[1 : 1 + count]), content[4 + 4 * count :]
    return (shape, data) if 0 < math.prod(shape) == len(data) else None


def unzipped(content):
    """Return the content of all members of a gzip file, zeros between them; b"" of a bad one."""
    whole = b""
    while content:
        packer = zlib.decompressobj(wbits=31)
        try:
            whole += packer.decompress(content)
        except zlib.error:
            return b""
        if not packer.eof:
            return b""
        content = packer.unused_data.lstrip(b"\0")
    return whole


def check(path, content):
    """Tell whether a file is read; it must be exactly if it keeps what its header promises."""
    if content.startswith(b"\x1f\x8b"):
        content = unzipped(content)
    expected = promised(content)
    try:
        array = read_idx(path)
    except DataFormatError:
        assert expected is None, "it is refused"
        return False
    assert array.dtype == np.uint8 and array.flags.c_contiguous
    assert (array.shape, array.tobytes()) == expected, f"read as {array.shape}"
    return True


def packed(rng, content):
    """Return a damaged gzip file, or the gzip file of damaged content."""
    if rng.integers(2):
        return zipped(mutate(rng, gzip.decompress(content)))
    if rng.integers(2):
        whole = gzip.decompress(content)
        at = rng.integers(len(whole))
        content = zipped(whole[:at]) + bytes(at % 3) + zipped(whole[at:]) + bytes(at % 2)
    return mutate(rng, content)


@pytest.mark.parametrize(
    ("kind", "pack", "damage"), [("IDX", bytes, mutate), ("gzip", zipped, packed)]
)
def test_a_damaged_file_is_refused_or_is_what_its_header_promises(
    kind, pack, damage, originals, count, figure
):
    good = [pack(original) for original in originals]
    seed = count(0, 0, date.today().toordinal())
    outcome = attack(check, good, Mutants(good, damage, count(2_000, 100_000, 1_000_000), seed))
    assert outcome.refused > outcome.read > 100
    figure(f"{kind} files damaged", outcome)
