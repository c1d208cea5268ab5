"""`kernel`, what a function returns that the compiler keeps as one, with all it calls inlined.

The kernels are small functions that call each other with numbers. Inlined, loops over these numbers
unroll and tiles stay in registers; kept apart from other kernels, they share the registers with
nothing else: in one large function the same loops take up to a fifth longer.
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
