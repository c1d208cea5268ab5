"""The gradient of a convolution's weight, its windows read from the image.

A tile of dw stays in registers while a few lines of output pixels go by: each float of a window is
broadcast over a vector of dy's filters. The taps of a kernel line are neighbours in the image, so
no column is made. Only where the padding is left or right of the image its lines are copied, with
zeros around them; and where there are many filters, some taps of some pixels, for products.pxd.
"""

from cyconv._core.axis cimport Axis, Range, axis_down, taps_at
from cyconv._core.columns cimport copy, zero
from cyconv._core.geometry cimport Geometry, is_identity
from cyconv._core.kernel cimport kernel
from cyconv._core.products cimport Operands, block_rows, pack_block, times_block
from cyconv._core.real cimport real
from cyconv._core.tuning cimport (
    BLOCK_FLOATS,
    BLOCK_STEPS,
    GRADIENT_PIXELS,
    GRADIENT_TAPS,
    PACKED_PITCH,
    PACKED_ROWS,
    TILE_ROWS,
)
from cyconv._core.vectors cimport (
    ROW_VECTORS,
    VECTOR_LENGTH,
    end_vectors,
    load,
    repeat,
    store,
    vector,
)
from cyconv._core.windows cimport can_read_windows


cdef struct Lines:
    # Of some output rows: where the first line of their windows begins, or would, and the lines
    # that are inside the image; the others are zeros.
    const real* first[GRADIENT_PIXELS]
    Range inside[GRADIENT_PIXELS]
    const real* zeros
    Py_ssize_t count, pitch


cdef struct GradientTile:
    # Kernel lines kh and kh + 1, taps (kw, c) from k on, filters from f on.
    Py_ssize_t kh, k, f
    bint accumulate


