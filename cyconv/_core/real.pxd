"""`real`, the element type of a build: float, or double where CYCONV_DOUBLE is defined.

The kernels are compiled for float at each level of vector units and once more for double, so that
one source serves both, and a gradient check in double runs the code that trains. A scalar argument
that Python passes is a `double`: Cython takes `real` for a float and would round it.
"""

cdef extern from *:
    """
    #include <float.h>
    #ifdef CYCONV_DOUBLE
    typedef double cyconv_real;
    #define CYCONV_SINGLE 0
    #define CYCONV_NEGLIGIBLE (DBL_MIN * (1 << 24))
    #else
    typedef float cyconv_real;
    #define CYCONV_SINGLE 1
    #define CYCONV_NEGLIGIBLE ((double) FLT_MIN * (1 << 24))
    #endif
    """
    ctypedef float real "cyconv_real"
    const bint SINGLE "CYCONV_SINGLE"
    # With 2**-24 and larger numbers its products are normal; with subnormal ones many processors
    # take a hundred times as long.
    const double NEGLIGIBLE "CYCONV_NEGLIGIBLE"
