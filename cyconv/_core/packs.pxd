"""Packs: vectors of channels, in each build: float or double, and whatever the level's length is.

The vectors of vectors.pxd are there for float from AVX2 on only; kernels whose vectors run along
the channels need no more than these few operations, which every level has. `n` elements of a pack
are used: PACK, a number that the compiler sees, or those channels that are left.
"""

from cyconv._core.real cimport real
from cyconv._core.vectors cimport vector   # before the text below, which uses vectors.pxd's


cdef extern from *:
    """
    #if CYCONV_VECTORS
    #define CYCONV_PACK CYCONV_VECTOR_FLOATS
    typedef cyconv_vector cyconv_pack;
    #elif defined(__GNUC__)
    #if CYCONV_SINGLE
    #define CYCONV_PACK 4
    #else
    #define CYCONV_PACK 2
    #endif
    typedef cyconv_real cyconv_pack
        __attribute__((vector_size(16), aligned(sizeof(cyconv_real)), may_alias));
    #else
    #define CYCONV_PACK 1
    typedef cyconv_real cyconv_pack;
    #endif

    /* n elements, zeros behind them; and back, with no byte touched beyond. */
    static inline cyconv_pack cyconv_pack_load(const cyconv_real *p, ptrdiff_t n)
    {
        if (n == CYCONV_PACK)
            return *(const cyconv_pack *) p;
    #if CYCONV_VECTORS
        return cyconv_load_masked(p, n);
    #elif defined(__GNUC__)
        cyconv_pack v = {0};
        for (ptrdiff_t i = 0; i < n; i++)
            v[i] = p[i];
        return v;
    #else
        return 0;
    #endif
    }
    static inline void cyconv_pack_store(cyconv_real *p, cyconv_pack v, ptrdiff_t n)
    {
        if (n == CYCONV_PACK) {
            *(cyconv_pack *) p = v;
            return;
        }
    #if CYCONV_VECTORS && CYCONV_PACK == 8
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
    #elif CYCONV_VECTORS
        cyconv_store_masked(p, v, n);
    #elif defined(__GNUC__)
        for (ptrdiff_t i = 0; i < n; i++)
            p[i] = v[i];
    #endif
    }

    #if CYCONV_VECTORS || defined(__GNUC__)
    #if CYCONV_SINGLE
    typedef int cyconv_pack_mask __attribute__((vector_size(sizeof(cyconv_pack))));
    #else
    typedef long long cyconv_pack_mask __attribute__((vector_size(sizeof(cyconv_pack))));
    #endif
    #define CYCONV_PICK(mask, a, b) \\
        ((cyconv_pack) (((cyconv_pack_mask) (a) & (mask)) | ((cyconv_pack_mask) (b) & ~(mask))))
    static inline cyconv_pack cyconv_pack_fill(cyconv_real a)
    {
        cyconv_pack zero = {0};
        return zero + a;
    }
    #else
    #define CYCONV_PICK(mask, a, b) ((mask) ? (a) : (b))
    #define cyconv_pack_mask int
    #define cyconv_pack_fill(a) (a)
    #endif

    /* v where v > 0, slope * v elsewhere. */
    static inline cyconv_pack cyconv_pack_leaky(cyconv_pack v, cyconv_real slope)
    {
        cyconv_pack scaled = v * slope;
        cyconv_pack_mask positive = v > 0;
        return CYCONV_PICK(positive, v, scaled);
    }
    /* The larger one, NaN being the largest; and v where x is the largest, y, or where not. */
    #if CYCONV_VECTORS && CYCONV_PACK == 16
    static inline cyconv_pack cyconv_pack_larger(cyconv_pack a, cyconv_pack b)
    {
        /* vmaxps returns its second operand if they are equal or one is NaN */
        return (cyconv_pack) _mm512_mask_mov_ps(
            _mm512_max_ps(b, a), _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q), b);
    }
    static inline __mmask16 cyconv_pack_found(cyconv_pack x, cyconv_pack y)
    {
        return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ) | _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    }
    #define cyconv_pack_at(x, y, v) \
        ((cyconv_pack) _mm512_maskz_mov_ps(cyconv_pack_found(x, y), v))
    #define cyconv_pack_not_at(x, y, v) \
        ((cyconv_pack) _mm512_maskz_mov_ps(~cyconv_pack_found(x, y), v))
    #else
    static inline cyconv_pack cyconv_pack_larger(cyconv_pack a, cyconv_pack b)
    {
    #if CYCONV_VECTORS
        return (cyconv_pack) _mm256_blendv_ps(
            _mm256_max_ps(b, a), b, _mm256_cmp_ps(b, b, _CMP_UNORD_Q));
    #else
        cyconv_pack_mask second = (b > a) | (b != b);
        return CYCONV_PICK(second, b, a);
    #endif
    }
    static inline cyconv_pack cyconv_pack_at(cyconv_pack x, cyconv_pack y, cyconv_pack v)
    {
        cyconv_pack_mask found = (x == y) | (x != x);
        return CYCONV_PICK(found, v, cyconv_pack_fill(0));
    }
    static inline cyconv_pack cyconv_pack_not_at(cyconv_pack x, cyconv_pack y, cyconv_pack v)
    {
        cyconv_pack_mask found = (x == y) | (x != x);
        return CYCONV_PICK(found, cyconv_pack_fill(0), v);
    }
    #endif
    """
    const Py_ssize_t PACK "CYCONV_PACK"
    ctypedef real pack "cyconv_pack"
    pack pack_load "cyconv_pack_load"(const real* p, Py_ssize_t n) noexcept nogil
    void pack_store "cyconv_pack_store"(real* p, pack v, Py_ssize_t n) noexcept nogil
    pack pack_fill "cyconv_pack_fill"(real a) noexcept nogil
    pack pack_leaky "cyconv_pack_leaky"(pack v, real slope) noexcept nogil
    pack pack_larger "cyconv_pack_larger"(pack a, pack b) noexcept nogil
    pack pack_at "cyconv_pack_at"(pack x, pack y, pack v) noexcept nogil
    pack pack_not_at "cyconv_pack_not_at"(pack x, pack y, pack v) noexcept nogil
