"""Layers as a table."""

from __future__ import annotations

from collections.abc import Iterable

from cyconv.layers.base import Layer


def table(layers: Iterable[Layer], total: str) -> str:
    """Return a table of layers, and of those inside them, above a last line."""
    rows = [("", "layer", "output", "parameters")]
    rows += [layer.row() for each in layers for layer in each.walk()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
        for a, b, c, d in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule, total])
