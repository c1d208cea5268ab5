"""The three products of a convolution, with kernels of their own where these beat sgemm.

A general sgemm copies both operands into an order of its own before it multiplies. Here they lie in
the right order already: the F weights of a tap are neighbours, and so are the F gradients of a
pixel. A tile of the result stays in registers; for each step of the sum a row of the right-hand
matrix is read as vectors and each element of the left-hand one is spread over a vector. With 4 or 8
filters one vector holds the weights of two or four taps. Without AVX2, in double, or with a number
of filters that fills no vectors, sgemm and dgemm do it.
"""

from cython cimport floating
from libc.string cimport memset

from cyconv._core.gemm cimport gemm

cdef extern from *:
    """
    #if defined(__AVX2__) && defined(__GNUC__)
    #include <immintrin.h>
    #include <string.h>
    #define CYCONV_VECTORS 1
    /* Six rows of WIDTH vectors, or twelve of half as many, fill the 32 or 16 registers. */
    #if defined(__AVX512F__)
    #define CYCONV_LANES 16
    #define CYCONV_WIDTH 4
    #else
    #define CYCONV_LANES 8
    #define CYCONV_WIDTH 2
    #endif
    /* A vector of the level's full length, at any address. */
    typedef float cyconv_vector
        __attribute__((vector_size(4 * CYCONV_LANES), aligned(4), may_alias));

    static inline cyconv_vector cyconv_zeros(void)
    {
        cyconv_vector zero = {0};
        return zero;
    }
    #define cyconv_load(p) (*(const cyconv_vector *) (p))
    #define cyconv_store(p, v) (*(cyconv_vector *) (p) = (v))

    static inline __m128 cyconv_pair(const float *a)
    {
        double pair;
        memcpy(&pair, a, sizeof pair);
        return _mm_castpd_ps(_mm_set_sd(pair));
    }

    /* LANES/F taps, each F times: a[0] a[0] ... a[1] a[1] ... */
    static inline cyconv_vector cyconv_spread(const float *a, ptrdiff_t F)
    {
    #if CYCONV_LANES == 16
        if (F == 4)
            return _mm512_permutexvar_ps(
                _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                _mm512_castps128_ps512(_mm_loadu_ps(a)));
        if (F == 8)
            return _mm512_permutexvar_ps(
                _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                _mm512_castps128_ps512(cyconv_pair(a)));
        return _mm512_set1_ps(*a);
    #else
        if (F == 4)
            return _mm256_permutevar8x32_ps(
                _mm256_castps128_ps256(cyconv_pair(a)),
                _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
        return _mm256_set1_ps(*a);
    #endif
    }

    /* The F floats of d, LANES/F times. */
    static inline cyconv_vector cyconv_repeat(const float *d, ptrdiff_t F)
    {
    #if CYCONV_LANES == 16
        if (F == 4)
            return _mm512_broadcast_f32x4(_mm_loadu_ps(d));
        if (F == 8)
            return _mm512_broadcast_f32x8(_mm256_loadu_ps(d));
        return _mm512_loadu_ps(d);
    #else
        if (F == 4)
            return _mm256_broadcast_ps((const __m128 *) d);
        return _mm256_loadu_ps(d);
    #endif
    }

    /* y[f] = the sum over taps of v[tap * F + f], half by half. */
    static inline void cyconv_fold(cyconv_vector v, float *y, ptrdiff_t F)
    {
    #if CYCONV_LANES == 16
        __m256 half;
        if (F == 16) {
            _mm512_storeu_ps(y, v);
            return;
        }
        half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    #else
        __m256 half = v;
    #endif
        if (F == 8)
            _mm256_storeu_ps(y, half);
        else
            _mm_storeu_ps(y, _mm_add_ps(_mm256_castps256_ps128(half),
                                        _mm256_extractf128_ps(half, 1)));
    }
    #else   /* what uses these compiles, and is_narrow never lets it be called */
    #define CYCONV_VECTORS 0
    #define CYCONV_LANES 1
    #define CYCONV_WIDTH 1
    typedef float cyconv_vector;
    #define cyconv_zeros() 0
    #define cyconv_load(p) (*(p))
    #define cyconv_store(p, v) (*(p) = (v))
    #define cyconv_spread(a, F) (*(a))
    #define cyconv_repeat(d, F) (*(d))
    #define cyconv_fold(v, y, F) (*(y) = (v))
    #endif
    """
    const bint CYCONV_VECTORS
    const Py_ssize_t WIDTH "CYCONV_WIDTH"
    const Py_ssize_t LANES "CYCONV_LANES"
    ctypedef float vector "cyconv_vector"
    vector zeros "cyconv_zeros"() noexcept nogil
    vector load "cyconv_load"(const float* p) noexcept nogil
    void store "cyconv_store"(float* p, vector v) noexcept nogil
    vector spread "cyconv_spread"(const float* a, Py_ssize_t F) noexcept nogil
    vector repeat "cyconv_repeat"(const float* d, Py_ssize_t F) noexcept nogil
    void fold "cyconv_fold"(vector v, float* y, Py_ssize_t F) noexcept nogil

