"""The products of a convolution on its columns, with kernels of their own where these beat sgemm.

A general sgemm copies both operands into an order of its own before it multiplies. Here they lie in
the right order already: the F weights of a tap are neighbours, and so are the F gradients of a
pixel. A tile of the result stays in registers; for each step of the sum a row of the right-hand
matrix is read as vectors and each element of the left-hand one is broadcast over a vector. Where a
vector holds 4 or 8 filters more than once packed.pxd takes over, and mostly y and dw are computed
without columns, in windows.pxd and gradient.pxd. BLAS has the products in double, and the gradients
of filters or taps that leave half of a vector empty; not y, each sum of which has one order,
whatever images are with it.
"""

from cyconv._core.gemm cimport gemm
from cyconv._core.geometry cimport Geometry
from cyconv._core.kernel cimport kernel
from cyconv._core.packed cimport as_image, is_packed, packed_forward, packed_weight
from cyconv._core.real cimport SINGLE, real
from cyconv._core.tuning cimport (
    BLOCK_FLOATS,
    BLOCK_STEPS,
    DEPTH,
    FOUR_ROWS,
    LINE_FLOATS,
    NARROW_TILE_ROWS,
    NARROW_VECTORS,
    PACKED_PITCH,
    PACKED_ROWS,
    PANEL_FLOATS,
    PREFETCH_STEPS,
    STREAM_DEPTH,
    TILE_ROWS,
    TWO_ROWS,
)
from cyconv._core.vectors cimport (
    ROW_VECTORS,
    VECTOR_LENGTH,
    load,
    prefetch,
    repeat,
    store,
    vector,
)


cdef inline bint has_vectors() noexcept nogil:
    """Tell whether `multiply` is worth calling: in double and without vectors BLAS is faster."""
    return SINGLE and VECTOR_LENGTH > 1


