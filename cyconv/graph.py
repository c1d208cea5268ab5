"""The graph of an ONNX file as layers write it: nodes, and weights that nothing is copied for.

Images are channels-last in cyconv and in the file's input and output; operators of ONNX that tell
axes apart want the channels first. A value knows which it is, and what a layer asks for decides
where a Transpose comes in: only between two operators that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cyconv.geometry import Geometry


class Value(NamedTuple):
    """A tensor of the graph.

    `axes` counts its axes without the batch's. With one axis there is one layout only, whatever
    `channels_first` says.
    """

    name: str
    axes: int
    channels_first: bool = False


class Node(NamedTuple):
    """An operator, the names of what it reads and of what it writes, and its attributes."""

    name: str
    operator: str
    reads: tuple[str, ...]
    writes: str
    attributes: dict[str, Any]


class Graph:
    """Nodes in the order in which they are run, and weights by name: views, until they are written.

    Parameters
    ----------
    axes : int
        Axes of the input without the batch's.

    Attributes
    ----------
    input : Value
        What the first layer reads: channels-last.
    nodes : list of Node
    weights : dict of str to ndarray
    """

    def __init__(self, axes: int) -> None:
        self.input = Value("input", axes)
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}
        self._moved: dict[Value, Value] = {}  # a value in its other layout

    def append(self, layer: Any, value: Value) -> Value:
        """Add what a layer does to a value, and return the value of its output.

        Raises
        ------
        TypeError
            If the layer does not say what that is in ONNX.
        """
        if not layer.is_exportable:
            raise TypeError(
                f"to_onnx: {layer.who} does not name its ONNX operator; define onnx(self, graph, "
                "value) in the class that defines forward, or make a network without this layer"
            )
        return layer.onnx(self, value)

    # What a layer's `onnx` calls.

    def node(
        self,
        layer: Any,
        operator: str,
        *values: Value,
        weights: Mapping[str, np.ndarray] | None = None,
        axes: int | None = None,
        **attributes: Any,
    ) -> Value:
        """Add a node and return the value that it writes, in the layout of those that it reads.

        Parameters
        ----------
        layer : Layer
            It gives the node and its weights their names: "3.Conv", "3.weight"; a second node of
            the same operator is "3.Conv.1".
        operator : str
            Of ONNX, opset 13.
        values : Value
            What it reads. Where their layouts differ, they are brought to channels first.
        weights : dict of str to ndarray, optional
            What it reads after `values`, in the order of the operator's inputs.
        axes : int, optional
            Axes of the output without the batch's, if they are not those of the first value.
        attributes
            Of the operator.
        """
        if any(value.channels_first for value in values):
            values = tuple(map(self.channels_first, values))
        named = {f"{layer.name}.{name}": array for name, array in (weights or {}).items()}
        self.weights |= named
        axes = values[0].axes if axes is None else axes
        name = f"{layer.name}.{operator}"
        same = sum(node.name.startswith(name) for node in self.nodes)
        name = f"{name}.{same}" if same else name
        output = Value(name, axes, values[0].channels_first)
        reads = (*(value.name for value in values), *named)
        self.nodes.append(Node(output.name, operator, reads, output.name, attributes))
        return output

    def channels_first(self, value: Value) -> Value:
        """Return a value as (N, C, H, W), or as (N, C, W); one of shape (N, C) stays as it is."""
        return self._laid(value, True)

    def channels_last(self, value: Value) -> Value:
        """Return a value as (N, H, W, C), or as (N, W, C), as cyconv has it."""
        return self._laid(value, False)

    def _laid(self, value, first) -> Value:
        if value.axes == 1 or value.channels_first == first:
            return value
        if value not in self._moved:
            moved = Value(f"{value.name}.Transpose", value.axes, first)
            order = np.roll(range(1, value.axes + 1), 1 if first else -1).tolist()
            node = Node(moved.name, "Transpose", (value.name,), moved.name, {"perm": [0, *order]})
            self.nodes.append(node)
            self._moved[value] = moved
        return self._moved[value]

    # What the writer of the file calls.

    def finish(self, value: Value, name: str) -> None:
        """Make a value the output of the graph: channels-last, by the name that is asked for."""
        last = self.channels_last(value)
        if last == self.input:
            self.nodes.append(Node(name, "Identity", (last.name,), name, {}))
            return
        names = {last.name: name}
        self.nodes = [
            node._replace(
                reads=tuple(names.get(read, read) for read in node.reads),
                writes=names.get(node.writes, node.writes),
            )
            for node in self.nodes
        ]


def filters(weight: np.ndarray, axes: int) -> np.ndarray:
    """Return the weight of a convolution as ONNX has it: a view.

    Parameters
    ----------
    weight : ndarray of shape (KH, KW, C, F)
    axes : int
        Axes of the input without the batch's: 3 for (F, C, KH, KW), 2 for (F, C, KW).
    """
    return np.moveaxis(weight if axes == 3 else weight[0], (-1, -2), (0, 1))


def window(geometry: Geometry, axes: int) -> dict[str, Any]:
    """Return the attributes of ONNX's Conv and pooling that place windows on an image.

    Parameters
    ----------
    geometry : Geometry
    axes : int
        Axes of the input without the batch's: 3 for windows in height and width, 2 for those in
        width only.
    """
    g = geometry
    pairs = {"kernel_shape": (g.KH, g.KW), "strides": (g.stride_h, g.stride_w)}
    if (g.dilation_h, g.dilation_w) != (1, 1):  # opset 13's AveragePool has none
        pairs["dilations"] = (g.dilation_h, g.dilation_w)
    before, after = (g.pad_top, g.pad_left), (g.pad_bottom, g.pad_right)
    first = 3 - axes
    attributes = {name: pair[first:] for name, pair in pairs.items()}
    return attributes | {"pads": before[first:] + after[first:]}
