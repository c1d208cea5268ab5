"""The working memory of a program: where each buffer and gradient is, in one array per batch size.

A buffer that more than one stage works on is held for the whole batch. What a single stage works on
is in its frame, of a block of images, and its gradient in the scratch memory of a thread.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from cyconv import checks, tuning

_UINT8 = np.dtype(np.uint8)
LINE = 16  # floats of a line of the cache
NOWHERE = 0, 0, 0
Place = tuple[int, int, int]  # where, floats before it, floats per image
_OUTSIDE = {-1, -2}  # the program's caller works on its input and output


def whole_lines(floats: int) -> int:
    """Round up to whole lines of the cache."""
    return -(-floats // LINE) * LINE


class Slots:
    """Memory that is taken and given back, as buffers come and go."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (size, begin)

    def take(self, size: int) -> tuple[int, int]:
        """Return (size, begin) of the smallest free slot that fits, or of a new one."""
        size = whole_lines(size)
        fitting = [slot for slot in self._free if slot[0] >= size]
        if fitting:
            slot = min(fitting)
            self._free.remove(slot)
            return slot
        self.size += size
        return size, self.size - size

    def give(self, slot: tuple[int, int]) -> None:
        """Take a slot back."""
        self._free.append(slot)


class Places:
    """Where the buffers of a program and their gradients are: (where, at, size)."""

    def __init__(self, program: Any, needs_input_gradient: bool) -> None:
        self.program = weakref.proxy(program)  # which has these: no cycle, so memory goes at once
        self.where = program.kernels.stage.PLACES
        self.held = 0  # floats per image
        self.blocks: dict[int, int] = {}  # images of a block, by the stage's number
        self.frames: dict[int, int] = {}  # floats of a frame
        self.scratch: dict[int, int] = {}  # floats of gradients in the scratch memory
        self._values: dict[int, Place] = {}  # by storage
        self._gradients: dict[int, Place] = {}  # by group
        self._group: list[int] = []
        self._needed: list[bool] = []
        self._input_gradient = needs_input_gradient

    def value(self, buffer: int) -> Place:
        """Return where the numbers of a buffer are."""
        return self._values[self.program.storage[buffer]]

    def gradient(self, buffer: int) -> Place:
        """Return where the gradient of a buffer is, if there is one."""
        return self._gradients.get(self._group[buffer], NOWHERE)

    def needed(self, buffer: int) -> bool:
        """Tell whether the gradient of a buffer is needed."""
        return self._needed[buffer]

    def settle(self, runs: list[list[Any]]) -> None:
        """Decide on all places, given the steps of each stage."""
        program = self.program
        buffers = range(len(program.sizes))
        self._needed = [False] * len(program.sizes)
        self._needed[0] = self._input_gradient
        self._group = list(buffers)
        for step in program.steps:
            for buffer in step.writes:
                self._needed[buffer] = program.goes_back and (
                    step.op.size > 0 or any(self._needed[read] for read in step.reads)
                )
            if step.op.in_place and self._needed[step.reads[0]]:
                self._group[step.writes[0]] = self._group[step.reads[0]]
        touched: dict[int, set[int]] = {}  # stages by storage, then by group of gradients
        touched_back: dict[int, set[int]] = {}
        for number, run in enumerate(runs):
            for step in run:
                for buffer in (*step.reads, *step.writes):
                    # A stage of its own finds its arrays in the memory of the whole batch.
                    names = {number} if step.stage is None else {number, -3 - number}
                    touched.setdefault(program.storage[buffer], set()).update(names)
                    touched_back.setdefault(self._group[buffer], set()).update(names)
        if not program.has_loss:
            for buffer in (0, program.output):
                touched.setdefault(program.storage[buffer], set()).update(_OUTSIDE)
                touched_back.setdefault(self._group[buffer], set()).update(_OUTSIDE)
        self._values[0] = (self.where["input"], 0, program.sizes[0])
        for storage in sorted(touched.keys() - {0}):
            if len(touched[storage]) > 1:
                self._values[storage] = self._hold(program.sizes[storage])
        for group in sorted(touched_back):
            if program.goes_back and len(touched_back[group]) > 1 and self._needed[group]:
                self._gradients[group] = self._hold(program.sizes[group])
        for number, run in enumerate(runs):
            if run[0].stage is None:
                self._settle_stage(number, run)

    def _hold(self, size: int) -> Place:
        self.held += whole_lines(size)
        return self.where["held"], self.held - whole_lines(size), size

    def _settle_stage(self, number: int, run: list[Any]) -> None:
        """Choose the block, and place what only this stage works on."""
        program = self.program
        worked = [step.op for step in run if not step.op.aliases and not step.op.sums]
        image = program.dtype.itemsize * sum(op.inputs + op.outputs for op in worked)
        block = max(1, min(tuning.MAX_IMAGES_PER_BLOCK, tuning.BLOCK_BYTES // max(1, image)))
        self.blocks[number] = block
        frame, scratch = Slots(), Slots()
        taken: dict[int, tuple[int, int]] = {}
        last_reader = {}
        for order, step in enumerate(run):
            for buffer in step.reads:
                last_reader[program.storage[buffer]] = order
        for order, step in enumerate(run):
            for buffer in step.writes:
                if (storage := program.storage[buffer]) not in self._values:
                    taken[storage] = frame.take(block * program.sizes[buffer])
                    self._values[storage] = (
                        self.where["frame"], taken[storage][1], program.sizes[buffer]
                    )  # fmt: skip
            if not program.goes_back:  # forward only: memory serves again
                for buffer in step.reads:
                    storage = program.storage[buffer]
                    if storage in taken and last_reader[storage] == order:
                        frame.give(taken.pop(storage))
        # Backward: a gradient is written by its buffer's reader and used up by the writer.
        live: dict[int, tuple[int, int]] = {}
        for step in reversed(run):
            for buffer in (*step.writes, *step.reads):
                group = self._group[buffer]
                if self._needed[buffer] and group not in self._gradients:
                    live[group] = scratch.take(block * program.sizes[buffer])
                    self._gradients[group] = (
                        self.where["scratch"], live[group][1], program.sizes[buffer]
                    )  # fmt: skip
            reads = {self._group[buffer] for buffer in step.reads if self._needed[buffer]}
            for group in {self._group[buffer] for buffer in step.writes} - reads:
                if group in live:
                    scratch.give(live.pop(group))
        self.frames[number], self.scratch[number] = frame.size, scratch.size


def count_accumulators(parts: int, nbytes: int) -> int:
    """Return how many accumulators of gradients a batch in `parts` has, each of `nbytes`.

    It depends on shapes only, and is a power of two unless the parts are fewer, so that threads
    have equal work.
    """
    most = max(2, tuning.ACCUMULATOR_BYTES // max(1, nbytes))
    return min(parts, tuning.ACCUMULATORS, 1 << (most.bit_length() - 1))


class Memory:
    """All that a program needs for batches of one size: one array, cut up.

    Parameters
    ----------
    program : Program
    images, threads : int
    """

    def __init__(self, program: Any, images: int, threads: int) -> None:
        self.images, self.threads = images, threads
        self._where = program.places.where
        whole = [step.reads for step in program.steps if step.stage is not None]
        seen = {program.storage[buffer] for reads in whole for buffer in reads}
        self._converts = 0 in seen or program.storage[program.output] == 0
        self._kernels, self._dtype, self._who = program.kernels, program.dtype, program.who
        self.cuts = {stage: stage.cut(images, threads) for stage in program.stages}
        cuts = [cut for cut in self.cuts.values() if cut]
        shared = whole_lines(program.places.held * images)
        scratch = shared + whole_lines(program.shared)
        gradients = scratch + max((cut.scratch for cut in cuts), default=0)
        size = gradients + max((cut.gradients for cut in cuts), default=0)
        for cut in cuts:
            cut.place(frames=size, scratch=scratch, gradients=gradients, shared=shared)
            size += cut.frames
        # Whole lines, and one more number, so that no kernel is given the end of an array.
        (self._memory,) = checks.aligned(1, size + 1, self._dtype, program.who, "working memory")
        self._shared = shared
        if not program.goes_back:
            # What an operation keeps from pass to pass was made from parameters that are zero.
            self.shared(0, program.shared).fill(0)
        most = max((cut.accumulators for cut in cuts), default=1)
        rows = most if program.sums else 1
        self.sums = np.empty((rows, max(1, program.sums)))
        self.batch = self._kernels.stage.Batch(
            *program.arenas[:3], self._memory, self.sums, images, threads
        )
        self._x: np.ndarray  # of the pass, which begins with `take`
        self._kept: dict[Any, Any] = {}

    def take(self, x: np.ndarray) -> None:
        """Take the images of a pass, of shape (N, inputs)."""
        if x.dtype == _UINT8 and self._converts:
            pixels, x = x, checks.allocate(x.shape, self._dtype, self._who, "images")
            self._kernels.elementwise.from_pixels(pixels.reshape(-1), x.reshape(-1), self.threads)
        self._x = x
        self.batch.take(*((None, x) if x.dtype == _UINT8 else (x, None)))

    def take_labels(self, labels: np.ndarray, loss: Any, classes: int) -> float:
        """Take what the loss is computed from; return what its sum is multiplied by."""
        scale = loss.scale(labels, classes)
        self.batch.take_labels(labels, scale, loss.label_smoothing, loss.weight)
        return scale

    def array(self, place: Place) -> np.ndarray:
        """Return what is held at a place, as an array of shape (N, size)."""
        where, at, size = place
        if where == self._where["input"]:
            return self._x
        begin = at * self.images
        return self._memory[begin : begin + self.images * size].reshape(self.images, size)

    def kept(self, stage: Any, make: Any) -> Any:
        """Return what `make(memory)` returned when the stage first asked for it."""
        if stage not in self._kept:
            self._kept[stage] = make(self)
        return self._kept[stage]

    def shared(self, begin: int, size: int) -> np.ndarray:
        """Return the memory that an operation shares among blocks."""
        return self._memory[self._shared + begin : self._shared + begin + size]
