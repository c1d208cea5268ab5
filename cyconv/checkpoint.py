"""Networks on disk: safetensors, with the architecture in the header."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cyconv import layers as layer_types
from cyconv.errors import CheckpointError
from cyconv.files import replacement
from cyconv.network import Network

FORMAT = "cyconv network 1"


def save(network: Network, path) -> None:
    """Write a network to `path`; see `Network.save`."""
    tensors = {
        # A view of the arena is contiguous; anything else safetensors would write scrambled.
        name: np.ascontiguousarray(array)
        for name, array in network.parameters().items()
    }
    architecture = {
        "format": FORMAT,
        "input_shape": network.input_shape,
        "seed": network.seed,
        "dtype": str(network._parameters.dtype),
        "layers": [_describe(layer) for layer in network.layers],
    }
    data = _encode(tensors, architecture)
    with replacement(path) as file:
        file.write(data)


def load(path) -> Network:
    """Return the network in the file `path`; see `Network.load`."""
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.numpy.load(data)
        architecture = _header(data)
        # Written again, an undamaged file gives the same bytes; this finds a flip in any of them.
        damaged = _encode(tensors, architecture) != data
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: this is no complete safetensors file of cyconv ({error})"
        ) from None
    if damaged:
        raise CheckpointError(f"{path}: the file is damaged; its digest does not match its content")
    try:
        shape = tuple(architecture["input_shape"])
        layers = [_make(description) for description in architecture["layers"]]
        _check_shapes(layers, shape, architecture["dtype"], tensors)
        network = Network(layers, shape, architecture["seed"], architecture["dtype"])
        for name, target in network.parameters().items():
            target[...] = tensors[name]
    except (KeyError, TypeError, ValueError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{path}: the architecture in it is not valid: {error}") from None
    return network


def _encode(tensors, architecture) -> bytes:
    """Return the file: the same bytes for the same content."""
    text = json.dumps(architecture, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    header = json.dumps(
        {"architecture": architecture, "sha256": digest.hexdigest()}, sort_keys=True
    )
    return safetensors.numpy.save(tensors, {"cyconv": header})


def _header(data: bytes) -> dict:
    """Return the architecture in a safetensors file that was parsed before."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    architecture = json.loads(metadata["cyconv"])["architecture"]
    if architecture["format"] != FORMAT:
        raise ValueError(f"its format is {architecture['format']!r}, not {FORMAT!r}")
    return architecture


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


def _describe(layer) -> dict:
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
