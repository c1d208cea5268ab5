"""One convolution on some output rows: forward and backward, the same for arrays and networks.

Where columns are made the rows are cut into tiles whose columns fit the cache. Rows and tiles are
fixed by shapes, or without effect on a sum, so the result never depends on the number of threads.
"""

from cyconv._core.columns cimport col2im_rows, im2col_rows
from cyconv._core.depthwise cimport (
    depthwise_forward,
    depthwise_input,
    depthwise_weight,
    is_depthwise,
)
from cyconv._core.geometry cimport Geometry, is_identity
from cyconv._core.packed cimport packed_forward, packed_weight, reads_image
from cyconv._core.products cimport (
    Product,
    dy_times_transposed,
    times_weight,
    transposed_times_dy,
)
from cyconv._core.pointwise cimport bias_leaky_relu, column_sums
from cyconv._core.real cimport real
from cyconv._core.windows cimport can_read_windows, windows_forward


cdef inline Product product(const Geometry* g, Py_ssize_t F, Py_ssize_t rows) noexcept nogil:
    """Return the product of one group of F filters on some output rows."""
    cdef Py_ssize_t K = g.KH * g.KW * g.C
    return Product(rows * g.OW, K, F // (g.pitch // g.C), g.pitch if is_identity(g) else K, F)


cdef inline const real* columns_of(
    const real* x, real* cols, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Return the columns of some output rows: the image itself, or `cols`, once filled."""
    if is_identity(g):
        return x + begin * g.W * g.pitch
    im2col_rows(x, cols, g, begin, end)
    return cols


cdef inline void conv_forward(
    const real* x, const real* weight, const real* bias, real* y, real* cols,
    const Geometry* g, Py_ssize_t F, real slope, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t tile,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · weight + bias) for the output rows begin <= (n, oh) < end.

    Each of g.pitch // g.C groups has g.C channels and as many of the F filters as each other.
    `x` and `y` are the whole batch, `cols` holds the columns of `tile` rows; a slope of 1 leaves
    out the LeakyReLU.
    Writes: y of these rows.   Aliasing: none allowed.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Py_ssize_t row = begin, stop, group
    cdef Product p
    cdef const real* source
    cdef real* out
    if is_depthwise(g, F):
        depthwise_forward(x, weight, bias, y, g, slope, begin, end)
        return
    if can_read_windows(g, F):
        windows_forward(x, weight, bias, y, g, F, slope, begin, end)
        return
    while row < end:
        stop = min(row + tile, end)
        out = y + row * g.OW * F
        if reads_image(g, F):
            packed_forward(x, weight, out, g, row, stop, F)
        else:
            p = product(g, F, stop - row)
            for group in range(g.pitch // g.C):
                source = columns_of(x + group * g.C, cols, g, row, stop)
                # y = cols @ weight
                times_weight(source, weight + group * p.F, out + group * p.F, &p)
        bias_leaky_relu(out, bias, (stop - row) * g.OW, F, slope)
        row = stop


cdef inline void conv_backward(
    const real* x, const real* weight, const real* transposed, const real* dy,
    real* dx, real* dweight, real* dbias, real* cols, const Geometry* g, Py_ssize_t F,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t tile, bint accumulate,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, dbias (+)= column sums of dy, dx += col2im(dy · weightᵀ).

    For the output rows begin <= (n, oh) < end; `x`, `dy` and `dx` are the whole batch, and
    `transposed` is weightᵀ. The parameters' gradients are added to if `accumulate`. A dx of NULL is
    left out; where the image is its own columns, dx is written. `cols` is overwritten.
    Writes: dweight, dbias, dx.   Aliasing: none allowed.
    Parallel over: nothing.       Retains: nothing.
    """
    cdef Py_ssize_t row = begin, stop, group
    cdef Product p
    cdef const real* source
    cdef const real* dy_tile
    column_sums(dy + begin * g.OW * F, dbias, (end - begin) * g.OW, F, accumulate)
    if is_depthwise(g, F):
        depthwise_weight(x, dy, dweight, g, begin, end, accumulate)
        if dx != NULL:
            depthwise_input(dy, weight, dx, g, begin, end)
        return
    while row < end:
        stop = min(row + tile, end)
        p = product(g, F, stop - row)
        for group in range(g.pitch // g.C):
            dy_tile = dy + row * g.OW * F + group * p.F
            # forward: y = cols @ weight, so dweight += cols.T @ dy
            if reads_image(g, F):
                packed_weight(x, dy_tile, dweight, g, row, stop, F, accumulate)
            else:
                source = columns_of(x + group * g.C, cols, g, row, stop)
                transposed_times_dy(source, dy_tile, dweight + group * p.F, &p, accumulate)
            if dx != NULL:
                # and dcols = dy @ weight.T, over the columns that are needed no more
                backward_input(dy_tile, weight + group * p.F, transposed + group * p.F * p.K,
                               dx + group * g.C, cols, g, row, &p)
        accumulate = True
        row = stop


cdef inline void backward_input(
    const real* dy, const real* weight, const real* transposed, real* dx, real* cols,
    const Geometry* g, Py_ssize_t row, const Product* p,
) noexcept nogil:
    """dx += col2im(dy · weightᵀ) from the output row `row` on, for one group."""
    if is_identity(g):
        dy_times_transposed(dy, weight, transposed, dx + row * g.W * g.pitch, p)
    else:
        dy_times_transposed(dy, weight, transposed, cols, p)
        col2im_rows(cols, dx, g, row, row + p.rows // g.OW)
