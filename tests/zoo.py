"""The layers and networks that the laws are tried on, two of the layers written by a user."""

from typing import NamedTuple

import numpy as np

from cyconv import Network, presets
from cyconv.layers import (
    AvgPool2D,
    BatchNorm,
    Conv1D,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Im2Col,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2D,
    ReLU,
    Residual,
    Softmax,
    Tanh,
)


class Square(Layer):
    """A user's layer without parameters that checks what it is given: NumPy only."""

    def forward(self, x):
        x = self.enter(x)
        self.save(x)
        return x * x

    def backward(self, dy):
        dy, x = self.saved(dy)
        return 2 * x * dy


def around_one(shape, rng):
    """Return initial values."""
    return rng.uniform(0.5, 1.5, shape)


class Gain(Layer):
    """A user's layer with a parameter: a factor for each channel."""

    def build(self, input_shape):
        self.declare("gain", input_shape[-1:], around_one)
        return input_shape

    def forward(self, x):
        self.x = x
        return x * self.parameters["gain"].astype(x.dtype)

    def backward(self, dy):
        self.gradients["gain"][...] = (self.x * dy).reshape(-1, dy.shape[-1]).sum(axis=0)
        return dy * self.parameters["gain"].astype(dy.dtype)


class Still:
    """An optimizer that leaves the parameters as they are."""

    def step(self, parameters, gradients):
        pass


class Row(NamedTuple):
    """A row of a table: how its layer or layers are made, and the shape of a sample.

    `roundings` is set where an output is not a sum of products: so many roundings of a number as
    large as the largest lie between float32 and float64. `exportable` is unset where a layer has no
    ONNX node.
    """

    make: object
    input_shape: tuple[int, ...]
    roundings: int = 0
    exportable: bool = True


