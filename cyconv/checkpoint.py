"""Networks and training runs on disk: safetensors, with the architecture in the header."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cyconv import layers as layer_types
from cyconv.errors import CheckpointError
from cyconv.files import replacement
from cyconv.geometry import integer
from cyconv.network import Network
from cyconv.optimizers import Adam
from cyconv.training import History, KeepBest, Progress

NETWORK, TRAINING = "cyconv network 1", "cyconv training 1"
# In the JSON inside the header's JSON; its own bytes count as zeros in it.
DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
# What a file that is none of ours, or made to do harm, can let its readers raise.
BAD: tuple[type[Exception], ...] = (
    safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    RecursionError, MemoryError, OverflowError,
)  # fmt: skip


@dataclass
class Training:
    """A training run: all that decides how it goes on, but for the data.

    Attributes
    ----------
    network : Network
    optimizer : Adam
    progress : Progress
    best : KeepBest
    settings : dict
        Whatever else whoever runs it needs to know, as JSON can hold it.
    """

    network: Network
    optimizer: Adam
    progress: Progress = field(default_factory=Progress)
    best: KeepBest = field(default_factory=KeepBest)
    settings: dict[str, Any] = field(default_factory=dict)


def save(network: Network, path: str | PathLike[str]) -> None:
    """Write a network to `path`; see `Network.save`."""
    _write(path, network.parameters(), {"format": NETWORK, **_architecture(network)})


def load(path: str | PathLike[str]) -> Network:
    """Return the network in the file `path`; see `Network.load`."""
    tensors, header = _read(path, NETWORK)
    with _judged(path):
        return _network(header, tensors)


def save_training(training: Training, path: str | PathLike[str]) -> None:
    """Write a training run to `path`, from where `load_training` brings it back to the same bits.

    The file replaces an older one only when it is complete.

    Raises
    ------
    TypeError
        If a layer is none of `cyconv.layers`.
    OSError
        If the file cannot be written.
    """
    adam, best = training.optimizer, training.best
    flat = {"adam.m": adam.m, "adam.v": adam.v, "best": best.parameters}
    header = {
        "format": TRAINING,
        **_architecture(training.network),
        "adam": {"learning_rate": float(adam.learning_rate), "betas": adam.betas, "eps": adam.eps},
        "t": adam.t,
        "progress": asdict(training.progress),
        "best": {"patience": best.patience, "epoch": best.epoch, "accuracy": best.accuracy},
        "settings": training.settings,
    }
    given = {name: array for name, array in flat.items() if array is not None}
    _write(path, training.network.parameters() | given, header)


def load_training(path: str | PathLike[str]) -> Training:
    """Return the training run in the file `path`.

    Raises
    ------
    cyconv.CheckpointError
        If the file is damaged or is none of ours. No code in it is ever run.
    OSError
        If the file cannot be read.
    """
    tensors, header = _read(path, TRAINING)
    with _judged(path):
        flat = {name: tensors.pop(name, None) for name in ("adam.m", "adam.v", "best")}
        network = _network(header, tensors)
        like = network._parameters
        for name, array in flat.items():
            if array is not None and (array.shape, array.dtype) != (like.shape, like.dtype):
                raise ValueError(f"{name} has the shape {array.shape}, not {like.shape}")
        adam = Adam(**header["adam"])
        adam.t = integer(header["t"], "Adam", "t", 0)
        adam.m, adam.v = flat["adam.m"], flat["adam.v"]
        if (adam.m is None) != (adam.t == 0) or (adam.v is None) != (adam.t == 0):
            raise ValueError("Adam has taken steps without keeping means")
        best = KeepBest(header["best"]["patience"])
        best.epoch = integer(header["best"]["epoch"], "KeepBest", "epoch", 0)
        best.accuracy = float(header["best"]["accuracy"])
        best.parameters = flat["best"]
        if (best.parameters is None) != (best.epoch == 0):
            raise ValueError(f"it does not hold the parameters of its best epoch, {best.epoch}")
        if not math.isfinite(best.accuracy):
            raise ValueError("its best accuracy is not finite")
        if not isinstance(header["settings"], dict):
            raise ValueError("its settings are no mapping")
        return Training(network, adam, _progress(**header["progress"]), best, header["settings"])


def _progress(epoch, batch, loss, seconds, history) -> Progress:
    """Return how far a run has come, each of its numbers checked."""
    epoch, batch = integer(epoch, "progress", "epoch", 0), integer(batch, "progress", "batch", 0)
    measured = {name: [float(number) for number in numbers] for name, numbers in history.items()}
    kept = History(**measured)
    always, optional = (kept.loss, kept.seconds), (kept.val_loss, kept.val_accuracy)
    if set(map(len, always)) != {epoch} or not set(map(len, optional)) <= {0, epoch}:
        raise ValueError(f"its history does not have {epoch} epochs")
    if not (math.isfinite(loss) and math.isfinite(seconds)):
        raise ValueError("its loss is not finite")
    return Progress(epoch, batch, float(loss), float(seconds), kept)


def _architecture(network: Network) -> dict[str, Any]:
    return {
        "input_shape": network.input_shape,
        "seed": network.seed,
        "dtype": str(network._parameters.dtype),
        "layers": [_describe(layer) for layer in network.layers],
    }


def _network(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Network:
    """Return the network that a header describes, with its parameters."""
    shape = tuple(header["input_shape"])
    layers = [_make(description) for description in header["layers"]]
    _check_shapes(layers, shape, header["dtype"], tensors)
    network = Network(layers, shape, header["seed"], header["dtype"])
    for name, target in network.parameters().items():
        target[...] = tensors[name]
    return network


def _write(path, tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    with replacement(path) as file:
        file.write(_encode(tensors, header))


def _encode(tensors: dict[str, np.ndarray], header) -> bytes:
    """Return a file that holds the digest of all its bytes: the same bytes for the same content."""
    # A view of the arena is contiguous; anything else safetensors would write scrambled.
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps({"header": header, "sha256": "0" * 64}, sort_keys=True)
    data = safetensors.numpy.save(whole, {"cyconv": text})
    match = _find_digest(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[: match.start(1)] + digest + data[match.end(1) :]


def _find_digest(data: bytes) -> re.Match[bytes]:
    """Return where in the header the digest is: after all settings, whatever these may hold."""
    *_, match = DIGEST.finditer(data, 8, 8 + int.from_bytes(data[:8], "little"))
    return match


def _read(path, expected: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the header of a file, its digest checked."""
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.numpy.load(data)
        match = _find_digest(data)
        digest = hashlib.sha256(data[: match.start(1)] + b"0" * 64)
        digest.update(memoryview(data)[match.end(1) :])
        damaged = digest.hexdigest().encode() != match[1]
        header = json.loads(json.loads(data[8 : match.endpos])["__metadata__"]["cyconv"])["header"]
        kind = header["format"]
    except BAD as error:
        raise CheckpointError(
            f"{path}: this is no complete safetensors file of cyconv ({_reason(error)})"
        ) from None
    if damaged:
        raise CheckpointError(f"{path}: the file is damaged; its digest does not match its content")
    if (kind, expected) == (TRAINING, NETWORK):
        raise CheckpointError(
            f"{path}: this is a training run, which cyconv train --resume continues; its best "
            "network is in model.safetensors beside it"
        )
    if kind != expected:
        raise CheckpointError(f"{path}: its format must be {expected!r}, got {kind!r:.60}")
    return tensors, header