cdef enum:
    DEPTH = 128   # steps of a sum whose right-hand rows stay in the first-level cache


cdef inline bint is_packed(Py_ssize_t K, Py_ssize_t F) noexcept nogil:
    """Tell whether one vector holds several taps of all F filters."""
    return CYCONV_VECTORS and (F == 4 or F == 8) and F < LANES and LANES <= K * F


cdef inline bint fills_vectors(Py_ssize_t n) noexcept nogil:
    return CYCONV_VECTORS and n % LANES == 0


cdef inline void times_weight(
    const floating* cols, const floating* weight, floating* y, Py_ssize_t rows, Py_ssize_t K,
    Py_ssize_t F,
) noexcept nogil:
    """y = cols · weight, with cols of shape (rows, K) and weight (K, F)."""
    if floating is float and is_packed(K, F):
        # Called with a number, it is compiled for that number of filters.
        if F == 4:
            packed_forward(<const float*> cols, <const float*> weight, <float*> y, rows, K, 4)
        else:
            packed_forward(<const float*> cols, <const float*> weight, <float*> y, rows, K, 8)
    elif floating is float and fills_vectors(F):
        multiply(<const float*> cols, K, 1, <const float*> weight, F, <float*> y, F,
                 rows, K, F, False)
    else:
        gemm(False, False, rows, F, K, cols, K, weight, F, <floating> 0, y, F)


