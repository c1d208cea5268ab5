"""The products of a convolution with 4 or 8 filters, where one vector holds several taps.

The weights of VECTOR_LENGTH/F taps fill a vector. Transposed, so that the taps of one filter are
neighbours, they meet as many neighbouring floats of the image, which a single load broadcasts to
all filters: no float is moved inside a vector. The taps of a kernel line are neighbours in the
image already, so the windows are read from there, and no column is ever made. A column matrix is
handled as an image one pixel wide.
"""

from libc.string cimport memset

from cyconv._core.axis cimport Range
from cyconv._core.geometry cimport Geometry, has_runs
from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport real
from cyconv._core.tuning cimport PACKED_PIXELS, PACKED_TILE
from cyconv._core.vectors cimport (
    VECTOR_LENGTH,
    duplicate_each,
    horizontal_add,
    load,
    repeat,
    repeat_taps,
    store,
    transpose_vector,
    vector,
)


cdef inline bint is_packed(Py_ssize_t K, Py_ssize_t F) noexcept nogil:
    """Tell whether one vector holds several taps of all F filters."""
    return (F == 4 or F == 8) and F < VECTOR_LENGTH and VECTOR_LENGTH <= K * F


cdef inline bint reads_image(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether the products take the windows from the image, where all of them lie inside."""
    return (is_packed(g.KH * g.KW * g.C, F) and g.KW * g.C % (VECTOR_LENGTH // F) == 0
            and has_runs(g)
            and g.pad_top == 0 and (g.OH - 1) * g.stride_h + g.KH <= g.H
            and g.pad_left == 0 and (g.OW - 1) * g.stride_w + g.KW <= g.W)


cdef inline Geometry as_image(Py_ssize_t rows, Py_ssize_t K) noexcept nogil:
    """Return the geometry by which a column matrix is its own image."""
    return Geometry(
        H=rows, W=1, C=K, KH=1, KW=1, OH=rows, OW=1, stride_h=1, stride_w=1, pad_top=0, pad_left=0,
        dilation_h=1, dilation_w=1, pad_bottom=0, pad_right=0, pitch=K)


cdef inline const real* line_of(const real* x, const Geometry* g, Py_ssize_t row) noexcept nogil:
    """Return where the first window of the output row (n, oh) begins."""
    return x + (row // g.OH * g.H + row % g.OH * g.stride_h) * g.W * g.C


cdef inline kernel packed_forward(
    const real* x, const real* w, real* y, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t F,
) noexcept nogil:
    """y = im2col(x) · w for the output rows begin <= (n, oh) < end."""
    # Called with a number, it is compiled for that number of filters.
    if F == 4:
        forward_rows(x, w, y, g, begin, end, 4)
    else:
        forward_rows(x, w, y, g, begin, end, 8)


cdef inline void forward_rows(
    const real* x, const real* w, real* y, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t F,
) noexcept nogil:
    """PACKED_TILE pixels at once."""
    cdef Py_ssize_t row = begin, ow = 0, done = 0, i
    cdef const real* line = line_of(x, g, row)
    cdef const real* corner[PACKED_TILE]
    while row < end:
        corner[done] = line + ow * g.stride_w * g.C
        done += 1
        ow += 1
        if ow == g.OW:
            ow = 0
            row += 1
            line = line_of(x, g, row)
        if done == PACKED_TILE:
            forward_pixels(corner, w, y, g, PACKED_TILE, F)
            y += PACKED_TILE * F
            done = 0
    for i in range(done):
        forward_pixels(&corner[i], w, y + i * F, g, 1, F)


cdef inline void forward_pixels(
    const real** corner, const real* w, real* y, const Geometry* g, Py_ssize_t pixels,
    Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t taps = VECTOR_LENGTH // F, run = g.KW * g.C, line = g.W * g.C, kh, k, i, f
    cdef vector[PACKED_TILE] total
    cdef vector weight
    cdef const real* place[PACKED_TILE]   # moved from line to line: half the registers
    for i in range(pixels):
        place[i] = corner[i]
        total[i] = repeat(0)
    for kh in range(g.KH):
        k = 0
        while k + taps <= run:
            weight = transpose_vector(load(w + (kh * run + k) * F, VECTOR_LENGTH), F)
            for i in range(pixels):
                total[i] = total[i] + repeat_taps(place[i] + k, taps) * weight
            k += taps
        for i in range(pixels):
            place[i] += line
    for i in range(pixels):
        horizontal_add(transpose_vector(total[i], taps), y + i * F, F)
    for kh in range(g.KH):
        for k in range(run - run % taps, run):
            for i in range(pixels):
                for f in range(F):
                    y[i * F + f] += corner[i][kh * line + k] * w[(kh * run + k) * F + f]


cdef inline kernel packed_weight(
    const real* x, const real* dy, real* dw, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t F, bint accumulate,
) noexcept nogil:
    """dw (+)= im2col(x)ᵀ · dy for the output rows begin <= (n, oh) < end, with which dy begins."""
    if not accumulate:
        memset(dw, 0, g.KH * g.KW * g.C * F * sizeof(real))
    if F == 4:
        weight_rows(x, dy, dw, g, begin, end, 4)
    else:
        weight_rows(x, dy, dw, g, begin, end, 8)


cdef inline void weight_rows(
    const real* x, const real* dy, real* dw, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t F,
) noexcept nogil:
    """PACKED_TILE vectors of dw at once."""
    cdef Py_ssize_t taps = VECTOR_LENGTH // F, K = g.KH * g.KW * g.C, vectors = K // taps
    cdef Py_ssize_t rows = max(1, PACKED_PIXELS // g.OW)
    cdef Py_ssize_t row = begin, stop, v, k
    while row < end:
        stop = min(row + rows, end)
        v = 0
        while v + PACKED_TILE <= vectors:
            weight_taps(x, dy, dw, g, Range(row, stop), v, PACKED_TILE, F)
            v += PACKED_TILE
        while v < vectors:
            weight_taps(x, dy, dw, g, Range(row, stop), v, 1, F)
            v += 1
        for k in range(vectors * taps, K):
            weight_tap(x, dy, dw, g, row, stop, k, F)
        dy += (stop - row) * g.OW * F
        row = stop


cdef inline void weight_taps(
    const real* x, const real* dy, real* dw, const Geometry* g, Range rows, Py_ssize_t v,
    Py_ssize_t vectors, Py_ssize_t F,
) noexcept nogil:
    """The vectors v, v + 1, ... of dw."""
    cdef Py_ssize_t taps = VECTOR_LENGTH // F, run = g.KW * g.C, row, i, _
    cdef Py_ssize_t[PACKED_TILE] place
    cdef vector[PACKED_TILE] total
    cdef vector gradient
    cdef const real* corner
    dw += v * VECTOR_LENGTH
    for i in range(vectors):
        total[i] = transpose_vector(load(dw + i * VECTOR_LENGTH, VECTOR_LENGTH), F)
        place[i] = (v + i) * taps // run * g.W * g.C + (v + i) * taps % run
    for row in range(rows.begin, rows.end):
        corner = line_of(x, g, row)
        for _ in range(g.OW):
            gradient = duplicate_each(dy, F)
            for i in range(vectors):
                total[i] = total[i] + repeat_taps(corner + place[i], taps) * gradient
            corner += g.stride_w * g.C
            dy += F
    for i in range(vectors):
        store(dw + i * VECTOR_LENGTH, transpose_vector(total[i], taps), VECTOR_LENGTH)


cdef inline void weight_tap(
    const real* x, const real* dy, real* dw, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t k, Py_ssize_t F,
) noexcept nogil:
    """The last taps of a column matrix, which fill no vector."""
    cdef Py_ssize_t row, f
    for row in range(begin, end):
        for f in range(F):
            dw[k * F + f] += line_of(x, g, row)[k] * dy[(row - begin) * F + f]
