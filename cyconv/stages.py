"""The stages of a program, behind one protocol.

A stage goes `forward` and `backward` over a whole batch, on a `Memory` that holds all that a pass
needs; the last stage of a program with a loss goes `both` ways at once. `cut` says into what a
batch is cut, if it is.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from typing import Any, Protocol

import numpy as np

from cyconv import checks, tuning
from cyconv.memory import NOWHERE, Memory, count_accumulators, whole_lines


class Stage(Protocol):
    """What a program asks of its stages."""

    def cut(self, images: int, threads: int) -> Any:
        """Return into what a batch is cut, a `Cut` of `_core/stage.pyx`, or None."""

    def forward(self, memory: Memory) -> None:
        """Write the buffers that the stage's operations write."""

    def backward(self, memory: Memory) -> None:
        """Write the gradients of its parameters, and of the buffers that it reads."""


class Blocks:
    """A run of operations that blocks of images go through.

    Parameters
    ----------
    program : Program
    number : int
        Of the stage.
    run : list of Step
    """

    def __init__(self, program: Any, number: int, run: list[Any]) -> None:
        places = program.places
        self._goes_back, self._itemsize = program.goes_back, program.dtype.itemsize
        # A block goes both ways at once: its frame serves the next block.
        self._goes_both_ways = program.has_loss and run[-1] is program.steps[-1]
        self.block = places.blocks[number]
        self._frame, gradients = places.frames[number], 0
        begin = whole_lines(program.sizes[0] * self.block)  # pixels as floats
        columns = begin + places.scratch[number]
        scratch = columns + whole_lines(max(step.op.scratch(self.block) for step in run))
        nodes, segments = [], []
        for step in run:
            op, (x, *more) = step.op, step.reads
            where = [
                places.value(x),
                places.value(more[0]) if more else NOWHERE,
                places.value(step.writes[0]),
                *self._gradients_of(places, step.writes, begin),
                *self._gradients_of(places, step.reads, begin),
            ]
            offsets = gradients, program.shared_at[step], program.sums_at[step]
            self._loss_at = program.sums_at[step]
            nodes.append((op, where, offsets, places.needed(step.writes[0])))
            for segment in op.segments if program.goes_back else ():
                size = segment.stop - segment.start
                segments.append((gradients, segment.start, size))
                gradients += size
        gradients = whole_lines(gradients)
        self._kernels = program.kernels.stage
        self.stage = self._kernels.Stage(
            nodes, program.sizes[0], self._frame, scratch, gradients, columns, _merged(segments)
        )

    @staticmethod
    def _gradients_of(places, buffers, begin):
        """Return where the gradients of one or two buffers are; scratch memory begins later."""
        found = []
        for buffer in (*buffers, None)[:2]:
            needed = buffer is not None and places.needed(buffer)
            where, at, size = places.gradient(buffer) if needed else NOWHERE
            shift = begin if where == places.where["scratch"] else 0
            found.append((where, at + shift, size))
        return found

    def cut(self, images: int, threads: int) -> Any:
        """Return into what a batch is cut."""
        block = min(self.block, max(1, -(-images // tuning.MIN_BLOCKS)))
        blocks = -(-images // block)
        gradients = self.stage.gradients if self._goes_back else 0
        accumulators = blocks
        if self._goes_back:
            accumulators = count_accumulators(blocks, gradients * self._itemsize)
        keep = self._goes_back and not self._goes_both_ways
        split = accumulators < threads and not self._goes_back
        busy = min(threads, accumulators)
        return self._kernels.Cut(
            block=block,
            accumulators=accumulators,
            keep=keep,
            split=split,
            frames=self._frame * (blocks if keep else busy),
            scratch=self.stage.scratch * (threads if split else busy),
            gradients=gradients * accumulators,
        )

    def forward(self, memory: Memory) -> None:
        self.stage.run(memory.batch, 1, memory.cuts[self])

    def backward(self, memory: Memory) -> None:
        self.stage.run(memory.batch, 2, memory.cuts[self])

    def both(self, memory: Memory) -> np.ndarray:
        """Go forward, through the loss and back, and return the sums of the losses."""
        cut = memory.cuts[self]
        self.stage.run(memory.batch, 3, cut)
        return memory.sums[: cut.accumulators, self._loss_at]


def _merged(segments):
    """Return segments (begin, to, size), those that continue each other as one."""
    merged = []
    for begin, to, size in segments:
        if merged and merged[-1][0] + merged[-1][2] == begin and sum(merged[-1][1:]) == to:
            merged[-1][2] += size
        else:
            merged.append([begin, to, size])
    return [tuple(segment) for segment in merged]


class WholeBatch:
    """A linear layer whose weights exceed the cache, on the whole batch: they are read once.

    Parameters
    ----------
    program : Program
    step : Step
        Its operation is a `Conv` at one pixel.
    """

    def __init__(self, program: Any, step: Any) -> None:
        op, arenas = step.op, program.arenas
        self._op, self._kernels, self._who = op, program.kernels.convolution, program.who
        self._elementwise = program.kernels.elementwise
        weight, *bias = op.segments
        self._weight, self._dweight = (
            arena[weight].reshape(op.inputs, op.outputs)
            for arena in (arenas.parameters, arenas.gradients)
        )
        self._bias, self._dbias = (
            arena[bias[0]] if bias else np.zeros(op.outputs, arena.dtype)
            for arena in (arenas.parameters, arenas.gradients)
        )
        places = program.places
        (x,), (y,) = step.reads, step.writes
        self._x, self._y = places.value(x), places.value(y)
        self._dx = places.gradient(x) if places.needed(x) else None
        self._dy = places.gradient(y)

    def cut(self, images: int, threads: int) -> None:
        checks.blas_extent(images, self._who, "the batch", "batch")

    def forward(self, memory: Memory) -> None:
        self._kernels.linear_forward(
            memory.array(self._x),
            self._weight,
            self._bias,
            memory.array(self._y),
            self._op.slope,
            self._tile(memory),
            memory.threads,
        )

    def _tile(self, memory: Memory) -> int:
        """Return the width of the tiles of y: threads read long lines of the weights."""
        if not self._kernels.ANY_WIDTH:
            return tile_width(self._op.F)
        tiles = 1 if memory.images < self._kernels.FEW_IMAGES else 2
        return whole_steps(self._op.F / (tiles * memory.threads))

    def backward(self, memory: Memory) -> None:
        dy = memory.array(self._dy)
        y, flat = memory.array(self._y).reshape(-1), dy.reshape(-1)
        self._elementwise.leaky_relu_backward(y, flat, flat, self._op.slope, memory.threads)
        work = memory.kept(self, self._workspace)
        dx = None if self._dx is None else memory.array(self._dx)
        x = memory.array(self._x)
        self._kernels.linear_backward(
            dy, x, self._weight, dx, self._dweight, self._dbias, *work, memory.threads
        )

    def _workspace(self, memory: Memory) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Return working memory and tile sizes of `linear_backward`."""
        N, (K, F), dtype = memory.images, self._weight.shape, self._weight.dtype
        tile, dx_images = tile_width(K), tuning.LINEAR_DX_IMAGES
        (dy_transposed,) = checks.aligned(1, N * F, dtype, "Linear", "working memory")
        dx_transposed = checks.aligned(
            memory.threads, dx_images * tile, dtype, "Linear", "working memory"
        )
        return dy_transposed, dx_transposed, tile, dx_images


def tile_width(size: int) -> int:
    """Return the width of the tiles that an extent of a matrix is divided into."""
    return whole_steps(size / tuning.LINEAR_TILES)


def whole_steps(width: float) -> int:
    """Return the width nearest to one that is whole steps of a tile, one at least."""
    return tuning.LINEAR_TILE_STEP * max(1, round(width / tuning.LINEAR_TILE_STEP))


class LayerOperation:
    """What a layer does that is written in plain NumPy, as a program sees it."""

    in_place = aliases = seam = joins = False
    shared = sums = 0

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.inputs, self.outputs = (
            int(np.prod(shape)) for shape in (layer.input_shape, layer.output_shape)
        )
        self.size = layer.size


class ByLayer:
    """A layer in plain NumPy, on the whole batch.

    Parameters
    ----------
    program : Program
    step : Step
        Its operation is a `LayerOperation`.
    """

    def __init__(self, program: Any, step: Any) -> None:
        self._layer, self._program = step.op.layer, weakref.proxy(program)
        places = program.places
        (x,), (y,) = step.reads, step.writes
        self._x, self._y = places.value(x), places.value(y)
        self._dx = places.gradient(x) if places.needed(x) else None
        self._dy = places.gradient(y) if places.needed(y) else None
        modes = inspect.signature(self._layer.forward).parameters
        self._modes = {"training": program.training} if "training" in modes else {}

    def cut(self, images: int, threads: int) -> None:
        pass

    def forward(self, memory: Memory) -> None:
        layer = self._layer
        if not self._program.goes_back:  # a pass that waits for its way back stays
            layer = copy.copy(layer)
        x = memory.array(self._x).reshape(memory.images, *layer.input_shape)
        y = layer.forward(x.copy(), **self._modes)
        y = checks.array(y, layer.who, "what forward returns", (memory.images, *layer.output_shape))
        memory.array(self._y)[...] = y.reshape(memory.images, -1)

    def backward(self, memory: Memory) -> None:
        if self._dy is None:
            return
        layer = self._layer
        dy = memory.array(self._dy).reshape(memory.images, *layer.output_shape)
        dx = layer.backward(dy.copy())
        if self._dx is not None:
            shape = memory.images, *layer.input_shape
            dx = checks.array(dx, layer.who, "what backward returns", shape)
            memory.array(self._dx)[...] = dx.reshape(memory.images, -1)
        arena = self._program.arenas.gradients
        for name, gradient in layer.gradients.items():
            arena[layer.slices[name]] = gradient.reshape(-1)
