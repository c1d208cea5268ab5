"""How a network is run: a program of operations over numbered buffers, cut into stages.

A buffer holds a number of floats for each image. It is written by one operation and read by at most
one: where two need it, a `Split` makes two names of it, whose gradients it adds. Operations that
blocks of images can go through form a stage, and intermediate results stay in the cache. A stage
ends where an operation needs the whole batch: at the seam of a batch normalisation, at a linear
layer whose weights exceed the cache, at a layer in plain NumPy. Blocks, tiles and accumulators
depend on shapes only, and so the bits of the result do not depend on the number of threads.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cyconv._core import WINOGRAD, of
from cyconv.checks import shape_text
from cyconv.functional import tile_rows
from cyconv.geometry import Geometry
from cyconv.losses import total
from cyconv.memory import Memory, Places, whole_lines
from cyconv.stages import Blocks, ByLayer, LayerOperation
from cyconv.threads import kernel_threads


class Arenas(NamedTuple):
    """All parameters of a network, their gradients, and its state that is not trained, flat.

    `steps` counts those in training, of shape (1,), int64: random numbers are counted by it.
    """

    parameters: np.ndarray
    gradients: np.ndarray
    state: np.ndarray
    steps: np.ndarray


def in_a_row(begin: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, slice]:
    """Return where arrays of some shapes are that lie one behind the other."""
    slices = {}
    for name, shape in shapes.items():
        slices[name] = slice(begin, begin + math.prod(shape))
        begin = slices[name].stop
    return slices


@dataclass(eq=False)
class Step:
    """An operation in its place: the buffers it reads and writes, and the stage it belongs to.

    `stage` is a class of `cyconv.stages` if the operation is a stage of its own, else None.
    """

    op: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    stage: Any = None
    shares: Any = None  # the step whose shared memory it works on as well
    level: int = 0


class Program:
    """The operations of some layers for one kind of pass, and its memory.

    Parameters
    ----------
    layers : sequence of Layer
    input_size : int
        Floats of an image.
    arenas : Arenas
        Their element type is the one that is computed in.
    training : bool
        Whether layers do what they do in training.
    classes : int, optional
        If it is given, the program ends with the loss over this many classes, and goes both ways.
    backward : bool
        Whether what is computed forward is kept for a way back, which also gives the gradient of
        the input.
    who : str
        The name that an error begins with.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        input_size: int,
        arenas: Arenas,
        training: bool = False,
        classes: int | None = None,
        backward: bool = False,
        who: str = "Network",
    ) -> None:
        self.who = who
        self.arenas, self.training = arenas, training
        self.dtype = arenas.parameters.dtype
        self.kernels = of(self.dtype)
        self.goes_back = backward or classes is not None
        self.sizes = [input_size]  # of the buffers, floats per image
        self.storage = [0]  # the buffer whose memory each one is
        self.steps: list[Step] = []
        self._required: list[tuple[int, int, str]] = []
        self._writer: dict[int, Step] = {}
        self.output = 0
        for layer in layers:
            self.output = self.append(layer, self.output)
        self.has_loss = classes is not None
        if classes is not None:
            self.add(self.kernels.softmax.CrossEntropy(classes), self.output)
            self._check(who, (classes,), self.output, self.steps[-1:])
        self.places = Places(self, needs_input_gradient=backward)
        self.stages = self._cut()
        self._key: tuple[int, int] | None = None
        self._memory: Memory | None = None  # of the training step
        self._spare: dict[tuple[int, int], Memory] = {}  # of the last pass forward

    # What a layer's `operations` calls.

    def append(self, layer: Any, x: int) -> int:
        """Add what a layer does to the buffer `x`, and return the buffer of its output."""
        first = len(self.steps)
        if layer.is_described:
            y = layer.operations(self, x)
        else:
            y = self.add(LayerOperation(layer), x, stage=ByLayer)
        geometry = getattr(layer, "geometry", None)
        inside = not isinstance(geometry, Geometry) or geometry.is_inside
        self._check(layer.who, layer.output_shape, y, self.steps[first:], inside)
        return y

    def _check(
        self, who: str, shape: tuple[int, ...], y: int, steps: list[Step], inside: bool = True
    ) -> None:
        """Raise ValueError unless steps read what is there, and a buffer `y` has a layer's shape.

        They do not where a subclass changes `build` and inherits `operations`.
        """
        reads = all(step.op.inputs == self.sizes[x] for step in steps for x in step.reads)
        if (
            not (reads and inside)
            or y not in range(len(self.sizes))
            or self.sizes[y] != math.prod(shape)
        ):
            raise ValueError(
                f"{who}: its operations do not make the output {shape_text(('N', *shape))}, which "
                "build promises, of what comes in; define operations as well, or forward and "
                "backward"
            )

    def located(self, layer: Any, **sizes: int) -> dict[str, slice]:
        """Return where a layer has its parameters and state, those named of so many numbers.

        Raises
        ------
        ValueError
            If the layer has declared one of them in another size, or not at all.
        """
        for name, size in sizes.items():
            place = layer.slices.get(name, slice(0, 0))
            if (found := place.stop - place.start) != size:
                raise ValueError(
                    f"{layer.who}: its operations read {size} numbers of {name}, build declares "
                    f"{found}; define operations as well, or forward and backward"
                )
        return layer.slices

    def convolution(self, layer: Any, geometry: Geometry, F: int) -> Any:
        """Return the operation that convolves by a layer's weight, and its bias if it has one."""
        bias = {"bias": F} if "bias" in layer.slices else {}
        slices = self.located(layer, weight=geometry.taps * F, **bias)
        tile = tile_rows(geometry, sys.maxsize, self.dtype.itemsize)
        return self.kernels.convolution.Conv(
            geometry._asdict(), F, tile, slices, self.goes_back, WINOGRAD
        )

    def add(self, op: Any, *reads: int, stage: Any = None, shares: int | None = None) -> int:
        """Add an operation and return the buffer that it writes.

        Parameters
        ----------
        op : Op
            Of `self.kernels`.
        reads : int
            One or two buffers.
        stage : class, optional
            Of `cyconv.stages`, if the operation works on whole batches.
        shares : int, optional
            A buffer, on whose writer's shared memory this operation works too.
        """
        partner = None if shares is None else self._writer[shares]
        return self._add(op, reads, 1, stage, partner)[0]

    def split(self, x: int) -> tuple[int, ...]:
        """Return two names of a buffer, for two readers."""
        return self._add(self.kernels.combine.Split(self.sizes[x]), (x,), 2)

    def joins(self, x: int, slope: float) -> bool:
        """Let the writer of a buffer apply a LeakyReLU, if it can; tell whether it does."""
        writer = self._writer.get(x)
        if writer is None or not writer.op.joins:
            return False
        writer.op.join(slope)
        return True

    def folds(self, x: int, norm: Any) -> bool:
        """Let the convolution that writes a buffer scale its channels, if it can; tell so.

        Its own gradients are not computed then.
        """
        writer = self._writer.get(x)
        if self.goes_back or writer is None or writer.stage or not hasattr(writer.op, "fold"):
            return False
        if not writer.op.joins or norm.channels != writer.op.F:
            return False
        writer.op.fold(norm)
        return True

    def _add(self, op, reads, outputs, stage=None, shares=None) -> tuple[int, ...]:
        first = len(self.sizes)
        writes = tuple(range(first, first + outputs))
        self.sizes += [op.outputs] * outputs
        self.storage += [self.storage[reads[0]] if op.aliases else buffer for buffer in writes]
        step = Step(op, reads, writes, stage, shares)
        self.steps.append(step)
        self._writer |= dict.fromkeys(writes, step)
        return writes

    def _cut(self) -> list[Any]:
        """Return the stages, in the order of the pass forward."""
        for step in self.steps:
            step.level = max(self._level(buffer, step.stage is None) for buffer in step.reads)
        readers = {buffer: step for step in self.steps for buffer in step.reads}
        for step in reversed(self.steps):  # what is cheap waits for its reader
            reader = readers.get(step.writes[0])
            cheap = step.stage is None and step.op.in_place and not step.op.aliases
            if cheap and reader is not None and reader.stage is None:
                step.level = max(step.level, reader.level)
        keyed = defaultdict(list)
        for order, step in enumerate(self.steps):
            keyed[step.level, 0 if step.stage is None else 1 + order].append(step)
        runs = [keyed[key] for key in sorted(keyed)]
        self.places.settle(runs)
        self.shared_at: dict[Step, int] = {}  # where an operation's memory begins
        self.sums_at: dict[Step, int] = {}
        self.shared = self.sums = 0
        for step in self.steps:
            if step.shares is not None:
                self.shared_at[step] = self.shared_at[step.shares]
            else:
                self.shared_at[step] = self.shared
                self.shared += whole_lines(step.op.shared)
            self.sums_at[step] = self.sums
            self.sums += step.op.sums
        return [
            Blocks(self, number, run) if run[0].stage is None else run[0].stage(self, run[0])
            for number, run in enumerate(runs)
        ]

    def _level(self, buffer: int, in_blocks: bool) -> int:
        """Return the first level at which a buffer can be read, by blocks or by a whole batch."""
        writer = self._writer.get(buffer)
        if writer is None:
            return 0
        waits = writer.op.seam or (in_blocks and writer.stage is not None)
        return writer.level + waits

    # Passes.

    def require(self, least: int, values: int, who: str) -> None:
        """Refuse batches in training of fewer than `least` values, of which an image has some."""
        self._required.append((least, values, who))

    def check(self, images: int) -> None:
        """Raise ValueError if a layer cannot train on so small a batch."""
        for least, values, who in self._required:
            if images * values < least:
                raise ValueError(
                    f"{who}: training needs {least} values of each channel or more, "
                    f"got {images * values}; use a larger batch"
                )

    def memory(self, images: int, threads: int) -> Memory:
        """Return working memory for a batch: one array, divided among the buffers."""
        return Memory(self, images, threads)

    def forward(self, x: np.ndarray, memory: Memory) -> np.ndarray:
        """Return the output of shape (N, outputs), in an array of its own.

        `x` has the shape (N, inputs); uint8 is divided by 255.
        """
        memory.take(x)
        self.run(memory)
        return memory.array(self.places.value(self.output)).copy()

    def run(self, memory: Memory) -> None:
        """Go forward with the images that `memory` has taken."""
        for stage in self.stages:
            stage.forward(memory)

    def backward(self, dy: np.ndarray, memory: Memory) -> np.ndarray:
        """Write the gradients of the parameters, and return that of the input."""
        memory.array(self.places.gradient(self.output))[...] = dy
        for stage in reversed(self.stages):
            stage.backward(memory)
        return memory.array(self.places.gradient(0)).copy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the output, on memory that is kept for the next batch of the same size."""
        # Two threads may predict at once: the one that finds the spare memory taken makes its own.
        key = len(x), kernel_threads()
        memory = self._spare.pop(key, None) or self.memory(*key)
        y = self.forward(x, memory)
        self._spare = {key: memory}
        return y

    def step(
        self, x: np.ndarray, labels: np.ndarray, loss: Any, counted: tuple[int, int]
    ) -> tuple[float, np.ndarray]:
        """Write the gradients of the mean loss of a batch; return the loss and the new state.

        Memory is kept from step to step: a step of the same size allocates nothing.

        Parameters
        ----------
        x : ndarray of shape (N, inputs)
        labels : ndarray of shape (N,), intp
        loss : CrossEntropy
        counted : (seed, step)
            What random numbers are counted by.
        """
        key, memory = (len(x), kernel_threads()), self._memory
        if memory is None or key != self._key:
            self._key = self._memory = memory = None  # gone before the new memory comes
            self._memory = memory = self.memory(*key)
            self._key = key
        memory.take(x)
        scale = memory.take_labels(labels, loss, self.sizes[self.output])
        memory.batch.count(*counted)
        *before, last = self.stages
        for stage in before:
            stage.forward(memory)
        losses = last.both(memory)
        for stage in reversed(before):
            stage.backward(memory)
        return total(losses, scale), self.moved_state(memory)

    def moved_state(self, memory: Memory) -> np.ndarray:
        """Return the state after a pass in training: running means have taken in the batch's."""
        state = self.arenas.state.copy()
        for step in self.steps:
            if hasattr(step.op, "move"):
                shared = memory.shared(self.shared_at[step], step.op.shared)
                step.op.move(state, shared, memory.images)
        return state
