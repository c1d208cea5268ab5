"""A linear layer on the whole batch: threads divide the output, never a sum.

A weight matrix that exceeds the cache must not be read again for every block of images. Here each
tile of the output is one product over the full length of its sums, so the bits do not depend on
the number of threads.
"""

from cython.parallel cimport prange, threadid

from cyconv._core.blas cimport enter, leave
from cyconv._core.gemm cimport gemm
from cyconv._core.pointwise cimport bias_leaky_relu, column_sums
from cyconv._core.products cimport fills_vectors, multiply, transpose
from cyconv._core.real cimport real
from cyconv._core.vectors cimport CYCONV_VECTORS, VECTOR_FLOATS


cdef void forward_tile(
    const real* x, const real* weight, const real* bias, real* y,
    Py_ssize_t N, Py_ssize_t K, Py_ssize_t F, Py_ssize_t width, real slope,
) noexcept nogil:
    """`width` columns of y, which begin where weight, bias and y do."""
    cdef Py_ssize_t n
    # y = x @ weight
    if fills_vectors(width):
        multiply(x, K, 1, weight, F, y, F, N, K, width,
                 False)
    else:
        gemm(False, False, N, width, K, x, K, weight, F, 0, y, F)
    for n in range(N):
        bias_leaky_relu(y + n * F, bias, 1, width, slope)


def forward(
    const real[:, ::1] x,            # IN
    const real[:, ::1] weight,       # IN
    const real[::1] bias,            # IN
    real[:, ::1] y,                  # OUT
    double slope,
    Py_ssize_t tile,
    int threads,
):
    """y = leaky_relu(x · weight + bias); a slope of 1 leaves out the LeakyReLU.

    Writes: every element of y.                  Aliasing: y must not overlap an input.
    Parallel over: tiles of `tile` columns of y. Retains: nothing.
    """
    cdef Py_ssize_t t, f, F = weight.shape[1]
    enter()
    for t in prange((F + tile - 1) // tile, nogil=True, schedule="dynamic", num_threads=threads):
        f = t * tile
        forward_tile(&x[0, 0], &weight[0, f], &bias[f], &y[0, f], x.shape[0], x.shape[1], F,
                     min(tile, F - f), <real> slope)
    leave()


cdef void weight_tile(
    const real* x, const real* dy, real* dweight,
    Py_ssize_t N, Py_ssize_t K, Py_ssize_t F, Py_ssize_t height,
) noexcept nogil:
    """`height` rows of dweight, which begin where dweight and the columns of x do."""
    if fills_vectors(F):
        multiply(x, 1, K, dy, F, dweight, F, height, N, F,
                 False)
    else:
        gemm(True, False, height, F, N, x, K, dy, F, 0, dweight, F)


cdef inline bint is_transposed(Py_ssize_t N) noexcept nogil:
    """Tell whether dxᵀ = weight · dyᵀ is computed, with images that fill vectors."""
    return CYCONV_VECTORS and N > VECTOR_FLOATS // 2


cdef void input_tile(
    const real* dy, const real* dy_transposed, const real* weight, real* dx,
    real* dx_transposed, Py_ssize_t N, Py_ssize_t K, Py_ssize_t F, Py_ssize_t width,
    Py_ssize_t dx_images,
) noexcept nogil:
    """`width` columns of dx, which begin where dx and the rows of weight do."""
    cdef Py_ssize_t n = 0, images
    if is_transposed(N):
        while n < N:
            images = min(dx_images, N - n)
            # dx.T = weight @ dy.T
            multiply(weight, F, 1, dy_transposed + n * F, images, dx_transposed,
                     images, width, F, images, False)
            transpose(dx_transposed, dx + n * K, width, images, K)
            n += images
    else:
        gemm(False, True, N, width, F, dy, F, weight, F, 0, dx, K)


def backward(
    const real[:, ::1] dy,           # IN
    const real[:, ::1] x,            # IN
    const real[:, ::1] weight,       # IN
    real[:, ::1] dx,                 # OUT, or None
    real[:, ::1] dweight,            # OUT
    real[::1] dbias,                 # OUT
    real[::1] dy_transposed,            # TMP: as large as dy
    real[:, ::1] dx_transposed,         # TMP: dx_images * tile for each thread
    Py_ssize_t tile,
    Py_ssize_t dx_images,               # whose dx is computed at once
    int threads,
):
    """dweight = xᵀ · dy, dbias = column sums of dy, dx = dy · weightᵀ.

    Writes: every element of the outputs.        Aliasing: outputs must not overlap inputs.
    Parallel over: tiles of `tile` rows of dweight and columns of dx.   Retains: nothing.
    """
    cdef Py_ssize_t N = x.shape[0], K = x.shape[1], F = weight.shape[1], t, k, n
    cdef Py_ssize_t tiles = (K + tile - 1) // tile
    cdef real* dx_or_null = NULL if dx is None else &dx[0, 0]
    if dx_or_null != NULL and is_transposed(N):
        # dyᵀ of a few images at a time: a large row stride would map to few cache sets.
        for t in prange((N + dx_images - 1) // dx_images, nogil=True, num_threads=threads):
            n = t * dx_images
            transpose(&dy[n, 0], &dy_transposed[0] + n * F, min(dx_images, N - n), F,
                      min(dx_images, N - n))
    enter()
    for t in prange((1 if dx is None else 2) * tiles + 1, nogil=True, schedule="dynamic",
                    num_threads=threads):
        k = (t % tiles) * tile
        if t < tiles:
            # forward: y = x @ weight, so dweight = x.T @ dy
            weight_tile(&x[0, k], &dy[0, 0], &dweight[k, 0], N, K, F, min(tile, K - k))
        elif t < 2 * tiles and dx_or_null != NULL:
            # and dx = dy @ weight.T
            input_tile(&dy[0, 0], &dy_transposed[0], &weight[k, 0], dx_or_null + k,
                       &dx_transposed[threadid(), 0], N, K, F, min(tile, K - k), dx_images)
        else:
            column_sums(&dy[0, 0], &dbias[0], N, F, False)
    leave()
