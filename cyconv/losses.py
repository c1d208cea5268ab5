"""The loss of a classifier."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv._core import of
from cyconv.threads import get_num_threads


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy of softmax(logits), and its gradient.

    ``loss = mean over n of log(sum_j exp(logits[n, j])) - logits[n, labels[n]]``, shifted by the
    row's maximum and computed in double; ``dlogits = (softmax(logits) - onehot(labels)) / N`` (the
    course's slide "Changes from Ex06").

    Parameters
    ----------
    logits : ndarray of shape (N, classes), float32 or float64
    labels : ndarray of shape (N,), integers from 0 to classes - 1

    Returns
    -------
    loss : float
    dlogits : ndarray of shape (N, classes)

    Raises
    ------
    TypeError, ValueError
        If a shape, element type or label is wrong, or there is nothing to average.
    """
    logits = checks.array(logits, "cross_entropy", "logits", ("N", "classes"))
    labels = checks.labels(labels, len(logits), logits.shape[1], "cross_entropy")
    if not logits.size:
        raise ValueError("cross_entropy: the mean of no losses is undefined, got an empty batch")
    dlogits, losses = np.empty_like(logits), np.empty(len(logits))
    of(logits.dtype).elementwise.cross_entropy(logits, labels, dlogits, losses, get_num_threads())
    return total(losses, 1 / len(logits)), dlogits


def total(losses: np.ndarray, scale: float) -> float:
    """Return the exact sum of partial losses, times `scale`."""
    try:
        return math.fsum(losses) * scale
    except OverflowError:  # the mean may be in the range of double though the sum is not
        return math.fsum(losses * scale)


class CrossEntropy:
    label_smoothing = 0.0
    class_weight = None

    def scale(self, labels, classes) -> float:
        return 1 / len(labels)
