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
    # A copy of a length that the compiler knows is a few vector moves; a call to memcpy costs more
    # than the runs of a small network are long. Two such copies that overlap make any length.
    cdef Py_ssize_t i
    if n == 8:
        memcpy(target, source, 8 * sizeof(floating))
    elif n < 4:
        for i in range(n):
            target[i] = source[i]
    elif n > 32:
        for i in range(0, n - 32, 32):
            memcpy(target + i, source + i, 32 * sizeof(floating))
        memcpy(target + n - 32, source + n - 32, 32 * sizeof(floating))
    elif n > 16:
        memcpy(target, source, 16 * sizeof(floating))
        memcpy(target + n - 16, source + n - 16, 16 * sizeof(floating))
    elif n > 8:
        memcpy(target, source, 8 * sizeof(floating))
        memcpy(target + n - 8, source + n - 8, 8 * sizeof(floating))
    else:
        memcpy(target, source, 4 * sizeof(floating))
        memcpy(target + n - 4, source + n - 4, 4 * sizeof(floating))


cdef inline void zero(floating* target, Py_ssize_t n) noexcept nogil:
    if n:
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
    # Called with a number, it is compiled for runs of that length.
    cdef Py_ssize_t run = g.KW * g.C
    if run == 8:
        copy_runs(x, cols, g, first, last, 8)
    elif run == 24:
        copy_runs(x, cols, g, first, last, 24)
    elif run == 32:
        copy_runs(x, cols, g, first, last, 32)
    elif run == 48:
        copy_runs(x, cols, g, first, last, 48)
    else:
        copy_runs(x, cols, g, first, last, run)


cdef inline void copy_runs(
    const floating* x, floating* cols, const Window* g, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t run,
) noexcept nogil:
    cdef Py_ssize_t C = g.C, line = g.W * C
    cdef Py_ssize_t row, ow, ih, iw, kh, top, bottom, left, right
    cdef const floating* image
    cdef const floating* source
    for row in range(first, last):
        image = x + (row // g.OH) * g.H * line
        ih = row % g.OH * g.stride_h - g.pad_top
        top = clamp(-ih, 0, g.KH)            # the taps top <= kh < bottom lie inside the image
        bottom = clamp(g.H - ih, top, g.KH)
        for ow in range(g.OW):
            iw = ow * g.stride_w - g.pad_left
            left = clamp(-iw, 0, g.KW)       # and so do left <= kw < right
            right = clamp(g.W - iw, left, g.KW)
            zero(cols, top * run)
            source = image + (ih + top) * line + (iw + left) * C
            if right - left == g.KW:
                for kh in range(top, bottom):
                    copy(cols + kh * run, source, run)
                    source += line
            else:
                for kh in range(top, bottom):
                    zero(cols + kh * run, left * C)
                    copy(cols + kh * run + left * C, source, (right - left) * C)
                    zero(cols + kh * run + right * C, (g.KW - right) * C)
                    source += line
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
    cdef Py_ssize_t run = g.KW * g.C
    if run == 24:
        add_runs(cols, x, g, first, last, 24)
    elif run == 32:
        add_runs(cols, x, g, first, last, 32)
    elif run == 48:
        add_runs(cols, x, g, first, last, 48)
    else:
        add_runs(cols, x, g, first, last, run)


cdef inline void add_runs(
    const floating* cols, floating* x, const Window* g, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t run,
) noexcept nogil:
    cdef Py_ssize_t C = g.C, line = g.W * C
    cdef Py_ssize_t row, ow, ih, iw, kh, top, bottom, left, right
    cdef floating* target
    for row in range(first, last):
        ih = row % g.OH * g.stride_h - g.pad_top
        top = clamp(-ih, 0, g.KH)
        bottom = clamp(g.H - ih, top, g.KH)
        for ow in range(g.OW):
            iw = ow * g.stride_w - g.pad_left
            left = clamp(-iw, 0, g.KW)
            right = clamp(g.W - iw, left, g.KW)
            target = x + ((row // g.OH) * g.H + ih + top) * line + (iw + left) * C
            # forward: cols[kh*run + left*C :] = image[ih + kh, iw + left :], (right - left)*C long
            if right - left == g.KW:
                for kh in range(top, bottom):
                    add(target, cols + kh * run, run)
                    target += line
            else:
                for kh in range(top, bottom):
                    add(target, cols + kh * run + left * C, (right - left) * C)
                    target += line
            cols += g.KH * run
