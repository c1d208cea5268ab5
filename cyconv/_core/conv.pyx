"""Convolution on whole arrays: the loops over threads around those of convolution.pxd."""

from cython.parallel cimport prange, threadid

from cyconv._core cimport convolution, products
from cyconv._core.blas cimport enter, leave
from cyconv._core.convolution cimport Convolution, adds_dx, conv_backward, conv_forward
from cyconv._core.columns cimport col2im_rows, im2col_rows, zero
from cyconv._core.geometry cimport Geometry
from cyconv._core.real cimport real
from cyconv._core.team cimport team, team_for
from cyconv._core.tuning cimport MAX_IMAGES_PER_PART, PARTS_PER_THREAD
from cyconv._core.winograd cimport (
    backwards,
    can_winograd,
    panels,
    transform_weights,
    weight_floats,
)


def im2col(
    const real[:, :, :, ::1] x,      # IN
    real[:, ::1] cols,               # OUT
    Geometry geometry,
    int threads,
):
    """cols[(n, oh, ow), (kh, kw, c)] = x[n, oh*sh - pt + kh, ow*sw - pl + kw, c].

    Writes: every element of cols, zeros included.   Aliasing: x and cols must not overlap.
    Parallel over: output rows (n, oh).              Retains: nothing.
    """
    cdef Py_ssize_t t, begin, rows = x.shape[0] * geometry.OH
    cdef Py_ssize_t size = geometry.OW * geometry.KH * geometry.KW * geometry.C
    team(threads)
    for t in prange(threads, nogil=True, schedule="static", num_threads=threads):
        begin = t * rows // threads
        im2col_rows(&x[0, 0, 0, 0], &cols[0, 0] + begin * size, &geometry, begin,
                    (t + 1) * rows // threads)


def col2im(
    const real[:, ::1] cols,         # IN
    real[:, :, :, ::1] x,            # OUT
    Geometry geometry,
    int threads,
):
    """x[n, ih, iw, c] = sum of every element of cols that im2col copies from there.

    Writes: every element of x.     Aliasing: cols and x must not overlap.
    Parallel over: images.          Retains: nothing.
    """
    cdef Py_ssize_t n, size = geometry.OH * geometry.OW * geometry.KH * geometry.KW * geometry.C
    team(threads)
    for n in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        zero(&x[n, 0, 0, 0], x.shape[1] * x.shape[2] * x.shape[3])
        col2im_rows(&cols[0, 0] + n * size, &x[n, 0, 0, 0], &geometry, 0, geometry.OH)


def makes_columns(Geometry geometry, Py_ssize_t F):
    """Tell whether `conv2d` makes columns for F filters."""
    return convolution.makes_columns(&geometry, F)


def needs_transposed(Geometry geometry):
    """Tell whether `conv2d_backward` reads the weight's transpose for dx."""
    return products.needs_transposed(geometry.KH * geometry.KW * geometry.C)


def working_floats(Geometry geometry, Py_ssize_t F, Py_ssize_t tile, Py_ssize_t images):
    """Return how many floats of working memory a thread needs, with columns of `tile` rows."""
    return convolution.working_floats(&geometry, F, tile, images)


def winograd_floats(Geometry geometry, Py_ssize_t F):
    """Return how many floats the weight takes for Winograd's way of y and of dx, 0 if not taken."""
    cdef Geometry back = backwards(&geometry, F)
    cdef Py_ssize_t floats = weight_floats(&geometry, F)
    return (floats if can_winograd(&geometry, F) else 0,
            floats if can_winograd(&back, geometry.C) else 0)


def transform(
    const real[:, :, :, ::1] weight,   # IN
    real[::1] u,                       # OUT
    bint back,
    int threads,
):
    """u = the weight as Winograd's way takes it, for y or, going back, for dx.

    Writes: every element of u.   Aliasing: none allowed.
    Parallel over: filters.       Retains: nothing.
    """
    cdef Py_ssize_t panel, C = weight.shape[3 if back else 2], F = weight.shape[2 if back else 3]
    threads = team_for(u.shape[0], threads)
    for panel in prange(panels(F), nogil=True, schedule="static", num_threads=threads):
        transform_weights(&weight[0, 0, 0, 0], &u[0], C, F, back, panel)


def conv2d(
    const real[:, :, :, ::1] x,        # IN
    const real[:, :, :, ::1] weight,   # IN
    const real[::1] bias,              # IN
    const real[::1] u,                 # IN: the weight for Winograd's way, or None
    real[:, :, :, ::1] y,              # OUT
    real[:, ::1] cols,                 # TMP: working memory of each thread
    Geometry geometry,
    Py_ssize_t tile,
    int threads,
):
    """y = im2col(x) · weight + bias; where columns are made, those of `tile` output rows at a time.

    Writes: every element of y.                      Aliasing: y must not overlap an input.
    Parallel over: parts of output rows (n, oh).    Retains: nothing.
    """
    cdef Py_ssize_t t, rows = x.shape[0] * geometry.OH
    # Tiles and the order of a pixel's sum are the same whatever the part, and so are the bits.
    cdef Py_ssize_t part = min(
        MAX_IMAGES_PER_PART * geometry.OH, rows // (PARTS_PER_THREAD * threads)) // tile * tile
    cdef Convolution conv
    part = max(part, tile)
    if u is not None:
        part += part % 2   # Winograd's tiles have two rows
    conv.x, conv.weight, conv.bias = &x[0, 0, 0, 0], &weight[0, 0, 0, 0], &bias[0]
    conv.y, conv.slope = &y[0, 0, 0, 0], 1
    conv.u = NULL
    if u is not None:
        conv.u = &u[0]
    conv.g, conv.F, conv.tile = &geometry, weight.shape[3], tile
    enter(threads)
    for t in prange((rows + part - 1) // part, nogil=True, schedule="dynamic",
                    num_threads=threads):
        forward_part(&conv, &cols[threadid(), 0], t * part, min((t + 1) * part, rows))
    leave(threads)


cdef void forward_part(
    const Convolution* shared, real* cols, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """The output rows begin <= (n, oh) < end, with columns in `cols`."""
    cdef Convolution conv = shared[0]
    conv.cols = cols
    conv_forward(&conv, begin, end)


cdef void add_gradients(
    const Convolution* shared, real* accumulator, real* cols, Py_ssize_t images,
    Py_ssize_t height, Py_ssize_t index, Py_ssize_t accumulators, Py_ssize_t phase,
) noexcept nogil:
    """The gradients of the parts index, index + accumulators, ... of the batch, in this order.

    If an image is cut into strips, phase 0 does the even ones and phase 1 the odd ones, because
    adjacent strips update the same rows of dx.
    """
    cdef Convolution conv = shared[0]
    cdef const Geometry* g = conv.g
    cdef Py_ssize_t strips = (g.OH + height - 1) // height, whole = max(height, g.OH)
    cdef Py_ssize_t rows = images * g.OH, weights = g.KH * g.KW * g.C * conv.F
    cdef Py_ssize_t image = g.H * g.W * g.pitch, begin, end, part = index
    conv.dweight, conv.dbias, conv.cols = accumulator, accumulator + weights, cols
    if phase == 0:
        zero(accumulator, weights + conv.F)
    while part // strips * whole < rows:
        begin = part // strips * whole + part % strips * height
        end = min(min(begin + height, (part // strips + 1) * whole), rows)
        if strips == 1 and adds_dx(&conv):
            zero(conv.dx + begin // g.OH * image, (end - begin) // g.OH * image)
        if strips == 1 or part % strips % 2 == phase:
            conv_backward(&conv, begin, end)
        part += accumulators


def conv2d_backward(
    const real[:, :, :, ::1] dy,       # IN
    const real[:, :, :, ::1] x,        # IN
    const real[:, :, :, ::1] weight,   # IN
    const real[:, ::1] transposed,     # IN: the weight as a matrix (F, KH*KW*C), or None
    const real[::1] u_back,            # IN: the weight for Winograd's way of dx, or None
    real[:, :, :, ::1] dx,             # OUT, or None
    real[:, ::1] accumulators,         # OUT: dweight, then dbias, of each accumulator
    real[:, ::1] cols,                 # TMP: working memory of each thread
    Geometry geometry,
    Py_ssize_t height,
    Py_ssize_t tile,
    int threads,
):
    """dx, and dweight and dbias as one partial sum for each accumulator.

    A part of the batch has `height` output rows: those of whole images, or a strip of one image
    that shares no row of dx with the next strip but one. The accumulators take parts in turn.
    Writes: every element of dx and accumulators.   Aliasing: outputs must not overlap inputs.
    Parallel over: accumulators.                    Retains: nothing.
    """
    cdef Py_ssize_t index, phase, line, lines = 0 if dx is None else dx.shape[0] * dx.shape[1]
    cdef Convolution conv
    conv.dy, conv.x, conv.weight = &dy[0, 0, 0, 0], &x[0, 0, 0, 0], &weight[0, 0, 0, 0]
    conv.transposed, conv.u_back, conv.accumulate = NULL, NULL, True
    if transposed is not None:
        conv.transposed = &transposed[0, 0]
    if u_back is not None:
        conv.u_back = &u_back[0]
    conv.dx = NULL if dx is None else &dx[0, 0, 0, 0]
    conv.g, conv.F, conv.tile = &geometry, weight.shape[3], tile
    enter(threads)
    if height < geometry.OH and adds_dx(&conv):
        for line in prange(lines, nogil=True, schedule="static", num_threads=threads):
            zero(conv.dx + line * geometry.W * geometry.pitch, geometry.W * geometry.pitch)
    for phase in range(2 if height < geometry.OH else 1):
        for index in prange(accumulators.shape[0], nogil=True, schedule="dynamic",
                            num_threads=threads):
            add_gradients(&conv, &accumulators[index, 0], &cols[threadid(), 0], x.shape[0], height,
                          index, accumulators.shape[0], phase)
    leave(threads)
