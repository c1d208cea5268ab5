"""Networks as ONNX files, for other runtimes and languages."""

from __future__ import annotations

import numpy as np

from cyconv import __version__, extras
from cyconv.checks import shape_text
from cyconv.files import FilePath, replacement
from cyconv.graph import Graph
from cyconv.network import Network

# If a file does not ask for a version, onnx asks for its newest, which older runtimes refuse. 13
# is the first whose Softmax is over one axis; what is younger than 2020 can run it.
OPSET, IR_VERSION = 13, 7
MOST_BYTES = 2**31 - 2**20  # of weights: protobuf writes messages of less than 2 GiB


def to_onnx(network: Network, path: FilePath) -> None:
    """Write a network to an ONNX file.

    Its input, "input", is what `Network.forward` takes as float32: shape (N, *input_shape), which
    is (N, H, W, C) for images, with 8-bit pixels divided by 255. Its output is what `forward`
    returns: "probabilities" after Softmax, "output" after any other layer. The batch may have any
    size. The file replaces an older one only when it is complete.

    Parameters
    ----------
    network : Network
        float32, with no other layers than those that have `Layer.onnx`: all of `cyconv.layers`.
    path : str, bytes or path-like

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If a layer does not have it.
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
    graph = _graph(network)
    size = sum(array.nbytes for array in graph.weights.values())
    if size > MOST_BYTES:
        raise ValueError(
            f"to_onnx: an ONNX file holds weights of at most {MOST_BYTES:,} bytes, got {size:,}; "
            "save the network as a checkpoint instead"
        )
    model = _model(onnx, network, graph)
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
    return "probabilities" if network.ends_with_softmax else "output"


def _graph(network) -> Graph:
    """Return the nodes and weights of a network, as its layers describe them."""
    graph = Graph(len(network.input_shape))
    value = graph.input
    for layer in network.layers:
        value = graph.append(layer, value)
    graph.finish(value, _output(network))
    return graph


def _model(onnx, network, graph):
    """Return the ModelProto of a network."""
    helper = onnx.helper
    nodes = [
        helper.make_node(node.operator, node.reads, [node.writes], node.name, **node.attributes)
        for node in graph.nodes
    ]
    tensors = [onnx.numpy_helper.from_array(array, key) for key, array in graph.weights.items()]
    ends = {graph.input.name: network.input_shape, _output(network): network.output_shape}
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
