"""Convolution on whole arrays: the loops over threads around the blocks."""

from cython.parallel cimport prange, threadid

from cyconv._core.blas cimport enter, leave
from cyconv._core.block cimport conv_backward, conv_forward
from cyconv._core.columns cimport Window, col2im_rows, im2col_rows, is_identity, zero
from cyconv._core.depthwise cimport is_depthwise
from cyconv._core.real cimport real
from cyconv._core.windows cimport can_read_windows


def im2col(
    const real[:, :, :, ::1] x,      # IN
    real[:, ::1] cols,               # OUT
    Window window,
    int threads,
):
    """cols[(n, oh, ow), (kh, kw, c)] = x[n, oh*sh - pt + kh, ow*sw - pl + kw, c].

    Writes: every element of cols, zeros included.   Aliasing: x and cols must not overlap.
    Parallel over: output rows (n, oh).              Retains: nothing.
    """
    cdef Py_ssize_t row, rows = x.shape[0] * window.OH
    cdef Py_ssize_t size = window.OW * window.KH * window.KW * window.C
    for row in prange(rows, nogil=True, schedule="static", num_threads=threads):
        im2col_rows(&x[0, 0, 0, 0], &cols[0, 0] + row * size, &window, row, row + 1)


def col2im(
    const real[:, ::1] cols,         # IN
    real[:, :, :, ::1] x,            # OUT
    Window window,
    int threads,
):
    """x[n, ih, iw, c] = sum of every element of cols that im2col copies from there.

    Writes: every element of x.     Aliasing: cols and x must not overlap.
    Parallel over: images.          Retains: nothing.
    """
    cdef Py_ssize_t n, size = window.OH * window.OW * window.KH * window.KW * window.C
    for n in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        zero(&x[n, 0, 0, 0], x.shape[1] * x.shape[2] * x.shape[3])
        col2im_rows(&cols[0, 0] + n * size, &x[n, 0, 0, 0], &window, 0, window.OH)


def makes_columns(Window window, Py_ssize_t F):
    """Tell whether `conv2d` makes columns for F filters."""
    return not (can_read_windows(&window, F) or is_depthwise(&window, F))


def conv2d(
    const real[:, :, :, ::1] x,        # IN
    const real[:, :, :, ::1] weight,   # IN
    const real[::1] bias,              # IN
    real[:, :, :, ::1] y,              # OUT
    real[:, ::1] cols,                 # TMP: the columns of one tile for each thread
    Window window,
    Py_ssize_t tile,
    int threads,
):
    """y = im2col(x) · weight + bias; where columns are made, those of `tile` output rows at a time.

    Writes: every element of y.                      Aliasing: y must not overlap an input.
    Parallel over: pieces of output rows (n, oh).    Retains: nothing.
    """
    cdef Py_ssize_t t, first, rows = x.shape[0] * window.OH
    # Four for each thread keep all busy to the end; in sixteen images, pixels with the same taps
    # are many. Tiles, and the order of a pixel's sum, are the same in any piece, and so the bits.
    cdef Py_ssize_t piece = min(16 * window.OH, rows // (4 * threads)) // tile * tile
    piece = max(piece, tile)
    enter()
    for t in prange((rows + piece - 1) // piece, nogil=True, schedule="dynamic",
                    num_threads=threads):
        first = t * piece
        conv_forward(&x[0, 0, 0, 0], &weight[0, 0, 0, 0], &bias[0], &y[0, 0, 0, 0],
                     &cols[threadid(), 0], &window, weight.shape[3], 1,
                     first, min(first + piece, rows), tile)
    leave()


cdef void backward_lane(
    const real* dy, const real* x, const real* weight, const real* transposed,
    real* dx, real* lane, real* cols, const Window* g, Py_ssize_t F, Py_ssize_t images,
    Py_ssize_t height, Py_ssize_t tile, Py_ssize_t index, Py_ssize_t lanes, Py_ssize_t phase,
) noexcept nogil:
    """The gradients of the parts index, index + lanes, index + 2 lanes, ... in this order.

    Of images in several strips, only those whose number is even in the first phase, and odd in
    the second: strips that lie side by side add to the same lines of dx.
    """
    cdef Py_ssize_t strips = (g.OH + height - 1) // height, whole = max(height, g.OH)
    cdef Py_ssize_t rows = images * g.OH, weights = g.KH * g.KW * g.C * F, first, last, part = index
    cdef Py_ssize_t image = g.H * g.W * g.pitch
    if phase == 0:
        zero(lane, weights + F)
    while part // strips * whole < rows:
        first = part // strips * whole + part % strips * height
        last = min(min(first + height, (part // strips + 1) * whole), rows)
        if strips == 1 and dx != NULL and not is_identity(g):
            zero(dx + first // g.OH * image, (last - first) // g.OH * image)
        if strips == 1 or part % strips % 2 == phase:
            conv_backward(x, weight, transposed, dy, dx, lane, lane + weights, cols, g, F, first,
                          last, tile, True)
        part += lanes


def conv2d_backward(
    const real[:, :, :, ::1] dy,       # IN
    const real[:, :, :, ::1] x,        # IN
    const real[:, :, :, ::1] weight,   # IN
    const real[:, ::1] transposed,     # IN: the weight as a matrix of shape (F, KH*KW*C)
    real[:, :, :, ::1] dx,             # OUT, or None
    real[:, ::1] lanes,                # OUT: dweight, then dbias, of each lane
    real[:, ::1] cols,                 # TMP: the columns of one tile for each thread
    Window window,
    Py_ssize_t height,
    Py_ssize_t tile,
    int threads,
):
    """dx, and dweight and dbias as one partial sum for each lane.

    The lanes take turns at the parts of the batch: `height` output rows each, which are those of
    whole images, or a strip of one image that shares no line of dx with the next strip but one.
    Writes: every element of dx and lanes.   Aliasing: outputs must not overlap inputs.
    Parallel over: lanes.                    Retains: nothing.
    """
    cdef Py_ssize_t lane, phase, line, lines = 0 if dx is None else dx.shape[0] * dx.shape[1]
    cdef real* dx_or_null = NULL if dx is None else &dx[0, 0, 0, 0]
    if height < window.OH:
        for line in prange(lines, nogil=True, schedule="static", num_threads=threads):
            zero(dx_or_null + line * window.W * window.pitch, window.W * window.pitch)
    enter()
    for phase in range(2 if height < window.OH else 1):
        for lane in prange(lanes.shape[0], nogil=True, schedule="dynamic", num_threads=threads):
            backward_lane(&dy[0, 0, 0, 0], &x[0, 0, 0, 0], &weight[0, 0, 0, 0],
                          &transposed[0, 0], dx_or_null, &lanes[lane, 0], &cols[threadid(), 0],
                          &window, weight.shape[3], x.shape[0], height, tile, lane,
                          lanes.shape[0], phase)
    leave()
