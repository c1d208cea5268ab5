"""The columns of an image as an output of their own."""

from cyconv._core.columns cimport Window, col2im_rows, im2col_rows, zero
from cyconv._core.op cimport Op, Pass


cdef class Im2Col(Op):
    """The patch under every output pixel.

    Parameters
    ----------
    window : mapping
        The fields of a Geometry.
    """

    cdef Window window

    def __init__(self, Window window):
        self.window = window
        self.inputs = window.H * window.W * window.C
        self.outputs = window.OH * window.OW * window.KH * window.KW * window.C

    cdef void forward(self, const Pass* p) noexcept nogil:
        im2col_rows(p.x, p.y, &self.window, 0, p.images * self.window.OH)

    cdef void backward(self, const Pass* p) noexcept nogil:
        if p.dx != NULL:
            zero(p.dx, p.images * self.inputs)
            col2im_rows(p.dy, p.dx, &self.window, 0, p.images * self.window.OH)
