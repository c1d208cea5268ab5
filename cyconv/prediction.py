"""What a network makes of images: methods of `Network` that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.layers import Softmax
from cyconv.losses import cross_entropy

if TYPE_CHECKING:
    from cyconv.network import Network

CHUNK = 2048  # images that are taken at once: memory does not grow with the data


def evaluate(self: Network, x: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Return (mean cross-entropy, share of images whose most probable class is the label).

    Parameters
    ----------
    x : ndarray of shape (N, *input_shape), float32 or uint8
    labels : ndarray of shape (N,), integers from 0 to classes - 1

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in `predict`, or if the labels do not fit.
    """
    x = self._images(x, "Network.evaluate")
    labels = self._labels(labels, len(x), "Network.evaluate")
    total, right = 0.0, 0
    for index, logits in enumerate(_finite_logits(self, x, "Network.evaluate")):
        truth = labels[index * CHUNK : (index + 1) * CHUNK]
        right += int((logits.argmax(axis=1) == truth).sum())
        total += cross_entropy(logits, truth)[0] * len(truth)
    return total / len(x), right / len(x)


def predict(self: Network, x: ArrayLike) -> np.ndarray:
    """Return the most probable class of each image.

    In float32 the answer to an image has the same bits whatever images are with it.

    Parameters
    ----------
    x : ndarray of shape (N, *input_shape), float32 or uint8

    Returns
    -------
    ndarray of shape (N,), int64

    Raises
    ------
    TypeError, ValueError
        If x has another element type or shape, or is not finite.
    FloatingPointError
        If x is finite, but the network's output is not.
    """
    return _outputs(self, x, "Network.predict").argmax(axis=-1)


def predict_proba(self: Network, x: ArrayLike) -> np.ndarray:
    """Return the probability of each class for each image.

    Parameters and errors are those of `predict`; the network must end with Softmax.

    Returns
    -------
    ndarray of shape (N, classes)
    """
    self._needs_softmax("Network.predict_proba")
    return Softmax().forward(_outputs(self, x, "Network.predict_proba"))


def _outputs(network: Network, x, who) -> np.ndarray:
    """Return finite logits."""
    x = network._images(x, who)
    if len(x) == 0:
        return np.empty((0, *network.output_shape), np.result_type(network._parameters, x.dtype))
    chunks = list(_finite_logits(network, x, who))
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _finite_logits(network: Network, x, who) -> Iterator[np.ndarray]:
    """Yield the logits of `CHUNK` images after the other; images and logits are finite."""
    checks.finite(x, who)
    for first in range(0, len(x), CHUNK):
        logits = network._logits(x[first : first + CHUNK])
        if not np.isfinite(logits).all():
            raise FloatingPointError(f"{who}: the output is not finite; the weights have diverged")
        yield logits
