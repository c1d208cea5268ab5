"""Pictures of a digit, made to look like those of MNIST: what a network was trained on.

A network that reads 99 % of the test images fails on a scan until the scan is framed like them:
light ink on black, fitted into 20 x 20 pixels, its centre of mass in the middle of 28 x 28.
"""

from __future__ import annotations

import io
import os
import warnings
import zlib
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cyconv import extras
from cyconv.errors import DataFormatError
from cyconv.files import FilePath, opened

PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("PNG", "JPEG", "BMP", "PPM")  # PPM is Pillow's name for PBM, PGM and PPM
MAX_PIXELS = 50_000_000  # the largest photograph of a phone; Pillow itself warns at 89 million
MAX_BYTES = 4 * MAX_PIXELS + 2**20  # of a file; so Pillow is not asked to read what is not there
MAX_PARTS = 100_000  # of a file: four times as many as the writers of such a picture make
MAX_SCANS = 100  # of a JPEG, each of which goes over the whole picture

SIDE, FIT = 28, 20  # MNIST: pixels of an image, and of the box that a digit is fitted into
FINE = 16  # what is drawn is measured and moved in sixteenths of such a pixel
WORK = FIT * FINE  # pixels that a picture is shrunk to: a digit that fills it is not shrunk again
STROKE = 2.0  # thinner lines are drawn as wide as this; those of MNIST are 1.8 to 3.5 pixels

CONTRAST = 12.0  # grey levels of 255 by which ink differs from paper at least
WINDOW = 0.3  # of the longer side: the neighbourhood in which the paper has one grey level
# Of 1,000 digits of MNIST, each cropped to its ink:
EVEN = 0.83  # of the variance is between two greys of 972 and more; a slope of light has 0.75
BORDER = 0.4  # of their box's border at most is ink of 950; half a picture in shadow has 0.49
FILLED = 0.6  # of their box at most is ink of 950; a sheet that is turned by 10 degrees has 0.7
HIGH = 0.5  # of all that is drawn: a digit, but a loose part in only 5 of the 10,000 of MNIST
NEIGHBOURS = np.ones((3, 3), bool)


def read_digit(path: FilePath) -> npt.NDArray[np.uint8]:
    """Read a picture of one digit as an image of MNIST.

    Dark ink on a light background and light ink on a dark one are told apart; uneven light,
    noise, a frame and what else is cut by the border of the picture are removed.

    Parameters
    ----------
    path : str, bytes or path-like
        A PNG, JPEG, BMP or PGM file, in grey, in colour or with a palette; transparent parts are
        taken for background, and the orientation that a camera notes (EXIF) is obeyed. No other
        note or profile is looked at.

    Returns
    -------
    ndarray of shape (28, 28), uint8
        White on black. Paper is 0 and ink is 255; values between come from fitting, as in MNIST.

    Raises
    ------
    DataFormatError
        If the file is not such a picture, is damaged, has more than 50 million pixels, or if
        nothing is drawn on it.
    OSError
        If the file cannot be read.
    ImportError
        If Pillow is not installed.
    """
    return read_drawing(path)[0]


