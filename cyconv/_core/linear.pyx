"""A linear layer on the whole batch: threads divide the output, never a sum.

A weight matrix that exceeds the cache must not be read again for every block of images. Here each
tile of the output is one product over the full length of its sums, so the bits do not depend on
the number of threads.
"""

from cython.parallel cimport prange, threadid

from cyconv._core.blas cimport enter, leave
from cyconv._core.gemm cimport gemm
from cyconv._core.pointwise cimport bias_leaky_relu, column_sums
from cyconv._core.products cimport Operands, fills_vectors, has_vectors, multiply, transpose
from cyconv._core.real cimport real
from cyconv._core.tuning cimport TILE_ROWS
from cyconv._core.vectors cimport VECTOR_LENGTH


# With fewer images `multiply` reads whole lines of the weight: each thread should have one tile.
FEW_IMAGES = TILE_ROWS


cdef struct Linear:
    # y = leaky_relu(x · weight + bias) and its gradients, with x of shape (N, K), weight (K, F).
    const real* x
    const real* weight
    const real* bias
    real* y
    const real* dy
    const real* dy_transposed
    real* dx
    real* dweight
    Py_ssize_t N, K, F
    Py_ssize_t dx_images   # whose dx is computed at once
    real slope


cdef void forward_tile(const Linear* layer, Py_ssize_t f, Py_ssize_t width) noexcept nogil:
    """`width` columns of y from column f on."""
    cdef Py_ssize_t n, N = layer.N, K = layer.K, F = layer.F
    cdef Operands operands = Operands(
        layer.x, K, 1, layer.weight + f, F, layer.y + f, F, N, K, width, False)
    # y = x @ weight
    if has_vectors():
        multiply(&operands)
    else:
        gemm(False, False, N, width, K, layer.x, K, layer.weight + f, F, 0, layer.y + f, F)
    for n in range(N):
        bias_leaky_relu(layer.y + n * F + f, layer.bias + f, 1, width, layer.slope)


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
    cdef Py_ssize_t t, F = weight.shape[1]
    cdef Linear layer
    layer.N, layer.K, layer.F, layer.slope = x.shape[0], x.shape[1], F, <real> slope
    layer.x, layer.weight, layer.bias, layer.y = &x[0, 0], &weight[0, 0], &bias[0], &y[0, 0]
    enter(threads)
    for t in prange((F + tile - 1) // tile, nogil=True, schedule="dynamic", num_threads=threads):
        forward_tile(&layer, t * tile, min(tile, F - t * tile))
    leave(threads)


cdef void weight_tile(const Linear* layer, Py_ssize_t k, Py_ssize_t height) noexcept nogil:
    """`height` rows of dweight from row k on."""
    cdef Py_ssize_t N = layer.N, K = layer.K, F = layer.F
    cdef real* dweight = layer.dweight + k * F
    cdef Operands operands = Operands(
        layer.x + k, 1, K, layer.dy, F, dweight, F, height, N, F, False)
    # forward: y = x @ weight, so dweight = x.T @ dy
    if fills_vectors(F):
        multiply(&operands)
    else:
        gemm(True, False, height, F, N, layer.x + k, K, layer.dy, F, 0, dweight, F)


cdef inline bint is_transposed(Py_ssize_t N) noexcept nogil:
    """Tell whether dxᵀ = weight · dyᵀ is computed, with images that fill vectors."""
    return has_vectors() and N > VECTOR_LENGTH // 2


cdef void input_tile(
    const Linear* layer, real* dx_transposed, Py_ssize_t k, Py_ssize_t width,
) noexcept nogil:
    """`width` columns of dx from column k on."""
    cdef Py_ssize_t n = 0, N = layer.N, K = layer.K, F = layer.F, images
    cdef const real* weight = layer.weight + k * F
    cdef Operands operands
    # forward: y = x @ weight, so dx = dy @ weight.T
    if is_transposed(N):
        while n < N:
            images = min(layer.dx_images, N - n)
            # dx.T = weight @ dy.T
            operands = Operands(
                weight, F, 1, layer.dy_transposed + n * F, images, dx_transposed, images, width, F,
                images, False)
            multiply(&operands)
            transpose(dx_transposed, layer.dx + n * K + k, width, images, K)
            n += images
    else:
        gemm(False, True, N, width, F, layer.dy, F, weight, F, 0, layer.dx + k, K)


def backward(
    const real[:, ::1] dy,           # IN
    const real[:, ::1] x,            # IN
    const real[:, ::1] weight,       # IN
    real[:, ::1] dx,                 # OUT, or None
    real[:, ::1] dweight,            # OUT
    real[::1] dbias,                 # OUT
    real[::1] dy_transposed,         # TMP: as large as dy
    real[:, ::1] dx_transposed,      # TMP: dx_images * tile for each thread
    Py_ssize_t tile,
    Py_ssize_t dx_images,            # whose dx is computed at once
    int threads,
):
    """dweight = xᵀ · dy, dbias = column sums of dy, dx = dy · weightᵀ.

    Writes: every element of the outputs.        Aliasing: outputs must not overlap inputs.
    Parallel over: tiles of `tile` rows of dweight and columns of dx.   Retains: nothing.
    """
    cdef Py_ssize_t N = x.shape[0], K = x.shape[1], F = weight.shape[1], t, k, n
    cdef Py_ssize_t tiles = (K + tile - 1) // tile
    cdef Linear layer
    layer.N, layer.K, layer.F, layer.dx_images = N, K, F, dx_images
    layer.x, layer.weight, layer.dy, layer.dweight = (
        &x[0, 0], &weight[0, 0], &dy[0, 0], &dweight[0, 0])
    layer.dy_transposed = &dy_transposed[0]
    layer.dx = NULL if dx is None else &dx[0, 0]
    enter(threads)
    if layer.dx != NULL and is_transposed(N):
        # dyᵀ of a few images at a time: a large row stride would map to few cache sets.
        for t in prange((N + dx_images - 1) // dx_images, nogil=True, num_threads=threads):
            n = t * dx_images
            transpose(&dy[n, 0], &dy_transposed[0] + n * F, min(dx_images, N - n), F,
                      min(dx_images, N - n))
    for t in prange((1 if dx is None else 2) * tiles + 1, nogil=True, schedule="dynamic",
                    num_threads=threads):
        k = (t % tiles) * tile
        if t < tiles:
            weight_tile(&layer, k, min(tile, K - k))
        elif t < 2 * tiles and layer.dx != NULL:
            input_tile(&layer, &dx_transposed[threadid(), 0], k, min(tile, K - k))
        else:
            column_sums(&dy[0, 0], &dbias[0], N, F, False)
    leave(threads)
