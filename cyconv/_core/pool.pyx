"""Pooling on whole arrays: the loops over threads around the kernels."""

from cython.parallel cimport prange

from cyconv._core.geometry cimport Geometry
from cyconv._core.pooling cimport (
    avg_pool_backward,
    avg_pool_rows,
    max_pool_backward,
    max_pool_rows,
)
from cyconv._core.real cimport real
from cyconv._core.team cimport team


def max_pool2d(
    const real[:, :, :, ::1] x,    # IN
    real[:, :, :, ::1] y,          # OUT
    Geometry geometry,
    int threads,
):
    """y[n, oh, ow, c] = the maximum of x under a window.

    Writes: every element of y.           Aliasing: x and y must not overlap.
    Parallel over: output rows (n, oh).   Retains: nothing.
    """
    cdef Py_ssize_t t, rows = x.shape[0] * geometry.OH
    team(threads)
    for t in prange(threads, nogil=True, schedule="static", num_threads=threads):
        max_pool_rows(&x[0, 0, 0, 0], &y[0, 0, 0, 0], &geometry, t * rows // threads,
                      (t + 1) * rows // threads)


def max_pool2d_backward(
    const real[:, :, :, ::1] dy,   # IN
    const real[:, :, :, ::1] x,    # IN
    const real[:, :, :, ::1] y,    # IN: the maximum of each window
    real[:, :, :, ::1] dx,         # OUT
    Geometry geometry,
    int threads,
):
    """dx[n, ih, iw, c] = the sum of dy of the windows whose first maximum it is.

    Writes: every element of dx.   Aliasing: dx must not overlap an input.
    Parallel over: images.         Retains: nothing.
    """
    cdef Py_ssize_t n
    team(threads)
    for n in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        max_pool_backward(&x[n, 0, 0, 0], &y[n, 0, 0, 0], &dy[n, 0, 0, 0], &dx[n, 0, 0, 0],
                          &geometry, 1)


def avg_pool2d(
    const real[:, :, :, ::1] x,    # IN
    real[:, :, :, ::1] y,          # OUT
    Geometry geometry,
    int threads,
):
    """y[n, oh, ow, c] = the mean of x under a window.

    Writes: every element of y.           Aliasing: x and y must not overlap.
    Parallel over: output rows (n, oh).   Retains: nothing.
    """
    cdef Py_ssize_t t, rows = x.shape[0] * geometry.OH
    team(threads)
    for t in prange(threads, nogil=True, schedule="static", num_threads=threads):
        avg_pool_rows(&x[0, 0, 0, 0], &y[0, 0, 0, 0], &geometry, t * rows // threads,
                      (t + 1) * rows // threads)


def avg_pool2d_backward(
    const real[:, :, :, ::1] dy,   # IN
    real[:, :, :, ::1] dx,         # OUT
    Geometry geometry,
    int threads,
):
    """dx[n, ih, iw, c] = the sum of dy / count of the windows that it lies in.

    Writes: every element of dx.   Aliasing: dx and dy must not overlap.
    Parallel over: images.         Retains: nothing.
    """
    cdef Py_ssize_t n
    team(threads)
    for n in prange(dx.shape[0], nogil=True, schedule="static", num_threads=threads):
        avg_pool_backward(&dy[n, 0, 0, 0], &dx[n, 0, 0, 0], &geometry, 1)
