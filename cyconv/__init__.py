"""cyconv: convolutional networks on the CPU, from explicit loops to the speed of the machine."""

from typing import TYPE_CHECKING

from cyconv import datasets, layers, naive, presets
from cyconv.errors import CheckpointError, DataFormatError, DownloadError
from cyconv.functional import col2im, conv2d, conv2d_backward, im2col
from cyconv.geometry import conv_output_size
from cyconv.losses import CrossEntropy
from cyconv.network import Network
from cyconv.optimizers import SGD, Adam, AdamW
from cyconv.pooling import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from cyconv.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CheckpointError",
    "CrossEntropy",
    "DataFormatError",
    "DownloadError",
    "Network",
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv_output_size",
    "datasets",
    "get_num_threads",
    "im2col",
    "layers",
    "max_pool2d",
    "max_pool2d_backward",
    "naive",
    "presets",
    "set_num_threads",
]

if TYPE_CHECKING:
    from cyconv.classifier import CNNClassifier as CNNClassifier
else:

    def __getattr__(name):
        """Import CNNClassifier when it is asked for by name: nothing else needs scikit-learn."""
        if name != "CNNClassifier":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from cyconv import extras

        extras.load("sklearn", "sklearn", name)
        from cyconv.classifier import CNNClassifier

        return CNNClassifier
