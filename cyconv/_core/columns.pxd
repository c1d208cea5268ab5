"""im2col and its adjoint col2im on a range of output rows.

Rows of the column matrix are output pixels (n, oh, ow), its columns are taps (kh, kw, c). For one
output pixel and one kh the KW*C taps are neighbours in memory both in the image and in the column
matrix: im2col copies such runs, and col2im adds them back. With a dilation, or for one of several
groups of channels, only the C channels of a tap are neighbours in the image.
"""

from libc.string cimport memcpy, memset

from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport real


cdef struct Window:
    # One convolution's sizes for one image: the fields of cyconv.geometry.Geometry. Of several
    # groups it is one group's: `C` channels of an image that has `pitch` of them at each pixel.
    Py_ssize_t H, W, C, KH, KW, OH, OW, stride_h, stride_w, pad_top, pad_left
    Py_ssize_t dilation_h, dilation_w, pad_bottom, pad_right
    Py_ssize_t pitch


cdef inline bint is_identity(const Window* g) noexcept nogil:
    """Tell whether the column matrix is the image itself (1x1 kernel, stride 1, no padding).

    Its rows are `pitch` floats apart.
    """
    return (g.KH == 1 and g.KW == 1 and g.stride_h == 1 and g.stride_w == 1
            and g.OH == g.H and g.OW == g.W)


cdef inline bint has_runs(const Window* g) noexcept nogil:
    """Tell whether the taps (kw, c) of one kh are neighbours in the image, and so are the lines."""
    return g.pitch == g.C and g.dilation_h == 1 and g.dilation_w == 1


