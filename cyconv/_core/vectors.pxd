"""Vectors of the level's full length, as registers hold them."""

from cyconv._core.real cimport real


cdef extern from *:
    """
    #if defined(__AVX2__) && defined(__GNUC__) && CYCONV_SINGLE
    #include <immintrin.h>
    #include <string.h>
    #define CYCONV_VECTORS 1
    /* Vectors in the row of a full register tile (tuning.pxd). */
    #if defined(__AVX512F__)
    #define CYCONV_VECTOR_FLOATS 16
    #define CYCONV_ROW_VECTORS 4
    #else
    #define CYCONV_VECTOR_FLOATS 8
    #define CYCONV_ROW_VECTORS 2
    #endif
    /* A vector of the level's full length, at any address. */
    typedef float cyconv_vector
        __attribute__((vector_size(4 * CYCONV_VECTOR_FLOATS), aligned(4), may_alias));

    static inline cyconv_vector cyconv_zeros(void)
    {
        cyconv_vector zero = {0};
        return zero;
    }
    #define cyconv_load(p) (*(const cyconv_vector *) (p))
    #define cyconv_store(p, v) (*(cyconv_vector *) (p) = (v))

    /* The first n floats, zeros behind them; and back, with no byte touched beyond. */
    #if CYCONV_VECTOR_FLOATS == 16
    #define cyconv_mask(n) ((__mmask16) ((1u << (n)) - 1))
    #define cyconv_load_masked(p, n) ((cyconv_vector) _mm512_maskz_loadu_ps(cyconv_mask(n), p))
    #define cyconv_store_masked(p, v, n) _mm512_mask_storeu_ps(p, cyconv_mask(n), v)
    #else
    #define cyconv_mask(n) _mm256_cmpgt_epi32( \\
        _mm256_set1_epi32((int) (n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    #define cyconv_load_masked(p, n) ((cyconv_vector) _mm256_maskload_ps(p, cyconv_mask(n)))
    #define cyconv_store_masked(p, v, n) _mm256_maskstore_ps(p, cyconv_mask(n), v)
    #endif

    /* v where v > 0, slope * v elsewhere. */
    static inline cyconv_vector cyconv_leaky(cyconv_vector v, float slope)
    {
        typedef int mask __attribute__((vector_size(sizeof v)));
        mask positive = v > 0;
        return (cyconv_vector) (((mask) v & positive) | ((mask) (slope * v) & ~positive));
    }

    /* The T floats of a, VECTOR_FLOATS/T times. */
    static inline cyconv_vector cyconv_broadcast(const float *a, ptrdiff_t T)
    {
    #if CYCONV_VECTOR_FLOATS == 16
        if (T == 2) {
            double pair;
            memcpy(&pair, a, sizeof pair);
            return _mm512_castpd_ps(_mm512_set1_pd(pair));
        }
        if (T == 4)
            return _mm512_broadcast_f32x4(_mm_loadu_ps(a));
        return _mm512_set1_ps(*a);
    #else
        if (T == 2) {
            double pair;
            memcpy(&pair, a, sizeof pair);
            return _mm256_castpd_ps(_mm256_set1_pd(pair));
        }
        return _mm256_set1_ps(*a);
    #endif
    }

    /* The matrix with F columns that v holds, transposed: element f * VECTOR_FLOATS/F + t of the
       result is element t * F + f of v. */
    static inline cyconv_vector cyconv_transpose_vector(cyconv_vector v, ptrdiff_t F)
    {
    #if CYCONV_VECTOR_FLOATS == 16
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

    /* Each of the F floats of d VECTOR_FLOATS/F times: d[0] d[0] ... d[1] d[1] ... */
    static inline cyconv_vector cyconv_duplicate_each(const float *d, ptrdiff_t F)
    {
    #if CYCONV_VECTOR_FLOATS == 16
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
    #if CYCONV_VECTOR_FLOATS == 16
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
    #else   /* only so that their users compile: kernels test CYCONV_VECTORS before they call one */
    #define CYCONV_VECTORS 0
    #define CYCONV_VECTOR_FLOATS 1
    #define CYCONV_ROW_VECTORS 1
    typedef cyconv_real cyconv_vector;
    #define cyconv_zeros() 0
    #define cyconv_load(p) (*(p))
    #define cyconv_store(p, v) (*(p) = (v))
    #define cyconv_load_masked(p, n) (*(p))
    #define cyconv_store_masked(p, v, n) (*(p) = (v))
    #define cyconv_leaky(v, slope) ((v) > 0 ? (v) : (slope) * (v))
    #define cyconv_broadcast(a, T) (*(a))
    #define cyconv_transpose_vector(v, F) (v)
    #define cyconv_duplicate_each(d, F) (*(d))
    #define cyconv_horizontal_add(v, y, F) (*(y) = (v))
    #endif
    """
    const bint CYCONV_VECTORS
    const Py_ssize_t ROW_VECTORS "CYCONV_ROW_VECTORS"
    const Py_ssize_t VECTOR_FLOATS "CYCONV_VECTOR_FLOATS"
    ctypedef real vector "cyconv_vector"
    vector zeros "cyconv_zeros"() noexcept nogil
    vector load "cyconv_load"(const real* p) noexcept nogil
    void store "cyconv_store"(real* p, vector v) noexcept nogil
    vector load_masked "cyconv_load_masked"(const real* p, Py_ssize_t n) noexcept nogil
    void store_masked "cyconv_store_masked"(real* p, vector v, Py_ssize_t n) noexcept nogil
    vector leaky "cyconv_leaky"(vector v, real slope) noexcept nogil
    vector broadcast "cyconv_broadcast"(const real* a, Py_ssize_t T) noexcept nogil
    vector transpose_vector "cyconv_transpose_vector"(vector v, Py_ssize_t F) noexcept nogil
    vector duplicate_each "cyconv_duplicate_each"(const real* d, Py_ssize_t F) noexcept nogil
    void horizontal_add "cyconv_horizontal_add"(vector v, real* y, Py_ssize_t F) noexcept nogil
