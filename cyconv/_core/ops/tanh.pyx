"""The hyperbolic tangent."""

from libc.math cimport tanh, tanhf

from cyconv._core.op cimport Op, Pass
from cyconv._core.real cimport SINGLE


cdef class Tanh(Op):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""

    def __init__(self, Py_ssize_t size):
        self.inputs = self.outputs = size
        self.in_place = True

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(p.images * self.inputs):
            if SINGLE:
                p.y[i] = tanhf(p.x[i])
            else:
                p.y[i] = tanh(p.x[i])

    cdef void backward(self, const Pass* p) noexcept nogil:
        # forward: y = tanh(x), whose derivative is 1 - y²
        cdef Py_ssize_t i
        if p.dx != NULL:
            for i in range(p.images * self.inputs):
                p.dx[i] = p.dy[i] * (1 - p.y[i] * p.y[i])