cdef inline void copy(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    # A copy of a length that the compiler knows is a few vector moves; a call to memcpy costs more
    # than the runs of a small network are long. Two such copies that overlap make any length.
    cdef Py_ssize_t i
    if n == 8:
        memcpy(target, source, 8 * sizeof(real))
    elif n < 4:
        for i in range(n):
            target[i] = source[i]
    elif n > 32:
        for i in range(0, n - 32, 32):
            memcpy(target + i, source + i, 32 * sizeof(real))
        memcpy(target + n - 32, source + n - 32, 32 * sizeof(real))
    elif n > 16:
        memcpy(target, source, 16 * sizeof(real))
        memcpy(target + n - 16, source + n - 16, 16 * sizeof(real))
    elif n > 8:
        memcpy(target, source, 8 * sizeof(real))
        memcpy(target + n - 8, source + n - 8, 8 * sizeof(real))
    else:
        memcpy(target, source, 4 * sizeof(real))
        memcpy(target + n - 4, source + n - 4, 4 * sizeof(real))


cdef inline void zero(real* target, Py_ssize_t n) noexcept nogil:
    if n:
        memset(target, 0, n * sizeof(real))


cdef inline void add(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] += source[i]


cdef inline Py_ssize_t clamp(Py_ssize_t value, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef inline Py_ssize_t inside_begin(const Window* g) noexcept nogil:
    """Return the first output pixel of a row whose window does not begin left of the image."""
    return min(g.OW, (g.pad_left + g.stride_w - 1) // g.stride_w)


cdef inline Py_ssize_t inside_end(const Window* g) noexcept nogil:
    """Return where the output pixels end whose windows lie between the left and right edges."""
    cdef Py_ssize_t room = g.W - g.KW + g.pad_left
    return clamp(room // g.stride_w + 1 if room >= 0 else 0, inside_begin(g), g.OW)


cdef inline void im2col_rows(
    const real* x, real* cols, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """cols[(n, oh, ow), (kh, kw, c)] = x[n, ih, iw, c], zero outside the image.

    `x` is the whole batch, `cols` begins with the output row `first` of the N*OH rows.
    Writes: every element of cols, zeros included.   Aliasing: x and cols must not overlap.
    Parallel over: nothing.                          Retains: nothing.
    """
    if has_runs(g):
        im2col_runs(x, cols, g, first, last)
    else:
        im2col_taps(x, cols, g, first, last)


cdef inline void col2im_rows(
    const real* cols, real* x, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """x[n, ih, iw, c] += cols[(n, oh, ow), (kh, kw, c)] for every tap inside the image.

    What im2col_rows copies, this adds back.
    Writes: the pixels under the rows, which must hold numbers already.
    Aliasing: x and cols must not overlap.   Parallel over: nothing.   Retains: nothing.
    """
    if has_runs(g):
        col2im_runs(cols, x, g, first, last)
    else:
        col2im_taps(cols, x, g, first, last)


cdef inline kernel im2col_runs(
    const real* x, real* cols, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """What im2col_rows does where taps are neighbours, in runs of KW*C floats."""
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
    const real* x, real* cols, const Window* g, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t run,
) noexcept nogil:
    cdef Py_ssize_t line = g.W * g.C, step = g.stride_w * g.C, taps = g.KH * run
    cdef Py_ssize_t begin = inside_begin(g), end = inside_end(g)
    cdef Py_ssize_t row, ow, ih, kh, top, bottom
    cdef const real* corner
    cdef const real* source
    for row in range(first, last):
        ih = row % g.OH * g.stride_h - g.pad_top
        top = clamp(-ih, 0, g.KH)            # the taps top <= kh < bottom lie inside the image
        bottom = clamp(g.H - ih, top, g.KH)
        corner = x + ((row // g.OH) * g.H + ih + top) * line   # the line of the first such tap
        if bottom - top < g.KH:
            zero(cols, g.OW * taps)
        for ow in range(begin):
            copy_part(corner, cols + ow * taps, g, ow, top, bottom)
        for ow in range(begin, end):
            source = corner + ow * step - g.pad_left * g.C
            for kh in range(top, bottom):
                copy(cols + ow * taps + kh * run, source, run)
                source += line
        for ow in range(end, g.OW):
            copy_part(corner, cols + ow * taps, g, ow, top, bottom)
        cols += g.OW * taps


cdef inline void copy_part(
    const real* corner, real* cols, const Window* g, Py_ssize_t ow, Py_ssize_t top,
    Py_ssize_t bottom,
) noexcept nogil:
    """The columns of a pixel whose window reaches beyond the left or right edge."""
    cdef Py_ssize_t iw = ow * g.stride_w - g.pad_left, run = g.KW * g.C, kh
    cdef Py_ssize_t left = clamp(-iw, 0, g.KW), right = clamp(g.W - iw, left, g.KW)
    cdef const real* source = corner + (iw + left) * g.C
    for kh in range(top, bottom):
        zero(cols + kh * run, left * g.C)
        copy(cols + kh * run + left * g.C, source, (right - left) * g.C)
        zero(cols + kh * run + right * g.C, (g.KW - right) * g.C)
        source += g.W * g.C


cdef inline kernel col2im_runs(
    const real* cols, real* x, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """What col2im_rows does where taps are neighbours.

    The loop of im2col_runs read backwards: where it copied, this adds.
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
    const real* cols, real* x, const Window* g, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t run,
) noexcept nogil:
    cdef Py_ssize_t line = g.W * g.C, step = g.stride_w * g.C, taps = g.KH * run
    cdef Py_ssize_t begin = inside_begin(g), end = inside_end(g)
    cdef Py_ssize_t row, ow, ih, kh, top, bottom
    cdef real* corner
    cdef real* target
    for row in range(first, last):
        ih = row % g.OH * g.stride_h - g.pad_top
        top = clamp(-ih, 0, g.KH)
        bottom = clamp(g.H - ih, top, g.KH)
        corner = x + ((row // g.OH) * g.H + ih + top) * line
        for ow in range(begin):
            add_part(cols + ow * taps, corner, g, ow, top, bottom)
        for ow in range(begin, end):
            target = corner + ow * step - g.pad_left * g.C
            for kh in range(top, bottom):
                # forward: cols[kh*run :] = corner[(ow*stride_w - pad_left)*C :], run elements
                add(target, cols + ow * taps + kh * run, run)
                target += line
        for ow in range(end, g.OW):
            add_part(cols + ow * taps, corner, g, ow, top, bottom)
        cols += g.OW * taps


cdef inline void add_part(
    const real* cols, real* corner, const Window* g, Py_ssize_t ow, Py_ssize_t top,
    Py_ssize_t bottom,
) noexcept nogil:
    """The pixels under a window that reaches beyond the left or right edge."""
    cdef Py_ssize_t iw = ow * g.stride_w - g.pad_left, run = g.KW * g.C, kh
    cdef Py_ssize_t left = clamp(-iw, 0, g.KW), right = clamp(g.W - iw, left, g.KW)
    cdef real* target = corner + (iw + left) * g.C
    for kh in range(top, bottom):
        add(target, cols + kh * run + left * g.C, (right - left) * g.C)
        target += g.W * g.C


cdef inline kernel im2col_taps(
    const real* x, real* cols, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """What im2col_rows does with any geometry, tap by tap."""
    cdef Py_ssize_t W = g.W, C = g.C, pitch = g.pitch, row, ow, kh, kw, top, left, ih, iw
    cdef const real* image
    for row in range(first, last):
        top = row % g.OH * g.stride_h - g.pad_top
        image = x + row // g.OH * g.H * W * pitch
        for ow in range(g.OW):
            left = ow * g.stride_w - g.pad_left
            for kh in range(g.KH):
                ih = top + kh * g.dilation_h
                for kw in range(g.KW):
                    iw = left + kw * g.dilation_w
                    if ih < 0 or ih >= g.H or iw < 0 or iw >= W:
                        zero(cols, C)
                    else:
                        copy(cols, image + (ih * W + iw) * pitch, C)
                    cols += C


cdef inline kernel col2im_taps(
    const real* cols, real* x, const Window* g, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """What col2im_rows does with any geometry, tap by tap."""
    cdef Py_ssize_t W = g.W, C = g.C, pitch = g.pitch, row, ow, kh, kw, top, left, ih, iw
    cdef real* image
    for row in range(first, last):
        top = row % g.OH * g.stride_h - g.pad_top
        image = x + row // g.OH * g.H * W * pitch
        for ow in range(g.OW):
            left = ow * g.stride_w - g.pad_left
            for kh in range(g.KH):
                ih = top + kh * g.dilation_h
                for kw in range(g.KW):
                    iw = left + kw * g.dilation_w
                    # forward: cols[:C] = image[(ih*W + iw)*pitch :]
                    if 0 <= ih < g.H and 0 <= iw < W:
                        add(image + (ih * W + iw) * pitch, cols, C)
                    cols += C
