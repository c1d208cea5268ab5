"""What the vector units can do at most: multiply-adds in registers, with no memory in the way.

Where the processor has no FMA (baseline on x86-64, which the double build has too), a multiply-add
is a multiplication and an addition.
"""

from cython.parallel cimport prange

from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport real
from cyconv._core.team cimport team
from cyconv._core.vectors cimport VECTOR_LENGTH, load, repeat, store, vector

cdef extern from *:
    """
    /* Vectors that hide the latency of a multiply-add, 4 cycles with two to four begun in each, and
       leave room for two more in 32 or 16 registers. gcc unrolls no loop over more than 16. */
    #if defined(__AVX512F__) || defined(__aarch64__)
    #define CYCONV_CHAINS 16
    #else
    #define CYCONV_CHAINS 12
    #endif
    """
    const Py_ssize_t CHAINS "CYCONV_CHAINS"

cdef enum:
    MAX_CHAINS = 16

ROW = CHAINS * VECTOR_LENGTH   # elements that a thread works on


cdef kernel run_chains(real* x, real a, real b, Py_ssize_t times) noexcept nogil:
    """x = a * x + b, so many times over."""
    cdef vector[MAX_CHAINS] chain
    cdef vector factor = repeat(a), term = repeat(b)
    cdef Py_ssize_t i, _t
    for i in range(CHAINS):
        chain[i] = load(x + i * VECTOR_LENGTH, VECTOR_LENGTH)
    for _t in range(times):
        for i in range(CHAINS):
            chain[i] = chain[i] * factor + term
    for i in range(CHAINS):
        store(x + i * VECTOR_LENGTH, chain[i], VECTOR_LENGTH)


def multiply_adds(real[:, ::1] x, double a, double b, Py_ssize_t times, int threads):
    """x = a * x + b, so many times over; a row of x has ROW elements.

    Writes: every element of x.      Aliasing: none.
    Parallel over: rows.             Retains: nothing.
    """
    cdef Py_ssize_t row
    team(threads)
    for row in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        run_chains(&x[row, 0], <real> a, <real> b, times)
