"""Convolution with filters that fill vectors, its windows read from the image.

A tile of y stays in registers: a few pixels, and as many filters as the other registers hold. For
each tap the weights of these filters are read as vectors, and the pixel's float is repeated over
one. No column is made, and no zero of the padding multiplied: pixels whose windows have the same
taps inside the image are computed together, whatever line or image they belong to.
"""

from cyconv._core.columns cimport Window, clamp
from cyconv._core.kernel cimport kernel
from cyconv._core.products cimport fills_vectors
from cyconv._core.real cimport real
from cyconv._core.vectors cimport (
    LANES,
    WIDTH,
    leaky,
    load,
    load_part,
    repeat,
    store,
    store_part,
    vector,
    zeros,
)

cdef enum:
    WEIGHTS = 128 * 1024   # at once, which stay in the second-level cache, half a megabyte
    LEAST_TAPS = 128       # of a kernel line at once, however many filters there are


cdef struct Task:
    # y = leaky_relu(im2col(x) · w + bias) for the output rows first <= (n, oh) < last.
    const real* x
    const real* w
    const real* bias
    real* y
    const Window* g
    Py_ssize_t F, first, last
    real slope


cdef struct Taps:
    # The taps (kh, (kw, c)), top <= kh < bottom and left <= (kw, c) < right.
    Py_ssize_t top, bottom, left, right


cdef struct Span:
    # Output pixels begin <= o < end of an axis, of whose taps first <= k < last lie in the image.
    Py_ssize_t begin, end, first, last


cdef struct Group:
    # The pixels (down, across), and some of their taps.
    Span down, across
    Taps taps
    bint begins, ends   # they are the first, the last ones


cdef inline bint can_read_windows(const Window* g, Py_ssize_t F) noexcept nogil:
    """Tell whether the filters fill vectors, and a kernel line's taps are neighbours in the image.

    All lines are next to each other, and all channels in one group.
    """
    return (fills_vectors(F) and g.pitch == g.C and g.dilation_h == 1 and g.dilation_w == 1)


cdef inline Span span_from(
    Py_ssize_t begin, Py_ssize_t outputs, Py_ssize_t size, Py_ssize_t taps, Py_ssize_t stride,
    Py_ssize_t pad,
) noexcept nogil:
    """Return the longest span that begins with the output pixel `begin`."""
    cdef Py_ssize_t start = begin * stride - pad
    cdef Span span
    span.begin = span.end = begin
    span.first = clamp(-start, 0, taps)
    span.last = clamp(size - start, span.first, taps)
    while (span.end < outputs and clamp(-start, 0, taps) == span.first
            and clamp(size - start, span.first, taps) == span.last):
        span.end += 1
        start += stride
    return span


