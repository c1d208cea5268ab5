"""Convolution as the course's slides write it: seven nested loops, one thread, no tricks.

This is the oracle that every fast kernel is compared with, and the starting point of the way from
the slides to the machine. Arguments, results and errors are those of `cyconv.functional` and
`cyconv.pooling`.
The slides' letters: InY InX InC = H W C, KnY KnX KnC = KH KW F, OpY OpX = OH OW, Sy Sx = stride,
Py Px = padding, BS = N.
"""

import numpy as np

from cython cimport floating
from libc.math cimport INFINITY, isnan

from cyconv import checks, functional, pooling
from cyconv._core.geometry cimport Geometry
from cyconv.geometry import Placing


def im2col(x, kernel_size, stride=1, padding=0, dilation=1, rounding="exact"):
    """Copy the patch under every output pixel into one row of a matrix.

    See `cyconv.functional.im2col`; this is the slide "im2col", element by element.
    """
    placing = Placing(stride, padding, dilation, rounding)
    x, geometry = functional.check_im2col(x, kernel_size, placing, "naive.im2col")
    cols = functional.empty_columns(x, geometry, "naive.im2col")
    _im2col(x, cols, geometry._asdict())
    return cols


def col2im(cols, input_shape, kernel_size, stride=1, padding=0, dilation=1, rounding="exact"):
    """Add every element of a column matrix to the pixel that it was copied from.

    See `cyconv.functional.col2im`; this is the slide "Exercise: how do we backprop im2col?".
    """
    placing = Placing(stride, padding, dilation, rounding)
    cols, geometry, shape = functional.check_col2im(
        cols, input_shape, kernel_size, placing, "naive.col2im")
    x = checks.allocate(shape, cols.dtype, "naive.col2im", "x")
    x[...] = 0
    _col2im(cols, x, geometry._asdict())
    return x


def conv2d(
    x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, rounding="exact", *,
    winograd=True,
):
    """Convolve a batch of images by the seven loops of the slide "2D convolution forward loop".

    See `cyconv.functional.conv2d`; `winograd` changes nothing here.
    """
    checks.flag(winograd, "naive.conv2d", "winograd")
    placing = Placing(stride, padding, dilation, rounding)
    x, weight, bias, geometry = functional.check_conv2d(
        x, weight, bias, groups, placing, "naive.conv2d")
    shape = (len(x), geometry.OH, geometry.OW, weight.shape[3])
    y = checks.allocate(shape, x.dtype, "naive.conv2d", "y")
    y[...] = bias
    _conv2d(x, weight, y, geometry._asdict())
    return y


def conv2d_backward(
    dy, x, weight, stride=1, padding=0, need_dx=True, dilation=1, groups=1, rounding="exact", *,
    winograd=True,
):
    """Return (dx or None, dweight, dbias) by the two slides "2D convolution backward loop".

    See `cyconv.functional.conv2d_backward`; `winograd` changes nothing here.
    """
    checks.flag(winograd, "naive.conv2d_backward", "winograd")
    placing = Placing(stride, padding, dilation, rounding)
    dy, x, weight, geometry = functional.check_conv2d_backward(
        dy, x, weight, groups, placing, "naive.conv2d_backward")
    dweight, dbias = np.zeros(weight.shape, x.dtype), np.zeros(weight.shape[3], x.dtype)
    _conv2d_backward_weight(dy, x, dweight, dbias, geometry._asdict())
    if not need_dx:
        return None, dweight, dbias
    dx = np.zeros(x.shape, x.dtype)
    _conv2d_backward_input(dy, weight, dx, geometry._asdict())
    return dx, dweight, dbias


def max_pool2d(x, kernel_size, stride=None, padding=0, rounding="exact"):
    """Return the maximum of each window and channel; see `cyconv.pooling.max_pool2d`."""
    x, geometry = pooling.check_pool(
        x, kernel_size, stride, padding, rounding, "naive.max_pool2d")
    y = pooling.empty_output(x, geometry, "naive.max_pool2d")
    _max_pool2d(x, y, geometry._asdict())
    return y


def max_pool2d_backward(dy, x, kernel_size, stride=None, padding=0, rounding="exact"):
    """Add each dy to the first maximum of its window; see `cyconv.pooling.max_pool2d_backward`."""
    dy, x, geometry = pooling.check_max_pool2d_backward(
        dy, x, kernel_size, stride, padding, rounding, "naive.max_pool2d_backward")
    dx = np.zeros(x.shape, x.dtype)
    _max_pool2d_backward(dy, x, dx, geometry._asdict())
    return dx


