"""What a layer is: a name, shapes, parameters, a forward and a backward pass."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks
from cyconv.graph import Graph, Value
from cyconv.initializers import Initializer
from cyconv.passes import Own, Passes
from cyconv.program import Arenas, Program, in_a_row
from cyconv.settled import Keeper, Settled, settled


class Declared(NamedTuple):
    """A parameter of a layer, or a part of its state."""

    shape: tuple[int, ...]
    initializer: Initializer
    trained: bool


class Layer(Keeper):
    """One step of a network.

    A new layer needs `forward` and `backward` on whole arrays and nothing else: with plain NumPy in
    them it works in any network, and what is around it stays fast. A layer that describes its work
    by `operations` instead takes part in the fast step, and needs neither. One that has `onnx` can
    be exported.

    ::

        class Square(Layer):
            def forward(self, x):
                self.x = x
                return x * x

            def backward(self, dy):
                return 2 * self.x * dy

    Attributes
    ----------
    name : str or None
        Place in the network: "3", or "3.body.0" inside a Residual.
    number : int
        Place among all layers of the network, those inside others counted too.
    input_shape, output_shape : tuple of int
        Shapes of one sample, without the batch; empty before the layer is built.
    parameters, gradients, state : dict of str to ndarray
        Views of the network's arenas, to read and write; their entries cannot be replaced.
        `backward` overwrites the gradients.
    config : dict of str to object
        Of a layer that can be saved: the arguments that make it again, set by `__init__` as a
        whole. Its entries, and the attributes of these names, cannot be changed later.
    slices : dict of str to slice
        Where each of its parameters is in the arena of the parameters, and each part of its state
        in that of the state.
    """

    name: str | None = None
    number: int = 0
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    parameters: dict[str, np.ndarray] = Settled()
    gradients: dict[str, np.ndarray] = Settled()
    state: dict[str, np.ndarray] = Settled()
    config: dict[str, object] = Settled()
    slices: dict[str, slice] = Settled()
    _settled: frozenset[str] = frozenset(("__class__", "__dict__"))
    _declared: dict[str, Declared] | None = None
    _saved: tuple[np.ndarray, ...] | None = None
    _passes: Passes | None = None

    def _refusal(self, name: str) -> str:
        """Keep what would part the layer from its `config` or from the programs that run it."""
        own = vars(self)
        if name not in self._settled and (name not in own or name not in own.get("config", ())):
            return ""
        advice = "make a new layer"
        if name in ("parameters", "gradients", "state"):
            advice = f"write into its arrays, as in layer.{name}[...][...] = values"
        return f"{self.who}: {name} cannot be changed any more; {advice}"

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, settled(value) if name == "config" else value)

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Declare the parameters for samples of `input_shape` and return the output's shape.

        The default has no parameters and keeps the shape.
        """
        return input_shape

    if TYPE_CHECKING:  # a layer whose work does not differ in training may leave out `training`

        def forward(self, x: np.ndarray, *args: Any, **keywords: Any) -> np.ndarray: ...

    else:

        def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
            """Return the layer's output for a batch `x` of shape (N, *input_shape)."""
            if not self._has_operations():
                raise TypeError(f"{self.who}: a layer must define forward(self, x)")
            x = self.enter(x)
            return self._passes.forward(x, training)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Write the gradients of the parameters and return that of the input."""
        if not self._has_operations():
            raise TypeError(f"{self.who}: a layer must define backward(self, dy)")
        if self._passes is None:
            raise self.out_of_order()
        return self._passes.backward(dy)

    def operations(self, program: Program, x: int) -> int:
        """Add the layer's work to a program, and return the buffer of its output.

        Parameters
        ----------
        program : Program
            It has the kernels, and adds operations.
        x : int
            The buffer that the layer reads.
        """
        raise TypeError(f"{self.who}: a layer must define operations(self, program, x)")

    def onnx(self, graph: Graph, value: Value) -> Value:
        """Add the layer's nodes and weights to an ONNX graph, and return the value of its output.

        ::

            def onnx(self, graph, value):
                return graph.node(self, "Mul", value, value)

        Parameters
        ----------
        graph : Graph
            It adds nodes, and moves the channels of images to where an operator has them.
        value : Value
            What the layer reads.
        """
        raise TypeError(f"{self.who}: a layer must define onnx(self, graph, value)")

    def _has_operations(self) -> bool:
        return type(self).operations is not Layer.operations

    @property
    def is_described(self) -> bool:
        """Whether `operations` does what `forward` and `backward` do.

        It does not if a class, or the layer itself, changes these two, or `enter`, which begins
        them, and inherits `operations`.
        """
        return self._keeps_up("operations", "forward", "backward", "enter")

    @property
    def is_exportable(self) -> bool:
        """Whether `onnx` does what `forward` does, by the same rule."""
        return self._keeps_up("onnx", "forward", "operations")

    def _keeps_up(self, method: str, *others: str) -> bool:
        """Tell whether a method is defined, and where or after the others were defined last."""

        def depth(name):
            if name in vars(self):
                return -1
            return next(i for i, each in enumerate(type(self).__mro__) if name in vars(each))

        defined = getattr(type(self), method) is not getattr(Layer, method)
        return defined and depth(method) <= min(map(depth, others))

    @property
    def children(self) -> dict[str, Layer]:
        """The layers inside this one by name, in the order of their parameters."""
        return {}

    def walk(self) -> Iterator[Layer]:
        """Yield the layer and all layers inside it."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def declare(
        self, name: str, shape: Sequence[int], initializer: Initializer, trained: bool = True
    ) -> None:
        """Declare a parameter, or state that is not trained; to be called in `build`."""
        if self._declared is None or self._is_bound:
            raise RuntimeError(f"{self.who}: parameters are declared in build(self, input_shape)")
        self._declared[name] = Declared(tuple(shape), initializer, trained)

    @property
    def who(self) -> str:
        """The name that an error begins with, such as ``Conv2D '2'``."""
        name = type(self).__name__
        return name if self.name is None else f"{name} '{self.name}'"

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name, in the order of their declaration."""
        return self._shapes(trained=True)

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what the layer keeps and does not train."""
        return self._shapes(trained=False)

    def _shapes(self, trained):
        own = {
            name: each.shape
            for name, each in (self._declared or {}).items()
            if each.trained == trained
        }
        for prefix, child in self.children.items():
            own |= {f"{prefix}.{name}": shape for name, shape in child._shapes(trained).items()}
        return own

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(map(math.prod, self.parameter_shapes.values()))

    @property
    def state_size(self) -> int:
        """Number of elements of the state."""
        return sum(map(math.prod, self.state_shapes.values()))

    def setup(
        self, input_shape: Sequence[int], name: str | int | None = None, number: int = 0
    ) -> None:
        """Build the layer for samples of `input_shape`; it can be done once."""
        self._needs_free(self._declared is None)
        self.name, self.number = None if name is None else str(name), number
        self._declared = {}
        self.input_shape = tuple(input_shape)
        try:
            self.output_shape = tuple(self.build(self.input_shape))
            shapes = {"output": self.output_shape, **self.parameter_shapes, **self.state_shapes}
            for what, shape in shapes.items():
                checks.representable(shape, self.who, what)
        except BaseException:
            self.reset()
            raise

    @property
    def _is_bound(self) -> bool:
        return "_settled" in vars(self)

    def _needs_free(self, free: bool) -> None:
        if not free:
            raise ValueError(f"{self.who}: this layer is part of a network already; make a new one")

    def reset(self) -> None:
        """Undo `setup`, unless `bind` came after it: the layer can be set up again."""
        self._needs_free(not self._is_bound)
        for child in self.children.values():
            if not child._is_bound:  # in another network: why there is none with this layer
                child.reset()
        self._forget()

    def fresh(self) -> Layer:
        """Return a copy that belongs to no network."""
        layer = copy.copy(self)
        layer._forget()
        return layer

    def __copy__(self) -> Layer:
        layer = object.__new__(type(self))
        vars(layer).update(vars(self))
        return layer

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a pass under way, and the programs: they are made again."""
        return {name: x for name, x in vars(self).items() if name not in ("_passes", "_saved")}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Be a deep copy, or unpickled: a layer that was built has arrays of its own."""
        vars(self).update({name: settled(x) if name == "config" else x for name, x in kept.items()})
        if self._declared is not None:
            for layer in self.walk():
                vars(layer).pop("_settled", None)
            own = self.parameters | self.state
            dtype = next((array.dtype for array in own.values()), np.dtype(np.float32))
            parameters, gradients = np.zeros((2, self.size), dtype)
            self.bind(parameters, gradients, np.zeros(self.state_size, dtype))
            for name, view in (self.parameters | self.state).items():
                view[...] = own[name]

    def _forget(self) -> None:
        vars(self).pop("_settled", None)
        self.name = self._declared = self._saved = self._passes = None
        self.number = 0
        self.parameters = self.gradients = self.state = self.slices = Settled()
        self.input_shape = self.output_shape = ()

    def bind(
        self,
        parameters: np.ndarray,
        gradients: np.ndarray,
        state: np.ndarray | None = None,
        begin: int = 0,
        begin_state: int = 0,
    ) -> None:
        """Take views of flat arrays as parameters, gradients and state.

        The layer's own begin at `begin` and, of the state, at `begin_state`.
        """
        self._needs_free(not self._is_bound)
        state = np.empty(0, parameters.dtype) if state is None else state
        shapes, state_shapes = self.parameter_shapes, self.state_shapes
        self.slices = Settled(in_a_row(begin, shapes) | in_a_row(begin_state, state_shapes))
        self.parameters, self.gradients, self.state = (
            Settled((name, arena[self.slices[name]].reshape(shape)) for name, shape in each.items())
            for arena, each in ((parameters, shapes), (gradients, shapes), (state, state_shapes))
        )
        for prefix, child in self.children.items():
            begins = (
                next((self.slices[f"{prefix}.{name}"].start for name in named), 0)
                for named in (child.parameter_shapes, child.state_shapes)
            )
            child.bind(parameters, gradients, state, *begins)
        arenas = Arenas(parameters, gradients, state, np.zeros(1, np.int64))
        self._passes = Passes([Own(self)], self.input_shape, arenas, self.who)
        names = dir(self) if self.is_described else Layer.__annotations__
        self._settled |= {name for name in names if not name.startswith("_")}

    def initialize(self, *key: int) -> None:
        """Draw the initial values, in the order of their declaration, from the stream of a key."""
        rng = np.random.default_rng(key)
        for name, (shape, initializer, trained) in (self._declared or {}).items():
            kept = self.parameters if trained else self.state
            kept[name][...] = initializer(shape, rng)
        for index, child in enumerate(self.children.values()):
            child.initialize(index, *key)

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
            parameters, gradients = arena
            self.bind(parameters, gradients, np.zeros(self.state_size, x.dtype))
            self.initialize(0)
        x = checks.array(x, self.who, "x", ("N", *self.input_shape))
        return x.astype(np.result_type(x, *self.parameters.values()), copy=False)

    def save(self, *values: np.ndarray) -> None:
        """Keep what `backward` will need."""
        self._saved = values

    def saved(self, dy: ArrayLike) -> tuple[np.ndarray, ...]:
        """Return dy checked against the output's shape, and what `save` kept, once."""
        if self._saved is None:
            raise self.out_of_order()
        values = self._saved
        dy = checks.array(dy, self.who, "dy", (len(values[0]), *self.output_shape))
        if dy.dtype != values[0].dtype:
            raise TypeError(f"{self.who}: dy must be {values[0].dtype} as x is, got {dy.dtype}")
        self._saved = None
        return dy, *values

    def out_of_order(self) -> RuntimeError:
        """Return the error of a `backward` that no `forward` came before."""
        return RuntimeError(f"{self.who}: backward needs a forward before it, and only one each")

    def row(self) -> tuple[str, str, str, str]:
        """Return the layer's line in a table: place, call, output shape, parameters.

        Of a layer with others inside, these have lines of their own.
        """
        inside = bool(self.children)
        call, size = (type(self).__name__, "") if inside else (repr(self), f"{self.size:,}")
        return f"{self.name}", call, checks.shape_text(self.output_shape), size

    def __repr__(self) -> str:
        """Return the call that makes the layer, without the arguments that have their default."""
        defaults = inspect.signature(type(self)).parameters
        arguments = [
            repr(value) if position == 0 else f"{name}={value!r}"
            for position, (name, value) in enumerate(self.config.items())
            if position == 0 or name not in defaults or defaults[name].default != value
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"
