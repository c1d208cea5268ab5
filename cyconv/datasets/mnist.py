"""The MNIST database of handwritten digits: find it, or fetch it, and check it."""

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cyconv.datasets.download import download
from cyconv.datasets.idx import read_idx
from cyconv.errors import DataFormatError, DownloadError
from cyconv.files import FilePath, opened

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)

# Of the bytes of the four arrays as `load_mnist` returns them, one after another.
CONTENT_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"


class _File(NamedTuple):
    name: str
    shape: tuple[int, ...]
    sha256: str  # of name + ".gz" as published


FILES = (
    _File(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    _File(
        "train-labels-idx1-ubyte",
        (60000,),
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    _File(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    _File(
        "t10k-labels-idx1-ubyte",
        (10000,),
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)

logger = logging.getLogger("cyconv")


def load_mnist(directory: FilePath | None = None) -> tuple[Split, Split]:
    """Load the 60,000 training and 10,000 test digits of MNIST.

    Without `directory` they come from the folder that the environment variable CYCONV_DATA
    names, else from the cache, and what the cache lacks is downloaded into it. The cache is
    the folder in CYCONV_CACHE, by default "cyconv" where the system keeps a user's caches.

    Parameters
    ----------
    directory : str, bytes or path-like, optional
        A folder with the four files, as published or unzipped, each perhaps in a folder of its own
        name. Nothing else is then tried.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray, uint8
        Images of shape (N, 28, 28), white on black, and their labels of shape (N,).

    Raises
    ------
    FileNotFoundError
        If `directory` lacks one of the files.
    DataFormatError
        If a file is damaged or is not what its name says.
    DownloadError
        If the files are nowhere and cannot be downloaded, or not be stored.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
    """
    if directory is not None:
        spellings = _search(Path(os.fsdecode(directory)))
    else:
        spellings = _from_environment() or _from_cache()
    x_train, y_train, x_test, y_test = (
        _read(paths, file.shape) for paths, file in zip(spellings, FILES, strict=True)
    )
    return (x_train, y_train), (x_test, y_test)


def is_published(train: Split, test: Split) -> bool:
    """Tell whether these are MNIST itself: other data sets have its names and extents too."""
    digest = hashlib.sha256()
    for array in (*train, *test):
        digest.update(array.data)
    return digest.hexdigest() == CONTENT_SHA256


def find_mnist() -> Path | None:
    """Return the folder that `load_mnist` reads, or None if it would have to download."""
    if _from_environment():
        return _environment_directory()
    directory = _cache_directory()
    return None if _lacking(directory) else directory


def _search(directory: Path) -> list[list[Path]]:
    """Return the paths of each file in a folder, under all of the names it goes by."""
    found = [_spellings(directory, file.name) for file in FILES]
    missing = [file.name for file, paths in zip(FILES, found, strict=True) if not paths]
    if missing:
        raise FileNotFoundError(
            f"load_mnist: directory {directory} must hold the four files of MNIST, as "
            f".gz or unzipped; it lacks {', '.join(missing)}. They can be had from {MIRRORS[0]}"
        )
    return found


def _spellings(directory: Path, name: str) -> list[Path]:
    """Return the paths of one file: as .gz, with a dot, in a folder, as archives have it."""
    stems = name, name.replace("-idx", ".idx")
    paths = (
        directory / folder / f"{stem}{ending}"
        for folder in ("", *stems)
        for stem in stems
        for ending in (".gz", "")
    )
    return [path for path in paths if path.is_file()]


def _read(paths: list[Path], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the array in the first of these files that is good."""
    *others, last = paths
    for path in others:
        try:
            return _read_checked(path, shape)
        except (DataFormatError, OSError) as error:
            logger.warning("a file of MNIST is passed over: %s", error)
    return _read_checked(last, shape)


def _environment_directory() -> Path | None:
    """Return the folder CYCONV_DATA, if there is such a variable."""
    directory = os.environ.get("CYCONV_DATA")
    return Path(os.path.expanduser(directory)) if directory else None


def _from_environment() -> list[list[Path]] | None:
    """Return the paths of the files in the folder CYCONV_DATA, or None if it has not all four."""
    directory = _environment_directory()
    if directory is None:
        return None
    try:
        return _search(directory)
    except FileNotFoundError as error:
        logger.warning("CYCONV_DATA is passed over: %s", error)
        return None


def _from_cache() -> list[list[Path]]:
    """Return the paths of the published files, after downloading what is missing or damaged."""
    directory = _cache_directory()
    download(MIRRORS, _lacking(directory), directory)
    return [[directory / f"{file.name}.gz"] for file in FILES]


def _lacking(directory: Path) -> dict[str, str]:
    """Return the hashes of the published files that are missing or damaged in a folder."""
    hashes = {f"{file.name}.gz": file.sha256 for file in FILES}
    return {name: sha256 for name, sha256 in hashes.items() if _sha256(directory / name) != sha256}


def _cache_directory() -> Path:
    """Return the folder that downloads are kept in; it may not exist yet."""
    cache = os.environ.get("CYCONV_CACHE")
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    try:
        return Path(cache or Path(base or "~/.cache", "cyconv")).expanduser()
    except RuntimeError as error:
        raise DownloadError(
            "load_mnist: this user has no home folder to keep MNIST in; name a folder with the "
            "environment variable CYCONV_CACHE"
        ) from error


def _sha256(path: Path) -> str | None:
    """Return the hash of a file, or None if it cannot be read."""
    try:
        with opened(path, OSError) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _read_checked(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read a file; refuse a label that is not a digit, and name the first."""
    array = read_idx(path, shape)
    if array.ndim == 1 and array.max() > 9:
        index = int(np.argmax(array > 9))
        raise DataFormatError(
            f"{path}: labels must be 0 to 9, label {index} is {array[index]}; "
            "the file is damaged, copy it again"
        )
    return array
