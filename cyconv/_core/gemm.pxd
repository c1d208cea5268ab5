"""Row-major matrix products by BLAS: the only file that names scipy.linalg.cython_blas."""

from scipy.linalg.cython_blas cimport dgemm, sgemm

from cyconv._core.real cimport SINGLE, real


cdef inline void gemm(
    bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real* a, Py_ssize_t lda, const real* b, Py_ssize_t ldb,
    real beta, real* c, Py_ssize_t ldc,
) noexcept nogil:
    """c = op(a) · op(b) + beta * c, with op(a) of shape (m, k), op(b) (k, n) and c (m, n).

    Writes: every element of c; with beta = 0 it is never read.
    Aliasing: c must not overlap a or b.   Parallel over: nothing.   Retains: nothing.
    """
    # BLAS counts in columns, so that it sees every row-major matrix transposed: cᵀ = op(b)ᵀ op(a)ᵀ.
    cdef char op_a = b"T" if transpose_a else b"N"
    cdef char op_b = b"T" if transpose_b else b"N"
    cdef int rows = <int> m, columns = <int> n, inner = <int> k
    cdef int stride_a = <int> lda, stride_b = <int> ldb, stride_c = <int> ldc
    cdef real one = 1
    if SINGLE:
        sgemm(&op_b, &op_a, &columns, &rows, &inner, <float*> &one, <float*> b, &stride_b,
              <float*> a, &stride_a, <float*> &beta, <float*> c, &stride_c)
    else:
        dgemm(&op_b, &op_a, &columns, &rows, &inner, <double*> &one, <double*> b, &stride_b,
              <double*> a, &stride_a, <double*> &beta, <double*> c, &stride_c)