def pointwise_block():
    """Return the layers of a small residual branch that keeps the shape."""
    return [Conv2D(4, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv2D(4, 1), BatchNorm()]


LAYERS = {
    "Conv2D": Row(lambda: Conv2D(3, 3), (6, 5, 2)),
    "Conv2D rectangular": Row(
        lambda: Conv2D(4, (2, 3), stride=(1, 2), padding=((1, 0), (0, 2))), (5, 5, 3)
    ),
    "Conv2D same": Row(lambda: Conv2D(2, 4, stride=2, padding="same"), (7, 6, 1)),
    "Conv2D padding over kernel": Row(lambda: Conv2D(2, 2, padding=3), (3, 4, 2)),
    "Conv2D 1x1": Row(lambda: Conv2D(5, 1), (4, 3, 6)),
    "Conv2D stride over kernel": Row(lambda: Conv2D(2, 1, stride=3), (7, 4, 2)),
    "Conv2D without bias": Row(lambda: Conv2D(9, 3, bias=False), (5, 4, 2)),
    "Conv2D dilated": Row(lambda: Conv2D(3, (2, 3), dilation=(3, 2), padding=2), (7, 6, 2)),
    "Conv2D by Winograd's way": Row(lambda: Conv2D(30, 3, padding=((0, 2), (1, 1))), (9, 10, 33)),
    "Conv2D in groups": Row(lambda: Conv2D(6, 3, padding=1, groups=2), (5, 4, 4)),
    "Conv2D depthwise": Row(lambda: Conv2D(5, 3, stride=2, padding=1, groups=5), (7, 5, 5)),
    "Conv2D rounded down": Row(lambda: Conv2D(3, 3, stride=2, rounding="floor"), (6, 8, 2)),
    "Conv1D dilated in groups": Row(lambda: Conv1D(4, 3, dilation=2, groups=2, bias=False), (9, 4)),
    "Conv1D": Row(lambda: Conv1D(4, 5, stride=2, padding=(1, 2)), (12, 3)),
    "Conv1D same": Row(lambda: Conv1D(2, 3, padding="same"), (7, 2)),
    "Im2Col": Row(lambda: Im2Col(3, stride=2, padding=1), (7, 5, 2)),
    "Im2Col dilated": Row(lambda: Im2Col(2, dilation=3, stride=2, rounding="floor"), (7, 8, 2)),
    "Linear": Row(lambda: Linear(7), (11,)),
    "Linear without bias": Row(lambda: Linear(7, bias=False), (11,)),
    "Linear wide": Row(lambda: Linear(150), (130,)),
    "LeakyReLU": Row(lambda: LeakyReLU(), (4, 3, 2)),
    "LeakyReLU slope 0": Row(lambda: LeakyReLU(0), (9,)),
    "Tanh": Row(lambda: Tanh(), (4, 3, 2), 8),
    "ReLU": Row(lambda: ReLU(), (4, 3, 2)),
    "MaxPool2D": Row(lambda: MaxPool2D(2), (6, 4, 3), 4),
    "MaxPool2D overlapping": Row(
        lambda: MaxPool2D((3, 2), stride=(2, 1), padding=(1, 0)), (7, 5, 17), 8
    ),
    "MaxPool2D rounded down": Row(lambda: MaxPool2D(3, rounding="floor"), (8, 7, 2), 4),
    "AvgPool2D": Row(lambda: AvgPool2D(2), (6, 4, 3)),
    "AvgPool2D overlapping": Row(
        lambda: AvgPool2D(3, stride=2, padding=((1, 1), (0, 1)), rounding="floor"), (8, 6, 2)
    ),
    "GlobalAvgPool2D": Row(lambda: GlobalAvgPool2D(), (5, 4, 3)),
    "BatchNorm": Row(lambda: BatchNorm(), (4, 3, 5), 64),
    "BatchNorm of vectors": Row(lambda: BatchNorm(momentum=0.3, eps=1e-3), (19,), 64),
    "Dropout": Row(lambda: Dropout(), (4, 3, 2)),
    "Dropout of all": Row(lambda: Dropout(1.0), (7,)),
    "Residual": Row(lambda: Residual([Conv2D(4, 3, padding=1)]), (5, 4, 4)),
    "Residual with a shortcut": Row(
        lambda: Residual([Conv2D(6, 3, stride=2, padding=1)], [Conv2D(6, 1, stride=2)]), (5, 7, 4)
    ),
    "Residual of everything": Row(
        lambda: Residual([*pointwise_block(), Residual([Tanh()], [Dropout(0.3)])], [BatchNorm()]),
        (5, 4, 4),
        256,
    ),
    "Residual around NumPy": Row(lambda: Residual([Gain()], [Gain()]), (5, 4, 4), exportable=False),
    "Softmax": Row(lambda: Softmax(), (10,)),
    "Softmax of an image": Row(lambda: Softmax(), (3, 2, 5)),
    "Flatten": Row(lambda: Flatten(), (3, 4, 2)),
    "Square": Row(lambda: Square(), (3, 4, 2), exportable=False),
    "Gain": Row(lambda: Gain(), (3, 4, 5), exportable=False),
}

NETWORKS = {
    "Winograd's way": Row(
        lambda: [Conv2D(32, 3, padding=1), BatchNorm(), Conv2D(33, 3, padding=2), LeakyReLU(),
                 AvgPool2D(2), Conv2D(4, 3), Flatten(), Linear(5)],
        (8, 10, 32),
    ),
    "one dimension": Row(
        lambda: [Conv1D(6, 5, stride=2, padding=(1, 2)), LeakyReLU(), Conv1D(4, 3), Flatten(),
                 Linear(5)],
        (30, 2),
    ),
    "Im2Col inside": Row(
        lambda: [Conv2D(4, 3), LeakyReLU(), Im2Col(3, stride=2), Conv2D(6, 1), LeakyReLU(),
                 Flatten(), Linear(5)],
        (9, 9, 1),
    ),
    "Im2Col first": Row(
        lambda: [Im2Col(4, stride=2, padding=1), LeakyReLU(), Flatten(), Linear(4)], (8, 8, 1)
    ),
    "Softmax in the middle": Row(
        lambda: [Conv2D(6, 3, stride=2, padding="same"), Softmax(), Flatten(), Linear(8), Softmax(),
                 Linear(3)],
        (8, 8, 2),
    ),
    "Linear first": Row(lambda: [Linear(20), LeakyReLU(0.3), Linear(6)], (15,)),
    "LeakyReLU first and doubled": Row(
        lambda: [LeakyReLU(0.5), Conv2D(3, 3), LeakyReLU(), LeakyReLU(0.2), Flatten(), Linear(4),
                 LeakyReLU(0)],
        (6, 6, 1),
    ),
    "nothing but Softmax": Row(lambda: [Flatten()], (2, 3, 1)),
    "a user's layers": Row(
        lambda: [Conv2D(4, 3), Square(), Gain(), LeakyReLU(), Flatten(), Linear(5)], (7, 7, 1),
        exportable=False,
    ),
    "big Linear first": Row(lambda: [Linear(100), LeakyReLU(), Linear(10)], (900,)),
    "big Linear in the middle": Row(
        lambda: [Conv2D(8, 3, padding=1), LeakyReLU(), Flatten(), Linear(120), LeakyReLU(),
                 Linear(9), LeakyReLU(), Linear(7)],
        (12, 12, 1),
    ),
    "big Linear last": Row(lambda: [Conv2D(16, 3, padding=1), Flatten(), Linear(10)], (22, 22, 1)),
    "big Linear twice": Row(
        lambda: [Flatten(), Linear(260), LeakyReLU(), Linear(270), Softmax(), Linear(10)],
        (16, 16, 1),
    ),
    "big Linear before a run without parameters": Row(
        lambda: [Linear(300), LeakyReLU(), LeakyReLU(0.5), Softmax()], (250,)
    ),
    "pooling": Row(
        lambda: [Conv2D(6, 3, padding=1), ReLU(), MaxPool2D(2), Conv2D(8, 3), Tanh(),
                 AvgPool2D(2, rounding="floor"), Flatten(), Linear(4)],
        (10, 10, 2),
    ),
    "batch normalisation": Row(
        lambda: [Conv2D(8, 3, bias=False), BatchNorm(), LeakyReLU(), Conv2D(5, 3), BatchNorm(),
                 ReLU(), GlobalAvgPool2D(), Linear(4)],
        (9, 8, 2),
    ),
    "batch normalisation first and last": Row(
        lambda: [BatchNorm(), Flatten(), Linear(6), BatchNorm(), BatchNorm()], (4, 3, 2)
    ),
    "dropout": Row(
        lambda: [Dropout(0.2), Conv2D(8, 3), ReLU(), Dropout(), Flatten(), Linear(70), Dropout(0.1),
                 Linear(4)],
        (9, 9, 1),
    ),
    "residual": Row(
        lambda: [Conv2D(4, 3, padding=1), Residual(pointwise_block()), ReLU(),
                 Residual([Conv2D(8, 3, stride=2, padding=1), BatchNorm(), ReLU(), Dropout(0.3)],
                          [Conv2D(8, 1, stride=2, bias=False), BatchNorm()]), ReLU(),
                 GlobalAvgPool2D(), Linear(5)],
        (9, 9, 2),
    ),
    "residual first, around NumPy, nested": Row(
        lambda: [Residual([Gain(), Residual([Conv2D(2, 1)])], [BatchNorm()]), Flatten(), Linear(3)],
        (5, 6, 2),
        exportable=False,
    ),
    "depthwise and separable": Row(
        lambda: [Conv2D(8, 3, padding=1), Conv2D(8, 3, padding=1, groups=8, bias=False),
                 BatchNorm(), ReLU(), Conv2D(16, 1), ReLU(), Conv2D(16, 3, groups=16), ReLU(),
                 Conv2D(4, 3, groups=4, dilation=2), Flatten(), Linear(3)],
        (10, 9, 2),
    ),
    "wide padding and strides": Row(
        lambda: [Conv2D(5, (3, 2), stride=(2, 3), padding=(4, 2)), LeakyReLU(),
                 Conv2D(3, 1, stride=(7, 1)), Conv2D(4, 2, padding="same"), Flatten(), Linear(3)],
        (9, 7, 3),
    ),
}  # fmt: skip


def network(name, seed=0, dtype=np.float32):
    """Return the network of a row, with Softmax at the end, or a preset."""
    if name in presets.NAMES:
        return getattr(presets, name)(seed, dtype)
    row = NETWORKS[name]
    return Network([*row.make(), Softmax()], row.input_shape, seed, dtype)


def batch(net, images=37, seed=0):
    """Return random uint8 images and labels for a network."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (images, *net.input_shape), np.uint8)
    return x, rng.integers(0, net.classes, images)


ALL_NETWORKS = ("exercise", "wide", *NETWORKS)
PRESETS = presets.NAMES

# The first row of each kind of layer, by its name.
BY_KIND: dict[str, Row] = {}
for _row in LAYERS.values():
    BY_KIND.setdefault(type(_row.make()).__name__, _row)
