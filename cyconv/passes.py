"""Passes through some layers: each kind by a program of its own, made when first asked for."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.losses import CrossEntropy
from cyconv.memory import Memory
from cyconv.program import Arenas, Program
from cyconv.threads import kernel_threads


class Passes:
    """What runs the layers of a network, or a layer of its own.

    The arenas have one element type. A pass in the other one works on copies of them.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : tuple of int
        Shape of one sample.
    arenas : Arenas
    who : str
        The name that an error begins with.
    """

    def __init__(
        self, layers: Sequence[Any], input_shape: tuple[int, ...], arenas: Arenas, who: str
    ) -> None:
        self._layers, self._arenas, self._who = layers, arenas, who
        self._input_shape, self._size = input_shape, math.prod(input_shape)
        own = [layer.slices[name] for layer in layers for name in layer.parameters]
        self._own = slice(own[0].start, own[-1].stop) if own else slice(0)
        self._programs: dict[Any, Program] = {}
        self._copies: dict[np.dtype, Arenas] = {}
        self._pending: tuple[Program, Memory | None] | None = (
            None  # a pass that waits for its way back
        )

    def program(self, dtype: np.dtype, **kind: Any) -> Program:
        """Return the program for one kind of pass: the keywords of `Program`.

        `without_last` leaves out the last layer, the Softmax that is part of a loss.
        """
        dtype = self._arenas.parameters.dtype if dtype == np.uint8 else dtype
        key = dtype, *sorted(kind.items())
        if key not in self._programs:
            layers = self._layers[:-1] if kind.pop("without_last", False) else self._layers
            self._programs[key] = Program(
                layers, self._size, self._of(dtype), who=self._who, **kind
            )
        return self._programs[key]

    def _of(self, dtype: np.dtype) -> Arenas:
        """Return the arenas in an element type."""
        if dtype in (np.uint8, self._arenas.parameters.dtype):
            return self._arenas
        if dtype not in self._copies:
            parameters, gradients, state, steps = self._arenas
            self._copies[dtype] = Arenas(
                parameters.astype(dtype), gradients.astype(dtype), state.astype(dtype), steps
            )
        return self._copies[dtype]

    def _fetch(self, dtype: np.dtype) -> None:
        """Let the copies of the arenas in another element type be up to date."""
        arenas = self._of(dtype)
        if arenas is not self._arenas:
            arenas.parameters[...] = self._arenas.parameters
            arenas.state[...] = self._arenas.state

    def _bring(self, dtype: np.dtype) -> None:
        """Bring the gradients back from an element type's copy."""
        arenas = self._of(dtype)
        if arenas is not self._arenas:
            self._arenas.gradients[self._own] = arenas.gradients[self._own]

    def forward(
        self, x: np.ndarray, training: bool = False, counted: tuple[int, int] = (0, 0)
    ) -> np.ndarray:
        """Return the output of all layers, and keep what `backward` needs.

        Parameters
        ----------
        x : ndarray of shape (N, *input_shape)
        training : bool
            Whether layers do what they do in training, and running means move.
        counted : (seed, step)
            What random numbers are counted by.
        """
        self._pending = None
        shape = self._layers[-1].output_shape
        program = self.program(x.dtype, training=training, backward=True)
        memory = program.memory(len(x), kernel_threads()) if len(x) else None
        y = np.empty((0, *shape), program.dtype)
        if memory is not None:
            program.check(len(x))
            self._fetch(x.dtype)
            memory.batch.count(*counted)
            y = program.forward(x.reshape(len(x), -1), memory).reshape(len(x), *shape)
            if training:
                self._arenas.state[...] = program.moved_state(memory)
        self._pending = program, memory
        return y

    def backward(self, dy: ArrayLike) -> np.ndarray:
        """Write the gradients of the parameters and return that of the input, once."""
        last = self._layers[-1]
        if self._pending is None:
            raise last.out_of_order()
        program, memory = self._pending
        images = 0 if memory is None else memory.images
        dy = checks.array(dy, last.who, "dy", (images, *last.output_shape))
        if dy.dtype != program.dtype:
            raise TypeError(f"{last.who}: dy must be {program.dtype} as x is, got {dy.dtype}")
        self._pending = None
        if memory is None:
            self._arenas.gradients[self._own] = 0
            return np.zeros((0, *self._input_shape), program.dtype)
        dx = program.backward(dy.reshape(images, -1), memory)
        self._bring(program.dtype)
        return dx.reshape(images, *self._input_shape)

    def logits(self, x: np.ndarray, softmax: bool) -> np.ndarray:
        """Return the output for a batch, without the Softmax at the end if there is one."""
        program = self.program(x.dtype, without_last=softmax)
        self._fetch(x.dtype)
        return program.predict(x.reshape(len(x), -1)).reshape(
            len(x), *self._layers[-1].output_shape
        )

    def check_step(self, dtype: np.dtype, images: int) -> Program:
        """Return the program of a step; raise ValueError if a layer needs a larger batch."""
        classes = self._layers[-1].output_shape[-1]
        program = self.program(dtype, without_last=True, training=True, classes=classes)
        program.check(images)
        return program

    def step(
        self, x: np.ndarray, labels: np.ndarray, loss: CrossEntropy, counted: tuple[int, int]
    ) -> tuple[float, np.ndarray]:
        """Write the gradients of the mean loss of a batch; return the loss and the new state."""
        program = self.check_step(x.dtype, len(x))
        self._fetch(x.dtype)
        value, state = program.step(x.reshape(len(x), -1), labels, loss, counted)
        self._bring(program.dtype)
        return value, state.astype(self._arenas.state.dtype, copy=False)


class Own:
    """A layer as its inherited forward and backward run it: by its operations in any case."""

    is_described = True

    def __init__(self, layer: Any) -> None:
        self._layer = weakref.proxy(layer)  # which has this: no cycle, so memory goes at once

    def __getattr__(self, name):
        return getattr(self._layer, name)
