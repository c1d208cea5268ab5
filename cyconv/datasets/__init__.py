"""The data sets: MNIST, and a small set of digits that needs no network."""

import os
from typing import NamedTuple

from cyconv.datasets.digits import load_digits
from cyconv.datasets.idx import read_idx
from cyconv.datasets.mnist import Split, is_published, load_mnist
from cyconv.errors import DownloadError
from cyconv.files import FilePath

__all__ = ["Dataset", "load", "load_digits", "load_mnist", "read_idx"]


class Dataset(NamedTuple):
    """A data set: its name, (images, labels) twice, and why it is not the one hoped for."""

    name: str
    train: Split
    test: Split
    note: str = ""


def load(name: str = "auto", directory: FilePath | None = None) -> Dataset:
    """Load a data set by its name.

    Parameters
    ----------
    name : {"auto", "mnist", "digits"}
        "auto" is MNIST or, where it is not at hand and cannot be downloaded, the digits that
        come with the package; `note` then says why.
    directory : str, bytes or path-like, optional
        A folder that must hold MNIST; see `load_mnist`.

    Returns
    -------
    Dataset
        The fields `name`, `train`, `test` and `note`. The name is "mnist", "digits" or, for other
        data in files named like those of MNIST, "custom".

    Raises
    ------
    ValueError
        If there is no such data set, or `directory` is given for the digits.
    FileNotFoundError, DataFormatError, DownloadError
        See `load_mnist`; with "auto", a DownloadError becomes the note.
    """
    if name not in ("auto", "mnist", "digits"):
        raise ValueError(f'load: name must be "auto", "mnist" or "digits", got {name!r}')
    if name == "digits" and directory is not None:
        raise ValueError(
            f'load: directory must be None for name="digits", which come with the package, '
            f"got {os.fsdecode(directory)!r}"
        )
    if name == "digits":
        return Dataset("digits", *load_digits())
    try:
        train, test = load_mnist(directory)
    except DownloadError as error:
        if name == "mnist":
            raise
        return Dataset("digits", *load_digits(), note=str(error))
    return Dataset("mnist" if is_published(train, test) else "custom", train, test)
