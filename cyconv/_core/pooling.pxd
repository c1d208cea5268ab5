"""Pooling: the maximum or the mean of a window, with vectors along the channels.

Taps outside the image are left out: they count as minus infinity for the maximum, and not at all
for the mean. The geometry lets each window hold a pixel (cyconv.geometry.pooling_window).
"""

from libc.math cimport INFINITY

from cyconv._core.axis cimport Axis, Range, axis_across, axis_down, taps_at
from cyconv._core.columns cimport zero
from cyconv._core.geometry cimport Geometry
from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport real
from cyconv._core.vectors cimport (
    VECTOR_LENGTH,
    drop_largest,
    keep_largest,
    larger,
    load,
    repeat,
    store,
    vector,
)

cdef enum Kind:
    MAX_FORWARD
    MAX_BACKWARD
    AVG_FORWARD
    AVG_BACKWARD


cdef struct Pool:
    # The arrays of a pass; the others are NULL.
    const real* x
    const real* dy
    const real* y
    real* out   # y of a forward pass, dx of a backward one
    const Geometry* g
    bint adds   # dx is added to


cdef inline bint covers(const Geometry* g) noexcept nogil:
    """Tell whether each pixel of the image lies in one window."""
    return (g.stride_h == g.KH and g.stride_w == g.KW and g.pad_top == 0 and g.pad_left == 0
            and g.OH * g.KH == g.H and g.OW * g.KW == g.W)


cdef inline bint stays_inside(const Geometry* g) noexcept nogil:
    """Tell whether no window reaches beyond the image."""
    return (g.pad_top == 0 and (g.OH - 1) * g.stride_h + g.KH <= g.H
            and g.pad_left == 0 and (g.OW - 1) * g.stride_w + g.KW <= g.W)


cdef inline kernel max_pool_rows(
    const real* x, real* y, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """y[n, oh, ow, c] = the maximum of a window for the output rows begin <= (n, oh) < end.

    Writes: y of these rows.   Aliasing: x and y must not overlap.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Pool p = Pool(x, NULL, NULL, y, g, False)
    all_rows(&p, begin, end, MAX_FORWARD)


cdef inline void max_pool_forward(
    const real* x, real* y, const Geometry* g, Py_ssize_t n,
) noexcept nogil:
    """What max_pool_rows does, for n images."""
    max_pool_rows(x, y, g, 0, n * g.OH)


cdef inline kernel max_pool_backward(
    const real* x, const real* y, const real* dy, real* dx, const Geometry* g, Py_ssize_t n,
) noexcept nogil:
    """dx[n, ih, iw, c] = the sum of dy of the windows whose first maximum y it is, of n images.

    Writes: every element of dx.   Aliasing: dx must not overlap an input.
    Parallel over: nothing.        Retains: nothing.
    """
    cdef Pool p = Pool(x, dy, y, dx, g, not covers(g))
    if p.adds:
        zero(dx, n * g.H * g.W * g.C)
    all_rows(&p, 0, n * g.OH, MAX_BACKWARD)


cdef inline kernel avg_pool_rows(
    const real* x, real* y, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """y[n, oh, ow, c] = the mean of a window for the output rows begin <= (n, oh) < end.

    Writes: y of these rows.   Aliasing: x and y must not overlap.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Pool p = Pool(x, NULL, NULL, y, g, False)
    all_rows(&p, begin, end, AVG_FORWARD)


cdef inline void avg_pool_forward(
    const real* x, real* y, const Geometry* g, Py_ssize_t n,
) noexcept nogil:
    """What avg_pool_rows does, for n images."""
    avg_pool_rows(x, y, g, 0, n * g.OH)


cdef inline kernel avg_pool_backward(
    const real* dy, real* dx, const Geometry* g, Py_ssize_t n,
) noexcept nogil:
    """dx[n, ih, iw, c] = the sum of dy / count of the windows that it lies in, of n images.

    Writes: every element of dx.   Aliasing: dx and dy must not overlap.
    Parallel over: nothing.        Retains: nothing.
    """
    cdef Pool p = Pool(NULL, dy, NULL, dx, g, not covers(g))
    if p.adds:
        zero(dx, n * g.H * g.W * g.C)
    all_rows(&p, 0, n * g.OH, AVG_BACKWARD)


cdef inline void all_rows(
    const Pool* p, Py_ssize_t begin, Py_ssize_t end, Kind which,
) noexcept nogil:
    """All windows of some output rows; `which` is a number that the compiler sees."""
    cdef const Geometry* g = p.g
    cdef Py_ssize_t row, ow, ih, line
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Range rows, columns
    cdef bint two = g.KH == 2 and g.KW == 2 and stays_inside(g)
    for row in range(begin, end):
        rows = taps_at(&down, row % g.OH)
        ih = row % g.OH * g.stride_h - g.pad_top + rows.begin
        line = (row // g.OH * g.H + ih) * g.W
        if two:
            for ow in range(g.OW):
                window(p, (line + ow * g.stride_w) * g.C, (row * g.OW + ow) * g.C, 2, 2, which)
        else:
            for ow in range(g.OW):
                columns = taps_at(&across, ow)
                window(p, (line + ow * g.stride_w - g.pad_left + columns.begin) * g.C,
                       (row * g.OW + ow) * g.C, rows.end - rows.begin,
                       columns.end - columns.begin, which)


cdef inline void window(
    const Pool* p, Py_ssize_t at, Py_ssize_t o, Py_ssize_t height, Py_ssize_t width, Kind which,
) noexcept nogil:
    """All channels of a window: its first tap is element `at` of x, its output element `o` of y."""
    cdef Py_ssize_t c = 0
    while c + VECTOR_LENGTH <= p.g.C:
        channels(p, at + c, o + c, height, width, which, VECTOR_LENGTH)
        c += VECTOR_LENGTH
    if c < p.g.C:
        channels(p, at + c, o + c, height, width, which, p.g.C - c)


cdef inline void channels(
    const Pool* p, Py_ssize_t at, Py_ssize_t o, Py_ssize_t height, Py_ssize_t width, Kind which,
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t C = p.g.C, line = p.g.W * C, kh, kw
    cdef vector total, share
    if which == MAX_FORWARD:
        total = repeat(<real> -INFINITY)
        for kh in range(height):
            for kw in range(width):
                total = larger(total, load(p.x + at + kh * line + kw * C, n))
        store(p.out + o, total, n)
    elif which == AVG_FORWARD:
        total = repeat(0)
        for kh in range(height):
            for kw in range(width):
                total = total + load(p.x + at + kh * line + kw * C, n)
        store(p.out + o, total / repeat(<real> (height * width)), n)
    else:
        # forward: out[o] = x of the first maximum, or the sum of x[at + ...] / (height * width)
        total = share = load(p.dy + o, n)
        if which == AVG_BACKWARD:
            share = share / repeat(<real> (height * width))
        else:
            total = load(p.y + o, n)   # the largest
        for kh in range(height):
            for kw in range(width):
                put(p, at + kh * line + kw * C, total, &share, which, n)


cdef inline void put(
    const Pool* p, Py_ssize_t at, vector largest, vector* share, Kind which, Py_ssize_t n,
) noexcept nogil:
    """Give a pixel its share; that of a maximum is used up with the first one."""
    cdef vector value = share[0]
    if which == MAX_BACKWARD:
        value = keep_largest(load(p.x + at, n), largest, share[0])
        share[0] = drop_largest(load(p.x + at, n), largest, share[0])
    if p.adds:
        value = load(p.out + at, n) + value
    store(p.out + at, value, n)
