"""Convolution with few filters: vectors run along the taps, which are neighbours in the image.

A vector of filters would be mostly empty. Here each sum is a dot product of a window's line with
the filter's, VECTOR_LENGTH partial sums which are added up at the end. Some pixels and filters have
accumulating registers at once, so that each vector is used several times.
"""

from cyconv._core.axis cimport Axis, Range, axis_across, axis_down, taps_at
from cyconv._core.geometry cimport Geometry, has_runs
from cyconv._core.kernel cimport kernel
from cyconv._core.packed cimport reads_image
from cyconv._core.pointwise cimport leaky
from cyconv._core.products cimport has_vectors, transpose
from cyconv._core.real cimport real
from cyconv._core.tuning cimport DOT_FILTERS, DOT_LINE, DOT_PIXELS, DOT_SUM, MAX_DOT_FILTERS
from cyconv._core.vectors cimport (
    ROW_VECTORS,
    VECTOR_LENGTH,
    add_lanes,
    end_vectors,
    load,
    repeat,
    vector,
)
from cyconv._core.windows cimport Span, find_span


cdef struct Window:
    # Of some neighbouring pixels: their taps inside the image, rows and (kw, c), and the first
    # one's corner; the filters, each with all its taps next to each other; bias and y of the first.
    const real* corner
    const real* filters
    const real* bias
    real* y
    const Geometry* g
    Range rows, taps
    Py_ssize_t F
    real slope


cdef inline bint has_few_filters(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether dot products take fewer operations than vectors of filters."""
    cdef Py_ssize_t K = g.KH * g.KW * g.C
    cdef Py_ssize_t line = (g.KW * g.C + VECTOR_LENGTH - 1) // VECTOR_LENGTH + DOT_LINE
    return (has_vectors() and F <= MAX_DOT_FILTERS and has_runs(g) and not reads_image(g, F)
            and 4 * (g.KH * line + DOT_SUM) * F <= 3 * K)


cdef inline kernel dots_forward(
    const real* x, const real* weight, const real* bias, real* y, real* memory, const Geometry* g,
    Py_ssize_t F, real slope, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · weight + bias) for the output rows begin <= (n, oh) < end.

    Writes: y of these rows; memory, as large as the weight.   Aliasing: none allowed.
    Parallel over: nothing.                                    Retains: nothing.
    """
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Py_ssize_t K = g.KH * g.KW * g.C, row, f
    cdef Span span
    cdef Window window
    transpose(weight, memory, K, F, K)
    window.g, window.F, window.slope = g, F, slope
    for row in range(begin, end):
        window.rows = taps_at(&down, row % g.OH)
        find_span(&span, 0, &across, g.OW)
        while span.begin < g.OW:
            window.taps = Range(span.taps.begin * g.C, span.taps.end * g.C)
            f = 0
            while f < F:
                window.filters, window.bias = memory + f * K, bias + f
                window.corner = x + (
                    (row // g.OH * g.H + row % g.OH * g.stride_h - g.pad_top) * g.W
                    + span.begin * g.stride_w - g.pad_left) * g.C
                window.y = y + (row * g.OW + span.begin) * F + f
                if f + DOT_FILTERS <= F:
                    all_dots(&window, span.end - span.begin, DOT_FILTERS)
                    f += DOT_FILTERS
                elif f + 2 <= F:
                    all_dots(&window, span.end - span.begin, 2)
                    f += 2
                else:
                    all_dots(&window, span.end - span.begin, 1)
                    f += 1
            find_span(&span, span.end, &across, g.OW)
    end_vectors()


cdef inline void all_dots(Window* window, Py_ssize_t left, Py_ssize_t filters) noexcept nogil:
    """As many pixels at once as there are registers for."""
    cdef Py_ssize_t full = min(
        <Py_ssize_t> DOT_PIXELS, <Py_ssize_t> DOT_FILTERS * ROW_VECTORS // filters), count
    while left > 0:
        count = full
        while count > left:
            count //= 2
        if count == 8:
            dots(window, 8, filters)
        elif count == 4:
            dots(window, 4, filters)
        elif count == 2:
            dots(window, 2, filters)
        else:
            dots(window, 1, filters)
        window.corner += count * window.g.stride_w * window.g.C
        window.y += count * window.F
        left -= count


cdef inline void dots(const Window* window, Py_ssize_t pixels, Py_ssize_t filters) noexcept nogil:
    """Some pixels of some filters; both are numbers that the compiler sees."""
    cdef const Geometry* g = window.g
    cdef Py_ssize_t step = g.stride_w * g.C, run = g.KW * g.C, K = g.KH * run, kh, k, i
    cdef Py_ssize_t count = window.taps.end - window.taps.begin
    cdef const real* a
    cdef const real* b
    cdef vector[DOT_PIXELS] t0, t1, t2, t3
    cdef real[DOT_FILTERS] sums
    for i in range(pixels):
        t0[i] = t1[i] = t2[i] = t3[i] = repeat(0)
    for kh in range(window.rows.begin, window.rows.end):
        a = window.corner + kh * g.W * g.C + window.taps.begin
        b = window.filters + kh * run + window.taps.begin
        k = 0
        while k + VECTOR_LENGTH <= count:
            add_dots(t0, t1, t2, t3, a + k, step, b + k, K, pixels, filters, VECTOR_LENGTH)
            k += VECTOR_LENGTH
        if k < count:
            add_dots(t0, t1, t2, t3, a + k, step, b + k, K, pixels, filters, count - k)
    for i in range(pixels):
        add_lanes(t0[i], t1[i], t2[i], t3[i], sums)
        for k in range(filters):
            window.y[i * window.F + k] = leaky(sums[k] + window.bias[k], window.slope)


cdef inline void add_dots(
    vector* t0, vector* t1, vector* t2, vector* t3, const real* a, Py_ssize_t a_step,
    const real* b, Py_ssize_t b_step, Py_ssize_t pixels, Py_ssize_t filters, Py_ssize_t n,
) noexcept nogil:
    """Add n products to the partial sums of each pixel and filter."""
    cdef vector r0 = load(b, n), r1 = r0, r2 = r0, r3 = r0, value
    cdef Py_ssize_t i
    if filters > 1:
        r1 = load(b + b_step, n)
    if filters > 2:
        r2 = load(b + 2 * b_step, n)
        r3 = load(b + 3 * b_step, n)
    for i in range(pixels):
        value = load(a + i * a_step, n)
        t0[i] = t0[i] + value * r0
        if filters > 1:
            t1[i] = t1[i] + value * r1
        if filters > 2:
            t2[i] = t2[i] + value * r2
            t3[i] = t3[i] + value * r3
