"""One thread for BLAS while kernels run, which have threads of their own."""

cdef int enter() except -1
cdef void leave() noexcept
