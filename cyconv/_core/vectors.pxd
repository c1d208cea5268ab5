"""Vectors of the level's full length: float, or double in its build.

VECTOR_LENGTH is the number of elements in a vector. It is 1 for compilers that have no vectors in
C. `n` elements of a vector are loaded or stored: all, or those that are left.
"""

from cyconv._core.real cimport real


cdef extern from *:
    """
    #if !defined(__GNUC__)
    #define CYCONV_VECTOR_LENGTH 1
    #elif !CYCONV_SINGLE
    #define CYCONV_VECTOR_LENGTH 2
    #elif defined(__AVX512F__)
    #define CYCONV_VECTOR_LENGTH 16
    #elif defined(__AVX2__)
    #define CYCONV_VECTOR_LENGTH 8
    #else
    #define CYCONV_VECTOR_LENGTH 4
    #endif
    /* Vectors in the row of a full register tile (tuning.pxd). */
    #define CYCONV_ROW_VECTORS (CYCONV_VECTOR_LENGTH == 16 ? 4 : 2)

    #if CYCONV_VECTOR_LENGTH == 1
    #define cyconv_prefetch(p) ((void) (p))
    typedef cyconv_real cyconv_vector;
    typedef int cyconv_mask;
    #define cyconv_repeat(a) (a)
    #define cyconv_pick(mask, a, b) ((mask) ? (a) : (b))
    #define CYCONV_IS_ALL(n) ((n) == 1)
    #else
    #define cyconv_prefetch(p) __builtin_prefetch(p)
    /* A vector at any address. */
    typedef cyconv_real cyconv_vector __attribute__((
        vector_size(CYCONV_VECTOR_LENGTH * sizeof(cyconv_real)), aligned(sizeof(cyconv_real)),
        may_alias));
    #if CYCONV_SINGLE
    typedef int cyconv_mask __attribute__((vector_size(sizeof(cyconv_vector))));
    #else
    typedef long long cyconv_mask __attribute__((vector_size(sizeof(cyconv_vector))));
    #endif
    #define CYCONV_IS_ALL(n) (__builtin_constant_p(n) && (n) == CYCONV_VECTOR_LENGTH)
    static inline cyconv_vector cyconv_repeat(cyconv_real a)
    {
        cyconv_vector zero = {0};
        return a - zero;   /* a + zero would make 0 of -0 */
    }
    static inline cyconv_vector cyconv_pick(cyconv_mask mask, cyconv_vector a, cyconv_vector b)
    {
        return (cyconv_vector) (((cyconv_mask) a & mask) | ((cyconv_mask) b & ~mask));
    }
    #endif
    #if CYCONV_VECTOR_LENGTH > 4
    #include <immintrin.h>
    #include <string.h>
    #define cyconv_end_vectors() _mm256_zeroupper()
    #else
    #define cyconv_end_vectors() ((void) 0)
    #endif

    /* n elements, zeros behind them; and back, with no byte touched beyond. A loop that loads is
       not to test each time whether n is all. */
    static inline cyconv_vector cyconv_load(const cyconv_real *p, ptrdiff_t n)
    {
        if (CYCONV_IS_ALL(n))
            return *(const cyconv_vector *) p;
    #if CYCONV_VECTOR_LENGTH == 16
        return _mm512_maskz_loadu_ps((__mmask16) ((1u << n) - 1), p);
    #elif CYCONV_VECTOR_LENGTH == 8
        return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(
            _mm256_set1_epi32((int) n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
    #elif CYCONV_VECTOR_LENGTH > 1
        cyconv_vector v = {p[0]};
        if (n > 1)
            v[1] = p[1];
    #if CYCONV_VECTOR_LENGTH == 4
        if (n > 2)
            v[2] = p[2];
        if (n > 3)
            v[3] = p[3];
    #endif
        return v;
    #else
        return 0;
    #endif
    }
    static inline void cyconv_store(cyconv_real *p, cyconv_vector v, ptrdiff_t n)
    {
        if (n == CYCONV_VECTOR_LENGTH) {
            *(cyconv_vector *) p = v;
            return;
        }
    #if CYCONV_VECTOR_LENGTH == 16
        _mm512_mask_storeu_ps(p, (__mmask16) ((1u << n) - 1), v);
    #elif CYCONV_VECTOR_LENGTH == 8
        /* A masked store of 256 bits takes some processors twelve cycles. */
        __m128 half = _mm256_castps256_ps128((__m256) v);
        if (n & 4) {
            _mm_storeu_ps(p, half);
            half = _mm256_extractf128_ps((__m256) v, 1);
            p += 4;
        }
        if (n & 2) {
            _mm_storel_pi((__m64 *) p, half);
            half = _mm_movehl_ps(half, half);
            p += 2;
        }
        if (n & 1)
            _mm_store_ss(p, half);
    #elif CYCONV_VECTOR_LENGTH > 1
        for (ptrdiff_t i = 0; i < n; i++)
            p[i] = v[i];
    #endif
    }

    /* v where v > 0, slope * v elsewhere. */
    static inline cyconv_vector cyconv_leaky(cyconv_vector v, cyconv_real slope)
    {
        cyconv_vector scaled = slope * v;
        cyconv_mask positive = v > 0;
        return cyconv_pick(positive, v, scaled);
    }
    /* The larger one, NaN being the largest; and v where x is the largest, y, or where not. */
    #if CYCONV_VECTOR_LENGTH == 16
    static inline cyconv_vector cyconv_larger(cyconv_vector a, cyconv_vector b)
    {
        /* vmaxps returns its second operand if they are equal or one is NaN */
        return (cyconv_vector) _mm512_mask_mov_ps(
            _mm512_max_ps(b, a), _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q), b);
    }
    static inline __mmask16 cyconv_found(cyconv_vector x, cyconv_vector y)
    {
        return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ) | _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    }
    #define cyconv_keep_largest(x, y, v) \\
        ((cyconv_vector) _mm512_maskz_mov_ps(cyconv_found(x, y), v))
    #define cyconv_drop_largest(x, y, v) \\
        ((cyconv_vector) _mm512_maskz_mov_ps(~cyconv_found(x, y), v))
    #else
    static inline cyconv_vector cyconv_larger(cyconv_vector a, cyconv_vector b)
    {
    #if CYCONV_VECTOR_LENGTH == 8
        return (cyconv_vector) _mm256_blendv_ps(
            _mm256_max_ps(b, a), b, _mm256_cmp_ps(b, b, _CMP_UNORD_Q));
    #else
        cyconv_mask second = (b > a) | (b != b);
        return cyconv_pick(second, b, a);
    #endif
    }
    static inline cyconv_vector cyconv_keep_largest(
        cyconv_vector x, cyconv_vector y, cyconv_vector v)
    {
        cyconv_mask found = (x == y) | (x != x);
        return cyconv_pick(found, v, cyconv_repeat(0));
    }
    static inline cyconv_vector cyconv_drop_largest(
        cyconv_vector x, cyconv_vector y, cyconv_vector v)
    {
        cyconv_mask found = (x == y) | (x != x);
        return cyconv_pick(found, cyconv_repeat(0), v);
    }
    #endif

    /* y[i] = the sum of the elements of the i-th vector. */
    static inline void cyconv_add_lanes(
        cyconv_vector a, cyconv_vector b, cyconv_vector c, cyconv_vector d, cyconv_real *y)
    {
    #if CYCONV_VECTOR_LENGTH == 16
    #define CYCONV_HALVES(v) \\
        _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))
    #else
    #define CYCONV_HALVES(v) (v)
    #endif
    #if CYCONV_VECTOR_LENGTH > 4
        __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(CYCONV_HALVES(a), CYCONV_HALVES(b)),
                                     _mm256_hadd_ps(CYCONV_HALVES(c), CYCONV_HALVES(d)));
        _mm_storeu_ps(y, _mm_add_ps(_mm256_castps256_ps128(sums),
                                    _mm256_extractf128_ps(sums, 1)));
    #elif CYCONV_VECTOR_LENGTH > 1
        for (int i = 0; i < 4; i++)
            y[i] = 0;
        for (int k = 0; k < CYCONV_VECTOR_LENGTH; k++) {
            y[0] += a[k];
            y[1] += b[k];
            y[2] += c[k];
            y[3] += d[k];
        }
    #else
        y[0] = a, y[1] = b, y[2] = c, y[3] = d;
    #endif
    }

    /* The vectors of packed.pxd, which hold several taps. */
    #if CYCONV_VECTOR_LENGTH > 4
    /* The T floats of a, VECTOR_LENGTH/T times. */
    static inline cyconv_vector cyconv_repeat_taps(const float *a, ptrdiff_t T)
    {
    #if CYCONV_VECTOR_LENGTH == 16
        if (T == 2) {
            double pair;
            memcpy(&pair, a, sizeof pair);
            return _mm512_castpd_ps(_mm512_set1_pd(pair));
        }
        return _mm512_broadcast_f32x4(_mm_loadu_ps(a));
    #else
        double pair;
        memcpy(&pair, a, sizeof pair);
        return _mm256_castpd_ps(_mm256_set1_pd(pair));
    #endif
    }
    /* The matrix with F columns that v holds, transposed: element f * VECTOR_LENGTH/F + t of the
       result is element t * F + f of v. */
    static inline cyconv_vector cyconv_transpose_vector(cyconv_vector v, ptrdiff_t F)
    {
    #if CYCONV_VECTOR_LENGTH == 16
        if (F == 4)
            return _mm512_permutexvar_ps(
                _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
        if (F == 8)
            return _mm512_permutexvar_ps(
                _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15), v);
        return _mm512_permutexvar_ps(
            _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15), v);
    #else
        if (F == 4)
            return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    #endif
    }

    /* Each of the F floats of d VECTOR_LENGTH/F times: d[0] d[0] ... d[1] d[1] ... */
    static inline cyconv_vector cyconv_duplicate_each(const float *d, ptrdiff_t F)
    {
    #if CYCONV_VECTOR_LENGTH == 16
        if (F == 4)
            return _mm512_permutexvar_ps(
                _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                _mm512_castps128_ps512(_mm_loadu_ps(d)));
        return _mm512_permutexvar_ps(
            _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
            _mm512_castps256_ps512(_mm256_loadu_ps(d)));
    #else
        return _mm256_permutevar8x32_ps(
            _mm256_castps128_ps256(_mm_loadu_ps(d)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
    #endif
    }

    /* y[f] = the sum over taps t of v[t * F + f], half by half. */
    static inline void cyconv_horizontal_add(cyconv_vector v, float *y, ptrdiff_t F)
    {
    #if CYCONV_VECTOR_LENGTH == 16
        __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    #else
        __m256 half = v;
    #endif
        if (F == 8)
            _mm256_storeu_ps(y, half);
        else
            _mm_storeu_ps(y, _mm_add_ps(_mm256_castps256_ps128(half),
                                        _mm256_extractf128_ps(half, 1)));
    }
    #else   /* no shorter one does, but their users compile */
    #define cyconv_repeat_taps(a, T) cyconv_repeat(*(a))
    #define cyconv_transpose_vector(v, F) (v)
    #define cyconv_duplicate_each(d, F) cyconv_repeat(*(d))
    #define cyconv_horizontal_add(v, y, F) ((void) (v), (void) (y))
    #endif
    """
    const Py_ssize_t ROW_VECTORS "CYCONV_ROW_VECTORS"
    const Py_ssize_t VECTOR_LENGTH "CYCONV_VECTOR_LENGTH"
    ctypedef real vector "cyconv_vector"
    # At the end of a kernel for which gcc forgets it: with upper halves in use, the C library's exp
    # takes five times as long.
    void end_vectors "cyconv_end_vectors"() noexcept nogil
    void prefetch "cyconv_prefetch"(const real* p) noexcept nogil
    vector repeat "cyconv_repeat"(real a) noexcept nogil
    vector load "cyconv_load"(const real* p, Py_ssize_t n) noexcept nogil
    void store "cyconv_store"(real* p, vector v, Py_ssize_t n) noexcept nogil
    vector leaky "cyconv_leaky"(vector v, real slope) noexcept nogil
    vector larger "cyconv_larger"(vector a, vector b) noexcept nogil
    vector keep_largest "cyconv_keep_largest"(vector x, vector y, vector v) noexcept nogil
    vector drop_largest "cyconv_drop_largest"(vector x, vector y, vector v) noexcept nogil
    void add_lanes "cyconv_add_lanes"(
        vector a, vector b, vector c, vector d, real* y) noexcept nogil
    vector repeat_taps "cyconv_repeat_taps"(const real* a, Py_ssize_t T) noexcept nogil
    vector transpose_vector "cyconv_transpose_vector"(vector v, Py_ssize_t F) noexcept nogil
    vector duplicate_each "cyconv_duplicate_each"(const real* d, Py_ssize_t F) noexcept nogil
    void horizontal_add "cyconv_horizontal_add"(vector v, real* y, Py_ssize_t F) noexcept nogil
