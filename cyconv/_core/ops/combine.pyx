"""Where two branches of a network part and meet."""

from libc.string cimport memcpy

from cyconv._core cimport pointwise
from cyconv._core.op cimport Op, Pass
from cyconv._core.real cimport real


cdef class Split(Op):
    """x for two readers; backward, the sum of their gradients."""

    def __init__(self, Py_ssize_t size):
        self.inputs = self.outputs = size
        self.in_place = self.aliases = True

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t i
        if p.dx != NULL:
            for i in range(p.images * self.inputs):
                p.dx[i] = p.dy[i] + p.dy2[i]


cdef class Add(Op):
    """leaky_relu(x + x2)."""

    def __init__(self, Py_ssize_t size):
        self.inputs = self.outputs = size
        self.in_place = self.joins = True

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t i
        cdef real slope = <real> self.slope
        for i in range(p.images * self.inputs):
            p.y[i] = pointwise.leaky(p.x[i] + p.x2[i], slope)

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t n = p.images * self.inputs
        cdef real* dx = p.dx if p.dx != NULL else p.dy
        pointwise.leaky_relu_backward(p.y, p.dy, dx, n, <real> self.slope)
        if p.dx2 != NULL:
            memcpy(p.dx2, dx, n * sizeof(real))
