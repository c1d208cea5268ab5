"""Batch normalisation (Ioffe & Szegedy 2015): two operations with a seam between them.

`Moments` ends a stage: each accumulator sums over the pixels that pass, and when the stage is done
mean and variance of the batch are known. `Normalise` begins the next one. Backward, `Normalise`
sums dgamma and dbeta, and `Moments`, in the stage before, makes of dy the gradient of x:

    xhat = (x - mean) / sqrt(var + eps)           y = gamma xhat + beta
    dgamma = sum of dy xhat                       dbeta = sum of dy
    dx = gamma / sqrt(var + eps) (dy - dbeta / M - xhat dgamma / M),  M values per channel
"""

from libc.math cimport sqrt

from cyconv._core cimport pointwise
from cyconv._core.kernel cimport kernel
from cyconv._core.op cimport Op, Pass
from cyconv._core.real cimport real
from cyconv._core.tuning cimport MOMENT_PIXELS


cdef inline kernel moments(
    const real* x, double* mean, double* squares, real* sums, real* about, Py_ssize_t pixels,
    Py_ssize_t C,
) noexcept nogil:
    """mean = mean of x for each channel, squares = sum of (x - mean)²; sums, about: C numbers."""
    cdef Py_ssize_t begin = 0, n, i, c
    cdef double shift
    cdef real away
    for c in range(C):
        mean[c] = squares[c] = 0
    while begin < pixels:
        n = min(<Py_ssize_t> MOMENT_PIXELS, pixels - begin)
        pointwise.column_sums(x + begin * C, sums, n, C, False)
        for c in range(C):
            mean[c] += sums[c]
        begin += n
    for c in range(C):
        mean[c] /= pixels
        about[c] = <real> mean[c]
    begin = 0
    while begin < pixels:
        n = min(<Py_ssize_t> MOMENT_PIXELS, pixels - begin)
        for c in range(C):
            sums[c] = 0
        for i in range(begin, begin + n):
            for c in range(C):
                away = x[i * C + c] - about[c]
                sums[c] += away * away
        for c in range(C):
            squares[c] += sums[c]
        begin += n
    for c in range(C):
        shift = mean[c] - about[c]
        squares[c] -= pixels * shift * shift


cdef inline void merge(double* a, const double* b, Py_ssize_t C) noexcept nogil:
    """a = moments of what a and b count: [count, mean..., squares...] (Chan et al. 1979)."""
    cdef double count = a[0] + b[0], away
    cdef Py_ssize_t c
    for c in range(1, C + 1):
        away = b[c] - a[c]
        a[c] += away * b[0] / count
        a[C + c] += b[C + c] + away * away * a[0] * b[0] / count
    a[0] = count


