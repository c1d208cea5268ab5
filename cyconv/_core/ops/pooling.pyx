"""Pooling: the maximum or the mean of a window."""

from cyconv._core.columns cimport Window
from cyconv._core.op cimport Op, Pass
from cyconv._core.pooling cimport (
    avg_pool_backward,
    avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
)


cdef class Pool(Op):
    """What the two have in common.

    Parameters
    ----------
    window : mapping
        The fields of a Geometry.
    """

    cdef Window window

    def __init__(self, Window window):
        self.window = window
        self.inputs = window.H * window.W * window.C
        self.outputs = window.OH * window.OW * window.C


cdef class MaxPool(Pool):
    """The largest element of each window; backward, the first such element gets dy."""

    cdef void forward(self, const Pass* p) noexcept nogil:
        max_pool_forward(p.x, p.y, &self.window, p.images)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            max_pool_backward(p.x, p.y, p.dy, p.dx, &self.window, p.images)


cdef class AvgPool(Pool):
    """The mean of each window's elements inside the image."""

    cdef void forward(self, const Pass* p) noexcept nogil:
        avg_pool_forward(p.x, p.y, &self.window, p.images)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            avg_pool_backward(p.dy, p.dx, &self.window, p.images)
