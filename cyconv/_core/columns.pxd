"""im2col and its adjoint col2im on a range of output rows.

Rows of the column matrix are output pixels (n, oh, ow), its columns are taps (kh, kw, c). For one
output pixel and one kh the KW*C taps are neighbours in memory both in the image and in the column
matrix: im2col copies such runs, and col2im adds them back. With a dilation, or for one of several
groups of channels, only the C channels of a tap are neighbours in the image.
"""

from libc.string cimport memcpy, memset

from cyconv._core.axis cimport Axis, Range, axis_across, axis_down, inside, taps_at
from cyconv._core.geometry cimport Geometry, has_runs
from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport real
from cyconv._core.tuning cimport EXERCISE_RUN_1, EXERCISE_RUN_2, EXERCISE_RUN_3, EXERCISE_RUN_4


cdef inline void copy(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    # A copy whose length the compiler knows is a few vector moves; a call of memcpy costs more than
    # copying the short runs of a small network. Two overlapping copies cover any length between.
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


cdef inline void im2col_rows(
    const real* x, real* cols, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """cols[(n, oh, ow), (kh, kw, c)] = x[n, ih, iw, c], zero outside the image.

    `x` is the whole batch, `cols` has the output rows begin <= (n, oh) < end.
    Writes: every element of cols, zeros included.   Aliasing: x and cols must not overlap.
    Parallel over: nothing.                          Retains: nothing.
    """
    if has_runs(g):
        im2col_runs(x, cols, g, begin, end)
    else:
        im2col_taps(x, cols, g, begin, end)


cdef inline void col2im_rows(
    const real* cols, real* x, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """x[n, ih, iw, c] += cols[(n, oh, ow), (kh, kw, c)] for every tap inside the image.

    What im2col_rows copies, this adds back.
    Writes: the pixels under the rows, which must hold numbers already.
    Aliasing: x and cols must not overlap.   Parallel over: nothing.   Retains: nothing.
    """
    if has_runs(g):
        col2im_runs(cols, x, g, begin, end)
    else:
        col2im_taps(cols, x, g, begin, end)


cdef inline kernel im2col_runs(
    const real* x, real* cols, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """What im2col_rows does where taps are neighbours, in runs of KW*C floats."""
    # Called with a number, it is compiled for runs of that length.
    cdef Py_ssize_t run = g.KW * g.C
    if run == EXERCISE_RUN_1:
        copy_runs(x, cols, g, begin, end, EXERCISE_RUN_1)
    elif run == EXERCISE_RUN_2:
        copy_runs(x, cols, g, begin, end, EXERCISE_RUN_2)
    elif run == EXERCISE_RUN_3:
        copy_runs(x, cols, g, begin, end, EXERCISE_RUN_3)
    elif run == EXERCISE_RUN_4:
        copy_runs(x, cols, g, begin, end, EXERCISE_RUN_4)
    else:
        copy_runs(x, cols, g, begin, end, run)


cdef inline void copy_runs(
    const real* x, real* cols, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t run,
) noexcept nogil:
    cdef Py_ssize_t line = g.W * g.C, step = g.stride_w * g.C, taps = g.KH * run
    cdef Py_ssize_t row, ow, ih, kh
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Range rows, whole
    cdef const real* corner
    cdef const real* source
    down.apart = across.apart = 1   # as has_runs says: known here, it takes no division
    whole = inside(&across, g.OW)
    for row in range(begin, end):
        rows = taps_at(&down, row % g.OH)
        ih = row % g.OH * g.stride_h - g.pad_top + rows.begin
        corner = x + ((row // g.OH) * g.H + ih) * line   # the line of the first tap inside
        if rows.end - rows.begin < g.KH:
            zero(cols, g.OW * taps)
        for ow in range(whole.begin):
            copy_inside(corner, cols + ow * taps, g, &across, ow, rows)
        for ow in range(whole.begin, whole.end):
            source = corner + ow * step - g.pad_left * g.C
            for kh in range(rows.begin, rows.end):
                copy(cols + ow * taps + kh * run, source, run)
                source += line
        for ow in range(whole.end, g.OW):
            copy_inside(corner, cols + ow * taps, g, &across, ow, rows)
        cols += g.OW * taps


cdef inline void copy_inside(
    const real* corner, real* cols, const Geometry* g, const Axis* across, Py_ssize_t ow,
    Range rows,
) noexcept nogil:
    """The columns of a pixel whose window reaches beyond the left or right edge."""
    cdef Py_ssize_t run = g.KW * g.C, kh
    cdef Range columns = taps_at(across, ow)
    cdef Py_ssize_t begin = columns.begin * g.C, end = columns.end * g.C
    cdef const real* source = corner + (ow * g.stride_w - g.pad_left) * g.C + begin
    for kh in range(rows.begin, rows.end):
        zero(cols + kh * run, begin)
        copy(cols + kh * run + begin, source, end - begin)
        zero(cols + kh * run + end, run - end)
        source += g.W * g.C


cdef inline kernel col2im_runs(
    const real* cols, real* x, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """What col2im_rows does where taps are neighbours.

    The loop of im2col_runs read backwards: where it copied, this adds.
    """
    # EXERCISE_RUN_1 is that of a first layer, which needs no dx.
    cdef Py_ssize_t run = g.KW * g.C
    if run == EXERCISE_RUN_2:
        add_runs(cols, x, g, begin, end, EXERCISE_RUN_2)
    elif run == EXERCISE_RUN_3:
        add_runs(cols, x, g, begin, end, EXERCISE_RUN_3)
    elif run == EXERCISE_RUN_4:
        add_runs(cols, x, g, begin, end, EXERCISE_RUN_4)
    else:
        add_runs(cols, x, g, begin, end, run)


cdef inline void add_runs(
    const real* cols, real* x, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t run,
) noexcept nogil:
    cdef Py_ssize_t line = g.W * g.C, step = g.stride_w * g.C, taps = g.KH * run
    cdef Py_ssize_t row, ow, ih, kh
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Range rows, whole
    cdef real* corner
    cdef real* target
    down.apart = across.apart = 1
    whole = inside(&across, g.OW)
    for row in range(begin, end):
        rows = taps_at(&down, row % g.OH)
        ih = row % g.OH * g.stride_h - g.pad_top + rows.begin
        corner = x + ((row // g.OH) * g.H + ih) * line
        for ow in range(whole.begin):
            add_inside(cols + ow * taps, corner, g, &across, ow, rows)
        for ow in range(whole.begin, whole.end):
            target = corner + ow * step - g.pad_left * g.C
            for kh in range(rows.begin, rows.end):
                # forward: cols[kh*run :] = corner[(ow*stride_w - pad_left)*C :], run elements
                add(target, cols + ow * taps + kh * run, run)
                target += line
        for ow in range(whole.end, g.OW):
            add_inside(cols + ow * taps, corner, g, &across, ow, rows)
        cols += g.OW * taps


cdef inline void add_inside(
    const real* cols, real* corner, const Geometry* g, const Axis* across, Py_ssize_t ow,
    Range rows,
) noexcept nogil:
    """The pixels under a window that reaches beyond the left or right edge."""
    cdef Py_ssize_t run = g.KW * g.C, kh
    cdef Range columns = taps_at(across, ow)
    cdef Py_ssize_t begin = columns.begin * g.C, end = columns.end * g.C
    cdef real* target = corner + (ow * g.stride_w - g.pad_left) * g.C + begin
    for kh in range(rows.begin, rows.end):
        add(target, cols + kh * run + begin, end - begin)
        target += g.W * g.C


cdef inline kernel im2col_taps(
    const real* x, real* cols, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """What im2col_rows does with any geometry, tap by tap."""
    cdef Py_ssize_t W = g.W, C = g.C, pitch = g.pitch, row, ow, kh, kw, ih0, iw0, ih, iw
    cdef const real* image
    for row in range(begin, end):
        ih0 = row % g.OH * g.stride_h - g.pad_top
        image = x + row // g.OH * g.H * W * pitch
        for ow in range(g.OW):
            iw0 = ow * g.stride_w - g.pad_left
            for kh in range(g.KH):
                ih = ih0 + kh * g.dilation_h
                for kw in range(g.KW):
                    iw = iw0 + kw * g.dilation_w
                    if ih < 0 or ih >= g.H or iw < 0 or iw >= W:
                        zero(cols, C)
                    else:
                        copy(cols, image + (ih * W + iw) * pitch, C)
                    cols += C


cdef inline kernel col2im_taps(
    const real* cols, real* x, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """What col2im_rows does with any geometry, tap by tap."""
    cdef Py_ssize_t W = g.W, C = g.C, pitch = g.pitch, row, ow, kh, kw, ih0, iw0, ih, iw
    cdef real* image
    for row in range(begin, end):
        ih0 = row % g.OH * g.stride_h - g.pad_top
        image = x + row // g.OH * g.H * W * pitch
        for ow in range(g.OW):
            iw0 = ow * g.stride_w - g.pad_left
            for kh in range(g.KH):
                ih = ih0 + kh * g.dilation_h
                for kw in range(g.KW):
                    iw = iw0 + kw * g.dilation_w
                    # forward: cols[:C] = image[(ih*W + iw)*pitch :]
                    if 0 <= ih < g.H and 0 <= iw < W:
                        add(image + (ih * W + iw) * pitch, cols, C)
                    cols += C
