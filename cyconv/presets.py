"""Networks with names: those of the course and the README, and small ones that people train.

Each takes `input_shape` and `classes`; the numbers of parameters are those of the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType

from numpy.typing import DTypeLike

from cyconv.geometry import Rounding, integer
from cyconv.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2D,
    ReLU,
    Residual,
    Softmax,
)
from cyconv.network import Network

Shape = Sequence[int]


def exercise(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
) -> Network:
    """Return the course's network: four convolutions, 4,934 parameters.

    The last convolution covers what is left of the image: 3x3 of 28x28.
    """
    height, width, _ = _image("exercise", input_shape, 24)
    # What the 8x8 window with stride 2, then 6x6 and 4x4 leave; a row too few is lost.
    left = [(size - 8) // 2 + 1 - 5 - 3 for size in (height, width)]
    rounding = _rounding(2, height, width)
    layers = [
        Conv2D(4, 8, stride=2, rounding=rounding),
        LeakyReLU(),
        Conv2D(8, 6),
        LeakyReLU(),
        Conv2D(16, 4),
        LeakyReLU(),
        Conv2D(_classes("exercise", classes), (left[0], left[1])),
        Flatten(),
        Softmax(),
    ]
    return Network(layers, input_shape, seed, dtype)


def wide(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
) -> Network:
    """Return two wide convolutions and two linear layers, 3.3 million parameters."""
    height, width, _ = _image("wide", input_shape, 6)
    rounding = _rounding(4, height, width)
    layers = [
        Conv2D(32, 6, stride=2, padding=2, rounding=rounding),
        LeakyReLU(),
        Conv2D(64, 6, stride=2, padding=2, rounding=rounding),
        LeakyReLU(),
        Flatten(),
        Linear(1024),
        LeakyReLU(),
        Linear(_classes("wide", classes)),
        Softmax(),
    ]
    return Network(layers, input_shape, seed, dtype)


def lenet5(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
) -> Network:
    """Return LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling, 61,706 parameters."""
    layers = [
        Conv2D(6, 5, padding=2),
        ReLU(),
        MaxPool2D(2, rounding="floor"),
        Conv2D(16, 5),
        ReLU(),
        MaxPool2D(2, rounding="floor"),
        Flatten(),
        Linear(120),
        ReLU(),
        Linear(84),
        ReLU(),
        Linear(_classes("lenet5", classes)),
        Softmax(),
    ]
    return Network(layers, _image("lenet5", input_shape, 12), seed, dtype)


def mnist_convnet(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
) -> Network:
    """Return the network of Keras' MNIST example, 34,826 parameters."""
    layers = [
        Conv2D(32, 3),
        ReLU(),
        MaxPool2D(2, rounding="floor"),
        Conv2D(64, 3),
        ReLU(),
        MaxPool2D(2, rounding="floor"),
        Flatten(),
        Dropout(0.5),
        Linear(_classes("mnist_convnet", classes)),
        Softmax(),
    ]
    return Network(layers, _image("mnist_convnet", input_shape, 10), seed, dtype)


def vgg_small(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
) -> Network:
    """Return three pairs of 3x3 convolutions with batch normalisation, 308,394 parameters.

    A small network in the manner of Simonyan & Zisserman 2014.
    """
    layers: list[Layer] = []
    for filters in (32, 64, 128):
        for _ in range(2):
            layers += [Conv2D(filters, 3, padding=1), BatchNorm(), ReLU()]
        layers.append(MaxPool2D(2, rounding="floor"))
    layers += [Flatten(), Dropout(0.5), Linear(_classes("vgg_small", classes)), Softmax()]
    return Network(layers, _image("vgg_small", input_shape, 8), seed, dtype)


def resnet8(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
) -> Network:
    """Return a residual network (He et al. 2016, section 4.2) of 8 layers, 78,042 parameters."""
    return _resnet("resnet8", 1, seed, dtype, input_shape, classes)


def resnet20(
    seed: int = 0,
    dtype: DTypeLike = "float32",
    *,
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
) -> Network:
    """Return a residual network (He et al. 2016, section 4.2) of 20 layers, 272,474 parameters."""
    return _resnet("resnet20", 3, seed, dtype, input_shape, classes)


def _resnet(who, blocks, seed, dtype, input_shape, classes) -> Network:
    """Return three groups of residual blocks with 16, 32 and 64 filters."""
    layers: list[Layer] = [Conv2D(16, 3, padding=1, bias=False), BatchNorm(), ReLU()]
    for filters in (16, 32, 64):
        for block in range(blocks):
            layers += _residual(filters, stride=2 if filters > 16 and block == 0 else 1)
    layers += [GlobalAvgPool2D(), Linear(_classes(who, classes)), Softmax()]
    return Network(layers, _image(who, input_shape, 1), seed, dtype)


def _residual(filters: int, stride: int) -> list[Layer]:
    """Return one block; where its size changes, the shortcut is a convolution."""

    def conv(kernel: int, stride: int = 1) -> Conv2D:
        return Conv2D(
            filters,
            kernel,
            stride=stride,
            padding=kernel // 2,
            bias=False,
            rounding="floor" if stride > 1 else "exact",
        )

    body = [conv(3, stride), BatchNorm(), ReLU(), conv(3), BatchNorm()]
    shortcut = [conv(1, stride), BatchNorm()] if stride > 1 else None
    return [Residual(body, shortcut), ReLU()]


def _rounding(stride: int, *sizes: int) -> Rounding:
    """Return "exact" if the sizes are multiples of all strides together, else "floor"."""
    return "floor" if any(size % stride for size in sizes) else "exact"


def _image(who: str, input_shape: Shape, least: int) -> tuple[int, int, int]:
    """Return `input_shape` checked: images of at least `least` rows and columns."""
    if not isinstance(input_shape, (tuple, list)):
        raise TypeError(f"{who}: input_shape must be (H, W, C), got {input_shape!r}")
    if len(input_shape) != 3:
        raise ValueError(f"{who}: input_shape must be (H, W, C), got {input_shape!r}")
    names = "height", "width", "channels"
    H, W, C = (
        integer(size, who, f"input_shape's {name}", minimum)
        for size, name, minimum in zip(input_shape, names, (least, least, 1), strict=True)
    )
    return H, W, C


def _classes(who: str, classes: int) -> int:
    return integer(classes, who, "classes", 1)


# All of them, in the order of this file: what commands and tests offer.
NAMES: tuple[str, ...] = tuple(
    name
    for name, value in globals().copy().items()
    if isinstance(value, FunctionType) and value.__module__ == __name__ and name[0] != "_"
)
MEASURED = NAMES[:2]  # those whose speed the README gives
