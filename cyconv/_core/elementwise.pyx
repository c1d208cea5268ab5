"""LeakyReLU, softmax, cross-entropy and the steps of optimizers on whole arrays."""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport int64_t

from cyconv._core cimport pointwise
from cyconv._core.real cimport real
from cyconv._core.team cimport team, team_for
from cyconv._core.tuning cimport CHUNK


cdef inline Py_ssize_t length_of(Py_ssize_t begin, Py_ssize_t size) noexcept nogil:
    """Return how many elements the chunk has that begins at `begin`."""
    return min(<Py_ssize_t> CHUNK, size - begin)


def is_finite(const real[::1] x, int threads):
    """Return whether x holds neither NaN nor infinity.

    Writes: nothing.                 Aliasing: none.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, bad = 0, begin, size = x.shape[0]
    threads = team_for(size, threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        bad += pointwise.not_finite(&x[begin], length_of(begin, size))
    return bad == 0


def leaky_relu(const real[::1] x, real[::1] y, double slope, int threads):
    """y = x where x > 0, slope * x elsewhere.

    Writes: every element of y.      Aliasing: x and y may be the same array.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, begin, size = x.shape[0]
    team(threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.leaky_relu(&x[begin], &y[begin], length_of(begin, size), <real> slope)


def leaky_relu_backward(
    const real[::1] x, const real[::1] dy, real[::1] dx, double slope, int threads,
):
    """dx = dy where x > 0, slope * dy elsewhere.

    Writes: every element of dx.     Aliasing: dy and dx may be the same array.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, begin, size = x.shape[0]
    team(threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.leaky_relu_backward(
            &x[begin], &dy[begin], &dx[begin], length_of(begin, size), <real> slope)


def softmax(const real[:, ::1] x, real[:, ::1] y, int threads):
    """y = softmax of each row of x.

    Writes: every element of y.      Aliasing: x and y may be the same array.
    Parallel over: rows.             Retains: nothing.
    """
    cdef Py_ssize_t row
    team(threads)
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
    team(threads)
    for row in prange(y.shape[0], nogil=True, schedule="static", num_threads=threads):
        pointwise.softmax_backward(&y[row, 0], &dy[row, 0], &dx[row, 0], 1, y.shape[1])


def cross_entropy(
    const real[:, ::1] logits, const Py_ssize_t[::1] labels, real[:, ::1] dlogits,
    double[::1] losses, int threads, double scale, const double[::1] weight, double smoothing,
):
    """losses[n] = the loss of row n; dlogits = the gradient of `scale` times their sum.

    Writes: every element of dlogits and losses.   Aliasing: dlogits may be logits.
    Parallel over: rows.                           Retains: nothing.
    """
    cdef Py_ssize_t row, rows = logits.shape[0]
    cdef const double* weights = NULL
    if weight is not None:
        weights = &weight[0]
    team(threads)
    for row in prange(rows, nogil=True, schedule="static", num_threads=threads):
        losses[row] = pointwise.cross_entropy(
            &logits[row, 0], &labels[row], &dlogits[row, 0], 1, logits.shape[1], scale, weights,
            smoothing)


def add_up(real[:, ::1] accumulators, real[::1] total, int threads):
    """total = sum of the accumulators by a binary tree; they are overwritten.

    Writes: every element of total.  Aliasing: accumulators and total must not overlap.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, begin, size = total.shape[0]
    threads = team_for(size, threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.add_up(&accumulators[0, begin], &total[begin], length_of(begin, size),
                         accumulators.shape[0], size)


def from_pixels(const unsigned char[::1] pixels, real[::1] x, int threads):
    """x = pixels / 255.

    Writes: every element of x.      Aliasing: none.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, begin, size = x.shape[0]
    threads = team_for(size, threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.from_pixels(&pixels[begin], &x[begin], length_of(begin, size))


def sum_of_squares(const real[::1] x, double[::1] sums, int threads):
    """Return the sum of x[i]**2 in double: x in as many chunks as `sums` has, added in order.

    Writes: sums.                    Aliasing: none.
    Parallel over: chunks.           Retains: nothing.
    """
    cdef Py_ssize_t chunk, begin, size = x.shape[0]
    cdef Py_ssize_t length = max(1, (size + sums.shape[0] - 1) // sums.shape[0])
    cdef Py_ssize_t chunks = (size + length - 1) // length
    cdef double total = 0
    threads = team_for(size, threads)
    for chunk in prange(chunks, nogil=True, schedule="static", num_threads=threads):
        begin = chunk * length
        sums[chunk] = pointwise.sum_of_squares(&x[begin], min(length, size - begin))
    for chunk in range(chunks):
        total += sums[chunk]
    return total


def adam(
    real[::1] parameters,            # INOUT
    const real[::1] gradients,       # IN
    real[::1] m,                     # INOUT: running mean of the gradient
    real[::1] v,                     # INOUT: running mean of its square
    int64_t[::1] t,                      # INOUT: number of steps, of which this is one more
    double learning_rate, double beta1, double beta2, double eps, double weight_decay, double clip,
    int threads,
):
    """One step of AdamW (Loshchilov & Hutter 2019, algorithm 2), in one pass over the arena.

    Without weight decay it is Adam (Kingma & Ba 2014, algorithm 1).

    Writes: parameters, m, v and t.  Aliasing: none allowed.
    Parallel over: elements.         Retains: nothing.
    """
    cdef pointwise.AdamStep by
    by.rate = learning_rate / (1 - beta1 ** (t[0] + 1))
    by.scale = 1 / sqrt(1 - beta2 ** (t[0] + 1))
    by.beta1, by.beta2, by.eps, by.clip = beta1, beta2, eps, clip
    by.keep = 1 - learning_rate * weight_decay
    cdef Py_ssize_t chunk, begin, size = parameters.shape[0]
    threads = team_for(size, threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.adam(&parameters[begin], &gradients[begin], &m[begin], &v[begin],
                       length_of(begin, size), &by)
    t[0] += 1


def sgd(
    real[::1] parameters,            # INOUT
    const real[::1] gradients,       # IN
    real[::1] velocity,              # INOUT, or None without momentum
    int64_t[::1] t,                      # INOUT: number of steps, of which this is one more
    double learning_rate, double momentum, bint nesterov, double weight_decay, double clip,
    int threads,
):
    """One step of gradient descent with momentum, in one pass over the arena.

    Writes: parameters, velocity, t. Aliasing: none allowed.
    Parallel over: elements.         Retains: nothing.
    """
    cdef pointwise.SGDStep by
    by.rate, by.momentum, by.weight_decay, by.clip = learning_rate, momentum, weight_decay, clip
    by.nesterov = nesterov
    cdef Py_ssize_t chunk, begin, size = parameters.shape[0]
    cdef real* moving = NULL
    if velocity is not None and size > 0:
        moving = &velocity[0]
    threads = team_for(size, threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.sgd(&parameters[begin], &gradients[begin],
                      NULL if moving == NULL else moving + begin, length_of(begin, size), &by)
    t[0] += 1


def average(real[::1] mean, const real[::1] x, double share, int threads):
    """mean += share * (x - mean): the step of an exponential moving average.

    Writes: every element of mean.   Aliasing: none allowed.
    Parallel over: elements.         Retains: nothing.
    """
    cdef Py_ssize_t chunk, begin, size = mean.shape[0]
    threads = team_for(size, threads)
    for chunk in prange((size + CHUNK - 1) // CHUNK, nogil=True, schedule="static",
                        num_threads=threads):
        begin = chunk * CHUNK
        pointwise.average(&mean[begin], &x[begin], length_of(begin, size), <real> share)