cdef class Moments(Op):
    """Mean and variance of each channel over the batch: of x, which it hands on as it is.

    `shared` is mean, biased variance, 1 / sqrt(variance + eps), then scale and shift, which
    `Normalise` puts there; both are given the same.
    """

    cdef readonly double eps, momentum

    def __init__(self, Py_ssize_t size, Py_ssize_t channels, double eps, double momentum):
        self.inputs = self.outputs = size
        self.eps, self.momentum = eps, momentum
        self.sums = 2 * (1 + 2 * channels)   # of the accumulator, and of a block
        self.shared = 5 * channels
        self.in_place = self.aliases = self.seam = True

    cpdef Py_ssize_t scratch(self, Py_ssize_t block):
        return 2 * (self.shared // 5)

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.shared // 5, pixels = p.images * self.inputs // C
        cdef double* block = p.sums + 1 + 2 * C if p.accumulate else p.sums
        block[0] = pixels
        moments(p.x, block + 1, block + 1 + C, p.scratch, p.scratch + C, pixels, C)
        if p.accumulate:
            merge(p.sums, block, C)

    cdef void finish(
        self, const Pass* p, double* sums, Py_ssize_t pitch, Py_ssize_t accumulators,
    ) noexcept nogil:
        cdef Py_ssize_t C = self.shared // 5, step = 1, i, c
        while step < accumulators:
            i = 0
            while i + step < accumulators:
                merge(sums + i * pitch, sums + (i + step) * pitch, C)
                i += 2 * step
            step *= 2
        for c in range(C):
            p.shared[c] = <real> sums[1 + c]
            p.shared[C + c] = <real> (sums[1 + C + c] / sums[0])
            p.shared[2 * C + c] = <real> (1 / sqrt(sums[1 + C + c] / sums[0] + self.eps))

    def move(self, real[::1] state, const real[::1] shared, Py_ssize_t images):
        """Let the running mean and unbiased variance take in those of the batch."""
        cdef Py_ssize_t C = self.shared // 5, c
        cdef double M = <double> images * (self.inputs // C), weight = self.momentum
        cdef real* running = &state[self.state_offset]
        for c in range(C):
            running[c] += <real> (weight * (shared[c] - running[c]))
            running[C + c] += <real> (weight * (shared[C + c] * (M / (M - 1)) - running[C + c]))

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.shared // 5, i, c
        cdef double M = <double> p.batch * (self.inputs // C)
        cdef const real* dgamma = p.gradients + self.offset
        cdef const real* scale = p.shared + 3 * C
        cdef real* a = p.scratch
        cdef real* b = p.scratch + C
        if p.dx == NULL:
            return
        # dx = scale dy - scale/M (dbeta + (x - mean) rstd dgamma) = scale dy + a (x - mean) + b
        for c in range(C):
            a[c] = <real> (-scale[c] * p.shared[2 * C + c] * dgamma[c] / M)
            b[c] = <real> (-scale[c] * dgamma[C + c] / M)
        for i in range(p.images * self.inputs // C):
            for c in range(C):
                p.dx[i * C + c] = (scale[c] * p.dy[i * C + c]
                                   + (a[c] * (p.x[i * C + c] - p.shared[c]) + b[c]))


cdef class Normalise(Op):
    """leaky_relu(gamma (x - mean) / sqrt(variance + eps) + beta) for each channel.

    Mean and variance are those of the batch, from `Moments`, or else the running ones of the
    state. The parameters are gamma, then beta; the state is the mean, then the variance.
    """

    cdef readonly double eps
    cdef readonly bint of_batch

    def __init__(self, Py_ssize_t size, Py_ssize_t channels, double eps, bint of_batch):
        self.inputs = self.outputs = size
        self.eps, self.of_batch = eps, of_batch
        self.size = 2 * channels
        self.shared = 5 * channels
        self.channels = 0 if of_batch else channels
        self.in_place = self.joins = True

    cpdef Py_ssize_t scratch(self, Py_ssize_t block):
        return self.size

    cdef void affine(self, const Pass* p, real* scale, real* shift) noexcept nogil:
        cdef Py_ssize_t C = self.size // 2, c
        cdef const real* mean = p.state + self.state_offset
        cdef const real* gamma = p.parameters + self.offset
        for c in range(C):
            scale[c] = <real> (gamma[c] / sqrt(mean[C + c] + self.eps))
            shift[c] = gamma[C + c] - mean[c] * scale[c]

    cdef void prepare(self, const Pass* p, int phases) noexcept nogil:
        cdef Py_ssize_t C = self.size // 2, c
        cdef const real* gamma = p.parameters + self.offset
        cdef real* shared = p.shared
        if self.of_batch:
            for c in range(C):
                shared[3 * C + c] = gamma[c] * shared[2 * C + c]
                shared[4 * C + c] = gamma[C + c] - shared[c] * shared[3 * C + c]
        else:
            self.affine(p, shared + 3 * C, shared + 4 * C)
            for c in range(C):
                shared[c] = p.state[self.state_offset + c]
                shared[2 * C + c] = <real> (1 / sqrt(p.state[self.state_offset + C + c] + self.eps))

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.size // 2, i, c
        cdef const real* scale = p.shared + 3 * C
        cdef const real* shift = p.shared + 4 * C
        cdef real slope = <real> self.slope
        for i in range(p.images * self.inputs // C):
            for c in range(C):
                p.y[i * C + c] = pointwise.leaky(p.x[i * C + c] * scale[c] + shift[c], slope)

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.size // 2, pixels = p.images * self.inputs // C, i, c, begin
        cdef const real* mean = p.shared
        cdef const real* rstd = p.shared + 2 * C
        cdef const real* scale = p.shared + 3 * C
        cdef real* dgamma = p.accumulator
        cdef real* sums = p.scratch
        cdef real gradient
        pointwise.leaky_relu_backward(p.y, p.dy, p.dy, p.images * self.inputs, <real> self.slope)
        if not p.accumulate:
            for c in range(2 * C):
                dgamma[c] = 0
        begin = 0
        while begin < pixels:
            for c in range(2 * C):
                sums[c] = 0
            for i in range(begin, min(begin + <Py_ssize_t> MOMENT_PIXELS, pixels)):
                for c in range(C):
                    gradient = p.dy[i * C + c]
                    sums[c] += gradient * (p.x[i * C + c] - mean[c])
                    sums[C + c] += gradient
            for c in range(C):
                dgamma[c] += sums[c] * rstd[c]
                dgamma[C + c] += sums[C + c]
            begin += MOMENT_PIXELS
        if p.dx != NULL and not self.of_batch:
            for i in range(pixels):
                for c in range(C):
                    p.dx[i * C + c] = p.dy[i * C + c] * scale[c]
