"""One convolution on some output rows: forward and backward, the same for arrays and networks.

Where columns are made the rows are cut into tiles whose columns fit the cache. Rows and tiles are
fixed by shapes, or without effect on a sum, so the result never depends on the number of threads.
"""

from cyconv._core.columns cimport col2im_rows, im2col_rows, zero
from cyconv._core.depthwise cimport (
    depthwise_forward,
    depthwise_input,
    depthwise_weight,
    is_depthwise,
)
from cyconv._core.dots cimport dots_forward, has_few_filters
from cyconv._core.geometry cimport Geometry, is_identity
from cyconv._core.gradient cimport (
    gradient_reads_windows,
    gradient_rows,
    gradient_scratch,
    windows_weight,
)
from cyconv._core.packed cimport packed_forward, packed_weight, reads_image
from cyconv._core.products cimport (
    Product,
    dy_times_transposed,
    times_weight,
    transposed_times_dy,
)
from cyconv._core.pointwise cimport bias_leaky_relu, column_sums
from cyconv._core.real cimport real
from cyconv._core.tuning cimport PACKED_PITCH, WINDOWS_PIXELS
from cyconv._core.windows cimport Strip, can_read_windows, windows_forward
from cyconv._core.winograd cimport (
    Winograd,
    backwards,
    can_winograd,
    scratch_floats,
    tiles_of_image,
    winograd_forward,
)


cdef struct Convolution:
    # y = leaky_relu(im2col(x) · weight + bias) and its gradients. Each of g.pitch // g.C groups has
    # g.C channels and as many of the F filters as each other. x, y, dy and dx are the whole batch.
    const real* x
    const real* weight
    const real* bias
    real* y
    real slope               # 1 leaves out the LeakyReLU
    const real* dy
    const real* transposed   # weightᵀ, if it is needed
    const real* u            # the weight as Winograd's way takes it for y; NULL leaves it out
    const real* u_back       # and for dx
    real* dx                 # NULL leaves it out
    real* dweight
    real* dbias
    bint accumulate          # dweight and dbias are added to
    real* cols               # `working_floats` of memory, for the columns of `tile` output rows
    const Geometry* g
    Py_ssize_t F, tile


