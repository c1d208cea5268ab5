"""Convolution as the course's slides write it: seven nested loops, one thread, no tricks.

This is the oracle that every fast kernel is compared with, and the starting point of the way from
the slides to the machine. Arguments, results and errors are those of `cyconv.functional`.
The slides' letters: InY InX InC = H W C, KnY KnX KnC = KH KW F, OpY OpX = OH OW, Sy Sx = stride,
Py Px = padding, BS = N.
"""

import numpy as np

from cython cimport floating

from cyconv import checks, functional
from cyconv._core.columns cimport Window


def im2col(x, kernel_size, stride=1, padding=0):
    """Copy the patch under every output pixel into one row of a matrix.

    See `cyconv.functional.im2col`; this is the slide "im2col", element by element.
    """
    x, geometry = functional.check_im2col(x, kernel_size, stride, padding, "naive.im2col")
    cols = functional.empty_columns(x, geometry, "naive.im2col")
    _im2col(x, cols, geometry._asdict())
    return cols


def col2im(cols, input_shape, kernel_size, stride=1, padding=0):
    """Add every element of a column matrix to the pixel that it was copied from.

    See `cyconv.functional.col2im`; this is the slide "Exercise: how do we backprop im2col?".
    """
    cols, geometry, shape = functional.check_col2im(
        cols, input_shape, kernel_size, stride, padding, "naive.col2im")
    x = checks.allocate(shape, cols.dtype, "naive.col2im", "x")
    x[...] = 0
    _col2im(cols, x, geometry._asdict())
    return x


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """Convolve a batch of images by the seven loops of the slide "2D convolution forward loop".

    See `cyconv.functional.conv2d`.
    """
    x, weight, bias, geometry = functional.check_conv2d(
        x, weight, bias, stride, padding, "naive.conv2d")
    shape = (len(x), geometry.OH, geometry.OW, weight.shape[3])
    y = checks.allocate(shape, x.dtype, "naive.conv2d", "y")
    y[...] = bias
    _conv2d(x, weight, y, geometry._asdict())
    return y


def conv2d_backward(dy, x, weight, stride=1, padding=0, need_dx=True):
    """Return (dx or None, dweight, dbias) by the two slides "2D convolution backward loop".

    See `cyconv.functional.conv2d_backward`.
    """
    dy, x, weight, geometry = functional.check_conv2d_backward(
        dy, x, weight, stride, padding, "naive.conv2d_backward")
    dweight, dbias = np.zeros(weight.shape, x.dtype), np.zeros(weight.shape[3], x.dtype)
    _conv2d_backward_weight(dy, x, dweight, dbias, geometry._asdict())
    if not need_dx:
        return None, dweight, dbias
    dx = np.zeros(x.shape, x.dtype)
    _conv2d_backward_input(dy, weight, dx, geometry._asdict())
    return dx, dweight, dbias


def _im2col(const floating[:, :, :, ::1] x, floating[:, ::1] cols, Window g):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, row, tap
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for kh in range(g.KH):
                        for kw in range(g.KW):
                            for c in range(g.C):
                                ih = oh * g.stride_h - g.pad_top + kh
                                iw = ow * g.stride_w - g.pad_left + kw
                                row = (n * g.OH + oh) * g.OW + ow
                                tap = (kh * g.KW + kw) * g.C + c
                                if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                                    cols[row, tap] = 0
                                else:
                                    cols[row, tap] = x[n, ih, iw, c]


def _col2im(const floating[:, ::1] cols, floating[:, :, :, ::1] x, Window g):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, row, tap
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for kh in range(g.KH):
                        for kw in range(g.KW):
                            for c in range(g.C):
                                ih = oh * g.stride_h - g.pad_top + kh
                                iw = ow * g.stride_w - g.pad_left + kw
                                row = (n * g.OH + oh) * g.OW + ow
                                tap = (kh * g.KW + kw) * g.C + c
                                # forward: cols[row, tap] = x[n, ih, iw, c]
                                if 0 <= ih < g.H and 0 <= iw < g.W:
                                    x[n, ih, iw, c] += cols[row, tap]


def _conv2d(
    const floating[:, :, :, ::1] x, const floating[:, :, :, ::1] weight,
    floating[:, :, :, ::1] y, Window g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, f, ih, iw
    with nogil:
        for oh in range(g.OH):                      # loop over output image Y
            for ow in range(g.OW):                  # loop over output image X
                for kh in range(g.KH):              # loop over filter Y
                    for kw in range(g.KW):          # loop over filter X
                        ih = oh * g.stride_h - g.pad_top + kh
                        iw = ow * g.stride_w - g.pad_left + kw
                        # padding: skip addition if outside input boundaries
                        if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                            continue
                        for n in range(x.shape[0]):             # loop over batch
                            for c in range(g.C):                # loop over inp feature maps
                                for f in range(weight.shape[3]):    # loop over filters
                                    y[n, oh, ow, f] += x[n, ih, iw, c] * weight[kh, kw, c, f]


def _conv2d_backward_weight(
    const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] x,
    floating[:, :, :, ::1] dweight, floating[::1] dbias, Window g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, f, ih, iw
    with nogil:
        for oh in range(g.OH):
            for ow in range(g.OW):
                # forward: y[n, oh, ow, f] = bias[f] + ...
                for n in range(x.shape[0]):
                    for f in range(dy.shape[3]):
                        dbias[f] += dy[n, oh, ow, f]
                for kh in range(g.KH):
                    for kw in range(g.KW):
                        ih = oh * g.stride_h - g.pad_top + kh
                        iw = ow * g.stride_w - g.pad_left + kw
                        if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                            continue
                        for n in range(x.shape[0]):
                            for c in range(g.C):
                                for f in range(dy.shape[3]):
                                    # forward: y[n, oh, ow, f] += x[n, ih, iw, c] * w[kh, kw, c, f]
                                    dweight[kh, kw, c, f] += x[n, ih, iw, c] * dy[n, oh, ow, f]


def _conv2d_backward_input(
    const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] weight,
    floating[:, :, :, ::1] dx, Window g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, f, ih, iw
    with nogil:
        for oh in range(g.OH):
            for ow in range(g.OW):
                for kh in range(g.KH):
                    for kw in range(g.KW):
                        ih = oh * g.stride_h - g.pad_top + kh
                        iw = ow * g.stride_w - g.pad_left + kw
                        if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                            continue
                        for n in range(dx.shape[0]):
                            for c in range(g.C):
                                for f in range(dy.shape[3]):
                                    # forward: y[n, oh, ow, f] += x[n, ih, iw, c] * w[kh, kw, c, f]
                                    dx[n, ih, iw, c] += weight[kh, kw, c, f] * dy[n, oh, ow, f]