cdef inline bint gradient_reads_windows(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether `windows_weight` is worth calling; an image that is its own columns is not."""
    return can_read_windows(g, F) and not is_identity(g)


cdef inline Py_ssize_t line_floats(const Geometry* g) noexcept nogil:
    """Return how many floats of a line the windows cover, padding included."""
    return ((g.OW - 1) * g.stride_w + g.KW) * g.C


cdef inline bint leaves_lines(const Geometry* g) noexcept nogil:
    """Tell whether a window reaches beyond the left or the right edge."""
    return g.pad_left > 0 or (g.OW - 1) * g.stride_w + g.KW > g.W


cdef inline Py_ssize_t gradient_rows(const Geometry* g) noexcept nogil:
    """Return how many output rows go by at once."""
    return max(1, GRADIENT_PIXELS // g.OW)


cdef inline Py_ssize_t gradient_scratch(const Geometry* g, Py_ssize_t rows) noexcept nogil:
    """Return how many floats of memory `windows_weight` takes, with so many rows or more."""
    cdef Py_ssize_t images, lines = 1
    rows = min(rows, gradient_rows(g))
    if leaves_lines(g):
        images = (rows - 2) // g.OH + 2 if rows > 1 else 1
        lines += rows * g.stride_h + images * max(0, g.KH - g.stride_h)
    return lines * line_floats(g)


cdef inline kernel windows_weight(
    const real* x, const real* dy, real* dw, real* memory, const Geometry* g, Py_ssize_t begin,
    Py_ssize_t end, Py_ssize_t F, bint accumulate,
) noexcept nogil:
    """dw (+)= im2col(x)ᵀ · dy for the output rows begin <= (n, oh) < end, with which dy begins.

    They are `gradient_rows` at most.
    """
    cdef Lines lines
    find_lines(&lines, x, memory, g, begin, end)
    if blocked_filters(g, F) > 0:
        blocked_gradients(&lines, dy, dw, g, F, accumulate)
    all_gradients(&lines, dy, dw, g, F, accumulate)
    end_vectors()


cdef inline void find_lines(
    Lines* lines, const real* x, real* memory, const Geometry* g, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Find the lines of some output rows, and copy them if their windows reach beyond them."""
    cdef Axis down = axis_down(g)
    cdef Py_ssize_t width = line_floats(g), row, top, origin = 0, copied = 0
    cdef bint copies = leaves_lines(g)
    cdef Range inside
    cdef real* target = memory + width
    zero(memory, width)
    lines.zeros, lines.count = memory, end - begin
    lines.pitch = width if copies else g.W * g.C
    for row in range(begin, end):
        inside = taps_at(&down, row % g.OH)
        top = row % g.OH * g.stride_h - g.pad_top
        lines.inside[row - begin] = inside
        if not copies:
            lines.first[row - begin] = x + (row // g.OH * g.H + top) * g.W * g.C
            continue
        if row == begin or row % g.OH == 0:
            copied = max(<Py_ssize_t> 0, top)
            origin = target - memory - copied * width   # of the image's line 0, were it copied
        if inside.begin < inside.end:
            while copied < top + inside.end:
                copy_line(target, x + (row // g.OH * g.H + copied) * g.W * g.C, g, width)
                target += width
                copied += 1
        lines.first[row - begin] = memory + origin + top * width


cdef inline void copy_line(
    real* target, const real* line, const Geometry* g, Py_ssize_t width,
) noexcept nogil:
    """A line of the image with zeros left and right of it."""
    cdef Py_ssize_t left = min(g.pad_left * g.C, width), size = min(g.W * g.C, width - left)
    zero(target, left)
    copy(target + left, line, size)
    zero(target + left + size, width - left - size)


cdef inline Py_ssize_t blocked_filters(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Return how many of the filters are worth a copy of the windows."""
    if F < PACKED_PITCH or g.KW * g.C < PACKED_ROWS or g.OW > BLOCK_STEPS:
        return 0
    return F - F % (ROW_VECTORS * VECTOR_LENGTH)


cdef inline void blocked_gradients(
    const Lines* lines, const real* dy, real* dw, const Geometry* g, Py_ssize_t F,
    bint accumulate,
) noexcept nogil:
    """The first `blocked_filters`: some taps of a kernel line at a time, first copied."""
    cdef real[BLOCK_FLOATS] block
    cdef Py_ssize_t run = g.KW * g.C, steps = lines.count * g.OW, height = block_rows(steps)
    cdef Py_ssize_t kh, k, r
    cdef Operands m
    m.b, m.b_step, m.c_row, m.steps, m.accumulate = dy, F, F, steps, accumulate
    m.columns = blocked_filters(g, F)
    for kh in range(g.KH):
        k = 0
        while k < run:
            m.rows, m.c = min(height, run - k), dw + (kh * run + k) * F
            for r in range(lines.count):
                pack_block(
                    line_at(lines, r, kh) + k, g.stride_w * g.C, block + r * g.OW * TILE_ROWS,
                    m.rows, g.OW, steps)
            times_block(block, m)
            k += height


cdef inline void all_gradients(
    const Lines* lines, const real* dy, real* dw, const Geometry* g, Py_ssize_t F,
    bint accumulate,
) noexcept nogil:
    """The other filters, two vectors at a time; and if there is one only, two kernel lines."""
    cdef Py_ssize_t left
    cdef GradientTile tile
    tile.f, tile.accumulate = blocked_filters(g, F), accumulate
    while tile.f < F:
        left = F - tile.f
        tile.kh = 0
        while tile.kh < g.KH:
            if left > VECTOR_LENGTH:
                all_taps(lines, dy, dw, g, F, &tile, 1, 2, min(left - VECTOR_LENGTH, VECTOR_LENGTH))
                tile.kh += 1
            elif tile.kh + 1 < g.KH:
                all_taps(lines, dy, dw, g, F, &tile, 2, 1, left)
                tile.kh += 2
            else:
                all_taps(lines, dy, dw, g, F, &tile, 1, 1, left)
                tile.kh += 1
        tile.f += 2 * VECTOR_LENGTH if left > VECTOR_LENGTH else VECTOR_LENGTH


cdef inline void all_taps(
    const Lines* lines, const real* dy, real* dw, const Geometry* g, Py_ssize_t F,
    GradientTile* tile, Py_ssize_t height, Py_ssize_t vectors, Py_ssize_t floats,
) noexcept nogil:
    """The taps of `height` kernel lines, in tiles that are as equal as can be."""
    # Called with a number, a tile is compiled for that number of taps.
    cdef Py_ssize_t run = g.KW * g.C, tiles, taps
    tile.k = 0
    while tile.k < run:
        tiles = (run - tile.k + GRADIENT_TAPS - 1) // GRADIENT_TAPS
        taps = (run - tile.k + tiles - 1) // tiles
        if taps == 6:
            gradient_tile(lines, dy, dw, g, F, tile, 6, height, vectors, floats)
        elif taps == 5:
            gradient_tile(lines, dy, dw, g, F, tile, 5, height, vectors, floats)
        elif taps == 4:
            gradient_tile(lines, dy, dw, g, F, tile, 4, height, vectors, floats)
        elif taps == 3:
            gradient_tile(lines, dy, dw, g, F, tile, 3, height, vectors, floats)
        elif taps == 2:
            gradient_tile(lines, dy, dw, g, F, tile, 2, height, vectors, floats)
        else:
            gradient_tile(lines, dy, dw, g, F, tile, 1, height, vectors, floats)
        tile.k += taps


cdef inline void gradient_tile(
    const Lines* lines, const real* dy, real* dw, const Geometry* g, Py_ssize_t F,
    const GradientTile* tile, Py_ssize_t taps, Py_ssize_t height, Py_ssize_t vectors,
    Py_ssize_t floats,
) noexcept nogil:
    """A tile of dw in registers: `height` kernel lines of `taps` taps, `vectors` of filters.

    One of height and vectors is 1; these and taps are numbers that the compiler sees. The last
    vector has `floats` floats.
    """
    # As in products.pxd: an array for each column of vectors, no loop inside a loop over taps.
    cdef Py_ssize_t r, i, _, step = g.stride_w * g.C, OW = g.OW, run = g.KW * g.C
    cdef Py_ssize_t n0 = floats if vectors == 1 else VECTOR_LENGTH
    cdef Py_ssize_t other = VECTOR_LENGTH if vectors == 2 else run * F   # the second half of dw
    cdef real* out = dw + (tile.kh * run + tile.k) * F + tile.f
    cdef const real* pixel = dy + tile.f
    cdef const real* a
    cdef const real* b
    cdef vector[GRADIENT_TAPS] t0, t1
    # Masked loads and stores are too long for gcc to unroll early: they have arrays of their own.
    cdef vector[GRADIENT_TAPS] kept0, kept1
    cdef vector r0, r1, element
    for i in range(taps):
        kept0[i] = load(out + i * F, n0) if tile.accumulate else repeat(0)
        if vectors == 2 or height == 2:
            kept1[i] = load(out + other + i * F, floats) if tile.accumulate else repeat(0)
    for i in range(taps):
        t0[i] = kept0[i]
        if vectors == 2 or height == 2:
            t1[i] = kept1[i]
    for r in range(lines.count):
        a = line_at(lines, r, tile.kh) + tile.k
        if height == 2:
            b = line_at(lines, r, tile.kh + 1) + tile.k
        elif a == lines.zeros + tile.k:
            pixel += OW * F
            continue
        for _ in range(OW):
            r0 = load(pixel, n0)
            if vectors == 2:
                r1 = load(pixel + VECTOR_LENGTH, floats)
            for i in range(taps):
                element = repeat(a[i])
                t0[i] = t0[i] + element * r0
                if vectors == 2:
                    t1[i] = t1[i] + element * r1
            if height == 2:
                for i in range(taps):
                    element = repeat(b[i])
                    t1[i] = t1[i] + element * r0
                b += step
            a += step
            pixel += F
    for i in range(taps):
        kept0[i] = t0[i]
        if vectors == 2 or height == 2:
            kept1[i] = t1[i]
    for i in range(taps):
        store(out + i * F, kept0[i], n0)
        if vectors == 2 or height == 2:
            store(out + other + i * F, kept1[i], floats)


cdef inline const real* line_at(const Lines* lines, Py_ssize_t r, Py_ssize_t kh) noexcept nogil:
    """Return where the windows' line kh begins of an output row: zeros outside the image."""
    if lines.inside[r].begin <= kh < lines.inside[r].end:
        return lines.first[r] + kh * lines.pitch
    return lines.zeros
