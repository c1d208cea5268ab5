"""Activations: element by element."""

from cyconv._core cimport pointwise
from cyconv._core.op cimport Op, Pass
from cyconv._core.real cimport real


cdef class LeakyReLU(Op):
    """x where x > 0, slope * x elsewhere; a slope of 0 makes it a ReLU."""

    def __init__(self, Py_ssize_t size, double slope):
        self.inputs = self.outputs = size
        self.slope = slope
        self.in_place = True

    cdef void forward(self, const Pass* p) noexcept nogil:
        pointwise.leaky_relu(p.x, p.y, p.images * self.inputs, <real> self.slope)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            pointwise.leaky_relu_backward(
                p.x, p.dy, p.dx, p.images * self.inputs, <real> self.slope)
