"""What a classifier's guesses are worth, class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.geometry import integer


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """Count how often each class was taken for each.

    Parameters
    ----------
    labels, predicted : ndarray of shape (N,), integers from 0 to classes - 1
        The truth and the guess for each image.
    classes : int

    Returns
    -------
    ndarray of shape (classes, classes), int64
        ``matrix[truth, guess]``: what is right lies on the diagonal.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the lengths differ.
    """
    who = "confusion_matrix"
    classes = integer(classes, who, "classes", 1)
    truth = checks.labels(labels, np.size(labels), classes, who)
    guess = checks.labels(predicted, len(truth), classes, f"{who}: predicted")
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, guess), 1)
    return matrix


def precision_and_recall(matrix: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return two shares for each class: of its guesses that are right, of its images found.

    Parameters
    ----------
    matrix : ndarray of shape (classes, classes), int64
        As `confusion_matrix` returns it.

    Returns
    -------
    precision, recall : ndarray of shape (classes,), float64
        NaN where there is nothing to take a share of: a class that was never guessed has no
        precision, one without images no recall.

    Raises
    ------
    TypeError, ValueError
        If the matrix is not a square table of counts.
    """
    counts = check_matrix(matrix, "precision_and_recall")
    right, undefined = counts.diagonal(), np.full(len(counts), np.nan)
    precision, recall = (
        np.divide(right, total, out=undefined.copy(), where=total > 0)
        for total in (counts.sum(axis=0), counts.sum(axis=1))
    )
    return precision, recall


def check_matrix(matrix: ArrayLike, who: str) -> np.ndarray:
    """Return a confusion matrix as an array, or raise TypeError or ValueError."""
    counts = checks.array(matrix, who, "matrix", ("classes", "classes"), (np.dtype(np.int64),))
    counts = checks.array(counts, who, "matrix", (len(counts),) * 2, (counts.dtype,))
    if not counts.size or counts.min() < 0:
        raise ValueError(
            f"{who}: matrix must hold counts of at least one class, none of them negative"
        )
    return counts
