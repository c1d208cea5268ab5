"""Convolution with filters that fill vectors, its windows read from the image.

A tile of y stays in registers: a few pixels, and as many filters as the other registers hold. For
each tap the weights of these filters are read as vectors, and the pixel's float is repeated over
one. No column is made, and no zero of the padding multiplied: pixels whose windows have the same
taps inside the image are computed together, whatever line or image they belong to.
"""

from cyconv._core.columns cimport Window, clamp
from cyconv._core.kernel cimport kernel
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
    DEPTH = 128            # taps at once, however many filters there are


cdef struct Span:
    # Output pixels begin <= o < end of an axis, of whose taps first <= k < last lie in the image.
    Py_ssize_t begin, end, first, last


cdef struct Piece:
    # Of the windows of the pixels (down, across), the lines kh <= . < kh + lines of the kernel, and
    # of each line the taps (kw, c), tap <= . < tap + depth.
    Span down, across
    Py_ssize_t kh, lines, tap, depth
    bint begins, ends   # these are the first, the last taps of the pixels


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
    const float* x, const float* w, const float* bias, float* y, const Window* g, Py_ssize_t F,
    float slope, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · w + bias) for the output rows first <= (n, oh) < last."""
    # Some kernel lines at a time, or a part of one.
    cdef Py_ssize_t run = g.KW * g.C, lines = max(1, WEIGHTS // (run * F)), kh = 0, tap
    cdef Py_ssize_t depth = min(run, max(<Py_ssize_t> DEPTH, WEIGHTS // F))
    while kh < g.KH:
        tap = 0
        while tap < run:
            all_filters(x, w, bias, y, g, F, slope, first, last, kh, min(kh + lines, g.KH), tap,
                        min(tap + depth, run))
            tap += depth
        kh += lines


cdef inline void all_filters(
    const float* x, const float* w, const float* bias, float* y, const Window* g, Py_ssize_t F,
    float slope, Py_ssize_t first, Py_ssize_t last, Py_ssize_t top, Py_ssize_t bottom,
    Py_ssize_t left, Py_ssize_t right,
) noexcept nogil:
    """As many vectors of each pixel at once as fill the registers."""
    cdef Py_ssize_t f = 0
    while f + WIDTH * LANES <= F:
        all_spans(x, w + f, bias + f, y + f, g, F, slope, first, last, top, bottom, left, right,
                  WIDTH, LANES)
        f += WIDTH * LANES
    while f + 2 * LANES <= F:
        all_spans(x, w + f, bias + f, y + f, g, F, slope, first, last, top, bottom, left, right,
                  2, LANES)
        f += 2 * LANES
    while f < F:
        all_spans(x, w + f, bias + f, y + f, g, F, slope, first, last, top, bottom, left, right,
                  1, min(LANES, F - f))
        f += LANES


cdef inline void all_spans(
    const float* x, const float* w, const float* bias, float* y, const Window* g, Py_ssize_t F,
    float slope, Py_ssize_t first, Py_ssize_t last, Py_ssize_t top, Py_ssize_t bottom,
    Py_ssize_t left, Py_ssize_t right, Py_ssize_t width, Py_ssize_t part,
) noexcept nogil:
    """What the taps (kh, (kw, c)), top <= kh < bottom and left <= (kw, c) < right, add."""
    cdef Piece piece
    cdef Py_ssize_t begin, end
    cdef bint taps
    piece.down = span_from(0, g.OH, g.H, g.KH, g.stride_h, g.pad_top)
    while piece.down.begin < g.OH:
        piece.kh = max(top, piece.down.first)
        piece.across = span_from(0, g.OW, g.W, g.KW, g.stride_w, g.pad_left)
        while piece.across.begin < g.OW:
            begin, end = piece.across.first * g.C, piece.across.last * g.C
            piece.lines = min(bottom, piece.down.last) - piece.kh
            piece.tap = max(left, begin)
            piece.depth = min(right, end) - piece.tap
            taps = piece.down.first < piece.down.last and begin < end
            piece.begins = piece.kh == piece.down.first and piece.tap == begin
            piece.ends = (piece.kh + piece.lines == piece.down.last
                          and piece.tap + piece.depth == end)
            if taps and piece.lines > 0 and piece.depth > 0:
                all_pixels(x, w, bias, y, g, F, slope, first, last, &piece, width, part)
            elif not taps and top == 0 and left == 0:   # a window of padding only
                piece.lines = 0
                piece.begins = piece.ends = True
                all_pixels(x, w, bias, y, g, F, slope, first, last, &piece, width, part)
            piece.across = span_from(
                piece.across.end, g.OW, g.W, g.KW, g.stride_w, g.pad_left)
        piece.down = span_from(piece.down.end, g.OH, g.H, g.KH, g.stride_h, g.pad_top)


cdef inline void all_pixels(
    const float* x, const float* w, const float* bias, float* y, const Window* g, Py_ssize_t F,
    float slope, Py_ssize_t first, Py_ssize_t last, const Piece* piece, Py_ssize_t width,
    Py_ssize_t part,
) noexcept nogil:
    """`width` vectors of each pixel, six pixels at once, or eight."""
    cdef Py_ssize_t line = g.W * g.C, count = 0, i = 0, n, oh, ow
    cdef const float* corner
    cdef const float* place[8]
    cdef float* target[8]
    w += (piece.kh * g.KW * g.C + piece.tap) * F
    for n in range(first // g.OH, (last - 1) // g.OH + 1):
        for oh in range(max(piece.down.begin, first - n * g.OH),
                        min(piece.down.end, last - n * g.OH)):
            corner = (x + (n * g.H + oh * g.stride_h - g.pad_top + piece.kh) * line
                      + piece.tap - g.pad_left * g.C)
            for ow in range(piece.across.begin, piece.across.end):
                place[count] = corner + ow * g.stride_w * g.C
                target[count] = y + ((n * g.OH + oh) * g.OW + ow) * F
                count += 1
                if width == WIDTH:
                    if count == 6:
                        tile(place, w, bias, target, g, F, slope, piece, 6, width, part)
                        count = 0
                elif count == 8:
                    tile(place, w, bias, target, g, F, slope, piece, 8, width, part)
                    count = 0
    if count >= 4:
        tile(place, w, bias, target, g, F, slope, piece, 4, width, part)
        i = 4
    if i + 2 <= count:
        tile(&place[i], w, bias, &target[i], g, F, slope, piece, 2, width, part)
        i += 2
    if i < count:
        tile(&place[i], w, bias, &target[i], g, F, slope, piece, 1, width, part)


cdef inline void tile(
    const float** place, const float* w, const float* bias, float** target, const Window* g,
    Py_ssize_t F, float slope, const Piece* piece, Py_ssize_t pixels, Py_ssize_t width,
    Py_ssize_t part,
) noexcept nogil:
    """A tile of y in registers; `pixels` and `width` are numbers that the compiler sees.

    Of the last vector of a pixel, `part` floats are there: LANES unless `width` is 1.
    """
    # As in products.pxd: an array for each column of vectors, no loop inside a loop over pixels.
    cdef Py_ssize_t line = g.W * g.C, next_line = g.KW * g.C * F, _, s, i
    cdef vector[8] t0, t1
    cdef vector[6] t2, t3
    cdef vector r0, r1, r2, r3, left
    cdef const float* at[8]
    cdef const float* weight
    for i in range(pixels):
        at[i] = place[i]
        if piece.begins:
            t0[i] = zeros()
        else:
            t0[i] = load_part(target[i], part) if width == 1 else load(target[i])
        if width > 1:
            t1[i] = zeros() if piece.begins else load(target[i] + LANES)
        if width > 2:
            t2[i] = zeros() if piece.begins else load(target[i] + 2 * LANES)
            t3[i] = zeros() if piece.begins else load(target[i] + 3 * LANES)
    for _ in range(piece.lines):
        weight = w
        for s in range(piece.depth):
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
            weight += F
        w += next_line
        for i in range(pixels):
            at[i] += line
    if piece.ends:
        r0 = load_part(bias, part) if width == 1 else load(bias)
        if width > 1:
            r1 = load(bias + LANES)
        if width > 2:
            r2 = load(bias + 2 * LANES)
            r3 = load(bias + 3 * LANES)
        for i in range(pixels):
            t0[i] = leaky(t0[i] + r0, slope)
            if width > 1:
                t1[i] = leaky(t1[i] + r1, slope)
            if width > 2:
                t2[i] = leaky(t2[i] + r2, slope)
                t3[i] = leaky(t3[i] + r3, slope)
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
