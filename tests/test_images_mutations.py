"""read_digit on damaged pictures by the hundred thousand: a digit, or a DataFormatError."""

import io
import warnings
from datetime import date

import numpy as np
import pytest

from cyconv import DataFormatError
from cyconv.images import read_digit
from tests.attacks import Mutants, attack, mutate
from tests.hostile.pictures import bmp, chunk, pixels, png

Image = pytest.importorskip("PIL.Image", reason="needs the extra image")


def saved(mode, kind, **options):
    """Return a small picture in which nothing is drawn: the quickest to read."""
    file = io.BytesIO()
    Image.new("L", (6, 7), 9).convert(mode).save(file, kind, **options)
    return file.getvalue()


def originals():
    """Return a small file of every kind that is read."""
    turned = Image.Exif()
    turned[274] = 6  # the orientation that a camera notes
    kinds = {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "BMP": ("1", "L", "RGB", "RGBA"),
        "PPM": ("1", "L", "RGB", "I;16"),
    }
    files = [saved(mode, kind) for kind, modes in kinds.items() for mode in modes]
    files += [saved(mode, "JPEG", quality=10, optimize=True) for mode in ("L", "RGB", "CMYK")]
    files += [saved("L", "JPEG", quality=10, progressive=True, exif=turned)]
    files += [saved("L", "PNG", exif=turned)]
    files += [png(6, 7, pixels(7 * 7), interlace=1)]
    files += [b"P1 6 2 " + b"0" * 12, b"P2 6 2 9 # grey\n" + b"7 " * 12, b"P3 2 2 9 " + b"9 " * 12]
    runs = b"\x06\x01\x00\x00" * 5 + b"\x00\x06" + bytes(6) + b"\x00\x02\x00\x01\x00\x01"
    files += [bmp(6, 7, runs, 1)]
    return files


def damaged(rng, content):
    """Return a damaged copy of a picture; of a PNG file, often with checksums that are true."""
    content = mutate(rng, content)
    if not content.startswith(b"\x89PNG") or rng.integers(3) == 0:
        return content
    chunks, first = [content[:8]], 8
    while first + 12 <= len(content):
        size = int.from_bytes(content[first : first + 4])
        kind, data = content[first + 4 : first + 8], content[first + 8 : first + 8 + size]
        chunks.append(chunk(kind, data))
        first += 12 + size
    return b"".join(chunks)


def check(path, content):
    """Tell whether a picture is read, be it that nothing is drawn on it."""
    try:
        with warnings.catch_warnings():  # Pillow warns of what it repairs
            warnings.simplefilter("ignore")
            image = read_digit(path)
    except DataFormatError as error:
        text = str(error)
        assert text.startswith(f"{path}: ") and text.isprintable(), text
        return "nothing is drawn" in text
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() > 0
    return True


def test_a_damaged_picture_is_a_digit_or_refused(count, figure):
    good, seed = originals(), count(0, 0, date.today().toordinal())
    mutants = Mutants(good, damaged, count(2_000, 100_000, 300_000), seed)
    outcome = attack(check, good, mutants, seconds=10, mebibytes=1024)
    assert outcome.refused > outcome.read > 100
    figure("pictures damaged", outcome)