def read_drawing(path: FilePath) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return the image of `read_digit`, and whether the picture seems to show several digits."""
    path = os.fsdecode(path)
    ink, threshold = _ink(_grey(path))
    drawn = _drawn(ink, threshold)
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0 or max(np.ptp(rows), np.ptp(columns)) < 5:  # a speck is noise
        raise DataFormatError(
            f"{path}: nothing is drawn on it; the picture must show one digit that is clearly "
            "darker or lighter than its background"
        )
    ink = ink * ndimage.binary_dilation(drawn, NEIGHBOURS, 2)
    return _framed(ink, threshold, rows, columns), _several(drawn[rows[0] : rows[-1] + 1])


def _grey(path: str) -> np.ndarray:
    """Return a picture in grey levels 0 to 255, shrunk to at most WORK pixels a side."""
    pillow = extras.load("PIL.Image", "image", "read_digit")
    upright = extras.load("PIL.ImageOps", "image", "read_digit").exif_transpose
    if os.path.isdir(path):
        raise DataFormatError(f"{path}: this is a folder; name the pictures in it")
    with opened(path, DataFormatError) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES or (data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > MAX_SCANS):
        raise DataFormatError(
            f"{path}: the file is larger, or a JPEG of more scans, than a picture of "
            f"{MAX_PIXELS:,} pixels needs; save it again, smaller"
        )
    if data[:2] in (b"Pf", b"PF"):
        raise DataFormatError(
            f"{path}: this is a PFM file, whose numbers have no black and no white; save the "
            "picture as a PNG file"
        )
    if data.startswith((PNG, b"\xff\xd8")):
        data = _without_notes(data, path)
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise pillow.DecompressionBombError
        image.draft("L", (WORK, WORK))  # of a large JPEG only every second, fourth or eighth
        with suppress(Exception), warnings.catch_warnings():  # a note that is damaged says nothing
            warnings.simplefilter("ignore")
            image = upright(image)
        if image.mode.startswith("I"):  # 16 bits
            image = pillow.fromarray(np.asarray(image, np.float32) / 257)
        else:
            image = image.convert("RGBA")
    except pillow.UnidentifiedImageError:
        raise DataFormatError(
            f"{path}: this is not a complete PNG, JPEG, BMP or PGM file; save the picture as one"
        ) from None
    except pillow.DecompressionBombError:
        raise DataFormatError(
            f"{path}: the picture has more than {MAX_PIXELS:,} pixels; make it smaller"
        ) from None
    except MemoryError:  # also of a small file, if a length in it is wrong
        raise DataFormatError(
            f"{path}: the picture takes more memory than there is, or is damaged; save it "
            "again, smaller"
        ) from None
    except Exception as error:  # Pillow tells of damage in a dozen ways
        raise DataFormatError(f"{path}: the picture is damaged ({error}); save it again") from None
    image.thumbnail((WORK, WORK), pillow.Resampling.BOX)
    if image.mode == "F":
        return np.asarray(image)
    grey, alpha = np.moveaxis(np.asarray(image.convert("LA"), np.float32), -1, 0)
    return _opaque(grey, alpha / 255)


def _without_notes(data: bytes, path: str) -> bytes:
    """Return a PNG or JPEG file without the parts that no pixel needs, but with its EXIF note.

    The others may be damaged, or unzip to more than there is memory.
    """
    chunks = data.startswith(PNG)
    view, start = memoryview(data), len(PNG) if chunks else 2
    kept: list[bytes | memoryview] = [view[:start]]
    parts = 0
    while (part := (_chunk if chunks else _segment)(view, start)) and part[0] <= len(data):
        end, needed = part
        if needed:
            kept.append(view[start:end])
        start, parts = end, parts + 1
        if parts > MAX_PARTS:
            raise DataFormatError(f"{path}: the picture has too many parts; save it again")
    return b"".join([*kept, view[start:]])


def _chunk(view: memoryview, start: int) -> tuple[int, bool] | None:
    """Return where a chunk of a PNG file ends, and whether it is needed; None behind the last.

    A length, a name, which begins with a small letter if the picture can be shown without it, the
    content, and a CRC (PNG specification, third edition, section 5).
    """
    name = bytes(view[start + 4 : start + 8])
    if len(name) < 4 or name == b"IEND":
        return None
    end = start + 12 + int.from_bytes(view[start : start + 4], "big")
    if name == b"eXIf":
        crc = zlib.crc32(view[start + 4 : end - 4]).to_bytes(4, "big")
        return end, crc == view[end - 4 : end]
    return end, name == b"tRNS" or not name[0] & 0x20


def _segment(view: memoryview, start: int) -> tuple[int, bool] | None:
    """Return the same of a segment of a JPEG file; None where the pixels begin.

    A marker, a length and the content (ITU-T T.81, annex B). Of the notes of applications, those
    of JFIF and Adobe tell what the colours mean.
    """
    head = bytes(view[start : start + 8])
    if head[:2] == b"\xff\xff":  # a filler
        return start + 1, False
    if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
        return None
    end = start + 2 + max(2, int.from_bytes(head[2:4], "big"))
    note = head[1] == 0xFE or 0xE0 <= head[1] <= 0xEF
    return end, not note or (end - start >= 16 and head[4:] in (b"JFIF", b"Exif", b"Adob"))


def _opaque(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return a picture on its likely background: the paper's, or the opposite of its ink."""
    if alpha.mean() > 0.5:
        background = np.median(grey[alpha > 0.5])
    else:
        background = 255.0 if (grey * alpha).sum() < 127.5 * alpha.sum() else 0.0
    return alpha * grey + (1 - alpha) * background


