"""The three products of a convolution, with kernels of their own for 4, 8 and 16 filters.

A general sgemm copies both operands into an order of its own before it multiplies; with few filters
that costs as much as the product. Here the columns are read where they lie. The F weights of a tap
are neighbours in memory, and so are those of the next taps: one vector of LANES floats holds
LANES/F taps of all filters. Without AVX2, and for any other number of filters, sgemm does it.
"""

from cython cimport floating
from libc.string cimport memset

from cyconv._core.gemm cimport gemm

cdef extern from *:
    """
    #if defined(__AVX2__) && defined(__GNUC__)
    #include <immintrin.h>
    #define CYCONV_VECTORS 1
    #if defined(__AVX512F__)
    #define CYCONV_LANES 16
    #else
    #define CYCONV_LANES 8
    #endif
    /* A vector of the level's full length, at any address. */
    typedef float cyconv_vector
        __attribute__((vector_size(4 * CYCONV_LANES), aligned(4), may_alias));

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
                _mm512_castpd_ps(_mm512_castpd128_pd512(_mm_load_sd((const double *) a))));
        return _mm512_set1_ps(*a);
    #else
        if (F == 4)
            return _mm256_permutevar8x32_ps(
                _mm256_castpd_ps(_mm256_castpd128_pd256(_mm_load_sd((const double *) a))),
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
    typedef float cyconv_vector;
    #define cyconv_spread(a, F) (*(a))
    #define cyconv_repeat(d, F) (*(d))
    #define cyconv_fold(v, y, F) (*(y) = (v))
    #endif
    """
    const bint CYCONV_VECTORS
    const Py_ssize_t LANES "CYCONV_LANES"
    ctypedef float vector "cyconv_vector"
    vector spread "cyconv_spread"(const float* a, Py_ssize_t F) noexcept nogil
    vector repeat "cyconv_repeat"(const float* d, Py_ssize_t F) noexcept nogil
    void fold "cyconv_fold"(vector v, float* y, Py_ssize_t F) noexcept nogil

cdef enum:
    WT_SIZE = 4096   # floats of a transposed weight matrix that the stack has room for


cdef inline bint is_narrow(Py_ssize_t K, Py_ssize_t F) noexcept nogil:
    return (CYCONV_VECTORS and (F == 4 or F == 8 or F == 16) and F <= LANES
            and LANES <= K and K * F <= WT_SIZE)


cdef inline void times_weight(
    const floating* cols, const floating* weight, floating* y, Py_ssize_t rows, Py_ssize_t K,
    Py_ssize_t F,
) noexcept nogil:
    """y = cols · weight, with cols of shape (rows, K) and weight (K, F)."""
    if floating is float and is_narrow(K, F):
        # Called with a number, each is compiled for that number of filters.
        if F == 4:
            narrow_forward(<const float*> cols, <const float*> weight, <float*> y, rows, K, 4)
        elif F == 8:
            narrow_forward(<const float*> cols, <const float*> weight, <float*> y, rows, K, 8)
        else:
            narrow_forward(<const float*> cols, <const float*> weight, <float*> y, rows, K, 16)
    else:
        gemm(False, False, rows, F, K, cols, K, weight, F, <floating> 0, y, F)


cdef inline void transposed_times_dy(
    const floating* cols, const floating* dy, floating* dweight, Py_ssize_t rows, Py_ssize_t K,
    Py_ssize_t F, bint accumulate,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, with cols of shape (rows, K) and dy (rows, F)."""
    cdef const float* a = <const float*> cols
    if floating is float and is_narrow(K, F):
        if not accumulate:
            memset(dweight, 0, K * F * sizeof(float))
        if F == 4:
            narrow_weight(a, <const float*> dy, <float*> dweight, rows, K, 4)
        elif F == 8:
            narrow_weight(a, <const float*> dy, <float*> dweight, rows, K, 8)
        else:
            narrow_weight(a, <const float*> dy, <float*> dweight, rows, K, 16)
    else:
        gemm(True, False, K, F, rows, cols, K, dy, F,
             <floating> (1 if accumulate else 0), dweight, F)


cdef inline void dy_times_transposed(
    const floating* dy, const floating* weight, floating* dcols, Py_ssize_t rows, Py_ssize_t K,
    Py_ssize_t F,
) noexcept nogil:
    """dcols = dy · weightᵀ, with dy of shape (rows, F) and weight (K, F)."""
    if floating is float and is_narrow(K, F):
        if F == 4:
            narrow_columns(<const float*> dy, <const float*> weight, <float*> dcols, rows, K, 4)
        elif F == 8:
            narrow_columns(<const float*> dy, <const float*> weight, <float*> dcols, rows, K, 8)
        else:
            narrow_columns(<const float*> dy, <const float*> weight, <float*> dcols, rows, K, 16)
    else:
        gemm(False, True, rows, K, F, dy, F, weight, F, <floating> 0, dcols, K)


cdef inline void narrow_forward(
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
        total[i] = spread(a + i * K, F) * (<const vector*> w)[0]
    k = LANES // F
    while k + LANES // F <= K:
        for i in range(rows):
            total[i] = total[i] + spread(a + i * K + k, F) * (<const vector*> (w + k * F))[0]
        k += LANES // F
    for i in range(rows):
        fold(total[i], y + i * F, F)
    while k < K:
        for i in range(rows):
            for f in range(F):
                y[i * F + f] += a[i * K + k] * w[k * F + f]
        k += 1


cdef inline void narrow_weight(
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
        total[i] = (<const vector*> (dw + i * LANES))[0]
    for r in range(first, last):
        gradient = repeat(dy + r * F, F)
        for i in range(vectors):
            total[i] = total[i] + spread(a + r * K + i * (LANES // F), F) * gradient
    for i in range(vectors):
        (<vector*> (dw + i * LANES))[0] = total[i]


cdef inline void weight_tap(
    const float* a, const float* dy, float* dw, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t r, f
    for r in range(first, last):
        for f in range(F):
            dw[f] += a[r * K] * dy[r * F + f]


cdef inline void narrow_columns(
    const float* dy, const float* weight, float* dcols, Py_ssize_t rows, Py_ssize_t K,
    Py_ssize_t F,
) noexcept nogil:
    """dcols = dy · weightᵀ, four rows at once."""
    cdef float[WT_SIZE] wt
    cdef Py_ssize_t r = 0, k, f
    for k in range(K):
        for f in range(F):
            wt[f * K + k] = weight[k * F + f]
    while r + 4 <= rows:
        column_rows(dy + r * F, wt, dcols + r * K, 4, K, F)
        r += 4
    while r < rows:
        column_rows(dy + r * F, wt, dcols + r * K, 1, K, F)
        r += 1


cdef inline void column_rows(
    const float* dy, const float* wt, float* dcols, Py_ssize_t rows, Py_ssize_t K, Py_ssize_t F,
) noexcept nogil:
    # The last vector of a row ends with the row: it may write columns a second time.
    cdef Py_ssize_t k = 0, f, i
    cdef vector[4] total
    while k < K:
        k = min(k, K - LANES)
        for i in range(rows):
            total[i] = dy[i * F] * (<const vector*> (wt + k))[0]
        for f in range(1, F):
            for i in range(rows):
                total[i] = total[i] + dy[i * F + f] * (<const vector*> (wt + f * K + k))[0]
        for i in range(rows):
            (<vector*> (dcols + i * K + k))[0] = total[i]
        k += LANES
