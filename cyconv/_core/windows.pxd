"""Convolution by vectors of filters, its windows read from the image.

A tile of y stays in registers: a few pixels, and as many filters as the other registers hold. For
each tap the weights of these filters are read as vectors, and the pixel's float is broadcast over
one. No column is made, and no zero of the padding multiplied: pixels whose windows have the same
taps inside the image are computed together, whatever line or image they belong to.
"""

from cyconv._core.axis cimport Axis, Range, axis_across, axis_down, same, taps_at
from cyconv._core.geometry cimport Geometry, has_runs
from cyconv._core.kernel cimport kernel
from cyconv._core.packed cimport is_packed
from cyconv._core.products cimport add_products, are_apart, has_vectors, pack_rows, packed_depth
from cyconv._core.real cimport real
from cyconv._core.tuning cimport (
    FOUR_ROWS,
    MAX_PASS_WEIGHTS,
    MIN_PASS_TAPS,
    NARROW_TILE_PIXELS,
    NARROW_VECTORS,
    PACKED_STRIP,
    PANEL_FLOATS,
    TAPS,
    TILE_ROWS,
    TWO_ROWS,
)
from cyconv._core.vectors cimport (
    ROW_VECTORS,
    VECTOR_LENGTH,
    end_vectors,
    leaky,
    load,
    repeat,
    store,
    vector,
)


cdef struct Strip:
    # y = leaky_relu(im2col(x) · w + bias) for the strip of output rows begin <= (n, oh) < end.
    const real* x
    const real* w        # tap t of filter f is at w + t*w_pitch + f
    const real* bias
    real* y
    const Geometry* g
    Py_ssize_t w_pitch, F, begin, end
    real slope


cdef struct TapBlock:
    # The taps (kh, k) with k = (kw, c), kh_begin <= kh < kh_end and k_begin <= k < k_end.
    Py_ssize_t kh_begin, kh_end, k_begin, k_end


cdef struct Span:
    # Output pixels begin <= o < end of an axis, of which the same taps lie in the image.
    Py_ssize_t begin, end
    Range taps


cdef struct Group:
    # The pixels (down, across), and some of their taps.
    Span down, across
    TapBlock taps
    bint begins, ends   # they are the first, the last ones


