"""Pictures of a digit, made to look like those of MNIST: what a network was trained on.

A network that reads 99 % of the test images fails on a scan until the scan is framed like them:
light ink on black, fitted into 20 x 20 pixels, its centre of mass in the middle of 28 x 28.
"""

from __future__ import annotations

import io
import os

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cyconv import extras
from cyconv.errors import DataFormatError

FORMATS = ("PNG", "JPEG", "BMP", "PPM")  # PPM is Pillow's name for PBM, PGM and PPM
MAX_PIXELS = 50_000_000  # the largest photograph of a phone; Pillow itself warns at 89 million
MAX_BYTES = 4 * MAX_PIXELS + 2**20  # of a file; so Pillow is not asked to read what is not there
MAX_SCANS = 100  # of a JPEG, each of which goes over the whole picture

SIDE, FIT = 28, 20  # MNIST: pixels of an image, and of the box that a digit is fitted into
FINE = 16  # what is drawn is measured and moved in sixteenths of such a pixel
WORK = FIT * FINE  # pixels that a picture is shrunk to: a digit that fills it is not shrunk again
STROKE = 2.0  # thinner lines are drawn as wide as this; those of MNIST are 1.8 to 3.5 pixels

CONTRAST = 12.0  # grey levels of 255 by which ink differs from paper at least
WINDOW = 0.35  # of the shorter side: the neighbourhood in which the paper has one grey level
NEIGHBOURS = np.ones((3, 3), bool)


def read_digit(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a picture of one digit as an image of MNIST.

    Dark ink on a light background and light ink on a dark one are told apart; uneven light,
    noise and what is cut by the border of the picture are removed.

    Parameters
    ----------
    path : str or path-like
        A PNG, JPEG, BMP or PGM file, in grey, in colour or with a palette; transparent parts are
        taken for background, and the orientation that a camera notes is obeyed.

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
    path = os.fspath(path)
    ink, threshold = _ink(_grey(path))
    drawn = _drawn(ink, threshold)
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0 or max(np.ptp(rows), np.ptp(columns)) < 5:  # a speck is noise
        raise DataFormatError(
            f"{path}: nothing is drawn on it; the picture must show one digit that is clearly "
            "darker or lighter than its background"
        )
    return _framed(ink * ndimage.binary_dilation(drawn, NEIGHBOURS, 2), threshold, rows, columns)


def _grey(path: str) -> np.ndarray:
    """Return a picture in grey levels 0 to 255, shrunk to at most WORK pixels a side."""
    pillow = extras.load("PIL.Image", "image", "read_digit")
    upright = extras.load("PIL.ImageOps", "image", "read_digit").exif_transpose
    if os.path.isdir(path):
        raise DataFormatError(f"{path}: this is a folder; name the pictures in it")
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES or (data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > MAX_SCANS):
        raise DataFormatError(
            f"{path}: the file is larger, or a JPEG of more scans, than a picture of "
            f"{MAX_PIXELS:,} pixels needs; save it again, smaller"
        )
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise pillow.DecompressionBombError
        image.draft("L", (WORK, WORK))  # of a large JPEG only every second, fourth or eighth
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
    grey = ndimage.gaussian_filter(grey, max(grey.shape) / WORK)
    width = max(3, round(WINDOW * min(grey.shape)))
    paper = np.ones_like(grey)
    sign = 0.0
    for _ in range(4):
        total, weight = (
            ndimage.uniform_filter(each, width, mode="nearest") for each in (grey * paper, paper)
        )
        ink = grey - total / np.maximum(weight, 1e-3)
        # Ink is the rarer and the farther from the mean: the third moment has its sign.
        sign = sign or np.sign((ink**3).sum())
        ink *= sign
        strong = ink[ink > CONTRAST]
        threshold = CONTRAST
        if strong.size:  # half of the mean ink, each pixel weighted by its ink
            threshold = max(threshold, (strong**2).sum() / strong.sum() / 2)
        paper[...] = ~ndimage.binary_dilation(ink > threshold, NEIGHBOURS)
    return ink, threshold


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
