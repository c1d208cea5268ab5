"""LeakyReLU, softmax, cross-entropy and Adam on whole arrays."""

from cython.parallel cimport prange
from libc.math cimport sqrt

from cyconv._core cimport pointwise
from cyconv._core.real cimport real

cdef Py_ssize_t CHUNK = 16384   # elements a thread takes at once


def is_finite(const real[::1] x, int threads):
    """Return whether x holds neither NaN nor infinity.

    Writes: nothing.                 Aliasing: none.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, bad = 0, first, size = x.shape[0]
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads if size > 4 * CHUNK else 1):
        first = chunk * CHUNK
        bad += pointwise.not_finite(&x[first], min(CHUNK, size - first))
    return bad == 0


def leaky_relu(const real[::1] x, real[::1] y, double slope, int threads):
    """y = x where x > 0, slope * x elsewhere.

    Writes: every element of y.      Aliasing: x and y may be the same array.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, first, size = x.shape[0]
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        first = chunk * CHUNK
        pointwise.leaky_relu(&x[first], &y[first], min(CHUNK, size - first), <real> slope)


def leaky_relu_backward(
    const real[::1] x, const real[::1] dy, real[::1] dx, double slope, int threads,
):
    """dx = dy where x > 0, slope * dy elsewhere.

    Writes: every element of dx.     Aliasing: dy and dx may be the same array.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, first, size = x.shape[0]
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        first = chunk * CHUNK
        pointwise.leaky_relu_backward(
            &x[first], &dy[first], &dx[first], min(CHUNK, size - first), <real> slope)


def softmax(const real[:, ::1] x, real[:, ::1] y, int threads):
    """y = softmax of each row of x.

    Writes: every element of y.      Aliasing: x and y may be the same array.
    Parallel over: rows.             Retains: nothing.
    """
    cdef Py_ssize_t row
    for row in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        pointwise.softmax(&x[row, 0], &y[row, 0], 1, x.shape[1])


def softmax_backward(
    const real[:, ::1] y, const real[:, ::1] dy, real[:, ::1] dx, int threads,
):
    """dx = y * (dy - <y, dy>) for each row, y being the output of softmax.

    Writes: every element of dx.     Aliasing: dy and dx may be the same array.
    Parallel over: rows.             Retains: nothing.
    """
    cdef Py_ssize_t row
    for row in prange(y.shape[0], nogil=True, schedule="static", num_threads=threads):
        pointwise.softmax_backward(&y[row, 0], &dy[row, 0], &dx[row, 0], 1, y.shape[1])


def cross_entropy(
    const real[:, ::1] logits, const Py_ssize_t[::1] labels, real[:, ::1] dlogits,
    double[::1] losses, int threads,
):
    """losses[n] = -log softmax(logits[n])[labels[n]]; dlogits = the gradient of their mean.

    Writes: every element of dlogits and losses.   Aliasing: dlogits may be logits.
    Parallel over: rows.                           Retains: nothing.
    """
    cdef Py_ssize_t row, rows = logits.shape[0]
    for row in prange(rows, nogil=True, schedule="static", num_threads=threads):
        losses[row] = pointwise.cross_entropy(
            &logits[row, 0], &labels[row], &dlogits[row, 0], 1, logits.shape[1], 1.0 / rows)


def add_up(real[:, ::1] accumulators, real[::1] total, int threads):
    """total = sum of the accumulators by a binary tree; they are overwritten.

    Writes: every element of total.  Aliasing: accumulators and total must not overlap.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, first, size = total.shape[0]
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads if size > 4 * CHUNK else 1):
        first = chunk * CHUNK
        pointwise.add_up(&accumulators[0, first], &total[first], min(CHUNK, size - first),
                         accumulators.shape[0], size)


def from_pixels(const unsigned char[::1] pixels, real[::1] x, int threads):
    """x = pixels / 255.

    Writes: every element of x.      Aliasing: none.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, first, size = x.shape[0]
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads if size > 4 * CHUNK else 1):
        first = chunk * CHUNK
        pointwise.from_pixels(&pixels[first], &x[first], min(CHUNK, size - first))


def adam(
    real[::1] parameters,            # INOUT
    const real[::1] gradients,       # IN
    real[::1] m,                     # INOUT: running mean of the gradient
    real[::1] v,                     # INOUT: running mean of its square
    double learning_rate, double beta1, double beta2, double eps, long long step, int threads,
):
    """One step of Adam (Kingma & Ba 2014, algorithm 1), in one pass over the arena.

    Writes: parameters, m and v.     Aliasing: none allowed.
    Parallel over: elements.         Retains: nothing.
    """
    cdef double rate = learning_rate / (1 - beta1 ** step), scale = 1 / sqrt(1 - beta2 ** step)
    cdef Py_ssize_t chunk, first, size = parameters.shape[0]
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads if size > 4 * CHUNK else 1):
        first = chunk * CHUNK
        pointwise.adam(&parameters[first], &gradients[first], &m[first], &v[first],
                       min(CHUNK, size - first), <real> rate, <real> scale,
                       <real> beta1, <real> (1 - beta1), <real> beta2,
                       <real> (1 - beta2), <real> eps)
