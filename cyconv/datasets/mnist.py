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

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)


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


def load_mnist(directory: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Load the 60,000 training and 10,000 test digits of MNIST.

    Without `directory` they come from the folder that the environment variable CYCONV_DATA
    names, else from the cache, and what the cache lacks is downloaded into it. The cache is
    the folder in CYCONV_CACHE, by default "cyconv" where the system keeps a user's caches.

    Parameters
    ----------
    directory : str or path-like, optional
        A folder with the four files, as published or unzipped. Nothing else is then tried.

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
        paths = _search(Path(directory))
    else:
        paths = _from_environment() or _from_cache()
    x_train, y_train, x_test, y_test = (
        read_idx(path, file.shape) for path, file in zip(paths, FILES, strict=True)
    )
    _check_labels(paths[1], y_train)
    _check_labels(paths[3], y_test)
    return (x_train, y_train), (x_test, y_test)


def find_mnist() -> Path | None:
    """Return the folder that `load_mnist` reads, or None if it would have to download."""
    paths = _from_environment()
    if paths:
        return paths[0].parent
    directory = _cache_directory()
    return None if _lacking(directory) else directory


def _search(directory: Path) -> list[Path]:
    """Return the path of each file in a folder, under any of the names it goes by."""
    found = [_spelling(directory, file.name) for file in FILES]
    missing = [file.name for file, path in zip(FILES, found, strict=True) if path is None]
    if missing:
        raise FileNotFoundError(
            f"load_mnist: directory {directory} must hold the four files of MNIST, as "
            f".gz or unzipped; it lacks {', '.join(missing)}. They can be had from {MIRRORS[0]}"
        )
    return [path for path in found if path is not None]


def _spelling(directory: Path, name: str) -> Path | None:
    """Return the path of one file, also as .gz and with the dot that some archives have."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (directory / f"{stem}.gz", directory / stem):
            if path.is_file():
                return path
    return None


def _from_environment() -> list[Path] | None:
    """Return the paths of the files in the folder CYCONV_DATA, or None if it has not all four."""
    directory = os.environ.get("CYCONV_DATA")
    if not directory:
        return None
    try:
        return _search(Path(directory))
    except FileNotFoundError as error:
        logger.warning("CYCONV_DATA is passed over: %s", error)
        return None


def _from_cache() -> list[Path]:
    """Return the paths of the published files, after downloading what is missing or damaged."""
    directory = _cache_directory()
    download(MIRRORS, _lacking(directory), directory)
    return [directory / f"{file.name}.gz" for file in FILES]


def _lacking(directory: Path) -> dict[str, str]:
    """Return the hashes of the published files that are missing or damaged in a folder."""
    hashes = {f"{file.name}.gz": file.sha256 for file in FILES}
    return {name: sha256 for name, sha256 in hashes.items() if _sha256(directory / name) != sha256}


def _cache_directory() -> Path:
    """Return the folder that downloads are kept in; it may not exist yet."""
    if os.environ.get("CYCONV_CACHE"):
        return Path(os.environ["CYCONV_CACHE"])
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    try:
        return Path(base or "~/.cache").expanduser() / "cyconv"
    except RuntimeError as error:
        raise DownloadError(
            "load_mnist: this user has no home folder to keep MNIST in; name a folder with the "
            "environment variable CYCONV_CACHE"
        ) from error


def _sha256(path: Path) -> str | None:
    """Return the hash of a file, or None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _check_labels(path: Path, labels: npt.NDArray[np.uint8]) -> None:
    """Refuse a label that is not a digit, and name the first."""
    if labels.max() > 9:
        index = int(np.argmax(labels > 9))
        raise DataFormatError(
            f"{path}: labels must be 0 to 9, label {index} is {labels[index]}; "
            "the file is damaged, copy it again"
        )