cdef inline void transposed_times_dy(
    const floating* cols, const floating* dy, floating* dweight, Py_ssize_t rows, Py_ssize_t K,
    Py_ssize_t F, bint accumulate,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, with cols of shape (rows, K) and dy (rows, F)."""
    cdef const float* a = <const float*> cols
    if floating is float and is_packed(K, F):
        if not accumulate:
            memset(dweight, 0, K * F * sizeof(float))
        if F == 4:
            packed_weight(a, <const float*> dy, <float*> dweight, rows, K, 4)
        else:
            packed_weight(a, <const float*> dy, <float*> dweight, rows, K, 8)
    elif floating is float and fills_vectors(F):
        multiply(a, 1, K, <const float*> dy, F, <float*> dweight, F, K, rows, F, accumulate)
    else:
        gemm(True, False, K, F, rows, cols, K, dy, F,
             <floating> (1 if accumulate else 0), dweight, F)


cdef inline void dy_times_transposed(
    const floating* dy, const floating* weight, const floating* transposed, floating* dcols,
    Py_ssize_t rows, Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    """dcols = dy · weightᵀ, with dy of shape (rows, F), weight (K, F) and its transpose."""
    if floating is float and fills_vectors(K):
        multiply(<const float*> dy, F, 1, <const float*> transposed, K, <float*> dcols, K,
                 rows, F, K, False)
    else:
        gemm(False, True, rows, K, F, dy, F, weight, F, <floating> 0, dcols, K)


cdef inline void multiply(
    const float* a, Py_ssize_t a_row, Py_ssize_t a_step, const float* b, Py_ssize_t b_step,
    float* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t columns,
    bint accumulate,
) noexcept nogil:
    """c (+)= a · b, with columns a multiple of LANES.

    c[r, :] = sum over s of a[r*a_row + s*a_step] * b[s*b_step :], each sum in the order of s.
    """
    cdef Py_ssize_t column = 0
    while column + WIDTH * LANES <= columns:
        strips(a, a_row, a_step, b + column, b_step, c + column, c_row, rows, steps, WIDTH,
               accumulate)
        column += WIDTH * LANES
    while column + 2 * LANES <= columns:
        strips(a, a_row, a_step, b + column, b_step, c + column, c_row, rows, steps, 2,
               accumulate)
        column += 2 * LANES
    while column < columns:
        strips(a, a_row, a_step, b + column, b_step, c + column, c_row, rows, steps, 1,
               accumulate)
        column += LANES


cdef inline void strips(
    const float* a, Py_ssize_t a_row, Py_ssize_t a_step, const float* b, Py_ssize_t b_step,
    float* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t width,
    bint accumulate,
) noexcept nogil:
    """`width` vectors of each row of c, DEPTH steps of the sums at a time."""
    cdef Py_ssize_t first = 0, last
    while first < steps:
        last = min(first + DEPTH, steps)
        strip(a + first * a_step, a_row, a_step, b + first * b_step, b_step, c, c_row, rows,
              last - first, width, accumulate or first > 0)
        first = last


cdef inline void strip(
    const float* a, Py_ssize_t a_row, Py_ssize_t a_step, const float* b, Py_ssize_t b_step,
    float* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t width,
    bint accumulate,
) noexcept nogil:
    """`width` vectors of each row of c, as many rows at once as fill the registers."""
    cdef Py_ssize_t r = 0
    if width < WIDTH:
        while r + 12 <= rows:
            tile(a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, 12, steps, width,
                 accumulate)
            r += 12
    while r + 6 <= rows:
        tile(a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, 6, steps, width,
             accumulate)
        r += 6
    if r + 4 <= rows:
        tile(a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, 4, steps, width,
             accumulate)
        r += 4
    if r + 2 <= rows:
        tile(a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, 2, steps, width,
             accumulate)
        r += 2
    if r < rows:
        tile(a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, 1, steps, width,
             accumulate)


cdef inline void tile(
    const float* a, Py_ssize_t a_row, Py_ssize_t a_step, const float* b, Py_ssize_t b_step,
    float* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t width,
    bint accumulate,
) noexcept nogil:
    """A tile of c in registers; `rows` and `width` are numbers that the compiler sees."""
    # An array for each column of vectors and no loop inside a loop over rows: so gcc unrolls the
    # loops over rows early enough to keep all arrays in registers.
    cdef Py_ssize_t s, i
    cdef vector[12] t0, t1
    cdef vector[6] t2, t3
    cdef vector r0, r1, r2, r3, left
    for i in range(rows):
        t0[i] = load(c + i * c_row) if accumulate else zeros()
        if width > 1:
            t1[i] = load(c + i * c_row + LANES) if accumulate else zeros()
        if width > 2:
            t2[i] = load(c + i * c_row + 2 * LANES) if accumulate else zeros()
            t3[i] = load(c + i * c_row + 3 * LANES) if accumulate else zeros()
    for s in range(steps):
        r0 = load(b + s * b_step)
        if width > 1:
            r1 = load(b + s * b_step + LANES)
        if width > 2:
            r2 = load(b + s * b_step + 2 * LANES)
            r3 = load(b + s * b_step + 3 * LANES)
        for i in range(rows):
            left = spread(a + i * a_row + s * a_step, LANES)
            t0[i] = t0[i] + left * r0
            if width > 1:
                t1[i] = t1[i] + left * r1
            if width > 2:
                t2[i] = t2[i] + left * r2
                t3[i] = t3[i] + left * r3
    for i in range(rows):
        store(c + i * c_row, t0[i])
        if width > 1:
            store(c + i * c_row + LANES, t1[i])
        if width > 2:
            store(c + i * c_row + 2 * LANES, t2[i])
            store(c + i * c_row + 3 * LANES, t3[i])


cdef inline void packed_forward(
    const float* a, const float* w, float* y, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    """y = a · w, eight rows at once."""
    cdef Py_ssize_t r = 0
    while r + 8 <= rows:
        forward_rows(a + r * K, w, y + r * F, 8, K, F)
        r += 8
    while r < rows:
        forward_rows(a + r * K, w, y + r * F, 1, K, F)
        r += 1


cdef inline void forward_rows(
    const float* a, const float* w, float* y, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t k = 0, i, f
    cdef vector[8] total
    for i in range(rows):
        total[i] = spread(a + i * K, F) * load(w)
    k = LANES // F
    while k + LANES // F <= K:
        for i in range(rows):
            total[i] = total[i] + spread(a + i * K + k, F) * load(w + k * F)
        k += LANES // F
    for i in range(rows):
        fold(total[i], y + i * F, F)
    while k < K:
        for i in range(rows):
            for f in range(F):
                y[i * F + f] += a[i * K + k] * w[k * F + f]
        k += 1


cdef inline void packed_weight(
    const float* a, const float* dy, float* dw, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    """dw += aᵀ · dy, eight vectors of dw at once."""
    cdef Py_ssize_t first = 0, last, k, taps = LANES // F
    while first < rows:
        last = min(first + 64, rows)   # rows of a that the first-level cache keeps for all k
        k = 0
        while k + 8 * taps <= K:
            weight_taps(a + k, dy, dw + k * F, first, last, 8, K, F)
            k += 8 * taps
        while k + taps <= K:
            weight_taps(a + k, dy, dw + k * F, first, last, 1, K, F)
            k += taps
        while k < K:
            weight_tap(a + k, dy, dw + k * F, first, last, K, F)
            k += 1
        first = last


cdef inline void weight_taps(
    const float* a, const float* dy, float* dw, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t vectors, Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t r, i
    cdef vector[8] total
    cdef vector gradient
    for i in range(vectors):
        total[i] = load(dw + i * LANES)
    for r in range(first, last):
        gradient = repeat(dy + r * F, F)
        for i in range(vectors):
            total[i] = total[i] + spread(a + r * K + i * (LANES // F), F) * gradient
    for i in range(vectors):
        store(dw + i * LANES, total[i])


cdef inline void weight_tap(
    const float* a, const float* dy, float* dw, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t r, f
    for r in range(first, last):
        for f in range(F):
            dw[f] += a[r * K] * dy[r * F + f]


cdef inline void transpose(
    const float* matrix, float* transposed, Py_ssize_t rows, Py_ssize_t columns,
) noexcept nogil:
    """transposed[c, r] = matrix[r, c], in squares that stay in the cache."""
    cdef Py_ssize_t r, c, first_r, first_c
    for first_r in range(0, rows, 16):
        for first_c in range(0, columns, 16):
            for c in range(first_c, min(first_c + 16, columns)):
                for r in range(first_r, min(first_r + 16, rows)):
                    transposed[c * rows + r] = matrix[r * columns + c]