cdef inline Product product(const Geometry* g, Py_ssize_t F, Py_ssize_t rows) noexcept nogil:
    """Return the product of one group of F filters on some output rows."""
    cdef Py_ssize_t K = g.KH * g.KW * g.C
    return Product(rows * g.OW, K, F // (g.pitch // g.C), g.pitch if is_identity(g) else K, F)


cdef inline bint makes_columns(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether `conv_forward` multiplies columns, if only the image that is its own."""
    return not (is_depthwise(g, F) or has_few_filters(g, F) or can_read_windows(g, F)
                or reads_image(g, F))


cdef inline bint adds_dx(const Convolution* conv) noexcept nogil:
    """Tell whether `conv_backward` adds a part of an image to dx, which must hold numbers."""
    return conv.dx != NULL and conv.u_back == NULL and not is_identity(conv.g)


cdef inline Py_ssize_t working_floats(
    const Geometry* g, Py_ssize_t F, Py_ssize_t tile, Py_ssize_t images,
) noexcept nogil:
    """Return how many floats of working memory a thread needs, with columns of `tile` rows."""
    cdef Py_ssize_t floats = tile * g.OW * g.KH * g.KW * g.C
    cdef Geometry back = backwards(g, F)
    if has_few_filters(g, F):
        floats = max(floats, g.KH * g.KW * g.C * F)
    if gradient_reads_windows(g, F):
        floats = max(floats, gradient_scratch(g, images * g.OH))
    if can_winograd(g, F):
        floats = max(floats, scratch_floats(g, F, images * tiles_of_image(g)))
    if can_winograd(&back, g.C):
        floats = max(floats, scratch_floats(&back, g.C, images * tiles_of_image(&back)))
    return floats


cdef inline const real* columns_of(
    const real* x, real* cols, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Return the columns of some output rows: the image itself, or `cols`, once filled."""
    if is_identity(g):
        return x + begin * g.W * g.pitch
    im2col_rows(x, cols, g, begin, end)
    return cols


cdef inline void conv_forward(
    const Convolution* conv, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """y = leaky_relu(im2col(x) · weight + bias) for the output rows begin <= (n, oh) < end.

    Writes: y of these rows.   Aliasing: none allowed.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef const Geometry* g = conv.g
    cdef Py_ssize_t F = conv.F, row = begin, stop, group, height = end - begin
    cdef Strip strip
    cdef Winograd winograd
    cdef Product p
    cdef const real* source
    cdef real* out
    if is_depthwise(g, F):
        depthwise_forward(conv.x, conv.weight, conv.bias, conv.y, g, conv.slope, begin, end)
        return
    if conv.u != NULL:
        winograd = Winograd(conv.x, conv.u, conv.bias, conv.y, conv.cols, g, F, conv.slope)
        winograd_forward(&winograd, begin, end)
        return
    if has_few_filters(g, F):
        dots_forward(
            conv.x, conv.weight, conv.bias, conv.y, conv.cols, g, F, conv.slope, begin, end)
        return
    if can_read_windows(g, F):
        if F >= PACKED_PITCH:
            height = max(1, WINDOWS_PIXELS // g.OW)
        while row < end:
            stop = min(row + height, end)
            strip = Strip(conv.x, conv.weight, conv.bias, conv.y, g, F, F, row, stop, conv.slope)
            windows_forward(&strip)
            row = stop
        return
    while row < end:
        stop = min(row + conv.tile, end)
        out = conv.y + row * g.OW * F
        if reads_image(g, F):
            packed_forward(conv.x, conv.weight, out, g, row, stop, F)
        else:
            p = product(g, F, stop - row)
            for group in range(g.pitch // g.C):
                source = columns_of(conv.x + group * g.C, conv.cols, g, row, stop)
                # y = cols @ weight
                times_weight(source, conv.weight + group * p.F, out + group * p.F, &p)
        bias_leaky_relu(out, conv.bias, (stop - row) * g.OW, F, conv.slope)
        row = stop


cdef inline void conv_backward(
    const Convolution* conv, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, dbias (+)= column sums of dy, dx (+)= col2im(dy · weightᵀ).

    For the output rows begin <= (n, oh) < end. dx of whole images is written, to that of a part of
    one is added (`adds_dx`).
    Writes: dweight, dbias, dx, cols.   Aliasing: none allowed.
    Parallel over: nothing.             Retains: nothing.
    """
    cdef const Geometry* g = conv.g
    cdef Py_ssize_t F = conv.F, row = begin, stop, height = gradient_rows(g)
    cdef bint accumulate = conv.accumulate
    if adds_dx(conv) and begin % g.OH == 0 and end % g.OH == 0:
        zero(conv.dx + begin // g.OH * g.H * g.W * g.pitch,
             (end - begin) // g.OH * g.H * g.W * g.pitch)
    if is_depthwise(g, F):
        column_sums(conv.dy + begin * g.OW * F, conv.dbias, (end - begin) * g.OW, F, accumulate)
        depthwise_weight(conv.x, conv.dy, conv.dweight, g, begin, end, accumulate)
        if conv.dx != NULL:
            depthwise_input(conv.dy, conv.weight, conv.dx, g, begin, end)
        return
    if not (reads_image(g, F) or gradient_reads_windows(g, F) or is_identity(g)):
        height = conv.tile
    while row < end:
        stop = min(row + height, end)
        backward_parameters(conv, row, stop, accumulate)
        accumulate = True
        row = stop
    if conv.dx != NULL and conv.u_back != NULL:
        winograd_input(conv, begin, end)
    elif conv.dx != NULL:
        row = begin
        while row < end:
            stop = min(row + conv.tile, end)
            backward_input(conv, row, stop)
            row = stop


cdef inline void backward_parameters(
    const Convolution* conv, Py_ssize_t begin, Py_ssize_t end, bint accumulate,
) noexcept nogil:
    """dweight (+)= colsᵀ · dy, dbias (+)= column sums of dy, for some output rows."""
    cdef const Geometry* g = conv.g
    cdef Py_ssize_t F = conv.F, group
    cdef Product p = product(g, F, end - begin)
    cdef const real* dy = conv.dy + begin * g.OW * F
    cdef const real* source
    column_sums(dy, conv.dbias, p.rows, F, accumulate)
    # forward: y = cols @ weight, so dweight += cols.T @ dy
    if reads_image(g, F):
        packed_weight(conv.x, dy, conv.dweight, g, begin, end, F, accumulate)
    elif gradient_reads_windows(g, F):
        windows_weight(conv.x, dy, conv.dweight, conv.cols, g, begin, end, F, accumulate)
    else:
        for group in range(g.pitch // g.C):
            source = columns_of(conv.x + group * g.C, conv.cols, g, begin, end)
            transposed_times_dy(
                source, dy + group * p.F, conv.dweight + group * p.F, &p, accumulate)


cdef inline void winograd_input(
    const Convolution* conv, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """dx = dy convolved with the weight, its kernels turned by half a turn.

    For the share of the rows of dx that begin <= (n, oh) < end is of those of y.
    """
    cdef const Geometry* g = conv.g
    cdef Geometry back = backwards(g, conv.F)
    cdef Winograd winograd = Winograd(
        conv.dy, conv.u_back, NULL, conv.dx, conv.cols, &back, g.C, 1)
    winograd_forward(&winograd, begin * g.H // g.OH, end * g.H // g.OH)


cdef inline void backward_input(
    const Convolution* conv, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """dx += col2im(dy · weightᵀ) for some output rows."""
    cdef const Geometry* g = conv.g
    cdef Product p = product(g, conv.F, end - begin)
    cdef Py_ssize_t group
    cdef const real* dy
    cdef const real* weight
    cdef const real* transposed
    cdef real* dx
    for group in range(g.pitch // g.C):
        dy = conv.dy + begin * g.OW * conv.F + group * p.F
        weight = conv.weight + group * p.F
        transposed = conv.transposed + group * p.F * p.K
        dx = conv.dx + group * g.C
        # forward: y = cols @ weight, so dcols = dy @ weight.T
        if is_identity(g):
            dy_times_transposed(dy, weight, transposed, dx + begin * g.W * g.pitch, &p)
        else:
            dy_times_transposed(dy, weight, transposed, conv.cols, &p)
            col2im_rows(conv.cols, dx, g, begin, end)
