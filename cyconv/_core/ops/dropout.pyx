"""Dropout: some elements become zero, and the others grow to make up for them."""

from libc.stdint cimport uint32_t, uint64_t

from cyconv._core.op cimport Op, Pass
from cyconv._core.philox cimport GROUPS, philox
from cyconv._core.real cimport real


def numbers(uint64_t key, uint32_t counter, uint32_t image, uint32_t step, uint32_t stream):
    """Return what `philox` writes, as a list."""
    cdef uint32_t[4 * GROUPS] drawn
    philox(drawn, key, counter, image, step, stream)
    return [drawn[i] for i in range(4 * GROUPS)]


cdef class Dropout(Op):
    """x / (1 - p) with probability 1 - p, else 0 (Srivastava et al. 2014, inverted).

    Parameters
    ----------
    size : int
        Elements of an image.
    probability : float
        p, of an element to become zero.
    stream : int
        Number of the layer: layers of one network draw independently.
    """

    cdef double probability
    cdef uint32_t stream

    def __init__(self, Py_ssize_t size, double probability, uint32_t stream):
        self.inputs = self.outputs = size
        self.probability, self.stream = probability, stream
        self.in_place = True

    cdef void mask(self, const Pass* p, const real* source, real* target) noexcept nogil:
        cdef uint32_t[4 * GROUPS] numbers
        cdef uint64_t threshold = <uint64_t> (self.probability * 4294967296.0)
        cdef real scale = <real> (1 / (1 - self.probability)) if self.probability < 1 else 0
        cdef Py_ssize_t image, begin, i, n
        for image in range(p.images):
            begin = 0
            while begin < self.inputs:
                philox(numbers, p.seed, <uint32_t> (begin // 4), <uint32_t> (p.begin + image),
                       <uint32_t> p.step, self.stream)
                n = min(4 * GROUPS, self.inputs - begin)
                for i in range(n):
                    target[i] = scale * source[i] if numbers[i] >= threshold else 0
                source += n
                target += n
                begin += n

    cdef void forward(self, const Pass* p) noexcept nogil:
        self.mask(p, p.x, p.y)

    cdef void backward(self, const Pass* p) noexcept nogil:
        # forward: y = m * x with a mask m, which the same counters give again
        if p.dx != NULL:
            self.mask(p, p.dy, p.dx)