cdef inline bint can_read_windows(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether no vector holds several taps, and a kernel line's are neighbours in the image.

    All lines are next to each other, and all channels in one group.
    """
    return has_vectors() and has_runs(g) and not is_packed(g.KH * g.KW * g.C, F)


cdef inline kernel find_span(
    Span* span, Py_ssize_t begin, const Axis* axis, Py_ssize_t outputs,
) noexcept nogil:
    """Find the longest span that begins with the output pixel `begin`."""
    span.begin = span.end = begin
    span.taps = taps_at(axis, begin)
    while span.end < outputs and same(taps_at(axis, span.end), span.taps):
        span.end += 1


cdef inline kernel windows_forward(const Strip* strip) noexcept nogil:
    """y = leaky_relu(im2col(x) · w + bias) for the output rows of a strip."""
    cdef const Geometry* g = strip.g
    cdef Py_ssize_t run = g.KW * g.C, kh = 0, k
    cdef Py_ssize_t lines = max(1, MAX_PASS_WEIGHTS // (run * strip.F))
    cdef Py_ssize_t depth = max(<Py_ssize_t> MIN_PASS_TAPS, MAX_PASS_WEIGHTS // strip.F)
    while kh < g.KH:
        k = 0
        while k < run:
            all_filters(strip, TapBlock(kh, min(kh + lines, g.KH), k, min(k + depth, run)))
            k += depth
        kh += lines
    end_vectors()


cdef inline void all_filters(const Strip* strip, TapBlock taps) noexcept nogil:
    """As many vectors of each pixel at once as fill the registers."""
    cdef Py_ssize_t f = 0, left
    while f + ROW_VECTORS * VECTOR_LENGTH <= strip.F:
        if (strip.end - strip.begin) * strip.g.OW >= PACKED_STRIP and are_apart(strip.w_pitch):
            packed_filters(strip, taps, f)
        else:
            all_spans(strip, taps, f, ROW_VECTORS, VECTOR_LENGTH)
        f += ROW_VECTORS * VECTOR_LENGTH
    while NARROW_VECTORS < ROW_VECTORS and f + NARROW_VECTORS * VECTOR_LENGTH <= strip.F:
        all_spans(strip, taps, f, NARROW_VECTORS, VECTOR_LENGTH)
        f += NARROW_VECTORS * VECTOR_LENGTH
    left = strip.F - f
    if left > VECTOR_LENGTH:
        all_spans(strip, taps, f, 2, left - VECTOR_LENGTH)
    elif left == VECTOR_LENGTH:
        all_spans(strip, taps, f, 1, VECTOR_LENGTH)
    elif left > 0:
        all_spans(strip, taps, f, 1, left)


cdef inline void packed_filters(
    const Strip* strip, TapBlock taps, Py_ssize_t f,
) noexcept nogil:
    """A full row of vectors from the filter f on, their weights first copied next to each other."""
    cdef real[PANEL_FLOATS] rows
    cdef Strip packed = strip[0]
    cdef Py_ssize_t run = strip.g.KW * strip.g.C, kh, k, first
    cdef Py_ssize_t depth = packed_depth()
    packed.w_pitch = ROW_VECTORS * VECTOR_LENGTH
    for kh in range(taps.kh_begin, taps.kh_end):
        k = taps.k_begin
        while k < taps.k_end:
            first = kh * run + k
            pack_rows(strip.w + first * strip.w_pitch + f, strip.w_pitch, rows,
                      min(depth, taps.k_end - k))
            packed.w = rows - first * packed.w_pitch - f
            all_spans(&packed, TapBlock(kh, kh + 1, k, min(k + depth, taps.k_end)), f,
                      ROW_VECTORS, VECTOR_LENGTH)
            k += depth


cdef inline void all_spans(
    const Strip* strip, TapBlock taps, Py_ssize_t f, Py_ssize_t vectors, Py_ssize_t floats,
) noexcept nogil:
    """`vectors` vectors from the filter f on, `floats` floats of the last one."""
    cdef const Geometry* g = strip.g
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Py_ssize_t k_begin, k_end
    cdef Group group
    find_span(&group.down, 0, &down, g.OH)
    while group.down.begin < g.OH:
        find_span(&group.across, 0, &across, g.OW)
        while group.across.begin < g.OW:
            k_begin, k_end = group.across.taps.begin * g.C, group.across.taps.end * g.C
            group.taps = TapBlock(
                max(taps.kh_begin, group.down.taps.begin), min(taps.kh_end, group.down.taps.end),
                max(taps.k_begin, k_begin), min(taps.k_end, k_end))
            if group.down.taps.begin == group.down.taps.end or k_begin == k_end:
                # A window entirely inside the padding needs only the bias.
                group.taps.kh_end = group.taps.kh_begin
                group.begins = group.ends = taps.kh_begin == 0 and taps.k_begin == 0
                if group.begins:
                    all_pixels(strip, &group, f, vectors, floats)
            elif group.taps.kh_begin < group.taps.kh_end and group.taps.k_begin < group.taps.k_end:
                group.begins = (group.taps.kh_begin == group.down.taps.begin
                                and group.taps.k_begin == k_begin)
                group.ends = (group.taps.kh_end == group.down.taps.end
                              and group.taps.k_end == k_end)
                all_pixels(strip, &group, f, vectors, floats)
            find_span(&group.across, group.across.end, &across, g.OW)
        find_span(&group.down, group.down.end, &down, g.OH)


cdef inline void all_pixels(
    const Strip* strip, const Group* group, Py_ssize_t f, Py_ssize_t vectors, Py_ssize_t floats,
) noexcept nogil:
    """As many pixels at once as fill the registers: neighbours, then those that are left over."""
    cdef const Geometry* g = strip.g
    cdef Py_ssize_t full = TILE_ROWS if vectors == ROW_VECTORS else NARROW_TILE_PIXELS
    cdef Py_ssize_t count = 0, i = 0, n, oh, ow
    cdef const real* corner
    cdef const real* place[NARROW_TILE_PIXELS]
    cdef real* target[NARROW_TILE_PIXELS]
    for n in range(strip.begin // g.OH, (strip.end - 1) // g.OH + 1):
        for oh in range(max(group.down.begin, strip.begin - n * g.OH),
                        min(group.down.end, strip.end - n * g.OH)):
            corner = (strip.x + group.taps.k_begin - g.pad_left * g.C
                      + (n * g.H + oh * g.stride_h - g.pad_top + group.taps.kh_begin) * g.W * g.C)
            ow = group.across.begin
            while ow < group.across.end:
                place[count] = corner + ow * g.stride_w * g.C
                target[count] = strip.y + ((n * g.OH + oh) * g.OW + ow) * strip.F + f
                if ow + full <= group.across.end:
                    full_tile(strip, group, &place[count], &target[count], f, True, vectors, floats)
                    ow += full
                    continue
                count += 1
                if count == full:
                    full_tile(strip, group, place, target, f, False, vectors, floats)
                    count = 0
                ow += 1
    if count >= FOUR_ROWS:
        register_tile(strip, group, place, target, f, FOUR_ROWS, False, vectors, floats)
        i = FOUR_ROWS
    if i + TWO_ROWS <= count:
        register_tile(strip, group, &place[i], &target[i], f, TWO_ROWS, False, vectors, floats)
        i += TWO_ROWS
    if i < count:
        register_tile(strip, group, &place[i], &target[i], f, 1, False, vectors, floats)


cdef inline void full_tile(
    const Strip* strip, const Group* group, const real** place, real** target, Py_ssize_t f,
    bint neighbours, Py_ssize_t vectors, Py_ssize_t floats,
) noexcept nogil:
    """As many pixels as there are registers for."""
    if vectors == ROW_VECTORS:
        register_tile(strip, group, place, target, f, TILE_ROWS, neighbours, vectors, floats)
    else:
        register_tile(
            strip, group, place, target, f, NARROW_TILE_PIXELS, neighbours, vectors, floats)


cdef inline void register_tile(
    const Strip* strip, const Group* group, const real** place, real** target, Py_ssize_t f,
    Py_ssize_t pixels, bint neighbours, Py_ssize_t vectors, Py_ssize_t floats,
) noexcept nogil:
    """A tile of y in registers; `pixels` and `vectors` are numbers that the compiler sees.

    So is `neighbours`: the pixels follow each other in a line, so that the first one's `place` and
    `target` tell those of all. The last vector of a pixel has `floats` floats: VECTOR_LENGTH, which
    it sees as well, or fewer.
    """
    # As in products.pxd: an array for each column of vectors, no loop inside a loop over pixels.
    cdef Py_ssize_t line = strip.g.W * strip.g.C, run = strip.g.KW * strip.g.C, _, s, i
    cdef Py_ssize_t step = strip.g.stride_w * strip.g.C
    cdef Py_ssize_t taps = group.taps.k_end - group.taps.k_begin
    cdef Py_ssize_t n0 = floats if vectors == 1 else VECTOR_LENGTH
    cdef Py_ssize_t n1 = floats if vectors == 2 else VECTOR_LENGTH
    cdef vector[NARROW_TILE_PIXELS] t0, t1
    cdef vector[TILE_ROWS] t2, t3
    cdef vector r0, r1, r2, r3
    cdef const real* at[NARROW_TILE_PIXELS]
    cdef real* y[NARROW_TILE_PIXELS]
    cdef const real* w = (
        strip.w + (group.taps.kh_begin * run + group.taps.k_begin) * strip.w_pitch + f)
    cdef const real* weight
    cdef const real* bias = strip.bias + f
    for i in range(pixels):
        at[i] = place[0] + i * step if neighbours else place[i]
        y[i] = target[0] + i * strip.F if neighbours else target[i]
        t0[i] = repeat(0) if group.begins else load(y[i], n0)
        if vectors > 1:
            t1[i] = repeat(0) if group.begins else load(y[i] + VECTOR_LENGTH, n1)
        if vectors > 2:
            t2[i] = (repeat(0) if group.begins
                     else load(y[i] + 2 * VECTOR_LENGTH, VECTOR_LENGTH))
            t3[i] = (repeat(0) if group.begins
                     else load(y[i] + 3 * VECTOR_LENGTH, VECTOR_LENGTH))
    for _ in range(group.taps.kh_end - group.taps.kh_begin):
        weight, s = w, 0
        while s + TAPS <= taps:
            add_products(
                t0, t1, t2, t3, at, s, weight, strip.w_pitch, TAPS, pixels, vectors, n0, n1)
            weight += TAPS * strip.w_pitch
            s += TAPS
        while s < taps:
            add_products(t0, t1, t2, t3, at, s, weight, 0, 1, pixels, vectors, n0, n1)
            weight += strip.w_pitch
            s += 1
        w += run * strip.w_pitch
        for i in range(pixels):
            at[i] += line
    if group.ends:
        r0 = load(bias, n0)
        if vectors > 1:
            r1 = load(bias + VECTOR_LENGTH, n1)
        if vectors > 2:
            r2 = load(bias + 2 * VECTOR_LENGTH, VECTOR_LENGTH)
            r3 = load(bias + 3 * VECTOR_LENGTH, VECTOR_LENGTH)
        for i in range(pixels):
            t0[i] = leaky(t0[i] + r0, strip.slope)
            if vectors > 1:
                t1[i] = leaky(t1[i] + r1, strip.slope)
            if vectors > 2:
                t2[i] = leaky(t2[i] + r2, strip.slope)
                t3[i] = leaky(t3[i] + r3, strip.slope)
    for i in range(pixels):
        store(y[i], t0[i], n0)
        if vectors > 1:
            store(y[i] + VECTOR_LENGTH, t1[i], n1)
        if vectors > 2:
            store(y[i] + 2 * VECTOR_LENGTH, t2[i], VECTOR_LENGTH)
            store(y[i] + 3 * VECTOR_LENGTH, t3[i], VECTOR_LENGTH)
