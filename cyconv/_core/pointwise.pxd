"""Loops over single elements: bias, LeakyReLU, column sums, softmax, losses, optimizers."""

from libc.math cimport exp, fabs, log, sqrt, sqrtf

from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport NEGLIGIBLE, SINGLE, real
from cyconv._core.tuning cimport EXERCISE_FILTERS_1, EXERCISE_FILTERS_2, EXERCISE_FILTERS_3
from cyconv._core.vectors cimport VECTOR_LENGTH, load, repeat, store, vector


cdef inline real leaky(real x, real slope) noexcept nogil:
    """Return x where x > 0, slope * x elsewhere."""
    return x if x > 0 else slope * x


cdef inline void bias_leaky_relu_fixed(
    real* y, const real* bias, Py_ssize_t rows, Py_ssize_t F, real slope,
) noexcept nogil:
    cdef Py_ssize_t row, f
    for row in range(rows):
        for f in range(F):
            y[row * F + f] = leaky(y[row * F + f] + bias[f], slope)


cdef inline kernel bias_leaky_relu(
    real* y, const real* bias, Py_ssize_t rows, Py_ssize_t F, real slope,
) noexcept nogil:
    """y = leaky_relu(y + bias); a slope of 1 leaves the sum as it is."""
    # With a width that the compiler knows, one row is one or a few vectors.
    if F == EXERCISE_FILTERS_1:
        bias_leaky_relu_fixed(y, bias, rows, EXERCISE_FILTERS_1, slope)
    elif F == EXERCISE_FILTERS_2:
        bias_leaky_relu_fixed(y, bias, rows, EXERCISE_FILTERS_2, slope)
    elif F == EXERCISE_FILTERS_3:
        bias_leaky_relu_fixed(y, bias, rows, EXERCISE_FILTERS_3, slope)
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
        y[i] = leaky(x[i], slope)


cdef inline kernel leaky_relu_backward(
    const real* x, const real* dy, real* dx, Py_ssize_t n, real slope,
) noexcept nogil:
    """dx = dy where the forward pass saw x > 0, slope * dy elsewhere.

    `x` may be the output as well as the input: both have the same sign. dx may be dy itself, which
    a slope of 1, that of an operation without a LeakyReLU, leaves as it is.
    """
    # forward: y[i] = leaky(x[i], slope)
    cdef Py_ssize_t i
    if slope == 1 and dx == dy:
        return
    for i in range(n):
        dx[i] = dy[i] if x[i] > 0 else slope * dy[i]


cdef inline kernel column_sums(
    const real* dy, real* db, Py_ssize_t rows, Py_ssize_t F, bint accumulate,
) noexcept nogil:
    """db = sum of the rows of dy, added to db if `accumulate`."""
    cdef Py_ssize_t f = 0
    while f + VECTOR_LENGTH <= F:
        column_sums_vector(dy + f, db + f, rows, F, VECTOR_LENGTH, accumulate)
        f += VECTOR_LENGTH
    if f < F:
        column_sums_vector(dy + f, db + f, rows, F, F - f, accumulate)


cdef inline void column_sums_vector(
    const real* dy, real* db, Py_ssize_t rows, Py_ssize_t F, Py_ssize_t floats, bint accumulate,
) noexcept nogil:
    """The first `floats` columns; four sums at once hide the latency of an addition."""
    cdef Py_ssize_t row = 0
    cdef vector t0 = repeat(0), t1 = t0, t2 = t0, t3 = t0
    while row + 4 <= rows:
        t0 = t0 + load(dy, floats)
        t1 = t1 + load(dy + F, floats)
        t2 = t2 + load(dy + 2 * F, floats)
        t3 = t3 + load(dy + 3 * F, floats)
        dy += 4 * F
        row += 4
    while row < rows:
        t0 = t0 + load(dy, floats)
        dy += F
        row += 1
    t0 = (t0 + t1) + (t2 + t3)
    if accumulate:
        t0 = t0 + load(db, floats)
    store(db, t0, floats)