def avg_pool2d(x, kernel_size, stride=None, padding=0, rounding="exact"):
    """Return the mean of each window and channel; see `cyconv.pooling.avg_pool2d`."""
    x, geometry = pooling.check_pool(
        x, kernel_size, stride, padding, rounding, "naive.avg_pool2d")
    y = pooling.empty_output(x, geometry, "naive.avg_pool2d")
    _avg_pool2d(x, y, geometry._asdict())
    return y


def avg_pool2d_backward(dy, input_shape, kernel_size, stride=None, padding=0, rounding="exact"):
    """Share each dy among the pixels of its window; see `cyconv.pooling.avg_pool2d_backward`."""
    dy, geometry, shape = pooling.check_avg_pool2d_backward(
        dy, input_shape, kernel_size, stride, padding, rounding, "naive.avg_pool2d_backward")
    dx = checks.allocate(shape, dy.dtype, "naive.avg_pool2d_backward", "dx")
    dx[...] = 0
    _avg_pool2d_backward(dy, dx, geometry._asdict())
    return dx


def _im2col(const floating[:, :, :, ::1] x, floating[:, ::1] cols, Geometry g):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, row, tap
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for kh in range(g.KH):
                        for kw in range(g.KW):
                            for c in range(g.C):
                                ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
                                iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                                row = (n * g.OH + oh) * g.OW + ow
                                tap = (kh * g.KW + kw) * g.C + c
                                if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                                    cols[row, tap] = 0
                                else:
                                    cols[row, tap] = x[n, ih, iw, c]


def _col2im(const floating[:, ::1] cols, floating[:, :, :, ::1] x, Geometry g):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, row, tap
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for kh in range(g.KH):
                        for kw in range(g.KW):
                            for c in range(g.C):
                                ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
                                iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                                row = (n * g.OH + oh) * g.OW + ow
                                tap = (kh * g.KW + kw) * g.C + c
                                # forward: cols[row, tap] = x[n, ih, iw, c]
                                if 0 <= ih < g.H and 0 <= iw < g.W:
                                    x[n, ih, iw, c] += cols[row, tap]


