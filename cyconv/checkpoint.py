"""Networks on disk: safetensors, with the architecture in the header."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cyconv import container
from cyconv import layers as public
from cyconv.errors import CheckpointError
from cyconv.files import FilePath
from cyconv.geometry import integer
from cyconv.layers import Layer
from cyconv.optimizers import MOST_STEPS

if TYPE_CHECKING:
    from cyconv.network import Network

Make = Callable[..., "Network"]  # the class, or one of its heirs
MOST_NESTED = 20  # layers inside layers
MOST_LAYERS = 10_000  # that are read in a second
NETWORK, TRAINING = "cyconv network 1", "cyconv training 2"
OLD_TRAINING = ("cyconv training 1",)


def save(network: Network, path: FilePath) -> None:
    """Write a network to `path`; see `Network.save`."""
    header = {"format": NETWORK, **architecture(network)}
    container.write(path, network.parameters() | network.state(), header)


def load(path: FilePath, make: Make, layers: Sequence[type] = ()) -> Network:
    """Return the network in the file `path`; see `Network.load`.

    `make` is the class Network, which this module does not know.
    """
    path, named = os.fsdecode(path), layer_types(layers, "Network.load")
    tensors, header = read(path, NETWORK)
    with container.judged(path):
        # Files of before there was training that draws random numbers do not say how many.
        return restored({"steps": 0, **header}, tensors, make, named)


def architecture(network: Network) -> dict[str, Any]:
    """Return what a file says of a network beside its arrays."""
    layers = [_describe(layer) for layer in network.layers]
    _check_count(layers)
    return {
        "input_shape": network.input_shape,
        "seed": network.seed,
        "steps": network.steps,
        "dtype": str(network._parameters.dtype),
        "layers": layers,
    }


def restored(header: dict[str, Any], tensors: dict[str, np.ndarray], make: Make, named) -> Network:
    """Return the network that a header describes, with its parameters and its state."""
    shape = tuple(header["input_shape"])
    _check_count(header["layers"])
    layers = [_make(description, named) for description in header["layers"]]
    _check_shapes(layers, shape, header["dtype"], tensors)
    network = make(layers, shape, header["seed"], header["dtype"])
    steps = integer(header["steps"], "Network", "steps", 0)
    if steps >= MOST_STEPS:
        raise ValueError(f"it has taken {steps} steps")
    network._steps[0] = steps
    for name, target in (network.parameters() | network.state()).items():
        target[...] = tensors[name]
    return network


def read(path: str, expected: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the header of a file of the expected format."""
    tensors, header = container.read(path)
    kind = header["format"]
    if kind in OLD_TRAINING:
        raise CheckpointError(
            f"{path}: this is a training run of an older cyconv, which this one cannot continue; "
            "begin it again"
        )
    if (kind, expected) == (TRAINING, NETWORK):
        raise CheckpointError(
            f"{path}: this is a training run, which cyconv train --resume continues; its best "
            "network is in model.safetensors beside it"
        )
    if kind != expected:
        raise CheckpointError(f"{path}: its format must be {expected!r}, got {kind!r:.60}")
    return tensors, header


def _check_count(layers) -> None:
    """Raise ValueError if a file would hold, or holds, more layers than are soon read."""
    count = _count(layers)
    if count > MOST_LAYERS:
        raise ValueError(f"a file holds at most {MOST_LAYERS:,} layers, got {count:,}")


def _count(described) -> int:
    """Return how many layers are described, with those inside others."""
    if isinstance(described, dict):
        return 1 + sum(map(_count, described.values()))
    return sum(map(_count, described)) if isinstance(described, list) else 0


def _check_shapes(layers, input_shape, dtype, tensors) -> None:
    """Raise ValueError unless the tensors are those of the layers: before any is allocated."""
    expected: dict[str, tuple[int, ...]] = {}
    shape = input_shape
    for index, layer in enumerate(layers):
        layer.setup(shape, index)
        shape = layer.output_shape
        own = layer.parameter_shapes | layer.state_shapes
        expected |= {f"{index}.{name}": each for name, each in own.items()}
        layer.reset()
    found = {name: array.shape for name, array in tensors.items()}
    if found != expected:
        raise ValueError(f"it holds parameters of the shapes {found}, not {expected}")
    if any(array.dtype != dtype for array in tensors.values()):
        raise ValueError(f"its parameters are not all {dtype}")


def layer_types(layers, who: str) -> dict[str, type]:
    """Return the classes of layers that a file may name."""
    if not isinstance(layers, (list, tuple)):
        raise TypeError(f"{who}: layers must be a list of classes of layers, got {layers!r:.60}")
    names = set(public.__all__) - {"Layer"}
    classes: dict[str, type] = {name: getattr(public, name) for name in names}
    for each in layers:
        if not isinstance(each, type) or not issubclass(each, Layer):
            raise TypeError(f"{who}: layers must be classes of layers, got {each!r:.60}")
        if classes.setdefault(each.__name__, each) is not each:
            raise ValueError(f"{who}: layers has a second class of the name {each.__name__}")
    return classes


def _describe(layer) -> dict[str, Any]:
    """Return a layer as JSON can hold it: the name of its class, and its `config`."""
    name = type(layer).__name__
    if getattr(public, name, None) is not type(layer) and not _has_own_config(layer):
        raise TypeError(
            f"Network.save: {layer.who} is not a layer of cyconv.layers and has no config, the "
            "arguments that make it again; set self.config, or save net.parameters() with "
            "numpy.savez instead"
        )
    return {"type": name, **{key: _described(value) for key, value in layer.config.items()}}


def _has_own_config(layer) -> bool:
    """Tell whether a layer's class, or the layer, says what its config is, if only that of none."""
    own = [vars(layer), *(vars(each) for each in type(layer).__mro__ if each is not Layer)]
    return any("config" in each for each in own)


def _described(value):
    if isinstance(value, Layer):
        return _describe(value)
    return [_described(each) for each in value] if isinstance(value, (list, tuple)) else value


def _make(description, named: dict[str, type], depth: int = 0) -> Layer:
    """Return the layer that a file describes, with the layers inside it."""
    if depth > MOST_NESTED:
        raise ValueError(f"its layers are nested more than {MOST_NESTED} deep")
    if isinstance(description, dict):
        description = {
            name: [_make(each, named, depth + 1) for each in value] if _are_layers(value) else value
            for name, value in description.items()
        }
    return made(description, named, "layer")


def _are_layers(value) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)


def made(description, named: dict[str, type], what: str) -> Any:
    """Return what a file describes by the name of a class, one of `named`, and its arguments."""
    if not isinstance(description, dict):
        raise ValueError(f"its {what} is described by {description!r:.60}")
    arguments = {
        name: tuple(map(_tuples, value)) if isinstance(value, list) else value
        for name, value in description.items()
    }
    name = arguments.pop("type")
    if name not in named:
        raise ValueError(f"unknown {what} {name!r:.60}")
    return named[name](**arguments)


def _tuples(value):
    return tuple(value) if isinstance(value, list) else value
