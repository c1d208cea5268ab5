"""The layers of a network."""

from cyconv.layers.activations import LeakyReLU, Softmax
from cyconv.layers.base import Layer
from cyconv.layers.conv import Conv1D, Conv2D
from cyconv.layers.flatten import Flatten
from cyconv.layers.im2col import Im2Col
from cyconv.layers.linear import Linear

__all__ = ["Conv1D", "Conv2D", "Flatten", "Im2Col", "Layer", "LeakyReLU", "Linear", "Softmax"]
