"""Random numbers that are counted, not drawn: Philox4x32-10.

Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3". A block of four
numbers is a function of a counter and a key, so that an element's number does not depend on which
thread asks for it, or what was asked for before.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    GROUPS = 32   # blocks of four numbers at once: gcc unrolls shorter loops, and vectors are gone


cdef inline void philox(
    uint32_t* numbers, uint64_t key, uint32_t counter, uint32_t image, uint32_t step,
    uint32_t stream,
) noexcept nogil:
    """Write the 4 * GROUPS numbers of the counters (counter + i, image, step, stream)."""
    cdef uint32_t[GROUPS] c0, c1, c2, c3
    cdef uint32_t k0 = <uint32_t> key, k1 = <uint32_t> (key >> 32), high0, high1
    cdef uint64_t product0, product1
    cdef Py_ssize_t i, _
    for i in range(GROUPS):
        c0[i] = counter + <uint32_t> i
        c1[i], c2[i], c3[i] = image, step, stream
    for _ in range(10):
        for i in range(GROUPS):
            product0 = <uint64_t> 0xD2511F53u * c0[i]
            product1 = <uint64_t> 0xCD9E8D57u * c2[i]
            high0, high1 = <uint32_t> (product0 >> 32), <uint32_t> (product1 >> 32)
            c0[i] = high1 ^ c1[i] ^ k0
            c1[i] = <uint32_t> product1
            c2[i] = high0 ^ c3[i] ^ k1
            c3[i] = <uint32_t> product0
        k0 += 0x9E3779B9u
        k1 += 0xBB67AE85u
    for i in range(GROUPS):
        numbers[4 * i] = c0[i]
        numbers[4 * i + 1] = c1[i]
        numbers[4 * i + 2] = c2[i]
        numbers[4 * i + 3] = c3[i]