@contextmanager
def _judged(path) -> Iterator[None]:
    """Turn what a bad description raises into a CheckpointError."""
    try:
        yield
    except BAD as error:
        raise CheckpointError(
            f"{path}: the description in it is not valid: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """Return what an error says, in which a file may have put anything, fit for a terminal."""
    text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return "".join(each if each.isprintable() else " " for each in text)[:300]


def _check_shapes(layers, input_shape, dtype, tensors) -> None:
    """Raise ValueError unless the tensors are the layers' parameters: before any is allocated."""
    expected: dict[str, tuple[int, ...]] = {}
    shape = input_shape
    for index, layer in enumerate(layers):
        layer.setup(shape, index)
        shape = layer.output_shape
        expected |= {f"{index}.{name}": own for name, own in layer.parameter_shapes.items()}
        layer.reset()
    found = {name: array.shape for name, array in tensors.items()}
    if found != expected:
        raise ValueError(f"it holds parameters of the shapes {found}, not {expected}")
    if any(array.dtype != dtype for array in tensors.values()):
        raise ValueError(f"its parameters are not all {dtype}")


def _describe(layer) -> dict[str, Any]:
    name = type(layer).__name__
    if getattr(layer_types, name, None) is not type(layer):
        raise TypeError(
            f"Network.save: {layer.who} is no layer of cyconv.layers, so a file cannot name it; "
            "save net.parameters() with numpy.savez instead"
        )
    return {"type": name, **layer.config}


def _make(description) -> layer_types.Layer:
    if not isinstance(description, dict):
        raise ValueError(f"a layer is described by {description!r:.60}")
    arguments = {
        name: tuple(map(_tuples, value)) if isinstance(value, list) else value
        for name, value in description.items()
    }
    name = arguments.pop("type")
    if name not in layer_types.__all__ or name == "Layer":
        raise ValueError(f"unknown layer {name!r}")
    return getattr(layer_types, name)(**arguments)


def _tuples(value):
    return tuple(value) if isinstance(value, list) else value
