"""Pooling: the maximum or the mean of a window."""

from cyconv._core.geometry cimport Geometry
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
    geometry : mapping
        The fields of a Geometry.
    """

    cdef Geometry geometry

    def __init__(self, Geometry geometry):
        self.geometry = geometry
        self.inputs = geometry.H * geometry.W * geometry.C
        self.outputs = geometry.OH * geometry.OW * geometry.C


cdef class MaxPool(Pool):
    """The largest element of each window; backward, the first such element gets dy."""

    cdef void forward(self, const Pass* p) noexcept nogil:
        max_pool_forward(p.x, p.y, &self.geometry, p.images)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            max_pool_backward(p.x, p.y, p.dy, p.dx, &self.geometry, p.images)


cdef class AvgPool(Pool):
    """The mean of each window's elements inside the image."""

    cdef void forward(self, const Pass* p) noexcept nogil:
        avg_pool_forward(p.x, p.y, &self.geometry, p.images)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            avg_pool_backward(p.dy, p.dx, &self.geometry, p.images)
