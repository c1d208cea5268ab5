"""The loss of a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv._core import of
from cyconv.settled import Keeper
from cyconv.threads import kernel_threads


class CrossEntropy(Keeper):
    """Cross-entropy with smoothed labels and weighted classes, as torch.nn.CrossEntropyLoss.

    ``q[n, f] = class_weight[f] * ((1 - e) * [f = labels[n]] + e / classes)`` with
    ``e = label_smoothing`` is the target of an image (Szegedy et al. 2016, section 7), and
    ``loss = sum of -q * log(softmax(logits)) / sum of class_weight[labels]``.

    Parameters
    ----------
    label_smoothing : float
        In [0, 1): the share of a label that is spread over all classes.
    class_weight : sequence of float, optional
        One for each class, finite, at least 0 and not all 0; left out, all are 1.

    Attributes
    ----------
    label_smoothing, class_weight
        As given, the latter a tuple; they cannot be changed.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    def __init__(
        self, label_smoothing: float = 0, class_weight: Sequence[float] | None = None
    ) -> None:
        who = "CrossEntropy"
        self.label_smoothing = checks.number(label_smoothing, who, "label_smoothing", below=1)
        if class_weight is not None:
            class_weight = _numbers(class_weight, who, "class_weight")
            if not any(class_weight):
                raise ValueError(f"{who}: class_weight must have one that is more than 0")
        self.class_weight: tuple[float, ...] | None = class_weight

    @property
    def weight(self) -> np.ndarray | None:
        """What the kernels take for class_weight, of shape (classes,), float64, read-only."""
        weight = self.class_weight
        return None if weight is None else np.frombuffer(np.array(weight).tobytes())

    def _refusal(self, name: str) -> str:
        own = vars(self) if name in ("label_smoothing", "class_weight") else ("weight",)
        settled = f"CrossEntropy: {name} cannot be changed any more; make a new loss"
        return settled if name in own else ""

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {"label_smoothing": self.label_smoothing, "class_weight": self.class_weight}

    def __call__(self, logits: ArrayLike, labels: ArrayLike) -> tuple[float, np.ndarray]:
        """Return the mean loss of a batch, and its gradient; computed in double.

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
        return _mean_and_gradient(self, logits, labels, "CrossEntropy")

    def scale(self, labels: np.ndarray, classes: int, who: str = "CrossEntropy") -> float:
        """Return what the sum of a batch's losses is multiplied by: 1 over the sum of the weights.

        Parameters
        ----------
        labels : ndarray of shape (N,), integers from 0 to classes - 1
        classes : int
        who : str
            What an error begins with.

        Raises
        ------
        ValueError
            If class_weight has another length, there are no labels, or all have weight zero.
        """
        if not len(labels):
            raise ValueError(f"{who}: the mean of no losses is undefined, got an empty batch")
        if (weights := self.weight) is None:
            return 1.0 / len(labels)
        if len(weights) != classes:
            raise ValueError(
                f"{who}: class_weight must have {classes} numbers, one for each class, "
                f"got {len(weights)}"
            )
        with np.errstate(over="ignore"):
            weight = float((weights * np.bincount(labels, minlength=classes)).sum())
        if not 0 < weight < math.inf or 1 / weight == math.inf:
            raise ValueError(
                f"{who}: class_weight of the batch's labels must have a sum to divide by, got "
                f"{weight:g}; use larger batches, or weights more than 0"
            )
        return 1 / weight

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.config.items())
        return f"CrossEntropy({', '.join(arguments)})"


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy of softmax(logits), and its gradient.

    ``loss = mean over n of log(sum_j exp(logits[n, j])) - logits[n, labels[n]]``, shifted by the
    row's maximum and computed in double; ``dlogits = (softmax(logits) - onehot(labels)) / N`` (the
    course's slide "Changes from Ex06"), 0 where it is below 2**-102, or 2**-998 in double: what is
    close to subnormal would slow the way back. `CrossEntropy` also smooths labels and weights
    classes.

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
    return _mean_and_gradient(PLAIN, logits, labels, "cross_entropy")


def total(losses: np.ndarray, scale: float) -> float:
    """Return `scale` times the exact sum of partial losses."""
    try:
        return math.fsum(losses) * scale
    except OverflowError:  # the product may be in the range of double though the sum is not
        return math.fsum(losses * scale)


def _mean_and_gradient(loss: CrossEntropy, logits, labels, who: str) -> tuple[float, np.ndarray]:
    logits = checks.array(logits, who, "logits", ("N", "classes"))
    labels = checks.labels(labels, len(logits), logits.shape[1], who)
    scale = loss.scale(labels, logits.shape[1], who)
    dlogits, losses = np.empty_like(logits), np.empty(len(logits))
    of(logits.dtype).elementwise.cross_entropy(
        logits,
        labels,
        dlogits,
        losses,
        kernel_threads(),
        scale,
        loss.weight,
        loss.label_smoothing,
    )
    return total(losses, scale), dlogits


def _numbers(values, who: str, name: str) -> tuple[float, ...]:
    """Return a sequence of finite numbers of at least 0."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, (list, tuple)) or not values:
        raise TypeError(f"{who}: {name} must be a sequence of numbers, got {values!r:.60}")
    return tuple(checks.number(each, who, f"{name}[{i}]") for i, each in enumerate(values))


PLAIN = CrossEntropy()
