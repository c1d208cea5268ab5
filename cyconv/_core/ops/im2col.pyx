"""The columns of an image as an output of their own."""

from cyconv._core.columns cimport col2im_rows, im2col_rows, zero
from cyconv._core.geometry cimport Geometry
from cyconv._core.op cimport Op, Pass


cdef class Im2Col(Op):
    """The patch under every output pixel.

    Parameters
    ----------
    geometry : mapping
        The fields of a Geometry.
    """

    cdef Geometry geometry

    def __init__(self, Geometry geometry):
        self.geometry = geometry
        self.inputs = geometry.H * geometry.W * geometry.C
        self.outputs = geometry.OH * geometry.OW * geometry.KH * geometry.KW * geometry.C

    cdef void forward(self, const Pass* p) noexcept nogil:
        im2col_rows(p.x, p.y, &self.geometry, 0, p.images * self.geometry.OH)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            zero(p.dx, p.images * self.inputs)
            col2im_rows(p.dy, p.dx, &self.geometry, 0, p.images * self.geometry.OH)