cdef inline bint fills_vectors(Py_ssize_t n) noexcept nogil:
    """Tell whether n floats are whole vectors, or more than half of the last one."""
    return has_vectors() and (n % VECTOR_LENGTH == 0 or n % VECTOR_LENGTH > VECTOR_LENGTH // 2)


cdef struct Product:
    # The columns of some pixels, of shape (rows, K), and F filters: one group's of several.
    Py_ssize_t rows, K, F
    Py_ssize_t column_pitch   # floats from one row of columns to the next
    Py_ssize_t filter_pitch   # and from one pixel of y, or one tap of the weight, to the next


cdef struct Operands:
    # c[r, :] (+)= sum over s of a[r*a_row + s*a_step] * b[s*b_step :]
    const real* a
    Py_ssize_t a_row, a_step
    const real* b
    Py_ssize_t b_step
    real* c
    Py_ssize_t c_row
    Py_ssize_t rows, steps, columns
    bint accumulate


cdef inline bint is_whole(const Product* p) noexcept nogil:
    """Tell whether the rows of all matrices follow each other without a gap."""
    return p.column_pitch == p.K and p.filter_pitch == p.F


cdef inline void times_weight(
    const real* cols, const real* weight, real* y, const Product* p,
) noexcept nogil:
    """y = cols · weight, with cols of shape (rows, K) and weight (K, F)."""
    cdef Geometry g
    cdef Operands operands
    if is_packed(p.K, p.F) and is_whole(p):
        g = as_image(p.rows, p.K)
        packed_forward(cols, weight, y, &g, 0, p.rows, p.F)
    elif has_vectors():
        operands = Operands(cols, p.column_pitch, 1, weight, p.filter_pitch, y, p.filter_pitch,
                            p.rows, p.K, p.F, False)
        multiply(&operands)
    else:
        gemm(False, False, p.rows, p.F, p.K, cols, p.column_pitch, weight, p.filter_pitch, 0,
             y, p.filter_pitch)


cdef inline void transposed_times_dy(
    const real* cols, const real* dy, real* dweight, const Product* p, bint accumulate,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, with cols of shape (rows, K) and dy (rows, F)."""
    cdef Geometry g
    cdef Operands operands
    if is_packed(p.K, p.F) and is_whole(p):
        g = as_image(p.rows, p.K)
        packed_weight(cols, dy, dweight, &g, 0, p.rows, p.F, accumulate)
    elif fills_vectors(p.F):
        operands = Operands(cols, 1, p.column_pitch, dy, p.filter_pitch, dweight, p.filter_pitch,
                            p.K, p.rows, p.F, accumulate)
        multiply(&operands)
    else:
        gemm(True, False, p.K, p.F, p.rows, cols, p.column_pitch, dy, p.filter_pitch,
             1 if accumulate else 0, dweight, p.filter_pitch)


cdef inline bint needs_transposed(Py_ssize_t K) noexcept nogil:
    """Tell whether `dy_times_transposed` reads the weight's transpose, of K columns."""
    return fills_vectors(K)


cdef inline void dy_times_transposed(
    const real* dy, const real* weight, const real* transposed, real* dcols, const Product* p,
) noexcept nogil:
    """dcols = dy · weightᵀ, with dy of shape (rows, F), weight (K, F) and, if needed, weightᵀ."""
    cdef Operands operands
    if needs_transposed(p.K):
        operands = Operands(dy, p.filter_pitch, 1, transposed, p.K, dcols, p.column_pitch, p.rows,
                            p.F, p.K, False)
        multiply(&operands)
    else:
        gemm(False, True, p.rows, p.K, p.F, dy, p.filter_pitch, weight, p.filter_pitch, 0,
             dcols, p.column_pitch)


cdef inline kernel multiply(const Operands* operands) noexcept nogil:
    """c (+)= a · b, each sum in the order of s."""
    cdef Operands m = operands[0]
    if 0 < m.steps < TILE_ROWS <= m.rows:
        all_rows(m)
    elif lies_across(&m):
        all_blocks(m)
    else:
        all_steps(m)


cdef inline void all_steps(Operands m) noexcept nogil:
    """Some steps at a time: of a few rows, of which no tile fills the registers, fewer at a time.

    Then b is read as it lies in memory, a few of its rows at once.
    """
    cdef Py_ssize_t left = m.steps, depth = DEPTH
    if m.rows < TILE_ROWS:
        depth = STREAM_DEPTH
    elif packs(&m):
        depth = packed_depth()
    while True:
        m.steps = min(depth, left)
        all_panels(m)
        left -= depth
        if left <= 0:
            return
        m.a += depth * m.a_step
        m.b += depth * m.b_step
        m.accumulate = True


cdef inline void all_rows(Operands m) noexcept nogil:
    """With a few steps: a tile's rows at a time, so that c is written as it lies in memory."""
    cdef Operands part = m
    cdef Py_ssize_t r = 0
    while r < m.rows:
        part.rows = min(<Py_ssize_t> TILE_ROWS, m.rows - r)
        part.a, part.c = m.a + r * m.a_row, m.c + r * m.c_row
        all_panels(part)
        r += TILE_ROWS


cdef inline bint lies_across(const Operands* m) noexcept nogil:
    """Tell whether blocks of a are worth a copy: the elements of a row are far apart."""
    return (m.a_row == 1 and m.a_step >= PACKED_PITCH and m.rows >= PACKED_ROWS
            and m.columns >= PACKED_PITCH and m.steps > 0)


cdef inline void all_blocks(Operands m) noexcept nogil:
    """Some rows and steps of a at a time, copied in the order in which tiles read them."""
    cdef real[BLOCK_FLOATS] block
    cdef Py_ssize_t whole = m.columns - m.columns % (ROW_VECTORS * VECTOR_LENGTH)
    cdef Py_ssize_t begin = 0, r, height
    cdef Operands part
    while begin < m.steps:
        part, r = m, 0
        part.b += begin * m.b_step
        part.steps, part.columns = min(BLOCK_STEPS, m.steps - begin), whole
        part.accumulate |= begin > 0
        height = block_rows(part.steps)
        while r < m.rows:
            part.rows, part.c = min(height, m.rows - r), m.c + r * m.c_row
            pack_block(
                m.a + begin * m.a_step + r, m.a_step, block, part.rows, part.steps, part.steps)
            times_block(block, part)
            r += height
        begin += BLOCK_STEPS
    m.b += whole
    m.c += whole
    m.columns -= whole
    all_steps(m)


cdef inline Py_ssize_t block_rows(Py_ssize_t steps) noexcept nogil:
    """Return how many rows a block of so many steps has, BLOCK_STEPS at most."""
    return BLOCK_FLOATS // (TILE_ROWS * steps) * TILE_ROWS


cdef inline void pack_block(
    const real* a, Py_ssize_t a_step, real* block, Py_ssize_t rows, Py_ssize_t steps,
    Py_ssize_t all_steps,
) noexcept nogil:
    """Copy some of a block's steps: TILE_ROWS rows next to each other, step after step."""
    cdef Py_ssize_t s, r, i
    cdef real* tile
    for s in range(steps):
        for i in range((rows + LINE_FLOATS - 1) // LINE_FLOATS):
            prefetch(a + PREFETCH_STEPS * a_step + i * LINE_FLOATS)
        tile, r = block + s * TILE_ROWS, 0
        while r + TILE_ROWS <= rows:
            for i in range(TILE_ROWS):
                tile[i] = a[r + i]
            tile += TILE_ROWS * all_steps
            r += TILE_ROWS
        for i in range(rows - r):
            tile[i] = a[r + i]
        a += a_step


cdef inline void times_block(real* block, Operands m) noexcept nogil:
    """c (+)= a · b for whole panels of b, with a in `block`."""
    cdef real[PANEL_FLOATS] rows
    cdef Py_ssize_t width = ROW_VECTORS * VECTOR_LENGTH, depth = packed_depth(), begin
    cdef Operands part = m
    part.a_row, part.b, part.b_step = m.steps, rows, width
    while m.columns > 0:
        begin, part.accumulate = 0, m.accumulate
        while begin < m.steps:
            part.a, part.steps = block + begin * TILE_ROWS, min(depth, m.steps - begin)
            pack_rows(m.b + begin * m.b_step, m.b_step, rows, part.steps)
            panel_rows(part, ROW_VECTORS, VECTOR_LENGTH, True)
            part.accumulate = True
            begin += depth
        m.b += width
        part.c += width
        m.columns -= width


cdef inline void all_panels(Operands m) noexcept nogil:
    """Panel after panel of columns."""
    cdef Py_ssize_t left = m.columns
    while left >= ROW_VECTORS * VECTOR_LENGTH:
        panel(m, ROW_VECTORS, VECTOR_LENGTH)
        m.b += ROW_VECTORS * VECTOR_LENGTH
        m.c += ROW_VECTORS * VECTOR_LENGTH
        left -= ROW_VECTORS * VECTOR_LENGTH
    while NARROW_VECTORS < ROW_VECTORS and left >= NARROW_VECTORS * VECTOR_LENGTH:
        panel(m, NARROW_VECTORS, VECTOR_LENGTH)
        m.b += NARROW_VECTORS * VECTOR_LENGTH
        m.c += NARROW_VECTORS * VECTOR_LENGTH
        left -= NARROW_VECTORS * VECTOR_LENGTH
    if left > VECTOR_LENGTH:
        panel(m, 2, left - VECTOR_LENGTH)
    elif left == VECTOR_LENGTH:
        panel(m, 1, VECTOR_LENGTH)
    elif left > 0:
        panel(m, 1, left)


cdef inline void panel(Operands m, Py_ssize_t vectors, Py_ssize_t floats) noexcept nogil:
    """`vectors` vectors of each row of c."""
    if vectors == ROW_VECTORS and floats == VECTOR_LENGTH and packs(&m):
        packed_panel(m)
    else:
        panel_rows(m, vectors, floats, False)


cdef inline bint packs(const Operands* m) noexcept nogil:
    """Tell whether the rows of full panels are copied next to each other."""
    return m.rows >= PACKED_ROWS and are_apart(m.b_step)


cdef inline bint are_apart(Py_ssize_t pitch) noexcept nogil:
    """Tell whether a full panel's rows, `pitch` apart, are worth a copy."""
    return pitch >= PACKED_PITCH and pitch > ROW_VECTORS * VECTOR_LENGTH


cdef inline Py_ssize_t packed_depth() noexcept nogil:
    """Return how many rows of a full panel are copied at a time: PANEL_FLOATS of four vectors."""
    return PANEL_FLOATS // (4 * VECTOR_LENGTH)


cdef inline void pack_rows(
    const real* b, Py_ssize_t pitch, real* rows, Py_ssize_t count,
) noexcept nogil:
    """Copy so many full rows of a panel next to each other."""
    cdef Py_ssize_t _, i
    for _ in range(count):
        for i in range(ROW_VECTORS):
            store(rows, load(b + i * VECTOR_LENGTH, VECTOR_LENGTH), VECTOR_LENGTH)
            rows += VECTOR_LENGTH
        b += pitch


cdef inline void packed_panel(Operands m) noexcept nogil:
    """A full panel, its rows of b first copied next to each other."""
    cdef real[PANEL_FLOATS] rows
    pack_rows(m.b, m.b_step, rows, m.steps)
    m.b, m.b_step = rows, ROW_VECTORS * VECTOR_LENGTH
    panel_rows(m, ROW_VECTORS, VECTOR_LENGTH, False)


cdef inline void panel_rows(
    Operands m, Py_ssize_t vectors, Py_ssize_t floats, bint blocked,
) noexcept nogil:
    """`vectors` vectors of each row of c, as many rows at once as fill the registers."""
    cdef Py_ssize_t r = 0
    if vectors < ROW_VECTORS:
        while r + NARROW_TILE_ROWS <= m.rows:
            register_tile(m, r, NARROW_TILE_ROWS, vectors, floats, blocked)
            r += NARROW_TILE_ROWS
    while r + TILE_ROWS <= m.rows:
        register_tile(m, r, TILE_ROWS, vectors, floats, blocked)
        r += TILE_ROWS
    if r + FOUR_ROWS <= m.rows:
        register_tile(m, r, FOUR_ROWS, vectors, floats, blocked)
        r += FOUR_ROWS
    if r + TWO_ROWS <= m.rows:
        register_tile(m, r, TWO_ROWS, vectors, floats, blocked)
        r += TWO_ROWS
    if r < m.rows:
        register_tile(m, r, 1, vectors, floats, blocked)


cdef inline void register_tile(
    Operands m, Py_ssize_t r, Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t floats,
    bint blocked,
) noexcept nogil:
    """A tile of c in registers, from its row r on; if `blocked`, a is as `pack_block` leaves it.

    `rows`, `vectors` and `blocked` are numbers that the compiler sees. The last vector of a row has
    `floats` floats: VECTOR_LENGTH, which it sees as well, or fewer.
    """
    # An array for each column of vectors and no loop inside a loop over rows: so gcc unrolls the
    # loops over rows early enough to keep all arrays in registers.
    cdef Py_ssize_t s, i, a_row = m.a_row, a_step = m.a_step, b_step = m.b_step, c_row = m.c_row
    cdef const real* a = m.a + r * a_row
    cdef const real* b = m.b
    cdef real* c = m.c + r * c_row
    cdef Py_ssize_t n0 = floats if vectors == 1 else VECTOR_LENGTH
    cdef Py_ssize_t n1 = floats if vectors == 2 else VECTOR_LENGTH
    cdef vector[NARROW_TILE_ROWS] t0, t1
    cdef vector[TILE_ROWS] t2, t3
    cdef const real* at[NARROW_TILE_ROWS]
    if blocked:
        a = m.a + r // TILE_ROWS * TILE_ROWS * a_row + r % TILE_ROWS
        a_row, a_step = 1, TILE_ROWS
        if m.accumulate:
            for i in range(rows):
                prefetch(c + (rows + i) * c_row)
                prefetch(c + (rows + i) * c_row + vectors * VECTOR_LENGTH - 1)
    for i in range(rows):
        at[i] = a + i * a_row
        t0[i] = load(c + i * c_row, n0) if m.accumulate else repeat(0)
        if vectors > 1:
            t1[i] = load(c + i * c_row + VECTOR_LENGTH, n1) if m.accumulate else repeat(0)
        if vectors > 2:
            t2[i] = (load(c + i * c_row + 2 * VECTOR_LENGTH, VECTOR_LENGTH) if m.accumulate
                     else repeat(0))
            t3[i] = (load(c + i * c_row + 3 * VECTOR_LENGTH, VECTOR_LENGTH) if m.accumulate
                     else repeat(0))
    for s in range(m.steps):
        add_products(
            t0, t1, t2, t3, at, s * a_step, b + s * b_step, 0, 1, rows, vectors, n0, n1)
    for i in range(rows):
        store(c + i * c_row, t0[i], n0)
        if vectors > 1:
            store(c + i * c_row + VECTOR_LENGTH, t1[i], n1)
        if vectors > 2:
            store(c + i * c_row + 2 * VECTOR_LENGTH, t2[i], VECTOR_LENGTH)
            store(c + i * c_row + 3 * VECTOR_LENGTH, t3[i], VECTOR_LENGTH)


cdef inline void add_products(
    vector* t0, vector* t1, vector* t2, vector* t3, const real** at, Py_ssize_t s, const real* b,
    Py_ssize_t b_step, Py_ssize_t steps, Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t n0,
    Py_ssize_t n1,
) noexcept nogil:
    """Add at[i][s + j] * b[j*b_step :] to row i of a tile, for 0 <= j < steps.

    `steps`, `rows` and `vectors` are numbers that the compiler sees, and n0 and n1 the floats of a
    row's first two vectors.
    """
    cdef vector r0, r1, r2, r3, element
    cdef Py_ssize_t j, i
    for j in range(steps):
        r0 = load(b + j * b_step, n0)
        if vectors > 1:
            r1 = load(b + j * b_step + VECTOR_LENGTH, n1)
        if vectors > 2:
            r2 = load(b + j * b_step + 2 * VECTOR_LENGTH, VECTOR_LENGTH)
            r3 = load(b + j * b_step + 3 * VECTOR_LENGTH, VECTOR_LENGTH)
        for i in range(rows):
            element = repeat(at[i][s + j])
            t0[i] = t0[i] + element * r0
            if vectors > 1:
                t1[i] = t1[i] + element * r1
            if vectors > 2:
                t2[i] = t2[i] + element * r2
                t3[i] = t3[i] + element * r3


cdef inline kernel transpose(
    const real* matrix, real* transposed, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t pitch,
) noexcept nogil:
    """transposed[c, r] = matrix[r, c], rows `pitch` apart, in squares that stay in the cache."""
    cdef Py_ssize_t r, c, r_begin = 0, c_begin
    while r_begin < rows:
        c_begin = 0
        while c_begin < columns:
            for c in range(c_begin, min(c_begin + LINE_FLOATS, columns)):
                for r in range(r_begin, min(r_begin + LINE_FLOATS, rows)):
                    transposed[c * pitch + r] = matrix[r * columns + c]
            c_begin += LINE_FLOATS
        r_begin += LINE_FLOATS
