"""The layers of a network."""

from cyconv.layers.activations import LeakyReLU, ReLU, Softmax
from cyconv.layers.base import Layer
from cyconv.layers.conv import Conv1D, Conv2D
from cyconv.layers.dropout import Dropout
from cyconv.layers.flatten import Flatten
from cyconv.layers.im2col import Im2Col
from cyconv.layers.linear import Linear
from cyconv.layers.norm import BatchNorm
from cyconv.layers.pooling import AvgPool2D, GlobalAvgPool2D, MaxPool2D
from cyconv.layers.residual import Residual
from cyconv.layers.tanh import Tanh

__all__ = [
    "AvgPool2D",
    "BatchNorm",
    "Conv1D",
    "Conv2D",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "Im2Col",
    "Layer",
    "LeakyReLU",
    "Linear",
    "MaxPool2D",
    "ReLU",
    "Residual",
    "Softmax",
    "Tanh",
]
