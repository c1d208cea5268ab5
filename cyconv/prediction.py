"""What a network makes of images: methods of `Network` that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.geometry import integer
from cyconv.layers import Softmax
from cyconv.losses import cross_entropy
from cyconv.threads import kernel_threads

if TYPE_CHECKING:
    from cyconv.memory import Memory
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


def predictor(self: Network, batch: int = 1) -> Predictor:
    """Return a callable that predicts `batch` images at a time, its memory being ready.

    For a service that predicts one image after the other: a call allocates little, and has the bits
    of `predict`. The network's parameters are read anew at each call.

    Parameters
    ----------
    batch : int

    Raises
    ------
    TypeError, ValueError
        If batch is not an integer of at least 1.
    """
    return Predictor(self, integer(batch, "Network.predictor", "batch", 1))


class Predictor:
    """Predicts batches of one size: what `Network.predictor` returns.

    Threads may share one: a thread that finds the memory in use makes its own.

    Attributes
    ----------
    network : Network
    batch : int
    """

    def __init__(self, network: Network, batch: int) -> None:
        self.network, self.batch = network, batch
        self._shape = batch, *network.input_shape
        dtype = network._parameters.dtype
        self._program = program = network._passes.program(
            dtype, without_last=network.ends_with_softmax
        )
        # Where the output is the input itself, it is in no memory that could be ready.
        does_nothing = program.storage[program.output] == 0
        self._taken = () if does_nothing else (dtype, np.dtype(np.uint8))
        self._spare: dict[int, tuple[Memory, int, np.ndarray]] = {}
        self(np.zeros(self._shape, np.uint8))

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """Return the most probable class of each image, as `Network.predict` does.

        Parameters
        ----------
        x : ndarray of shape (batch, *input_shape), float32 or uint8

        Returns
        -------
        ndarray of shape (batch,), int64

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As in `Network.predict`, or if x holds more or fewer images.
        """
        return self._of_outputs(x, _most_probable)

    def proba(self, x: ArrayLike) -> np.ndarray:
        """Return the probability of each class, of shape (batch, classes); x is as in a call."""
        self.network._needs_softmax("Predictor.proba")
        return self._of_outputs(x, Softmax().forward)

    def _of_outputs(self, x, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return a function of the logits, which are finite."""
        # What can be taken as it is, and has finite numbers, is not looked at any closer.
        network = self.network
        if not (
            type(x) is np.ndarray
            and x.shape == self._shape
            and x.dtype in self._taken
            and x.flags.c_contiguous
        ):
            x = network._computed(network._images(x, "Predictor"))
            if x.shape != self._shape:
                raise ValueError(
                    f"Predictor: x must have shape {checks.shape_text(self._shape)}, got "
                    f"{checks.shape_text(x.shape)}; for {len(x)} at a time make another one: "
                    f"network.predictor({len(x)})"
                )
            if x.dtype not in self._taken:
                return function(_outputs(network, x, "Predictor"))
        threads = kernel_threads()
        held = self._spare.pop(threads, None) or self._make(threads)
        memory, begin, logits = held
        memory.take(x.reshape(self.batch, -1))
        if not memory.batch.is_finite():
            checks.finite(x, "Predictor")
        self._program.run(memory)
        if not memory.batch.holds_finite(begin, logits.size):
            raise _diverged("Predictor")
        result = function(logits)
        self._spare = {threads: held}
        return result

    def _make(self, threads: int) -> tuple[Memory, int, np.ndarray]:
        """Return memory, where in it the logits will be, and these."""
        memory = self._program.memory(self.batch, threads)
        place = self._program.places.value(self._program.output)
        logits = memory.array(place).reshape(self.batch, *self.network.output_shape)
        return memory, place[1] * self.batch, logits

    def __reduce__(self):
        """Copy or pickle the network; the memory is made anew."""
        return Predictor, (self.network, self.batch)


def _most_probable(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(-1)


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
            raise _diverged(who)
        yield logits


def _diverged(who: str) -> FloatingPointError:
    return FloatingPointError(f"{who}: the output is not finite; the weights have diverged")