def _ink(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how much ink there is on each pixel, in grey levels, and how much stands out.

    The paper's grey level is the mean of a neighbourhood. At first that mean has ink in it; what
    is then found to be ink is left out of the next one.
    """
    grey = _within_frame(ndimage.gaussian_filter(grey, max(grey.shape) / WORK))
    width = max(3, round(WINDOW * max(grey.shape)))
    paper, sign = _two_greys(grey)
    for _ in range(4):
        total, weight = (
            ndimage.uniform_filter(each, width, mode="nearest") for each in (grey * paper, paper)
        )
        level = (grey * paper).sum() / max(1, paper.sum())  # where the neighbourhood is all ink
        ink = grey - (total + 1e-3 * level) / (weight + 1e-3)
        # Ink is the rarer and the farther from the mean: the third moment has its sign.
        sign = sign or np.sign((ink**3).sum())
        ink *= sign
        strong = ink[ink > CONTRAST]
        threshold = CONTRAST
        if strong.size:  # half of the mean ink, each pixel weighted by its ink
            threshold = max(threshold, (strong**2).sum() / strong.sum() / 2)
        paper[...] = ~ndimage.binary_dilation(ink > threshold, NEIGHBOURS)
    return ink, threshold


def _two_greys(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """Return where paper is, and the sign of ink, of a picture in even light; else ones and 0.

    In even light one threshold (Otsu, 1979) explains nearly all differences. On one side of it is
    ink, however much of the picture it fills, if it leaves to the paper what a digit leaves of its
    box, and a shadow or a sheet does not.
    """
    ordered = np.sort(grey, axis=None).astype(np.float64)
    if ordered[-1] - ordered[0] > CONTRAST:
        below = np.arange(1, ordered.size)
        between = (ordered.cumsum()[:-1] - below * ordered.mean()) ** 2
        between /= below * (ordered.size - below)
        best = between.argmax()
        if between[best] > EVEN * ordered.var():
            for sign in (-1.0, 1.0):
                ink = sign * grey > sign * ordered[best : best + 2].mean()
                box = ink[ndimage.find_objects(ink.view(np.int8))[0]]
                border = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
                if border.mean() < BORDER and box.mean() < FILLED:
                    return (~ndimage.binary_dilation(ink, NEIGHBOURS)).astype(grey.dtype), sign
    return np.ones_like(grey), 0.0


def _within_frame(grey: np.ndarray) -> np.ndarray:
    """Return a picture without a frame: lines at its border, of one grey that is not the paper's.

    A frame ends within a twelfth of the picture, as a shadow does not.
    """
    margin = min(grey.shape) // 6
    level = np.median(grey[margin : -margin or None, margin : -margin or None])
    before = (0, 0)
    while before != grey.shape:
        before = grey.shape
        for _ in range(4):
            low, middle, high = np.percentile(grey, (10, 50, 90), axis=1)
            within = (high - low > 2 * CONTRAST) | (abs(middle - level) < CONTRAST)
            width = within.argmax()
            edge = 1 + len(grey) // 12
            steps = abs(middle[edge:][:width] - middle[:-edge][:width])
            if steps.max(initial=0) > 2 * CONTRAST:
                grey = grey[width:]
            grey = np.rot90(grey)
    return grey


def _drawn(ink: np.ndarray, threshold: float) -> np.ndarray:
    """Return where the digit is: without specks, and without what comes in from the border."""
    labels, count = ndimage.label(ink > threshold, NEIGHBOURS)
    mass = ndimage.sum_labels(ink, labels, np.arange(count + 1))
    mass[0] = 0
    inner = mass.copy()
    inner[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = 0
    if inner.max() > 0.1 * mass.max():  # else it is the digit that reaches the border
        mass = inner
    return (mass > 0.05 * mass.max())[labels]


def _several(drawn: np.ndarray) -> bool:
    """Tell whether digits seem to stand side by side: high parts that share no column."""
    labels, _ = ndimage.label(drawn, NEIGHBOURS)
    columns = [x for y, x in ndimage.find_objects(labels) if y.stop - y.start >= HIGH * len(drawn)]
    return max((x.start for x in columns), default=0) >= min((x.stop for x in columns), default=1)


def _framed(ink: np.ndarray, threshold: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the digit in these rows and columns as MNIST has it."""
    pillow = extras.load("PIL.Image", "image", "read_digit")
    box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    width, height = box[2] - box[0], box[3] - box[1]
    scale = WORK / max(width, height)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    smooth = pillow.fromarray(ink).resize(size, pillow.Resampling.BICUBIC, box)
    fine = np.pad(np.asarray(smooth) > threshold, FINE)
    # The distances to the edge in a line have a fourth of its width for their mean.
    wider = STROKE * FINE / 2 - 2 * ndimage.distance_transform_edt(fine)[fine].mean()
    if wider > 0:
        fine = ndimage.distance_transform_edt(~fine) <= wider
    canvas = np.zeros((SIDE * FINE, SIDE * FINE), np.float32)
    top, left = (
        int(np.clip(round((whole - 1) / 2 - centre), 0, whole - part))
        for whole, part, centre in zip(
            canvas.shape, fine.shape, ndimage.center_of_mass(fine), strict=True
        )
    )
    canvas[top : top + fine.shape[0], left : left + fine.shape[1]] = fine
    pixels = canvas.reshape(SIDE, FINE, SIDE, FINE).mean(axis=(1, 3))
    return np.rint(255 * pixels).astype(np.uint8)
