"""One thread for BLAS while kernels run, which have threads of their own."""

cdef int enter(int threads) except -1
cdef void leave(int threads) noexcept
