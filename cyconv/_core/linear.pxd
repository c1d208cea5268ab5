"""A linear layer on the whole batch: threads divide the output, never a sum.

A weight matrix that exceeds the cache must not be read again for every block of images. Here each
tile of the output is one product over the full length of its sums, so the bits do not depend on
the number of threads.
"""

from cyconv._core.gemm cimport gemm
from cyconv._core.pointwise cimport bias_leaky_relu
from cyconv._core.products cimport Operands, fills_vectors, has_vectors, multiply, transpose
from cyconv._core.real cimport real
from cyconv._core.vectors cimport VECTOR_LENGTH, add_lanes, load, repeat, vector


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


cdef inline void forward_tile(const Linear* layer, Py_ssize_t f, Py_ssize_t width) noexcept nogil:
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


cdef inline void weight_tile(const Linear* layer, Py_ssize_t k, Py_ssize_t height) noexcept nogil:
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


cdef inline void input_tile(
    const Linear* layer, real* dx_transposed, Py_ssize_t k, Py_ssize_t width,
) noexcept nogil:
    """`width` columns of dx from column k on."""
    cdef Py_ssize_t n = 0, N = layer.N, K = layer.K, F = layer.F, images, row
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
    elif has_vectors() and N <= 2:
        # BLAS copies the weights first.
        for row in range(width):
            for n in range(N):
                layer.dx[n * K + k + row] = dot(weight + row * F, layer.dy + n * F, F)
    else:
        gemm(False, True, N, width, F, layer.dy, F, weight, F, 0, layer.dx + k, K)


cdef inline real dot(const real* a, const real* b, Py_ssize_t n) noexcept nogil:
    """Return the sum of a[i] * b[i]; four sums at once hide the latency of an addition."""
    cdef Py_ssize_t left = n, j
    cdef vector[4] sums
    cdef real[4] totals
    for j in range(4):
        sums[j] = repeat(0)
    while left >= 4 * VECTOR_LENGTH:
        for j in range(4):
            sums[j] = sums[j] + (load(a + j * VECTOR_LENGTH, VECTOR_LENGTH)
                                 * load(b + j * VECTOR_LENGTH, VECTOR_LENGTH))
        a += 4 * VECTOR_LENGTH
        b += 4 * VECTOR_LENGTH
        left -= 4 * VECTOR_LENGTH
    while left > 0:
        j = min(left, VECTOR_LENGTH)
        sums[0] = sums[0] + load(a, j) * load(b, j)
        a += VECTOR_LENGTH
        b += VECTOR_LENGTH
        left -= VECTOR_LENGTH
    add_lanes(sums[0], sums[1], sums[2], sums[3], totals)
    return (totals[0] + totals[1]) + (totals[2] + totals[3])
