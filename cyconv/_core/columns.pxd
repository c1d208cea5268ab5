"""im2col and its adjoint col2im on a range of output rows.

Rows of the column matrix are output pixels (n, oh, ow), its columns are taps (kh, kw, c). For one
output pixel and one kh the KW*C taps are neighbours in memory both in the image and in the column
matrix: im2col copies such runs, and col2im adds them back.
"""

from cython cimport floating
from libc.string cimport memcpy, memset


cdef struct Window:
    # One convolution's sizes for one image: the fields of cyconv.geometry.Geometry.
    Py_ssize_t H, W, C, KH, KW, OH, OW, stride_h, stride_w, pad_top, pad_left


cdef inline bint is_identity(const Window* g) noexcept nogil:
    """Tell whether the column matrix is the image itself (1x1 kernel, stride 1, no padding)."""
    return (g.KH == 1 and g.KW == 1 and g.stride_h == 1 and g.stride_w == 1
            and g.OH == g.H and g.OW == g.W)


cdef inline void copy(floating* target, const floating* source, Py_ssize_t n) noexcept nogil:
    # Copies of a length that the compiler knows become a few vector moves; a call to memcpy
    # costs more than the runs of a small network are long.
    if n == 8:
        memcpy(target, source, 8 * sizeof(floating))
    elif n == 24:
        memcpy(target, source, 24 * sizeof(floating))
    elif n == 32:
        memcpy(target, source, 32 * sizeof(floating))
    elif n == 48:
        memcpy(target, source, 48 * sizeof(floating))
    else:
        memcpy(target, source, n * sizeof(floating))


cdef inline void zero(floating* target, Py_ssize_t n) noexcept nogil:
    memset(target, 0, n * sizeof(floating))


cdef inline void add(floating* target, const floating* source, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] += source[i]


cdef inline Py_ssize_t clamp(Py_ssize_t value, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef inline void im2col_rows(
    const floating* x, floating* cols, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """cols[(n, oh, ow), (kh, kw, c)] = x[n, ih, iw, c], zero outside the image.

    `x` is the whole batch, `cols` begins with the output row `first` of the N*OH rows.
    Writes: every element of cols, zeros included.   Aliasing: x and cols must not overlap.
    Parallel over: nothing.                          Retains: nothing.
    """
    cdef Py_ssize_t line = g.W * g.C, run = g.KW * g.C
    cdef Py_ssize_t row, oh, ow, ih, iw, kh, top, bottom, left, right
    cdef const floating* image
    cdef const floating* source
    for row in range(first, last):
        oh = row % g.OH
        image = x + (row // g.OH) * g.H * line
        ih = oh * g.stride_h - g.pad_top
        top = clamp(-ih, 0, g.KH)            # the taps top <= kh < bottom lie inside the image
        bottom = clamp(g.H - ih, top, g.KH)
        for ow in range(g.OW):
            iw = ow * g.stride_w - g.pad_left
            left = clamp(-iw, 0, g.KW)       # and so do left <= kw < right
            right = clamp(g.W - iw, left, g.KW)
            if top:
                zero(cols, top * run)
            source = image + (ih + top) * line + iw * g.C
            if left == 0 and right == g.KW:
                for kh in range(top, bottom):
                    copy(cols + kh * run, source, run)
                    source += line
            else:
                for kh in range(top, bottom):
                    zero(cols + kh * run, left * g.C)
                    copy(cols + kh * run + left * g.C, source + left * g.C, (right - left) * g.C)
                    zero(cols + kh * run + right * g.C, (g.KW - right) * g.C)
                    source += line
            if bottom < g.KH:
                zero(cols + bottom * run, (g.KH - bottom) * run)
            cols += g.KH * run


cdef inline void col2im_rows(
    const floating* cols, floating* x, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """x[n, ih, iw, c] += cols[(n, oh, ow), (kh, kw, c)] for every tap inside the image.

    The loop of im2col_rows read backwards: where it copied, this adds.
    Writes: the pixels under the rows, which must hold numbers already.
    Aliasing: x and cols must not overlap.   Parallel over: nothing.   Retains: nothing.
    """
    cdef Py_ssize_t line = g.W * g.C, run = g.KW * g.C
    cdef Py_ssize_t row, oh, ow, ih, iw, kh, top, bottom, left, right
    cdef floating* image
    for row in range(first, last):
        oh = row % g.OH
        image = x + (row // g.OH) * g.H * line
        ih = oh * g.stride_h - g.pad_top
        top = clamp(-ih, 0, g.KH)
        bottom = clamp(g.H - ih, top, g.KH)
        for ow in range(g.OW):
            iw = ow * g.stride_w - g.pad_left
            left = clamp(-iw, 0, g.KW)
            right = clamp(g.W - iw, left, g.KW)
            for kh in range(top, bottom):
                # forward: cols[kh*run + left*C :][: (right-left)*C] = image[ih + kh, iw + left :]
                add(image + (ih + kh) * line + (iw + left) * g.C,
                    cols + kh * run + left * g.C, (right - left) * g.C)
            cols += g.KH * run
