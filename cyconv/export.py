"""Networks as ONNX files, for other runtimes and languages."""

from __future__ import annotations

from os import PathLike

import numpy as np

from cyconv import __version__, extras
from cyconv.checks import shape_text
from cyconv.files import replacement
from cyconv.layers import Conv1D, Conv2D, Flatten, Im2Col, LeakyReLU, Linear, Softmax
from cyconv.network import Network
from cyconv.plan import ends_with_softmax

# If a file does not ask for a version, onnx asks for its newest, which older runtimes refuse. 13
# is the first whose Softmax is over one axis; what is younger than 2020 can run it.
OPSET, IR_VERSION = 13, 7
MOST_BYTES = 2**31 - 2**20  # of weights: protobuf writes messages of less than 2 GiB


def to_onnx(network: Network, path: str | PathLike[str]) -> None:
    """Write a network to an ONNX file.

    Its input, "input", is what `Network.forward` takes as float32: shape (N, *input_shape), which
    is (N, H, W, C) for images, with 8-bit pixels divided by 255. Its output is what `forward`
    returns: "probabilities" after Softmax, "output" after any other layer. The batch may have any
    size. The file replaces an older one only when it is complete.

    Parameters
    ----------
    network : Network
        float32, with no other layers than those of `cyconv.layers`.
    path : str or path-like

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If a layer is none of `cyconv.layers`.
    ValueError
        If the network is float64, or its weights are more than an ONNX file can hold.
    OSError
        If the file cannot be written.
    """
    onnx = extras.load("onnx", "onnx", "to_onnx")
    if network._parameters.dtype != np.float32:
        raise ValueError(
            "to_onnx: the network must be float32, got float64, for which onnxruntime has no "
            "convolution; copy its parameters() into a network of dtype float32"
        )
    size = 4 * sum(
        layer.geometry.taps**2 if isinstance(layer, Im2Col) else layer.size
        for layer in network.layers
    )
    if size > MOST_BYTES:
        raise ValueError(
            f"to_onnx: an ONNX file holds weights of at most {MOST_BYTES:,} bytes, got {size:,}; "
            "save the network as a checkpoint instead"
        )
    model = _model(onnx, network)
    with replacement(path) as file:
        file.write(model.SerializeToString())


def interface(network: Network) -> str:
    """Return what the input and the output of a network's ONNX file are."""
    given, returned = (
        f"float32 {shape_text(('N', *shape))}"
        for shape in (network.input_shape, network.output_shape)
    )
    return f"input: {given}, 8-bit pixels divided by 255; {_output(network)}: {returned}"


def _output(network) -> str:
    return "probabilities" if ends_with_softmax(network.layers) else "output"


def _model(onnx, network):
    """Return the ModelProto of a network: a chain of nodes."""
    helper = onnx.helper
    nodes, tensors, value = [], [], "input"
    for name, operator, weights, attributes in _steps(network):
        nodes.append(helper.make_node(operator, [value, *weights], [name], name, **attributes))
        tensors += [onnx.numpy_helper.from_array(array, key) for key, array in weights.items()]
        value = name
    nodes[-1].output[0] = _output(network)
    ends = {"input": network.input_shape, _output(network): network.output_shape}
    inputs, outputs = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("N", *shape))]
        for name, shape in ends.items()
    )
    return helper.make_model(
        helper.make_graph(nodes, "network", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cyconv",
        producer_version=__version__,
        doc_string=interface(network),
    )


def _steps(network):
    """Yield the name, operator, weights by name and attributes of each node.

    The channels are first in ONNX's Conv and last in all else: they move where that changes.
    """
    first = False
    for layer in network.layers:
        operator, weights, attributes = _node(layer)
        wanted = {"Conv": True, "LeakyRelu": first}.get(operator, False)
        if wanted != first:
            yield _move_channels(f"{layer.index}.Transpose", len(layer.input_shape), wanted)
            first = wanted
        named = {f"{layer.index}.{name}": array for name, array in weights.items()}
        yield f"{layer.index}.{operator}", operator, named, attributes
    if first:
        yield _move_channels("Transpose", len(network.output_shape), False)


def _move_channels(name, axes, first):
    """Return a node that moves the last of the axes after the batch's to the front, or back."""
    order = np.roll(range(1, axes + 1), 1 if first else -1)
    return name, "Transpose", {}, {"perm": [0, *order.tolist()]}


def _node(layer):
    """Return the operator that does a layer's work, its weights by name, and its attributes."""
    kind, parameters = type(layer), layer.parameters
    if kind in (Conv2D, Conv1D):
        return _convolution(layer, parameters["weight"], bias=parameters["bias"])
    if kind is Im2Col:  # each filter copies a tap of its own
        return _convolution(layer, np.eye(layer.geometry.taps, dtype=np.float32))
    if kind is Linear:
        return "Gemm", parameters, {}
    if kind is LeakyReLU:
        return "LeakyRelu", {}, {"alpha": layer.negative_slope}
    if kind is Softmax:
        return "Softmax", {}, {"axis": -1}
    if kind is Flatten:
        return "Flatten", {}, {"axis": 1}
    raise TypeError(
        f"to_onnx: {layer.who} is no layer of cyconv.layers, so there is no ONNX operator for it; "
        "make a network without it"
    )


def _convolution(layer, weight, **bias):
    """Return a Conv with filters (F, C, KH, KW), or (F, C, KW) along one dimension."""
    g = layer.geometry
    axes = (
        (g.H, g.KH, g.OH, g.stride_h, g.pad_top),
        (g.W, g.KW, g.OW, g.stride_w, g.pad_left),
    )[1 - len(layer.input_shape) :]
    # Where a stride skips the last pixels, the windows end before the image: no padding is below 0.
    kernel, strides, before, after = zip(
        *(
            (K, stride, pad, max(0, (outputs - 1) * stride + K - size - pad))
            for size, K, outputs, stride, pad in axes
        ),
        strict=True,
    )
    filters = np.moveaxis(weight.reshape(*kernel, g.C, -1), (-1, -2), (0, 1))
    return "Conv", {"weight": filters, **bias}, {"strides": strides, "pads": before + after}
