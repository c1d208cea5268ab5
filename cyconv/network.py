"""A network: an ordered list of layers over one arena of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cyconv import checkpoint, checks
from cyconv._core import atomic
from cyconv.files import FilePath
from cyconv.geometry import integer
from cyconv.layers import Layer, Softmax
from cyconv.layers.table import table
from cyconv.losses import PLAIN, CrossEntropy
from cyconv.optimizers import Optimizer
from cyconv.passes import Passes
from cyconv.prediction import evaluate, predict, predict_proba, predictor
from cyconv.program import Arenas
from cyconv.settled import Keeper, Settled
from cyconv.training import fit

_DTYPES = ("float32", "float64", *checks.FLOATS)
MOST_SEED = 2**64 - 1  # that the key of counted random numbers holds
_SETTLED = "layers", "input_shape", "output_shape", "seed", "ends_with_softmax"


class Network(Keeper):
    """Layers in a row, their parameters in one flat array.

    Parameters
    ----------
    layers : sequence of Layer
        Each takes the output of the one before; a layer belongs to one network. They are kept as
        a tuple.
    input_shape : tuple of int
        Shape of one sample, without the batch: (H, W, C) for images.
    seed : int
        Decides all initial weights, and what `Dropout` drops; below 2**64.
    dtype : {"float32", "float64"}
        Element type of the parameters, and of what is computed from uint8 images.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or a layer does not fit the one before it.

    Examples
    --------
    >>> net = Network([Conv2D(4, 8, stride=2), LeakyReLU(), Flatten(), Linear(10), Softmax()])
    >>> net.fit(images, labels, epochs=3)
    >>> net.predict(images[:5])
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int] = (28, 28, 1),
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        others = set(vars(self))  # attributes that a subclass has set
        if not isinstance(layers, (list, tuple)):
            raise TypeError(f"Network: layers must be a list of Layer, got {layers!r}")
        self.layers = tuple(layers)
        if not self.layers:
            raise ValueError("Network: layers must name at least one layer, got none")
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Network: layers[{index}] must be a Layer, got {layer!r}")
        if not isinstance(input_shape, (tuple, list)) or not input_shape:
            raise TypeError(f"Network: input_shape must be a tuple of sizes, got {input_shape!r}")
        self.input_shape = tuple(
            integer(size, "Network", f"input_shape[{axis}]", 1)
            for axis, size in enumerate(input_shape)
        )
        self.seed = integer(seed, "Network", "seed", 0)
        if self.seed > MOST_SEED:
            raise ValueError(
                f"Network: seed must be at most {MOST_SEED}, got a number of "
                f"{self.seed.bit_length():,} bits"
            )
        if dtype is None or isinstance(dtype, np.ndarray) or dtype not in _DTYPES:
            raise TypeError(f"Network: dtype must be float32 or float64, got {dtype!r}")
        self.output_shape = self._set_up_layers()
        size, state_size = (
            sum(getattr(layer, name) for layer in self.layers) for name in ("size", "state_size")
        )
        self._parameters, self._gradients, self._state = (
            checks.allocate((count,), dtype, "Network", name)
            for name, count in (("parameters", size), ("gradients", size), ("state", state_size))
        )
        self._gradients[...] = 0
        begin = begin_state = 0
        self._steps = np.zeros(1, np.int64)  # in training so far
        self._arenas = Arenas(self._parameters, self._gradients, self._state, self._steps)
        for index, layer in enumerate(self.layers):
            layer.bind(*self._arenas[:3], begin, begin_state)
            # A stream for each layer: its start does not depend on the layers before it.
            layer.initialize(index, self.seed)
            begin, begin_state = begin + layer.size, begin_state + layer.state_size
        self._passes = Passes(self.layers, self.input_shape, self._arenas, "Network")
        last = self.layers[-1]
        self.ends_with_softmax = isinstance(last, Softmax) and last.is_described
        self._turn = atomic.Turn()
        self._own = {"_own", *vars(self)} - others

    def _refusal(self, name: str) -> str:
        settled = name in _SETTLED and "_own" in vars(self)
        return f"Network: {name} cannot be changed any more; make a new network" if settled else ""

    @classmethod
    def _made(cls, *arguments) -> Network:
        """Return a network of this class, whose constructor may have arguments of its own."""
        network = cls.__new__(cls)
        Network.__init__(network, *arguments)
        return network

    def _set_up_layers(self) -> tuple[int, ...]:
        """Build each layer for the output of the one before, or none; return the last output."""
        shape, done, number = self.input_shape, [], 0
        try:
            for index, layer in enumerate(self.layers):
                layer.setup(shape, index, number)
                done.append(layer)
                shape = layer.output_shape
                number += len(list(layer.walk()))
        except BaseException:
            for layer in done:
                layer.reset()
            raise
        return shape

    @property
    def steps(self) -> int:
        """Number of training steps taken: what `Dropout` counts its random numbers by."""
        return int(self._steps[0])

    @property
    def _counted(self) -> tuple[int, int]:
        return self.seed, self.steps

    @property
    def classes(self) -> int:
        """Number of classes: the length of the output."""
        return self.output_shape[-1]

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters by name ("0.weight", "0.bias", ...): views, to read and write.

        The arrays can be written to, but not replaced: ``parameters["0.weight"][...] = values``.
        """
        return self._named(self._parameters)

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients of the last backward pass or training step by name, as views."""
        return self._named(self._gradients)

    def state(self) -> dict[str, np.ndarray]:
        """Return what is kept and not trained by name ("1.running_mean", ...), as views."""
        return self._named(self._state)

    def _named(self, arena: np.ndarray) -> dict[str, np.ndarray]:
        """Return views of an arena that are new, as an array's shape and type can be set."""
        kind = "state_shapes" if arena is self._state else "parameter_shapes"
        return Settled(
            (f"{layer.name}.{name}", arena[layer.slices[name]].reshape(shape))
            for layer in self.layers
            for name, shape in getattr(layer, kind).items()
        )

    def forward(self, x: ArrayLike, training: bool = False) -> np.ndarray:
        """Return the output of the last layer, and keep what `backward` needs.

        For study, gradient checks and loops of your own.

        Parameters
        ----------
        x : ndarray of shape (N, *input_shape)
            float32 or float64, which is computed in its own precision, or uint8 images, which are
            divided by 255. The last axis may be left out if it is 1.
        training : bool
            Whether layers do what they do in training: `BatchNorm` takes the batch's mean and
            variance, and moves the running ones; `Dropout` drops.

        Returns
        -------
        ndarray of shape (N, *output_shape)

        Raises
        ------
        TypeError, ValueError
            If x has another element type or shape.
        """
        training = checks.flag(training, "Network.forward", "training")
        x = self._computed(self._images(x, "Network.forward"))
        return self._passes.forward(x, training, self._counted)

    def backward(self, dy: ArrayLike) -> np.ndarray:
        """Return the gradient with respect to the input; those of the parameters are overwritten.

        Parameters
        ----------
        dy : ndarray of shape (N, *output_shape)
            Gradient of a loss with respect to what `forward` returned.

        Raises
        ------
        RuntimeError
            If there was no `forward` since the last call.
        TypeError, ValueError
            If dy does not match the output.
        """
        return self._passes.backward(dy)

    def train_step(
        self,
        x: ArrayLike,
        labels: ArrayLike,
        optimizer: Optimizer,
        loss: CrossEntropy | None = None,
    ) -> float:
        """Take one step on one batch and return its mean loss before the update.

        The loss is the cross-entropy of the Softmax at the end. Blocks of images go through the
        whole network and back in one parallel region; the result has the same bits for any number
        of threads.

        Parameters
        ----------
        x : ndarray of shape (N, *input_shape), float32 or uint8
        labels : ndarray of shape (N,), integers from 0 to classes - 1
        optimizer : Adam
            Anything with ``step(parameters, gradients)`` on flat arrays.
        loss : CrossEntropy, optional
            ``CrossEntropy()`` if it is left out.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or the network does not end with Softmax.
        FloatingPointError
            If the loss is NaN or infinite; the parameters are not touched then.
        RuntimeError
            If it is called from inside a step of the same network, as by its optimizer.
        """
        x = self._images(x, "Network.train_step")
        labels = self._labels(labels, len(x), "Network.train_step")
        checks.optimizer(optimizer, "Network.train_step")
        if loss is not None and not isinstance(loss, CrossEntropy):
            raise TypeError(f"Network.train_step: loss must be a CrossEntropy, got {loss!r:.60}")
        return self._step(x, labels, optimizer, loss=loss)

    def _step(
        self, x, labels, optimizer, who="Network.train_step", place="", loss=None, **more
    ) -> float:
        """Take one step on arguments that are checked; `more` is for `atomic.take_step`."""
        x, loss = self._computed(x), PLAIN if loss is None else loss
        return self._turn.take(who, self._take_step, x, labels, optimizer, loss, who, place, more)

    def _take_step(self, x, labels, optimizer, loss, who, place, more) -> float:
        value, state = self._passes.step(x, labels, loss, self._counted)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{who}: the loss is {value}{place}; this step is not taken; look for NaN or "
                "infinity in the data, or lower the learning rate"
            )
        atomic.take_step(optimizer, self._arenas, state, value, **more)
        return value

    def _logits(self, x) -> np.ndarray:
        """Return what goes into the Softmax at the end, or the output where there is none."""
        return self._passes.logits(self._computed(x), self.ends_with_softmax)

    def _computed(self, x) -> np.ndarray:
        """Return images in the element type that they are computed in, or as pixels."""
        if x.dtype == np.uint8:
            return x
        return x.astype(np.result_type(x, self._parameters), copy=False)

    evaluate = evaluate
    predict = predict
    predict_proba = predict_proba
    predictor = predictor
    fit = fit

    def summary(self) -> str:
        """Return a table of the layers, their output shapes and parameters."""
        total = f"{self._parameters.size:,} parameters, input {checks.shape_text(self.input_shape)}"
        return table(self.layers, total)

    def save(self, path: FilePath) -> None:
        """Write the architecture, the parameters and the state to a safetensors file.

        The file replaces an older one only when it is complete.

        Raises
        ------
        TypeError
            If a layer is not one of `cyconv.layers` and has no `config`.
        OSError
            If the file cannot be written.
        """
        checkpoint.save(self, path)

    @classmethod
    def load(cls, path: FilePath, layers: Sequence[type[Layer]] = ()) -> Network:
        """Return the network that `save` wrote to `path`.

        Of a subclass it has the layers, but the subclass's constructor is not called.

        Parameters
        ----------
        path : str, bytes or path-like
        layers : sequence of type
            Classes of layers of your own that the file may name.

        Raises
        ------
        cyconv.CheckpointError
            If the file is damaged or is not one of ours. No code in it is ever run.
        OSError
            If the file cannot be read.
        """
        return checkpoint.load(path, cls._made, layers)

    def __reduce__(self):
        """Copy or pickle the architecture and the parameters, not a pass or a step under way.

        The layers, your own included, are built again from their attributes, and a subclass keeps
        its own; its constructor is not called. Unpickling runs what
        the pickle names: it is for processes of one's own, and `save` for files to keep or share.
        """
        layers = [layer.fresh() for layer in self.layers]
        again = dict(zip(map(id, self.layers), layers, strict=True))
        others = {  # attributes of a subclass, which may be layers
            name: again.get(id(value), value)
            for name, value in vars(self).items()
            if name not in self._own
        }
        arguments = (layers, self.input_shape, self.seed, str(self._parameters.dtype))
        return self._made, arguments, (self._parameters, self._state, self.steps, others)

    def __setstate__(self, kept) -> None:
        self._parameters[...], self._state[...], self._steps[...], others = kept
        vars(self).update(others)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.layers))
        return f"Network([{layers}], input_shape={self.input_shape}, seed={self.seed})"

    def _needs_softmax(self, who: str) -> None:
        if not self.ends_with_softmax or len(self.output_shape) != 1:
            raise ValueError(
                f"{who}: the network must end with Softmax() on a flat output, got "
                f"{self.layers[-1]!r} with output shape {checks.shape_text(self.output_shape)}"
            )

    def _labels(self, labels, count: int, who: str) -> np.ndarray:
        self._needs_softmax(who)
        if count == 0:
            raise ValueError(f"{who}: x must hold at least one image, got none")
        return checks.labels(labels, count, self.classes, who)

    def _images(self, x, who: str) -> np.ndarray:
        return checks.images(x, self.input_shape, who)
