"""Room in the address space for the threads of a parallel region, and for BLAS."""

cdef bint has_room(size_t size) noexcept
cdef int no_room(str what, str instead) except -1
cdef size_t stacks(int threads) noexcept
cdef int team(int threads) except -1
cdef int team_for(Py_ssize_t size, int threads) except -1