def _conv2d(
    const floating[:, :, :, ::1] x, const floating[:, :, :, ::1] weight,
    floating[:, :, :, ::1] y, Geometry g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, group, c, f, ih, iw, groups = g.pitch // g.C
    cdef Py_ssize_t filters = weight.shape[3] // groups   # of a group
    with nogil:
        for oh in range(g.OH):                      # loop over output image Y
            for ow in range(g.OW):                  # loop over output image X
                for kh in range(g.KH):              # loop over filter Y
                    for kw in range(g.KW):          # loop over filter X
                        ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
                        iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                        # padding: skip addition if outside input boundaries
                        if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                            continue
                        for n in range(x.shape[0]):             # loop over batch
                            for group in range(groups):         # one on the slide
                                for c in range(g.C):            # loop over inp feature maps
                                    for f in range(group * filters, (group + 1) * filters):
                                        # loop over filters
                                        y[n, oh, ow, f] += (
                                            x[n, ih, iw, group * g.C + c] * weight[kh, kw, c, f])


def _conv2d_backward_weight(
    const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] x,
    floating[:, :, :, ::1] dweight, floating[::1] dbias, Geometry g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, group, c, f, ih, iw, groups = g.pitch // g.C
    cdef Py_ssize_t filters = dy.shape[3] // groups   # of a group
    with nogil:
        for oh in range(g.OH):
            for ow in range(g.OW):
                # forward: y[n, oh, ow, f] = bias[f] + ...
                for n in range(x.shape[0]):
                    for f in range(dy.shape[3]):
                        dbias[f] += dy[n, oh, ow, f]
                for kh in range(g.KH):
                    for kw in range(g.KW):
                        ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
                        iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                        if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                            continue
                        for n in range(x.shape[0]):
                            for group in range(groups):
                                for c in range(g.C):
                                    for f in range(group * filters, (group + 1) * filters):
                                        # forward: y[n, oh, ow, f] +=
                                        #     x[n, ih, iw, group * g.C + c] * weight[kh, kw, c, f]
                                        dweight[kh, kw, c, f] += (
                                            x[n, ih, iw, group * g.C + c] * dy[n, oh, ow, f])


def _conv2d_backward_input(
    const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] weight,
    floating[:, :, :, ::1] dx, Geometry g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, group, c, f, ih, iw, groups = g.pitch // g.C
    cdef Py_ssize_t filters = dy.shape[3] // groups   # of a group
    with nogil:
        for oh in range(g.OH):
            for ow in range(g.OW):
                for kh in range(g.KH):
                    for kw in range(g.KW):
                        ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
                        iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                        if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                            continue
                        for n in range(dx.shape[0]):
                            for group in range(groups):
                                for c in range(g.C):
                                    for f in range(group * filters, (group + 1) * filters):
                                        # forward: y[n, oh, ow, f] +=
                                        #     x[n, ih, iw, group * g.C + c] * weight[kh, kw, c, f]
                                        dx[n, ih, iw, group * g.C + c] += (
                                            weight[kh, kw, c, f] * dy[n, oh, ow, f])


def _max_pool2d(const floating[:, :, :, ::1] x, floating[:, :, :, ::1] y, Geometry g):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for c in range(g.C):
                        y[n, oh, ow, c] = -INFINITY
                        for kh in range(g.KH):
                            for kw in range(g.KW):
                                ih = oh * g.stride_h - g.pad_top + kh
                                iw = ow * g.stride_w - g.pad_left + kw
                                if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                                    continue
                                # NaN counts as the maximum: no number is greater
                                if x[n, ih, iw, c] > y[n, oh, ow, c] or isnan(x[n, ih, iw, c]):
                                    y[n, oh, ow, c] = x[n, ih, iw, c]


def _max_pool2d_backward(
    const floating[:, :, :, ::1] dy, const floating[:, :, :, ::1] x, floating[:, :, :, ::1] dx,
    Geometry g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, max_h, max_w
    cdef floating value, best
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for c in range(g.C):
                        # forward: y[n, oh, ow, c] = x[n, max_h, max_w, c], the first maximum
                        best, max_h, max_w = 0, -1, -1
                        for kh in range(g.KH):
                            for kw in range(g.KW):
                                ih = oh * g.stride_h - g.pad_top + kh
                                iw = ow * g.stride_w - g.pad_left + kw
                                if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                                    continue
                                value = x[n, ih, iw, c]
                                if max_h < 0 or value > best or isnan(value) and not isnan(best):
                                    best, max_h, max_w = value, ih, iw
                        dx[n, max_h, max_w, c] += dy[n, oh, ow, c]


def _avg_pool2d(const floating[:, :, :, ::1] x, floating[:, :, :, ::1] y, Geometry g):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, count
    with nogil:
        for n in range(x.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    for c in range(g.C):
                        y[n, oh, ow, c] = 0
                        count = 0   # of the pixels in the window
                        for kh in range(g.KH):
                            for kw in range(g.KW):
                                ih = oh * g.stride_h - g.pad_top + kh
                                iw = ow * g.stride_w - g.pad_left + kw
                                if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                                    continue
                                y[n, oh, ow, c] += x[n, ih, iw, c]
                                count += 1
                        y[n, oh, ow, c] /= count


def _avg_pool2d_backward(
    const floating[:, :, :, ::1] dy, floating[:, :, :, ::1] dx, Geometry g,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, ih, iw, count
    with nogil:
        for n in range(dx.shape[0]):
            for oh in range(g.OH):
                for ow in range(g.OW):
                    count = 0
                    for kh in range(g.KH):
                        for kw in range(g.KW):
                            ih = oh * g.stride_h - g.pad_top + kh
                            iw = ow * g.stride_w - g.pad_left + kw
                            if 0 <= ih < g.H and 0 <= iw < g.W:
                                count += 1
                    for kh in range(g.KH):
                        for kw in range(g.KW):
                            ih = oh * g.stride_h - g.pad_top + kh
                            iw = ow * g.stride_w - g.pad_left + kw
                            if ih < 0 or ih >= g.H or iw < 0 or iw >= g.W:
                                continue
                            for c in range(g.C):
                                # forward: y[n, oh, ow, c] += x[n, ih, iw, c] / count
                                dx[n, ih, iw, c] += dy[n, oh, ow, c] / count
