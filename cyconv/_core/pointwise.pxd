"""Loops over single elements: bias, LeakyReLU, column sums, softmax, cross-entropy."""

from libc.math cimport exp, log, sqrt, sqrtf

from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport SINGLE, real


cdef inline void bias_leaky_relu_fixed(
    real* y, const real* bias, Py_ssize_t rows, Py_ssize_t F, real slope,
) noexcept nogil:
    cdef Py_ssize_t row, f
    cdef real value
    for row in range(rows):
        for f in range(F):
            value = y[row * F + f] + bias[f]
            y[row * F + f] = value if value > 0 else slope * value


cdef inline kernel bias_leaky_relu(
    real* y, const real* bias, Py_ssize_t rows, Py_ssize_t F, real slope,
) noexcept nogil:
    """y = leaky_relu(y + bias); a slope of 1 leaves the sum as it is."""
    # With a width that the compiler knows, one row is one or a few vectors.
    if F == 4:
        bias_leaky_relu_fixed(y, bias, rows, 4, slope)
    elif F == 8:
        bias_leaky_relu_fixed(y, bias, rows, 8, slope)
    elif F == 16:
        bias_leaky_relu_fixed(y, bias, rows, 16, slope)
    else:
        bias_leaky_relu_fixed(y, bias, rows, F, slope)


cdef inline bint not_finite(const real* x, Py_ssize_t n) noexcept nogil:
    """Tell whether one of n elements is NaN or infinite: x - x is 0 for all others."""
    cdef Py_ssize_t i
    cdef int bad = 0
    for i in range(n):
        bad |= x[i] - x[i] != 0
    return bad


cdef inline kernel leaky_relu(
    const real* x, real* y, Py_ssize_t n, real slope,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = x[i] if x[i] > 0 else slope * x[i]


cdef inline kernel leaky_relu_backward(
    const real* x, const real* dy, real* dx, Py_ssize_t n, real slope,
) noexcept nogil:
    """dx = dy where the forward pass saw x > 0, slope * dy elsewhere.

    `x` may be the output as well as the input: both have the same sign. dx may be dy itself.
    """
    # forward: y[i] = x[i] if x[i] > 0 else slope * x[i]
    cdef Py_ssize_t i
    for i in range(n):
        dx[i] = dy[i] if x[i] > 0 else slope * dy[i]


cdef inline void column_sums_fixed(
    const real* dy, real* db, Py_ssize_t rows, Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t row, f
    for row in range(rows):
        for f in range(F):
            db[f] += dy[row * F + f]


cdef inline kernel column_sums(
    const real* dy, real* db, Py_ssize_t rows, Py_ssize_t F, bint accumulate,
) noexcept nogil:
    """db = sum of the rows of dy, added to db if `accumulate`."""
    cdef Py_ssize_t f
    if not accumulate:
        for f in range(F):
            db[f] = 0
    if F == 4:
        column_sums_fixed(dy, db, rows, 4)
    elif F == 8:
        column_sums_fixed(dy, db, rows, 8)
    elif F == 16:
        column_sums_fixed(dy, db, rows, 16)
    else:
        column_sums_fixed(dy, db, rows, F)


cdef inline kernel softmax(
    const real* x, real* y, Py_ssize_t rows, Py_ssize_t F,
) noexcept nogil:
    """y = exp(x - max x) / sum exp(x - max x) along each row, the sum in double."""
    cdef Py_ssize_t _, f
    cdef double top, total, term
    for _ in range(rows):
        top = x[0]
        for f in range(1, F):
            if x[f] > top:
                top = x[f]
        total = 0
        for f in range(F):
            total += exp(x[f] - top)
        for f in range(F):
            term = exp(x[f] - top)
            y[f] = <real> (term / total)
        x += F
        y += F


cdef inline kernel softmax_backward(
    const real* y, const real* dy, real* dx, Py_ssize_t rows, Py_ssize_t F,
) noexcept nogil:
    """dx = y * (dy - <y, dy>) along each row: the product with the Jacobian of softmax."""
    # forward: y[f] = exp(x[f]) / sum over g of exp(x[g]), so dy[f]/dx[g] = y[f] ([f = g] - y[g])
    cdef Py_ssize_t _, f
    cdef double dot
    for _ in range(rows):
        dot = 0
        for f in range(F):
            dot += (<double> y[f]) * dy[f]
        for f in range(F):
            dx[f] = <real> (y[f] * (dy[f] - dot))
        y += F
        dy += F
        dx += F


cdef inline double cross_entropy(
    const real* logits, const Py_ssize_t* labels, real* dlogits, Py_ssize_t rows,
    Py_ssize_t F, double scale,
) noexcept nogil:
    """Return the sum over rows of -log softmax(logits)[label]; dlogits = scale * its gradient.

    The loss is log(sum exp(x - max)) - (x[label] - max), in double; its gradient with respect to
    the logits is softmax(logits) - onehot(label). dlogits may be logits itself.
    """
    cdef Py_ssize_t row, f
    cdef double top, total, picked, loss = 0
    for row in range(rows):
        top = logits[0]
        for f in range(1, F):
            if logits[f] > top:
                top = logits[f]
        total = 0
        for f in range(F):
            total += exp(logits[f] - top)
        picked = logits[labels[row]] - top
        loss += log(total) - picked
        for f in range(F):
            dlogits[f] = <real> (
                scale * (exp(logits[f] - top) / total - (1.0 if f == labels[row] else 0.0)))
        logits += F
        dlogits += F
    return loss


cdef inline kernel add_up(
    real* accumulators, real* total, Py_ssize_t n, Py_ssize_t count, Py_ssize_t pitch,
) noexcept nogil:
    """total = sum of `count` accumulators, by a binary tree: (0+1), (2+3), then pairs of these.

    The accumulators, `pitch` apart, are overwritten. Whoever holds a subtree's accumulators gets
    that subtree's sum to the same bits.
    """
    cdef Py_ssize_t step = 1, pair, i
    cdef real* left
    cdef const real* right
    while step < count:
        pair = 0
        while pair + step < count:
            left = accumulators + pair * pitch
            right = left + step * pitch
            for i in range(n):
                left[i] += right[i]
            pair += 2 * step
        step *= 2
    for i in range(n):
        total[i] = accumulators[i]


cdef inline kernel from_pixels(
    const unsigned char* pixels, real* x, Py_ssize_t n,
) noexcept nogil:
    """x = pixels / 255."""
    cdef Py_ssize_t i
    for i in range(n):
        x[i] = <real> pixels[i] / <real> 255


cdef inline kernel adam(
    real* p, const real* g, real* m, real* v, Py_ssize_t n, real rate,
    real scale, real beta1, real rest1, real beta2, real rest2, real eps,
) noexcept nogil:
    """Adam on n elements; rate = lr / (1 - beta1**t), scale = 1 / sqrt(1 - beta2**t)."""
    # m = beta1 m + (1 - beta1) g
    # v = beta2 v + (1 - beta2) g²
    # p -= lr (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
    cdef Py_ssize_t i
    cdef real root
    for i in range(n):
        m[i] = beta1 * m[i] + rest1 * g[i]
        v[i] = beta2 * v[i] + rest2 * (g[i] * g[i])
        if SINGLE:
            root = sqrtf(v[i])
        else:
            root = sqrt(v[i])
        p[i] -= rate * m[i] / (root * scale + eps)
