"""Convolution on whole arrays: the loops over threads around the blocks."""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.string cimport memset

from cyconv._core.block cimport conv_backward, conv_forward
from cyconv._core.columns cimport Window, col2im_rows, im2col_rows


def im2col(
    const floating[:, :, :, ::1] x,      # IN
    floating[:, ::1] cols,               # OUT
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
    const floating[:, ::1] cols,         # IN
    floating[:, :, :, ::1] x,            # OUT
    Window window,
    int threads,
):
    """x[n, ih, iw, c] = sum of every element of cols that im2col copies from there.

    Writes: every element of x.     Aliasing: cols and x must not overlap.
    Parallel over: images.          Retains: nothing.
    """
    cdef Py_ssize_t n, size = window.OH * window.OW * window.KH * window.KW * window.C
    for n in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        memset(&x[n, 0, 0, 0], 0, x.shape[1] * x.shape[2] * x.shape[3] * sizeof(floating))
        col2im_rows(&cols[0, 0] + n * size, &x[n, 0, 0, 0], &window, 0, window.OH)


def conv2d(
    const floating[:, :, :, ::1] x,        # IN
    const floating[:, :, :, ::1] weight,   # IN
    const floating[::1] bias,              # IN
    floating[:, :, :, ::1] y,              # OUT
    floating[:, ::1] cols,                 # TMP: the columns of one tile for each thread
    Window window,
    Py_ssize_t tile,
    int threads,
):
    """y = im2col(x) · weight + bias, columns for `tile` output rows at a time.

    Writes: every element of y.                      Aliasing: y must not overlap an input.
    Parallel over: pieces of output rows (n, oh).    Retains: nothing.
    """
    cdef Py_ssize_t t, first, rows = x.shape[0] * window.OH
    # Four for each thread keep all busy to the end; in sixteen images, pixels with the same taps
    # are many. Tiles are the same however many make a piece, and so are the bits.
    cdef Py_ssize_t piece = min(16 * window.OH, rows // (4 * threads)) // tile * tile
    piece = max(piece, tile)
    for t in prange((rows + piece - 1) // piece, nogil=True, schedule="dynamic",
                    num_threads=threads):
        first = t * piece
        conv_forward(&x[0, 0, 0, 0], &weight[0, 0, 0, 0], &bias[0], &y[0, 0, 0, 0],
                     &cols[threadid(), 0], &window, weight.shape[3], <floating> 1,
                     first, min(first + piece, rows), tile)


cdef void backward_lane(
    const floating* dy, const floating* x, const floating* weight, const floating* transposed,
    floating* dx, floating* lane, floating* cols, const Window* g, Py_ssize_t F, Py_ssize_t images,
    Py_ssize_t block, Py_ssize_t tile, Py_ssize_t index, Py_ssize_t lanes,
) noexcept nogil:
    """The gradients of the blocks index, index + lanes, index + 2 lanes, ... in this order."""
    cdef Py_ssize_t first = index * block, inputs = g.H * g.W * g.C, outputs = g.OH * g.OW * F
    while first < images:
        conv_backward(x + first * inputs, weight, transposed, dy + first * outputs,
                      NULL if dx == NULL else dx + first * inputs,
                      lane, lane + g.KH * g.KW * g.C * F, cols, g, F,
                      min(block, images - first), tile, first != index * block)
        first += lanes * block


def conv2d_backward(
    const floating[:, :, :, ::1] dy,       # IN
    const floating[:, :, :, ::1] x,        # IN
    const floating[:, :, :, ::1] weight,   # IN
    const floating[:, ::1] transposed,     # IN: the weight as a matrix of shape (F, KH*KW*C)
    floating[:, :, :, ::1] dx,             # OUT, or None
    floating[:, ::1] lanes,                # OUT: dweight, then dbias, of each lane
    floating[:, ::1] cols,                 # TMP: the columns of one tile for each thread
    Window window,
    Py_ssize_t block,
    Py_ssize_t tile,
    int threads,
):
    """dx, and dweight and dbias as one partial sum for each lane of blocks of images.

    Writes: every element of dx and lanes.   Aliasing: outputs must not overlap inputs.
    Parallel over: lanes.                    Retains: nothing.
    """
    cdef Py_ssize_t lane
    cdef floating* dx_or_null = NULL if dx is None else &dx[0, 0, 0, 0]
    for lane in prange(lanes.shape[0], nogil=True, schedule="dynamic", num_threads=threads):
        backward_lane(&dy[0, 0, 0, 0], &x[0, 0, 0, 0], &weight[0, 0, 0, 0],
                      &transposed[0, 0], dx_or_null, &lanes[lane, 0], &cols[threadid(), 0],
                      &window, weight.shape[3], x.shape[0], block, tile, lane, lanes.shape[0])
