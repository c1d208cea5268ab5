"""What a layer is: a name, shapes, parameters, a forward and a backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cyconv import checks
from cyconv.initializers import Initializer


class Layer:
    """One step of a network.

    A new layer needs `forward` and `backward` on whole arrays and nothing else: with plain NumPy
    in them it works in any network, which then runs layer by layer over the batch. One that also
    describes its work by `operations` takes part in the fast training step.

    ::

        class Square(Layer):
            def forward(self, x):
                self.x = x
                return x * x

            def backward(self, dy):
                return 2 * self.x * dy

    Attributes
    ----------
    index : int or None
        Position in the network.
    input_shape, output_shape : tuple of int
        Shapes of one sample, without the batch; empty before the layer is built.
    parameters, gradients : dict of str to ndarray
        Views of the network's arenas. `backward` overwrites the gradients.
    """

    index: int | None = None
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    parameters: dict[str, np.ndarray] = {}  # noqa: RUF012 - replaced, never changed in place
    gradients: dict[str, np.ndarray] = {}  # noqa: RUF012
    config: dict[str, object] = {}  # noqa: RUF012
    _declared: dict[str, tuple[tuple[int, ...], Initializer]] | None = None
    _saved: tuple[np.ndarray, ...] | None = None

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Declare the parameters for samples of `input_shape` and return the output's shape.

        The default has no parameters and keeps the shape.
        """
        return input_shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the layer's output for a batch `x` of shape (N, *input_shape)."""
        raise TypeError(f"{self.who}: a layer must define forward(self, x)")

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Write the gradients of the parameters and return that of the input."""
        raise TypeError(f"{self.who}: a layer must define backward(self, dy)")

    def operations(self, arena: np.ndarray, first: int) -> Sequence[Any] | None:
        """Return the compiled operations that do the layer's work, or None if it has none.

        Parameters
        ----------
        arena : ndarray of float32
            The network's parameters.
        first : int
            Where the layer's own begin, in the order of their declaration.
        """
        return None

    def declare(self, name: str, shape: Sequence[int], initializer: Initializer) -> None:
        """Declare a parameter; to be called in `build`."""
        if self._declared is None:
            raise RuntimeError(f"{self.who}: parameters are declared in build(self, input_shape)")
        self._declared[name] = (tuple(shape), initializer)

    @property
    def who(self) -> str:
        """The name that an error begins with, such as ``Conv2D '2'``."""
        name = type(self).__name__
        return name if self.index is None else f"{name} '{self.index}'"

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name, in the order of their declaration."""
        return {name: shape for name, (shape, _) in (self._declared or {}).items()}

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(map(math.prod, self.parameter_shapes.values()))

    def setup(self, input_shape: Sequence[int], index: int | None = None) -> None:
        """Build the layer for samples of `input_shape`; it can be done once."""
        if self._declared is not None:
            raise ValueError(f"{self.who}: this layer is part of a network already; make a new one")
        self.index, self._declared = index, {}
        self.input_shape = tuple(input_shape)
        try:
            self.output_shape = tuple(self.build(self.input_shape))
            for what, shape in {"output": self.output_shape, **self.parameter_shapes}.items():
                checks.representable(shape, self.who, what)
        except BaseException:
            self.reset()
            raise

    def reset(self) -> None:
        """Undo `setup` and all that came after it: the layer belongs to no network again."""
        self.index = self._declared = self._saved = None
        self.parameters, self.gradients = {}, {}
        self.input_shape = self.output_shape = ()

    def bind(self, parameters: np.ndarray, gradients: np.ndarray) -> None:
        """Take views of two flat arrays of `size` elements as parameters and gradients."""
        self.parameters, self.gradients, first = {}, {}, 0
        for name, shape in self.parameter_shapes.items():
            last = first + math.prod(shape)
            self.parameters[name] = parameters[first:last].reshape(shape)
            self.gradients[name] = gradients[first:last].reshape(shape)
            first = last

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw the parameters' initial values, in the order of their declaration."""
        for name, (shape, initializer) in (self._declared or {}).items():
            self.parameters[name][...] = initializer(shape, rng)

    def enter(self, x: ArrayLike) -> np.ndarray:
        """Return `x` checked, as `forward` needs it; a layer outside a network is built by it."""
        x = checks.array(x, self.who, "x")
        if self._declared is None:
            if x.ndim < 2:
                raise ValueError(
                    f"{self.who}: x must have a batch axis and at least one more, "
                    f"got shape {checks.shape_text(x.shape)}"
                )
            checks.not_empty(x, self.who, "x")
            self.setup(x.shape[1:])
            arena = checks.allocate((2, self.size), x.dtype, self.who, "parameters and gradients")
            arena[...] = 0
            self.bind(*arena)
            self.initialize(np.random.default_rng(0))
        x = checks.array(x, self.who, "x", ("N", *self.input_shape))
        return x.astype(np.result_type(x, *self.parameters.values()), copy=False)

    def save(self, *values: np.ndarray) -> None:
        """Keep what `backward` will need."""
        self._saved = values

    def saved(self, dy: ArrayLike, dtype_of: int = 0) -> tuple[np.ndarray, ...]:
        """Return dy checked against the output's shape, and what `save` kept, once."""
        if self._saved is None:
            raise RuntimeError(f"{self.who}: backward needs a forward before it, and only one each")
        values = self._saved
        like = values[dtype_of]
        dy = checks.array(dy, self.who, "dy", (len(like), *self.output_shape))
        if dy.dtype != like.dtype:
            raise TypeError(f"{self.who}: dy must be {like.dtype} as x is, got {dy.dtype}")
        self._saved = None
        return dy, *values

    def parameter(self, name: str, dtype: DTypeLike) -> np.ndarray:
        """Return a parameter in the element type of the computation."""
        return self.parameters[name].astype(dtype, copy=False)

    def __repr__(self) -> str:
        arguments = (
            repr(value) if position == 0 else f"{name}={value!r}"
            for position, (name, value) in enumerate(self.config.items())
        )
        return f"{type(self).__name__}({', '.join(arguments)})"
