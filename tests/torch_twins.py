"""PyTorch twins of cyconv's networks, for the tests and for `bench/`.

`describe` walks a network where cyconv is; what it returns consists of plain values, from which
`twin` builds the model where PyTorch is: neither side has to import the other. A twin ends with the
logits, and its parameters and running statistics have cyconv's names ("3.body.0.weight"). Images
are NHWC here and NCHW there: filters (KH, KW, C/groups, F) become (F, C/groups, KH, KW), and the
rows of the first Linear after a Flatten, which follow the order of an image, become CHW.
"""

from __future__ import annotations

import numpy as np


def describe(net):
    """Return what `twin` needs to know of a network: a list of dictionaries, one for each layer."""
    layers = [_describe(layer) for layer in net.layers]
    if layers.pop()["kind"] != "Softmax":
        raise ValueError(f"the network must end with Softmax(), got {net.layers[-1]!r}")
    image = ()
    for layer in layers:
        if layer["kind"] == "Flatten":
            image = layer["input_shape"]
        elif layer["kind"] == "Linear":
            layer["image"], image = image, ()
    return layers


def without_dropout(net):
    """Return a network with the weights of another, whose Dropout layers drop nothing.

    Those of PyTorch drop others.
    """
    arrays = net.parameters() | net.state()
    dtype = next(iter(arrays.values())).dtype
    other = type(net)(
        [_without_dropout(layer) for layer in net.layers], net.input_shape, dtype=dtype
    )
    for name, array in (other.parameters() | other.state()).items():
        array[...] = arrays[name]
    return other


def _without_dropout(layer):
    config = dict(layer.config)
    for branch in {"body", "shortcut"} & config.keys():
        config[branch] = config[branch] and [_without_dropout(inner) for inner in config[branch]]
    return type(layer)(**config | ({"p": 0} if type(layer).__name__ == "Dropout" else {}))


def _describe(layer):
    geometry = getattr(layer, "geometry", None)
    return {
        "kind": type(layer).__name__,
        "name": layer.name,
        **{name: getattr(layer, name) for name in layer.config},
        "geometry": geometry and geometry._asdict(),
        "input_shape": layer.input_shape,
        "body": [_describe(each) for each in getattr(layer, "body", ())],
        "shortcut": [_describe(each) for each in getattr(layer, "shortcut", ())],
    }


def twin(layers):
    """Return the PyTorch model of a described network, with PyTorch's initial weights."""
    from torch import nn

    return nn.Sequential(*[_MODULES[layer["kind"]](nn, layer) for layer in layers])


def _conv(nn, layer):
    geometry = layer["geometry"]
    return nn.Conv2d(
        layer["input_shape"][-1],
        layer["out_channels"],
        dilation=(geometry["dilation_h"], geometry["dilation_w"]),
        groups=layer["groups"],
        bias=layer["bias"],
        **_window(layer),
    )


def _window(layer):
    """Return the arguments that a convolution and a pooling share; PyTorch always rounds down."""
    sizes = layer["geometry"]
    padding = sizes["pad_top"], sizes["pad_left"]
    if padding != (sizes["pad_bottom"], sizes["pad_right"]):
        raise ValueError(f"{layer['kind']} '{layer['name']}': the twin pads both sides alike")
    return {
        "kernel_size": (sizes["KH"], sizes["KW"]),
        "stride": (sizes["stride_h"], sizes["stride_w"]),
        "padding": padding,
    }


def _linear(nn, layer):
    return nn.Linear(*layer["input_shape"], layer["out_features"], bias=layer["bias"])


def _batch_norm(nn, layer):
    kind = nn.BatchNorm2d if len(layer["input_shape"]) == 3 else nn.BatchNorm1d
    return kind(layer["input_shape"][-1], eps=layer["eps"], momentum=layer["momentum"])


def _residual(nn, layer):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.shortcut = twin(layer["body"]), twin(layer["shortcut"])

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    return Residual()


_MODULES = {
    "AvgPool2D": lambda nn, layer: nn.AvgPool2d(**_window(layer), count_include_pad=False),
    "BatchNorm": _batch_norm,
    "Conv2D": _conv,
    "Dropout": lambda nn, layer: nn.Dropout(layer["p"]),
    "Flatten": lambda nn, layer: nn.Flatten(),
    "GlobalAvgPool2D": lambda nn, layer: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "LeakyReLU": lambda nn, layer: nn.LeakyReLU(layer["negative_slope"]),
    "Linear": _linear,
    "MaxPool2D": lambda nn, layer: nn.MaxPool2d(**_window(layer)),
    "ReLU": lambda nn, layer: nn.ReLU(),
    "Residual": _residual,
    "Tanh": lambda nn, layer: nn.Tanh(),
}


def give(model, layers, arrays):
    """Copy cyconv's parameters and state, by name, to a twin."""
    import torch

    images, own = _images(layers), model.state_dict()
    theirs = {name: _to_torch(array, images.get(name)) for name, array in arrays.items()}
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({name: torch.from_numpy(a) for name, a in theirs.items()} | counters)


def take(model, layers):
    """Return a twin's parameters and running statistics by name, in cyconv's order of axes."""
    images = _images(layers)
    return {
        name: _from_torch(value.numpy(), images.get(name))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def _images(layers):
    """Return (H, W, C) of each weight whose rows follow the order of an image."""
    return {f"{layer['name']}.weight": layer["image"] for layer in layers if layer.get("image")}


def _to_torch(array, image):
    if image is not None:
        return _to_torch(array.reshape(*image, -1), None).reshape(-1, len(array))
    axes = (3, 2, 0, 1) if array.ndim == 4 else None  # of a vector or matrix: reversed
    return np.array(array.transpose(axes), order="C")


def _from_torch(array, image):
    if image is not None:
        H, W, C = image
        return _from_torch(array.reshape(-1, C, H, W), None).reshape(-1, len(array))
    axes = (2, 3, 1, 0) if array.ndim == 4 else None
    return np.array(array.transpose(axes), order="C")
