"""Convolution with 3x3 kernels by Winograd's F(2x2, 3x3): 16 multiplications in place of 36.

Four pixels of y make a tile, which 4x4 pixels d of the image give (Lavin & Gray 2016, "Fast
algorithms for convolutional neural networks", section 4.1; g is a filter at one channel):

    y = Aᵀ [sum over channels of (G g Gᵀ) * (Bᵀ d B)] A

         1  0 -1  0          1    0    0           1  1  1  0
    Bᵀ = 0  1  1  0    G =  1/2  1/2  1/2     Aᵀ = 0  1 -1 -1
         0 -1  1  0         1/2 -1/2  1/2
         0  1  0 -1          0    0    1

Each of the 16 elements of a tile is a product of its own, V · U: tiles by channels, channels by
filters. The transforms add, subtract and halve only, so that whole numbers stay exact. A pixel of y
is computed from the pixels under its own window, in an order that depends on its place in the
image alone.
"""

from cyconv._core.columns cimport copy, zero
from cyconv._core.geometry cimport Geometry, has_runs
from cyconv._core.kernel cimport kernel
from cyconv._core.products cimport Operands, has_vectors, multiply
from cyconv._core.real cimport real
from cyconv._core.tuning cimport (
    TILE_ROWS,
    WINOGRAD_CHANNELS,
    WINOGRAD_FLOATS,
    WINOGRAD_LEAST_TILES,
    WINOGRAD_PRODUCT,
    WINOGRAD_SIDE,
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

cdef enum:
    ELEMENTS = 16   # of a tile
    LINE = 16       # floats that keep the matrices of V out of the same sets of the cache


cdef struct Winograd:
    # y = leaky_relu(im2col(x) · weight + bias), u being what `transform_weights` makes of the
    # weight. A bias of zeros may be NULL.
    const real* x
    const real* u
    const real* bias
    real* y
    real* scratch
    const Geometry* g
    Py_ssize_t F
    real slope


cdef struct Place:
    # The tile of y with the pixels (2*th, 2*tw) to (2*th + 1, 2*tw + 1) of image n.
    Py_ssize_t n, th, tw


cdef struct Block:
    # Tiles that go through all transforms together.
    Place first
    Py_ssize_t count
    Py_ssize_t begin, end   # rows (n, oh) of y that are wanted
    Py_ssize_t pitch        # floats from one matrix of V to the next
    real* v                 # v[element][tile][c]
    real* m                 # m[tile][element][f], of one panel of filters
    real* patch             # the pixels of a tile at a border of the image, zeros beyond it


cdef inline bint can_winograd(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether Winograd's way is possible, and faster than a direct one."""
    cdef Py_ssize_t channels = min(g.C, F), side = min(g.OH, g.OW)
    return (has_vectors() and has_runs(g) and g.KH == 3 and g.KW == 3
            and g.stride_h == 1 and g.stride_w == 1
            and channels >= WINOGRAD_CHANNELS and side >= WINOGRAD_SIDE
            and channels * side >= WINOGRAD_PRODUCT)


cdef inline Geometry backwards(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Return the geometry of the convolution of dy, of F channels, that gives dx; of one group."""
    cdef Geometry b = g[0]
    b.H, b.W, b.C, b.OH, b.OW = g.OH, g.OW, F, g.H, g.W
    b.pad_top, b.pad_left, b.pitch = 2 - g.pad_top, 2 - g.pad_left, F * (g.pitch // g.C)
    return b


cdef inline Py_ssize_t panel_width(Py_ssize_t F) noexcept nogil:
    """Return how many filters a panel has, but for the last one: a full register tile's row."""
    return min(F, ROW_VECTORS * VECTOR_LENGTH)


cdef inline Py_ssize_t tiles_of_image(const Geometry* g) noexcept nogil:
    return ((g.OH + 1) // 2) * ((g.OW + 1) // 2)


cdef inline Py_ssize_t tiles_of_block(Py_ssize_t C, Py_ssize_t F) noexcept nogil:
    """Return how many tiles a block has; the last one has up to twice as many."""
    cdef Py_ssize_t fitting = WINOGRAD_FLOATS // (ELEMENTS * (C + panel_width(F)))
    return max(<Py_ssize_t> WINOGRAD_LEAST_TILES, fitting // TILE_ROWS * TILE_ROWS)


cdef inline Py_ssize_t weight_floats(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Return how many floats the transformed weights take."""
    return ELEMENTS * g.C * F


cdef inline Py_ssize_t panels(Py_ssize_t F) noexcept nogil:
    return (F + panel_width(F) - 1) // panel_width(F)


cdef inline Py_ssize_t scratch_floats(
    const Geometry* g, Py_ssize_t F, Py_ssize_t tiles,
) noexcept nogil:
    """Return how many floats of scratch memory `winograd_forward` takes for so many tiles."""
    tiles = min(tiles, 2 * tiles_of_block(g.C, F))
    return ELEMENTS * (tiles * (g.C + panel_width(F)) + LINE + g.C)


cdef inline vector weights_of_tap(
    const real* weight, Py_ssize_t C, Py_ssize_t F, bint back, Py_ssize_t tap, Py_ssize_t c,
    Py_ssize_t f, Py_ssize_t n,
) noexcept nogil:
    """Return n filters from `f` on at one tap and one channel."""
    cdef real[16] lanes
    cdef Py_ssize_t i
    if not back:
        return load(weight + (tap * C + c) * F + f, n)
    for i in range(VECTOR_LENGTH):
        lanes[i] = weight[((8 - tap) * F + f + i) * C + c] if i < n else 0
    return load(lanes, VECTOR_LENGTH)


cdef inline kernel transform_weights(
    const real* weight, real* u, Py_ssize_t C, Py_ssize_t F, bint back, Py_ssize_t panel,
) noexcept nogil:
    """U = G g Gᵀ of a panel of filters, u[panel][element][c][f].

    g[kh, kw, c, f] is this element of the weight or, in the convolution of dy that gives dx,
    weight[2 - kh, 2 - kw, f, c].
    Writes: u of this panel.   Aliasing: none allowed.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Py_ssize_t begin = panel * panel_width(F), width = min(panel_width(F), F - begin)
    cdef Py_ssize_t c, f, n, i, pitch = C * width   # floats from one element to the next
    cdef vector[12] s
    cdef vector g0, g1, g2, half = repeat(0.5)
    cdef real* to
    for c in range(C):
        f = 0
        while f < width:
            n = min(VECTOR_LENGTH, width - f)
            for i in range(3):
                g0 = weights_of_tap(weight, C, F, back, i, c, begin + f, n)
                g1 = weights_of_tap(weight, C, F, back, 3 + i, c, begin + f, n)
                g2 = weights_of_tap(weight, C, F, back, 6 + i, c, begin + f, n)
                s[i], s[9 + i] = g0, g2
                s[3 + i], s[6 + i] = half * (g0 + g1 + g2), half * (g0 - g1 + g2)
            to = u + ELEMENTS * C * begin + c * width + f
            for i in range(4):
                g0, g1, g2 = s[3 * i], s[3 * i + 1], s[3 * i + 2]
                store(to + 4 * i * pitch, g0, n)
                store(to + (4 * i + 1) * pitch, half * (g0 + g1 + g2), n)
                store(to + (4 * i + 2) * pitch, half * (g0 - g1 + g2), n)
                store(to + (4 * i + 3) * pitch, g2, n)
            f += n
    end_vectors()


cdef inline void move(Place* at, const Geometry* g) noexcept nogil:
    """Go to the next tile of the batch."""
    at.tw += 1
    if 2 * at.tw >= g.OW:
        at.tw = 0
        at.th += 1
        if 2 * at.th >= g.OH:
            at.th = 0
            at.n += 1


cdef inline void winograd_forward(
    const Winograd* w, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · w + bias) for the output rows begin <= (n, oh) < end.

    A tile whose other row belongs to another part of the batch is computed in both.
    Writes: y of these rows, scratch.   Aliasing: none allowed.
    Parallel over: nothing.             Retains: nothing.
    """
    cdef const Geometry* g = w.g
    cdef Py_ssize_t tiles = tiles_of_block(g.C, w.F), lines, left, most, _
    cdef Block b
    b.begin, b.end = begin, end
    b.first = Place(begin // g.OH, begin % g.OH // 2, 0)
    lines = ((end - 1) // g.OH - b.first.n) * ((g.OH + 1) // 2)
    lines += (end - 1) % g.OH // 2 + 1 - b.first.th
    left = lines * ((g.OW + 1) // 2)
    most = min(left, 2 * tiles)
    b.pitch = most * g.C + LINE
    b.v = w.scratch
    b.m = b.v + ELEMENTS * b.pitch
    b.patch = b.m + ELEMENTS * most * panel_width(w.F)
    while left > 0:
        b.count = tiles if left > most else left
        transform_tiles(w, &b)
        all_filters(w, &b)
        for _ in range(b.count):
            move(&b.first, g)
        left -= b.count


cdef inline kernel transform_tiles(const Winograd* w, const Block* b) noexcept nogil:
    """V = Bᵀ d B."""
    cdef const Geometry* g = w.g
    cdef Py_ssize_t t, ih, iw, i, line, c, whole = g.C // VECTOR_LENGTH * VECTOR_LENGTH
    cdef Place at = b.first
    cdef const real* d
    for t in range(b.count):
        ih, iw = 2 * at.th - g.pad_top, 2 * at.tw - g.pad_left
        d, line = w.x + ((at.n * g.H + ih) * g.W + iw) * g.C, g.W * g.C
        if ih < 0 or ih + 4 > g.H or iw < 0 or iw + 4 > g.W:
            for i in range(ELEMENTS):
                if 0 <= ih + i // 4 < g.H and 0 <= iw + i % 4 < g.W:
                    copy(b.patch + i * g.C, d + i // 4 * line + i % 4 * g.C, g.C)
                else:
                    zero(b.patch + i * g.C, g.C)
            d, line = b.patch, 4 * g.C
        c = 0
        while c < whole:
            transform_tile(d + c, line, g.C, b.v + t * g.C + c, b.pitch, VECTOR_LENGTH)
            c += VECTOR_LENGTH
        if c < g.C:
            transform_tile(d + c, line, g.C, b.v + t * g.C + c, b.pitch, g.C - c)
        move(&at, g)
    end_vectors()


cdef inline void transform_tile(
    const real* d, Py_ssize_t line, Py_ssize_t pixel, real* v, Py_ssize_t pitch, Py_ssize_t floats,
) noexcept nogil:
    """Bᵀ d B of one tile at some channels."""
    cdef vector[16] s
    cdef vector d0, d1, d2, d3
    cdef Py_ssize_t i
    for i in range(4):
        d0, d1 = load(d + i * pixel, floats), load(d + line + i * pixel, floats)
        d2 = load(d + 2 * line + i * pixel, floats)
        d3 = load(d + 3 * line + i * pixel, floats)
        s[i], s[4 + i], s[8 + i], s[12 + i] = d0 - d2, d1 + d2, d2 - d1, d1 - d3
    for i in range(4):
        d0, d1, d2, d3 = s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]
        store(v + 4 * i * pitch, d0 - d2, floats)
        store(v + (4 * i + 1) * pitch, d1 + d2, floats)
        store(v + (4 * i + 2) * pitch, d2 - d1, floats)
        store(v + (4 * i + 3) * pitch, d1 - d3, floats)


cdef inline void all_filters(const Winograd* w, const Block* b) noexcept nogil:
    """M = V · U and y = Aᵀ M A, panel after panel of filters."""
    cdef Py_ssize_t f = 0, element, C = w.g.C, width
    cdef const real* u = w.u
    cdef Operands operands
    while f < w.F:
        width = min(w.F - f, panel_width(w.F))
        for element in range(ELEMENTS):
            operands = Operands(
                b.v + element * b.pitch, C, 1, u, width, b.m + element * width, ELEMENTS * width,
                b.count, C, width, False)
            multiply(&operands)
            u += C * width
        transform_products(w, b, f, width)
        f += width


cdef inline kernel transform_products(
    const Winograd* w, const Block* b, Py_ssize_t f, Py_ssize_t width,
) noexcept nogil:
    """y = leaky_relu(Aᵀ M A + bias) for `width` filters from `f` on."""
    cdef const Geometry* g = w.g
    cdef Py_ssize_t _, row, k
    cdef Place at = b.first
    cdef bint upper, lower, right
    cdef const real* m = b.m
    cdef real* y
    for _ in range(b.count):
        row = at.n * g.OH + 2 * at.th
        upper = b.begin <= row < b.end
        lower = b.begin <= row + 1 < b.end and 2 * at.th + 1 < g.OH
        right = 2 * at.tw + 1 < g.OW
        y = w.y + (row * g.OW + 2 * at.tw) * w.F + f
        k = 0
        while k + VECTOR_LENGTH <= width:
            transform_product(w, m + k, width, y + k, f + k, upper, lower, right, VECTOR_LENGTH)
            k += VECTOR_LENGTH
        if k < width:
            transform_product(w, m + k, width, y + k, f + k, upper, lower, right, width - k)
        m += ELEMENTS * width
        move(&at, g)
    end_vectors()


cdef inline void transform_product(
    const Winograd* w, const real* m, Py_ssize_t pitch, real* y, Py_ssize_t f, bint upper,
    bint lower, bint right, Py_ssize_t floats,
) noexcept nogil:
    """Aᵀ M A of one tile at some filters."""
    cdef vector[8] s
    cdef vector m0, m1, m2, m3, bias = repeat(0)
    cdef Py_ssize_t i, line = w.g.OW * w.F
    if w.bias != NULL:
        bias = load(w.bias + f, floats)
    for i in range(4):
        m0, m1 = load(m + i * pitch, floats), load(m + (4 + i) * pitch, floats)
        m2, m3 = load(m + (8 + i) * pitch, floats), load(m + (12 + i) * pitch, floats)
        s[i], s[4 + i] = m0 + m1 + m2, m1 - m2 - m3
    for i in range(2):
        m0, m1, m2, m3 = s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]
        if (lower if i else upper):
            store(y + i * line, leaky(m0 + m1 + m2 + bias, w.slope), floats)
            if right:
                store(y + i * line + w.F, leaky(m1 - m2 - m3 + bias, w.slope), floats)