cdef inline kernel softmax(
    const real* x, real* y, Py_ssize_t rows, Py_ssize_t F,
) noexcept nogil:
    """y = exp(x - max x) / sum exp(x - max x) along each row, the sum in double."""
    cdef Py_ssize_t _, f
    cdef double largest, total, term
    for _ in range(rows):
        largest = x[0]
        for f in range(1, F):
            if x[f] > largest:
                largest = x[f]
        total = 0
        for f in range(F):
            total += exp(x[f] - largest)
        for f in range(F):
            term = exp(x[f] - largest)
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
    Py_ssize_t F, double scale, const double* weight, double smoothing,
) noexcept nogil:
    """Return the sum over rows of <q, -log softmax(logits)>; dlogits = scale * its gradient.

    The target q[f] = weight[f] * ((1 - smoothing) * [f = label] + smoothing / F), weights of 1 if
    `weight` is NULL, as in torch.nn.CrossEntropyLoss. In double, and -log softmax(x)[f] as
    log(sum exp(x - max)) - (x[f] - max); the gradient is sum(q) * softmax(logits) - q, or 0
    where it is NEGLIGIBLE: else the way back takes twice as long once a network is sure of most
    images. dlogits may be logits itself.
    """
    cdef Py_ssize_t row, f
    cdef double largest, total, mass, own, q, slope, loss = 0, share = smoothing / F
    for row in range(rows):
        largest = logits[0]
        for f in range(1, F):
            if logits[f] > largest:
                largest = logits[f]
        total = 0
        for f in range(F):
            total += exp(logits[f] - largest)
        own = 1 - smoothing
        if weight != NULL:
            own *= weight[labels[row]]
        mass = own
        # A class without weight adds nothing, even where its logit is minus infinity.
        if own != 0:
            loss += own * (log(total) - (logits[labels[row]] - largest))
        if share != 0:
            for f in range(F):
                q = share if weight == NULL else share * weight[f]
                mass += q
                if q != 0:
                    loss += q * (log(total) - (logits[f] - largest))
        for f in range(F):
            q = share if weight == NULL else share * weight[f]
            if f == labels[row]:
                q += own
            slope = scale * (mass * (exp(logits[f] - largest) / total) - q)
            dlogits[f] = <real> slope if fabs(slope) >= NEGLIGIBLE else 0
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
    cdef real* sum
    cdef const real* addend
    while step < count:
        pair = 0
        while pair + step < count:
            sum = accumulators + pair * pitch
            addend = sum + step * pitch
            for i in range(n):
                sum[i] += addend[i]
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


cdef inline double sum_of_squares(const real* x, Py_ssize_t n) noexcept nogil:
    """Return the sum of x[i]**2 in double, as eight sums of every eighth element."""
    # One sum would wait for each of its additions; eight fill vectors.
    cdef double sums[8]
    cdef double value
    cdef Py_ssize_t i, k, whole = n - n % 8
    for k in range(8):
        sums[k] = 0
    for i in range(0, whole, 8):
        for k in range(8):
            value = x[i + k]
            sums[k] += value * value
    for i in range(whole, n):
        value = x[i]
        sums[i - whole] += value * value
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


cdef struct AdamStep:
    double rate     # learning_rate / (1 - beta1**t)
    double scale    # 1 / sqrt(1 - beta2**t)
    double beta1
    double beta2
    double eps
    double keep     # what a parameter is multiplied by: 1 - learning_rate * weight_decay
    double clip     # what a gradient is multiplied by


cdef inline kernel adam(
    real* p, const real* g, real* m, real* v, Py_ssize_t n, const AdamStep* by,
) noexcept nogil:
    """Adam on n elements, or AdamW if `by.keep` is less than 1."""
    # g = clip g
    # m = beta1 m + (1 - beta1) g
    # v = beta2 v + (1 - beta2) g²
    # p = keep p - lr (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
    cdef Py_ssize_t i
    cdef real rate = <real> by.rate, scale = <real> by.scale, eps = <real> by.eps
    cdef real beta1 = <real> by.beta1, rest1 = <real> (1 - by.beta1)
    cdef real beta2 = <real> by.beta2, rest2 = <real> (1 - by.beta2)
    cdef real keep = <real> by.keep, clip = <real> by.clip
    cdef real slope, root
    for i in range(n):
        slope = clip * g[i]
        m[i] = beta1 * m[i] + rest1 * slope
        v[i] = beta2 * v[i] + rest2 * (slope * slope)
        if SINGLE:
            root = sqrtf(v[i])
        else:
            root = sqrt(v[i])
        p[i] = keep * p[i] - rate * m[i] / (root * scale + eps)


cdef struct SGDStep:
    double rate
    double momentum
    double weight_decay
    double clip       # what a gradient is multiplied by
    bint nesterov


cdef inline kernel sgd(
    real* p, const real* g, real* velocity, Py_ssize_t n, const SGDStep* by,
) noexcept nogil:
    """Gradient descent on n elements; `velocity` is NULL without momentum."""
    # g = clip g + weight_decay p
    # velocity = momentum velocity + g
    # p -= lr (g + momentum velocity if nesterov else velocity)
    cdef Py_ssize_t i
    cdef real rate = <real> by.rate, momentum = <real> by.momentum
    cdef real decay = <real> by.weight_decay, clip = <real> by.clip
    cdef real slope
    if velocity == NULL:
        for i in range(n):
            p[i] -= rate * (clip * g[i] + decay * p[i])
    elif by.nesterov:
        for i in range(n):
            slope = clip * g[i] + decay * p[i]
            velocity[i] = momentum * velocity[i] + slope
            p[i] -= rate * (slope + momentum * velocity[i])
    else:
        for i in range(n):
            velocity[i] = momentum * velocity[i] + (clip * g[i] + decay * p[i])
            p[i] -= rate * velocity[i]


cdef inline kernel average(
    real* mean, const real* x, Py_ssize_t n, real share,
) noexcept nogil:
    """mean += share * (x - mean): the step of an exponential moving average."""
    cdef Py_ssize_t i
    for i in range(n):
        mean[i] += share * (x[i] - mean[i])
