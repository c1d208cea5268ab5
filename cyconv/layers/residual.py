"""Residual connections."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from cyconv.checks import shape_text
from cyconv.graph import Graph, Value
from cyconv.layers.base import Layer
from cyconv.program import Program


class Residual(Layer):
    """``y = body(x) + shortcut(x)`` (He et al. 2016).

    Parameters
    ----------
    body : sequence of Layer
    shortcut : sequence of Layer, optional
        The identity if it is left out.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a list of layers; when the network is made, if the outputs of the two
        branches differ in shape.
    """

    def __init__(self, body: Sequence[Layer], shortcut: Sequence[Layer] | None = None) -> None:
        self.body = _layers(body, "body")
        self.shortcut = _layers(() if shortcut is None else shortcut, "shortcut")
        if not self.body:
            raise ValueError("Residual: body must name at least one layer, got none")
        self.config = {"body": list(self.body), "shortcut": list(self.shortcut) or None}

    def fresh(self) -> Residual:
        layer = copy.copy(self)
        layer._forget()
        branches = {
            name: tuple(each.fresh() for each in getattr(self, name))
            for name in ("body", "shortcut")
        }
        vars(layer).update(branches)
        layer.config = layer.config | {  # a subclass may have a config of its own
            name: list(branch) or None for name, branch in branches.items() if name in self.config
        }
        return layer

    @property
    def children(self) -> dict[str, Layer]:
        branches = {"body": self.body, "shortcut": self.shortcut}
        return {f"{name}.{i}": x for name, branch in branches.items() for i, x in enumerate(branch)}

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        number, done = self.number + 1, []
        outputs = []
        try:
            for name, branch in (("body", self.body), ("shortcut", self.shortcut)):
                shape = input_shape
                for index, layer in enumerate(branch):
                    place = (
                        f"{name}.{index}" if self.name is None else f"{self.name}.{name}.{index}"
                    )
                    layer.setup(shape, place, number)
                    done.append(layer)
                    shape = layer.output_shape
                    number += len(list(layer.walk()))
                outputs.append(shape)
        except BaseException:
            for layer in done:
                layer.reset()
            raise
        if outputs[0] != outputs[1]:
            for layer in done:
                layer.reset()
            raise ValueError(
                f"{self.who}: body and shortcut must have outputs of one shape, got "
                f"{shape_text(('N', *outputs[0]))} and {shape_text(('N', *outputs[1]))}; give a "
                "shortcut such as [Conv2D(channels, 1, stride=..., bias=False)]"
            )
        return outputs[0]

    def operations(self, program: Program, x: int) -> int:
        body, shortcut = program.split(x)
        for layer in self.body:
            body = program.append(layer, body)
        for layer in self.shortcut:
            shortcut = program.append(layer, shortcut)
        op = program.kernels.combine.Add(math.prod(self.output_shape))
        return program.add(op, body, shortcut)

    def onnx(self, graph: Graph, value: Value) -> Value:
        body = shortcut = value
        for layer in self.body:
            body = graph.append(layer, body)
        for layer in self.shortcut:
            shortcut = graph.append(layer, shortcut)
        return graph.node(self, "Add", body, shortcut)


def _layers(value, name: str) -> tuple[Layer, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"Residual: {name} must be a list of Layer, got {value!r}")
    for index, layer in enumerate(value):
        if not isinstance(layer, Layer):
            raise TypeError(f"Residual: {name}[{index}] must be a Layer, got {layer!r}")
    return tuple(value)
