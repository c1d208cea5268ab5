"""How a network's step is run: stages of compiled operations, and the memory they work on.

A plan is a short list of stages. Blocks of images go through a run of layers while their columns
and activations sit in the cache; the last such run goes forward, through the loss and back in one
parallel region. A linear layer whose weights exceed the cache is a stage of its own over the whole
batch, so that its weights are read once. Blocks, tiles and lanes depend on shapes only: the bits
of the result are the same for any number of threads.
"""

from __future__ import annotations

import numpy as np

from cyconv import checks
from cyconv._core import of

elementwise, linear, stage = of('float32').elementwise, of('float32').linear, of('float32').stage
from cyconv.functional import LANES, tile_rows
from cyconv.geometry import Geometry
from cyconv.layers import Softmax
from cyconv.layers.linear import backward_room, tile_width
from cyconv.losses import mean
from cyconv.threads import get_num_threads, one_blas_thread

BLOCK_BYTES = 1024 * 1024  # inputs and outputs of the operations on a block: one core's cache
MOST_IMAGES = 8  # in a block
LEAST_BLOCKS = 4  # in a batch, as long as each has an image
WHOLE_BATCH_BYTES = 256 * 1024  # weights of a linear layer that is a stage of its own


class Plan:
    """The stages of one network, and the memory of its training step.

    Parameters
    ----------
    operations : iterable of Op
        What the layers do, in order, up to the logits.
    parameters, gradients : ndarray of float32
        The network's arenas.
    """

    def __init__(self, operations, parameters, gradients):
        self.stages = []
        run = []
        for op in _joined(operations):
            if _is_whole_batch(op):
                if run:
                    self.stages.append(_Blocks(run, gradients))
                self.stages.append(_WholeBatch(op, parameters, gradients))
                run = []
            else:
                run.append(op)
        if run:
            self.stages.append(_Blocks(run, gradients))
        self._key, self._memory = None, []  # of the training step
        self._spare = {}  # of the last forward pass

    @classmethod
    def of(cls, layers, parameters, gradients) -> Plan | None:
        """Return the plan of a network, or None if a layer has no compiled operations."""
        body = layers[:-1] if ends_with_softmax(layers) else layers
        operations, first = [], 0
        for layer in body:
            describes = parameters.dtype == np.float32 and _describes(layer)
            own = layer.operations(parameters, first) if describes else None
            if own is None:
                return None
            operations += own
            first += layer.size
        return cls(operations, parameters, gradients) if operations else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the output up to the logits, of shape (N, outputs).

        `x` has the shape (N, inputs) and is float32, or uint8 that is to be divided by 255.
        """
        key = len(x), get_num_threads()
        # Two threads may predict at once: whoever finds the spare memory taken makes its own.
        rooms = self._spare.pop(key, None) or [each.memory(*key) for each in self.stages]
        with one_blas_thread():
            for each, room in zip(self.stages, rooms, strict=True):
                x = each.forward(x, room)
        y = rooms[-1].pop("y")
        rooms[-1]["y"] = np.empty_like(y)
        self._spare = {key: rooms}
        return y

    def step(self, x: np.ndarray, labels: np.ndarray) -> float:
        """Write the gradients of the mean cross-entropy, and return it.

        Memory is kept from step to step: a step of the same size allocates nothing.
        """
        key = len(x), get_num_threads()
        if key != self._key:
            self._memory = []  # gone before the new memory comes
            *before, last = self.stages
            self._memory = [each.memory(*key, keep=True) for each in before]
            self._memory.append(last.memory(*key, lanes=True))
            self._key = key
        inputs = [x]
        with one_blas_thread():
            for each, room in zip(self.stages[:-1], self._memory, strict=False):
                inputs.append(each.forward(inputs[-1], room))
            dys = [None, *(room["dy"] for room in self._memory[:-1])]
            loss = self.stages[-1].step(inputs[-1], labels, dys[-1], self._memory[-1])
            for i in reversed(range(len(self.stages) - 1)):
                self.stages[i].backward(inputs[i], dys[i + 1], dys[i], self._memory[i])
        return loss


class _Blocks:
    """A run of operations that blocks of images go through."""

    def __init__(self, ops, gradients):
        convs = [op for op in ops if isinstance(op, stage.Conv)]
        first = convs[0].first if convs else 0
        last = first + sum(op.weights + op.F for op in convs)
        self.gradients = gradients[first:last]
        image = 4 * sum(op.inputs + op.outputs for op in ops)
        self.block = max(1, min(MOST_IMAGES, BLOCK_BYTES // image))
        for op in convs:
            geometry = Geometry(**op.window)
            op.transposed = np.empty((op.F, geometry.taps), np.float32)
            op.tile = tile_rows(geometry, self.block * geometry.OH, 4)
        self.stage = stage.Stage(ops, first, self.block)

    def memory(self, images: int, threads: int, keep: bool = False, lanes: bool = False) -> dict:
        """Return the arrays for a batch: to go forward, forward and later back, or a whole step."""
        block = min(self.block, max(1, -(-images // LEAST_BLOCKS)))
        blocks = -(-images // block)
        threads = min(threads, blocks)
        room = {
            "block": block,
            "threads": threads,
            "keep": keep,
            "frames": _aligned(blocks if keep else threads, self.stage.frame_size),
            "scratch": _aligned(threads, self.stage.scratch_size),
        }
        if not lanes:
            room["y"] = _array(images, self.stage.outputs)
        if keep:
            room["dy"] = np.empty_like(room["y"])
        if keep or lanes:
            room["lanes"] = _array(min(blocks, LANES), max(1, self.gradients.size))
        if lanes:
            room["losses"] = np.empty(len(room["lanes"]))
        return room

    def forward(self, x, room) -> np.ndarray:
        self.stage.forward(
            *_floats_or_pixels(x),
            room["y"],
            room["frames"],
            room["scratch"],
            room["block"],
            room["keep"],
            room["threads"],
        )
        return room["y"]

    def backward(self, x, dy, dx, room) -> None:
        self.stage.backward(
            *_floats_or_pixels(x),
            room["y"],
            dy,
            dx,
            room["frames"],
            room["scratch"],
            room["lanes"],
            room["block"],
            room["threads"],
        )
        self._add_lanes(room)

    def step(self, x, labels, dx, room) -> float:
        self.stage.step(
            *_floats_or_pixels(x),
            labels,
            dx,
            room["frames"],
            room["scratch"],
            room["lanes"],
            room["losses"],
            room["block"],
            room["threads"],
        )
        self._add_lanes(room)
        return mean(room["losses"], len(labels))

    def _add_lanes(self, room) -> None:
        if self.gradients.size:
            elementwise.add_lanes(room["lanes"], self.gradients, room["threads"])


class _WholeBatch:
    """A linear layer, and the LeakyReLU after it, on the whole batch."""

    def __init__(self, op, parameters, gradients):
        self.slope = op.slope
        bias = op.first + op.weights
        shape = (op.inputs, op.outputs)
        self.weight = parameters[op.first : bias].reshape(shape)
        self.bias = parameters[bias : bias + op.F]
        self.dweight = gradients[op.first : bias].reshape(shape)
        self.dbias = gradients[bias : bias + op.F]

    def memory(self, images: int, threads: int, keep: bool = False, lanes: bool = False) -> dict:
        """Return the arrays for a batch: to go forward, forward and later back, or a whole step."""
        room = {"threads": threads, "y": _array(images, self.bias.size)}
        if keep or lanes:
            room["dy"] = np.empty_like(room["y"])
            room["backward"] = backward_room(images, len(self.weight), self.bias.size, threads, np.float32)
        if lanes:
            room["losses"] = np.empty(images)
        return room

    def forward(self, x, room) -> np.ndarray:
        linear.forward(
            _as_floats(x),
            self.weight,
            self.bias,
            room["y"],
            self.slope,
            tile_width(self.bias.size),
            room["threads"],
        )
        return room["y"]

    def backward(self, x, dy, dx, room) -> None:
        if self.slope != 1:
            y, flat = room["y"].reshape(-1), dy.reshape(-1)
            elementwise.leaky_relu_backward(y, flat, flat, self.slope, room["threads"])
        linear.backward(
            dy,
            _as_floats(x),
            self.weight,
            dx,
            self.dweight,
            self.dbias,
            *room["backward"],
            room["threads"],
        )

    def step(self, x, labels, dx, room) -> float:
        y = self.forward(x, room)
        elementwise.cross_entropy(y, labels, room["dy"], room["losses"], room["threads"])
        self.backward(x, room["dy"], dx, room)
        return mean(room["losses"], len(labels))


def ends_with_softmax(layers) -> bool:
    """Tell whether the last layer is Softmax, whose forward pass is part of the loss."""
    last = type(layers[-1])
    return issubclass(last, Softmax) and last.forward is Softmax.forward


def _describes(layer) -> bool:
    """Tell whether a layer's operations do what its forward and backward do.

    They do not if a class changes these two and inherits the operations.
    """
    classes = type(layer).__mro__

    def depth(name):
        return next(i for i, each in enumerate(classes) if name in vars(each))

    return depth("operations") <= min(depth("forward"), depth("backward"))


def _joined(operations):
    """Return the operations, each LeakyReLU joined to the product before it."""
    joined = []
    for op in operations:
        before = joined[-1] if joined else None
        if isinstance(op, stage.LeakyReLU) and isinstance(before, stage.Conv) and before.slope == 1:
            before.slope = op.slope
        else:
            joined.append(op)
    return joined


def _is_whole_batch(op) -> bool:
    """Tell whether an operation is a linear layer whose weights exceed the cache."""
    return (
        isinstance(op, stage.Conv)
        and op.inputs == op.window["C"]
        and op.outputs == op.F
        and op.window["KH"] * op.window["KW"] == 1
        and 4 * op.weights > WHOLE_BATCH_BYTES
    )


def _array(rows: int, size: int) -> np.ndarray:
    return checks.allocate((rows, size), np.float32, "Network", "working memory")


def _aligned(rows: int, size: int) -> np.ndarray:
    return checks.aligned(rows, size, np.float32, "Network", "working memory")


def _floats_or_pixels(x):
    return (None, x) if x.dtype == np.uint8 else (x, None)


def _as_floats(x) -> np.ndarray:
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
