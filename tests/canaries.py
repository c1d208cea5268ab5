"""python -m tests.canaries NAME: a deliberate fault in a kernel, which tests.sanitize must see.

The kernels are called past the gate in Python, which would refuse all of this.
"""

import sys

import numpy as np

from cyconv._core import of
from cyconv.geometry import resolve

conv, elementwise = of("float32").convolution, of("float32").elementwise

X = np.ones((1, 4, 4, 4), np.float32)
NOTHING = np.empty(0, np.float32)


def read():
    """Read dy, which has no elements."""
    elementwise.leaky_relu_backward(X.ravel(), NOTHING, np.empty(X.size, np.float32), 0.1, 1)


def write():
    """Write y, which has no elements."""
    elementwise.leaky_relu(X.ravel(), NOTHING, 0.1, 1)


def overflow():
    """Multiply a stride by an index to more than 2**63."""
    geometry = resolve(X.shape[1:], 2, 1, 0, "overflow")
    cols = np.empty((geometry.OH * geometry.OW, geometry.taps), np.float32)
    conv.im2col(X, cols, geometry._asdict() | {"stride_h": 2**62}, 1)


def misaligned():
    """Load floats from an odd address."""
    x = np.frombuffer(bytes(X.nbytes + 1), np.float32, X.size, offset=1)
    elementwise.leaky_relu(x, np.empty(X.size, np.float32), 0.1, 1)


if __name__ == "__main__":
    {fault.__name__: fault for fault in (read, write, overflow, misaligned)}[sys.argv[1]]()
