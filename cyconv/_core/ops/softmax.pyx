"""Softmax, and the loss that contains it."""

from libc.string cimport memcpy

from cyconv._core cimport pointwise
from cyconv._core.op cimport Op, Pass
from cyconv._core.real cimport real


cdef class Softmax(Op):
    """exp(x) / sum exp(x) over each run of `classes` elements."""

    cdef readonly Py_ssize_t classes

    def __init__(self, Py_ssize_t size, Py_ssize_t classes):
        self.inputs = self.outputs = size
        self.classes = classes
        self.in_place = True

    cdef void forward(self, const Pass* p) noexcept nogil:
        pointwise.softmax(p.x, p.y, p.images * self.inputs // self.classes, self.classes)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            pointwise.softmax_backward(
                p.y, p.dy, p.dx, p.images * self.inputs // self.classes, self.classes)


cdef class CrossEntropy(Op):
    """The loss of the labels by softmax(x): its sum in `sums`, its gradient as the output."""

    def __init__(self, Py_ssize_t classes):
        self.inputs = self.outputs = classes
        self.sums = 1

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef double loss = pointwise.cross_entropy(
            p.x, p.labels, p.y, p.images, self.inputs, p.loss_scale, p.class_weight,
            p.label_smoothing)
        p.sums[0] = p.sums[0] + loss if p.accumulate else loss

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            memcpy(p.dx, p.y, p.images * self.inputs * sizeof(real))