cdef inline kernel windows_forward(
    const real* x, const real* w, const real* bias, real* y, const Window* g, Py_ssize_t F,
    real slope, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · w + bias) for the output rows first <= (n, oh) < last."""
    cdef Task task = Task(x, w, bias, y, g, F, first, last, slope)
    cdef Py_ssize_t run = g.KW * g.C, lines = max(1, WEIGHTS // (run * F)), top = 0, left
    cdef Py_ssize_t depth = max(<Py_ssize_t> LEAST_TAPS, WEIGHTS // F)
    while top < g.KH:
        left = 0
        while left < run:
            all_filters(
                &task, Taps(top, min(top + lines, g.KH), left, min(left + depth, run)))
            left += depth
        top += lines


cdef inline void all_filters(const Task* task, Taps taps) noexcept nogil:
    """As many vectors of each pixel at once as fill the registers."""
    cdef Py_ssize_t f = 0
    while f + WIDTH * LANES <= task.F:
        all_spans(task, taps, f, WIDTH, LANES)
        f += WIDTH * LANES
    while f + 2 * LANES <= task.F:
        all_spans(task, taps, f, 2, LANES)
        f += 2 * LANES
    while f < task.F:
        all_spans(task, taps, f, 1, min(LANES, task.F - f))
        f += LANES


cdef inline void all_spans(
    const Task* task, Taps taps, Py_ssize_t f, Py_ssize_t width, Py_ssize_t part,
) noexcept nogil:
    """`width` vectors from the filter f on, `part` floats of the last one."""
    cdef const Window* g = task.g
    cdef Py_ssize_t begin, end
    cdef Group group
    group.down = span_from(0, g.OH, g.H, g.KH, g.stride_h, g.pad_top)
    while group.down.begin < g.OH:
        group.across = span_from(0, g.OW, g.W, g.KW, g.stride_w, g.pad_left)
        while group.across.begin < g.OW:
            begin, end = group.across.first * g.C, group.across.last * g.C
            group.taps = Taps(
                max(taps.top, group.down.first), min(taps.bottom, group.down.last),
                max(taps.left, begin), min(taps.right, end))
            if group.down.first == group.down.last or begin == end:
                # Windows of padding only are done with at once.
                group.taps.bottom = group.taps.top
                group.begins = group.ends = taps.top == 0 and taps.left == 0
                if group.begins:
                    all_pixels(task, &group, f, width, part)
            elif group.taps.top < group.taps.bottom and group.taps.left < group.taps.right:
                group.begins = (
                    group.taps.top == group.down.first and group.taps.left == begin)
                group.ends = group.taps.bottom == group.down.last and group.taps.right == end
                all_pixels(task, &group, f, width, part)
            group.across = span_from(
                group.across.end, g.OW, g.W, g.KW, g.stride_w, g.pad_left)
        group.down = span_from(group.down.end, g.OH, g.H, g.KH, g.stride_h, g.pad_top)


cdef inline void all_pixels(
    const Task* task, const Group* group, Py_ssize_t f, Py_ssize_t width, Py_ssize_t part,
) noexcept nogil:
    """Six pixels at once, or eight."""
    cdef const Window* g = task.g
    cdef Py_ssize_t count = 0, i = 0, n, oh, ow
    cdef const real* corner
    cdef const real* place[8]
    cdef real* target[8]
    for n in range(task.first // g.OH, (task.last - 1) // g.OH + 1):
        for oh in range(max(group.down.begin, task.first - n * g.OH),
                        min(group.down.end, task.last - n * g.OH)):
            corner = (task.x + group.taps.left - g.pad_left * g.C
                      + (n * g.H + oh * g.stride_h - g.pad_top + group.taps.top) * g.W * g.C)
            for ow in range(group.across.begin, group.across.end):
                place[count] = corner + ow * g.stride_w * g.C
                target[count] = task.y + ((n * g.OH + oh) * g.OW + ow) * task.F + f
                count += 1
                if width == WIDTH:
                    if count == 6:
                        tile(task, group, place, target, f, 6, width, part)
                        count = 0
                elif count == 8:
                    tile(task, group, place, target, f, 8, width, part)
                    count = 0
    if count >= 4:
        tile(task, group, place, target, f, 4, width, part)
        i = 4
    if i + 2 <= count:
        tile(task, group, &place[i], &target[i], f, 2, width, part)
        i += 2
    if i < count:
        tile(task, group, &place[i], &target[i], f, 1, width, part)


cdef inline void tile(
    const Task* task, const Group* group, const real** place, real** target, Py_ssize_t f,
    Py_ssize_t pixels, Py_ssize_t width, Py_ssize_t part,
) noexcept nogil:
    """A tile of y in registers; `pixels` and `width` are numbers that the compiler sees.

    Of the last vector of a pixel, `part` floats are there: LANES unless `width` is 1.
    """
    # As in products.pxd: an array for each column of vectors, no loop inside a loop over pixels.
    cdef Py_ssize_t line = task.g.W * task.g.C, run = task.g.KW * task.g.C, _, s, i
    cdef vector[8] t0, t1
    cdef vector[6] t2, t3
    cdef vector r0, r1, r2, r3, left
    cdef const real* at[8]
    cdef const real* w = task.w + (group.taps.top * run + group.taps.left) * task.F + f
    cdef const real* weight
    cdef const real* bias = task.bias + f
    for i in range(pixels):
        at[i] = place[i]
        if group.begins:
            t0[i] = zeros()
        else:
            t0[i] = load_part(target[i], part) if width == 1 else load(target[i])
        if width > 1:
            t1[i] = zeros() if group.begins else load(target[i] + LANES)
        if width > 2:
            t2[i] = zeros() if group.begins else load(target[i] + 2 * LANES)
            t3[i] = zeros() if group.begins else load(target[i] + 3 * LANES)
    for _ in range(group.taps.bottom - group.taps.top):
        weight = w
        for s in range(group.taps.right - group.taps.left):
            r0 = load_part(weight, part) if width == 1 else load(weight)
            if width > 1:
                r1 = load(weight + LANES)
            if width > 2:
                r2 = load(weight + 2 * LANES)
                r3 = load(weight + 3 * LANES)
            for i in range(pixels):
                left = repeat(at[i] + s, 1)
                t0[i] = t0[i] + left * r0
                if width > 1:
                    t1[i] = t1[i] + left * r1
                if width > 2:
                    t2[i] = t2[i] + left * r2
                    t3[i] = t3[i] + left * r3
            weight += task.F
        w += run * task.F
        for i in range(pixels):
            at[i] += line
    if group.ends:
        r0 = load_part(bias, part) if width == 1 else load(bias)
        if width > 1:
            r1 = load(bias + LANES)
        if width > 2:
            r2 = load(bias + 2 * LANES)
            r3 = load(bias + 3 * LANES)
        for i in range(pixels):
            t0[i] = leaky(t0[i] + r0, task.slope)
            if width > 1:
                t1[i] = leaky(t1[i] + r1, task.slope)
            if width > 2:
                t2[i] = leaky(t2[i] + r2, task.slope)
                t3[i] = leaky(t3[i] + r3, task.slope)
    for i in range(pixels):
        if width == 1:
            store_part(target[i], t0[i], part)
        else:
            store(target[i], t0[i])
        if width > 1:
            store(target[i] + LANES, t1[i])
        if width > 2:
            store(target[i] + 2 * LANES, t2[i])
            store(target[i] + 3 * LANES, t3[i])
