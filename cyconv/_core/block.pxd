"""One convolution on some output rows: forward and backward, the same for arrays and networks.

Where columns are made the rows are cut into tiles whose columns fit the cache. Rows and tiles are
fixed by shapes, or without effect on a sum, so the result never depends on the number of threads.
"""

from cyconv._core.columns cimport Window, col2im_rows, im2col_rows, is_identity
from cyconv._core.packed cimport packed_forward, packed_weight, reads_image
from cyconv._core.products cimport (
    dy_times_transposed,
    fills_vectors,
    times_weight,
    transposed_times_dy,
)
from cyconv._core.pointwise cimport bias_leaky_relu, column_sums
from cyconv._core.real cimport real
from cyconv._core.windows cimport windows_forward


cdef inline void conv_forward(
    const real* x, const real* weight, const real* bias, real* y, real* cols,
    const Window* g, Py_ssize_t F, real slope, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t tile,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · weight + bias) for the output rows first <= (n, oh) < last.

    `x` and `y` are the whole batch, `cols` has room for `tile` rows; a slope of 1 leaves out the
    LeakyReLU.
    Writes: y of these rows.   Aliasing: none allowed.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Py_ssize_t K = g.KH * g.KW * g.C, row, stop
    cdef const real* source
    cdef real* out
    if fills_vectors(F):
        windows_forward(x, weight, bias, y,
                        g, F, slope, first, last)
        return
    row = first
    while row < last:
        stop = min(row + tile, last)
        out = y + row * g.OW * F
        if reads_image(g, F):
            packed_forward(x, weight, out, g, row, stop, F)
        else:
            if is_identity(g):
                source = x + row * g.W * g.C
            else:
                im2col_rows(x, cols, g, row, stop)
                source = cols
            # y = cols @ weight
            times_weight(source, weight, out, (stop - row) * g.OW, K, F)
        bias_leaky_relu(out, bias, (stop - row) * g.OW, F, slope)
        row = stop


cdef inline void conv_backward(
    const real* x, const real* weight, const real* transposed, const real* dy,
    real* dx, real* dweight, real* dbias, real* cols, const Window* g, Py_ssize_t F,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t tile, bint accumulate,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, dbias (+)= column sums of dy, dx += col2im(dy · weightᵀ).

    For the output rows first <= (n, oh) < last; `x`, `dy` and `dx` are the whole batch, and
    `transposed` is weightᵀ. The parameters' gradients are added to if `accumulate`. A dx of NULL is
    left out; where the image is its own columns, dx is written. `cols` is overwritten.
    Writes: dweight, dbias, dx.   Aliasing: none allowed.
    Parallel over: nothing.       Retains: nothing.
    """
    cdef Py_ssize_t K = g.KH * g.KW * g.C, row = first, stop, pixels
    cdef const real* source
    cdef const real* dy_tile
    column_sums(dy + first * g.OW * F, dbias, (last - first) * g.OW, F, accumulate)
    while row < last:
        stop = min(row + tile, last)
        pixels = (stop - row) * g.OW
        dy_tile = dy + row * g.OW * F
        # forward: y = cols @ weight, so dweight += cols.T @ dy
        if reads_image(g, F):
            packed_weight(x, dy_tile, dweight, g, row, stop,
                          F, accumulate)
        else:
            if is_identity(g):
                source = x + row * g.W * g.C
            else:
                im2col_rows(x, cols, g, row, stop)
                source = cols
            transposed_times_dy(source, dy_tile, dweight, pixels, K, F, accumulate)
        accumulate = True
        if dx != NULL:
            # and dcols = dy @ weight.T, over the columns that are needed no more
            if is_identity(g):
                dy_times_transposed(
                    dy_tile, weight, transposed, dx + row * g.W * g.C, pixels, K, F)
            else:
                dy_times_transposed(dy_tile, weight, transposed, cols, pixels, K, F)
                col2im_rows(cols, dx, g, row, stop)
        row = stop
