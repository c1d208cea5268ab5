"""`kernel`, a return type (void) that keeps a function out of line and inlines all it calls.

The kernels are small functions that call each other with constants. Inlining lets loops over these
constants unroll and tiles stay in registers; staying out of line gives each kernel all registers:
in one large function the same loops take up to a fifth longer.
"""

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define CYCONV_KERNEL __attribute__((noinline, flatten)) void
    #else
    #define CYCONV_KERNEL void
    #endif
    """
    ctypedef void kernel "CYCONV_KERNEL"
