# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# distutils: extra_compile_args = -O3
"""The compiled loops of ladder.py, which builds them: no padding, float32, one thread.

Rung 2 is the slides' seven loops, reordered so that memory is walked in its own order. That is not
always faster: a batch of small images is in a cache in any order, and now each sum is stored and
loaded again for its next tap at once, where the slides' loop over the batch gave it time. Rung 3 is
what remains behind im2col: three loops over output pixels p, taps k and filters f.
"""

import numpy as np

from cyconv import conv_output_size


def conv2d(const float[:, :, :, ::1] x, const float[:, :, :, ::1] weight, bias, stride):
    """Return y, as `cyconv.naive.conv2d`."""
    cdef Py_ssize_t sy = stride[0], sx = stride[1], n, oh, ow, kh, kw, c, f
    OH = conv_output_size(x.shape[1], weight.shape[0], sy)
    OW = conv_output_size(x.shape[2], weight.shape[1], sx)
    result = np.empty((x.shape[0], OH, OW, weight.shape[3]), np.float32)
    result[...] = bias
    cdef float[:, :, :, ::1] y = result
    for n in range(y.shape[0]):
        for oh in range(y.shape[1]):
            for ow in range(y.shape[2]):
                for kh in range(weight.shape[0]):
                    for kw in range(weight.shape[1]):
                        for c in range(weight.shape[2]):
                            for f in range(weight.shape[3]):
                                y[n, oh, ow, f] += (
                                    x[n, oh * sy + kh, ow * sx + kw, c] * weight[kh, kw, c, f])
    return result


def conv2d_backward(
    const float[:, :, :, ::1] dy, const float[:, :, :, ::1] x, const float[:, :, :, ::1] weight,
    stride, need_dx=True,
):
    """Return (dx or None, dweight, dbias), as `cyconv.naive.conv2d_backward`."""
    dweight, dbias = np.zeros_like(weight), np.zeros(dy.shape[3], np.float32)
    _backward_weight(dy, x, dweight, dbias, stride[0], stride[1])
    if not need_dx:
        return None, dweight, dbias
    dx = np.zeros_like(x)
    _backward_input(dy, weight, dx, stride[0], stride[1])
    return dx, dweight, dbias


def _backward_weight(
    const float[:, :, :, ::1] dy, const float[:, :, :, ::1] x,
    float[:, :, :, ::1] dweight, float[::1] dbias, Py_ssize_t sy, Py_ssize_t sx,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, f
    for n in range(dy.shape[0]):
        for oh in range(dy.shape[1]):
            for ow in range(dy.shape[2]):
                for f in range(dy.shape[3]):
                    dbias[f] += dy[n, oh, ow, f]
                for kh in range(dweight.shape[0]):
                    for kw in range(dweight.shape[1]):
                        for c in range(dweight.shape[2]):
                            for f in range(dweight.shape[3]):
                                dweight[kh, kw, c, f] += (
                                    x[n, oh * sy + kh, ow * sx + kw, c] * dy[n, oh, ow, f])


def _backward_input(
    const float[:, :, :, ::1] dy, const float[:, :, :, ::1] weight,
    float[:, :, :, ::1] dx, Py_ssize_t sy, Py_ssize_t sx,
):
    cdef Py_ssize_t n, oh, ow, kh, kw, c, f
    for n in range(dy.shape[0]):
        for oh in range(dy.shape[1]):
            for ow in range(dy.shape[2]):
                for kh in range(weight.shape[0]):
                    for kw in range(weight.shape[1]):
                        for c in range(weight.shape[2]):
                            for f in range(weight.shape[3]):
                                dx[n, oh * sy + kh, ow * sx + kw, c] += (
                                    weight[kh, kw, c, f] * dy[n, oh, ow, f])


def times_weight(const float[:, ::1] cols, const float[:, ::1] weight):
    """Return cols @ weight."""
    cdef Py_ssize_t p, k, f
    result = np.zeros((cols.shape[0], weight.shape[1]), np.float32)
    cdef float[:, ::1] y = result
    for p in range(cols.shape[0]):
        for k in range(cols.shape[1]):
            for f in range(weight.shape[1]):
                y[p, f] += cols[p, k] * weight[k, f]
    return result


def transposed_times_dy(const float[:, ::1] cols, const float[:, ::1] dy):
    """Return cols.T @ dy."""
    cdef Py_ssize_t p, k, f
    result = np.zeros((cols.shape[1], dy.shape[1]), np.float32)
    cdef float[:, ::1] dweight = result
    for p in range(cols.shape[0]):
        for k in range(cols.shape[1]):
            for f in range(dy.shape[1]):
                dweight[k, f] += cols[p, k] * dy[p, f]
    return result


def dy_times_transposed(const float[:, ::1] dy, const float[:, ::1] weight):
    """Return dy @ weight.T."""
    cdef Py_ssize_t p, k, f
    result = np.zeros((dy.shape[0], weight.shape[0]), np.float32)
    cdef float[:, ::1] dcols = result
    for p in range(dy.shape[0]):
        for k in range(weight.shape[0]):
            for f in range(weight.shape[1]):
                dcols[p, k] += dy[p, f] * weight[k, f]
    return result
