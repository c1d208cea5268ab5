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


cdef struct Shared:
    # What both operations know of each channel, in the memory that they share.
    real* mean
    real* variance   # biased
    real* rstd       # 1 / sqrt(variance + eps)
    real* scale
    real* shift

cdef enum:
    SHARED = 5   # numbers of a channel in it


cdef inline Shared shared_at(real* memory, Py_ssize_t C) noexcept nogil:
    return Shared(memory, memory + C, memory + 2 * C, memory + 3 * C, memory + 4 * C)


cdef class Moments(Op):
    """Mean and variance of each channel over the batch: of x, which it hands on as it is.

    `slices` says where the layer's weight and bias are in the arena of the parameters, and
    running_mean and running_var in that of the state; `size` is that of an image.
    """

    cdef readonly double eps, momentum
    cdef Py_ssize_t C, weight_begin, bias_begin, mean_begin, variance_begin

    def __init__(
        self, Py_ssize_t size, Py_ssize_t channels, slices, double eps, double momentum,
    ):
        self.inputs = self.outputs = size
        self.C, self.eps, self.momentum = channels, eps, momentum
        self.weight_begin, self.bias_begin = slices["weight"].start, slices["bias"].start
        self.mean_begin = slices["running_mean"].start
        self.variance_begin = slices["running_var"].start
        self.sums = 2 * (1 + 2 * channels)   # of the accumulator, and of a block
        self.shared = SHARED * channels
        self.in_place = self.aliases = self.seam = True

    cpdef Py_ssize_t scratch(self, Py_ssize_t block):
        return 2 * self.C

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.C, pixels = p.images * self.inputs // C
        cdef double* block = p.sums + 1 + 2 * C if p.accumulate else p.sums
        block[0] = pixels
        moments(p.x, block + 1, block + 1 + C, p.scratch, p.scratch + C, pixels, C)
        if p.accumulate:
            merge(p.sums, block, C)

    cdef void finish(
        self, const Pass* p, double* sums, Py_ssize_t pitch, Py_ssize_t accumulators,
    ) noexcept nogil:
        cdef Py_ssize_t C = self.C, step = 1, i, c
        cdef Shared shared = shared_at(p.shared, C)
        while step < accumulators:
            i = 0
            while i + step < accumulators:
                merge(sums + i * pitch, sums + (i + step) * pitch, C)
                i += 2 * step
            step *= 2
        for c in range(C):
            shared.mean[c] = <real> sums[1 + c]
            shared.variance[c] = <real> (sums[1 + C + c] / sums[0])
            shared.rstd[c] = <real> (1 / sqrt(sums[1 + C + c] / sums[0] + self.eps))

    def move(self, real[::1] state, real[::1] memory, Py_ssize_t images):
        """Let the running mean and unbiased variance take in those of the batch."""
        cdef Py_ssize_t c
        cdef double M = <double> images * (self.inputs // self.C), weight = self.momentum
        cdef Shared batch = shared_at(&memory[0], self.C)
        cdef real* mean = &state[self.mean_begin]
        cdef real* variance = &state[self.variance_begin]
        for c in range(self.C):
            mean[c] += <real> (weight * (batch.mean[c] - mean[c]))
            variance[c] += <real> (weight * (batch.variance[c] * (M / (M - 1)) - variance[c]))

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.C, i, c
        cdef double M = <double> p.batch * (self.inputs // C)
        cdef Shared shared = shared_at(p.shared, C)
        cdef const real* dgamma = p.gradients + self.weight_begin
        cdef const real* dbeta = p.gradients + self.bias_begin
        cdef const real* mean = shared.mean
        cdef const real* scale = shared.scale
        cdef real* a = p.scratch
        cdef real* b = p.scratch + C
        if p.dx == NULL:
            return
        # dx = scale dy - scale/M (dbeta + (x - mean) rstd dgamma) = scale dy + a (x - mean) + b
        for c in range(C):
            a[c] = <real> (-scale[c] * shared.rstd[c] * dgamma[c] / M)
            b[c] = <real> (-scale[c] * dbeta[c] / M)
        for i in range(p.images * self.inputs // C):
            for c in range(C):
                p.dx[i * C + c] = (scale[c] * p.dy[i * C + c]
                                   + (a[c] * (p.x[i * C + c] - mean[c]) + b[c]))


cdef class Normalise(Op):
    """leaky_relu(gamma (x - mean) / sqrt(variance + eps) + beta) for each channel.

    Mean and variance are those of the batch, from `Moments`, which is given the same size, channels
    and slices, or else the running ones of the state.
    """

    cdef readonly double eps
    cdef readonly bint of_batch
    cdef Py_ssize_t C, weight_begin, bias_begin, mean_begin, variance_begin

    def __init__(self, Py_ssize_t size, Py_ssize_t channels, slices, double eps, bint of_batch):
        self.segments = weight, bias = slices["weight"], slices["bias"]
        self.weight_begin, self.bias_begin = weight.start, bias.start
        self.mean_begin = slices["running_mean"].start
        self.variance_begin = slices["running_var"].start
        self.inputs = self.outputs = size
        self.C, self.eps, self.of_batch = channels, eps, of_batch
        self.shared = SHARED * channels
        self.channels = 0 if of_batch else channels
        self.in_place = self.joins = True

    cpdef Py_ssize_t scratch(self, Py_ssize_t block):
        return 2 * self.C

    cdef void affine(self, const Pass* p, real* scale, real* shift) noexcept nogil:
        cdef Py_ssize_t c
        cdef const real* gamma = p.parameters + self.weight_begin
        cdef const real* beta = p.parameters + self.bias_begin
        cdef const real* mean = p.state + self.mean_begin
        cdef const real* variance = p.state + self.variance_begin
        for c in range(self.C):
            scale[c] = <real> (gamma[c] / sqrt(variance[c] + self.eps))
            shift[c] = beta[c] - mean[c] * scale[c]

    cdef void prepare(self, const Pass* p, int phases) noexcept nogil:
        cdef Py_ssize_t c
        cdef const real* gamma = p.parameters + self.weight_begin
        cdef const real* beta = p.parameters + self.bias_begin
        cdef const real* mean = p.state + self.mean_begin
        cdef const real* variance = p.state + self.variance_begin
        cdef Shared shared = shared_at(p.shared, self.C)
        if self.of_batch:
            for c in range(self.C):
                shared.scale[c] = gamma[c] * shared.rstd[c]
                shared.shift[c] = beta[c] - shared.mean[c] * shared.scale[c]
        else:
            self.affine(p, shared.scale, shared.shift)
            for c in range(self.C):
                shared.mean[c] = mean[c]
                shared.rstd[c] = <real> (1 / sqrt(variance[c] + self.eps))

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.C, i, c
        cdef Shared shared = shared_at(p.shared, C)
        cdef const real* scale = shared.scale
        cdef const real* shift = shared.shift
        cdef real slope = <real> self.slope
        for i in range(p.images * self.inputs // C):
            for c in range(C):
                p.y[i * C + c] = pointwise.leaky(p.x[i * C + c] * scale[c] + shift[c], slope)

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Py_ssize_t C = self.C, pixels = p.images * self.inputs // C, i, c, begin
        cdef Shared shared = shared_at(p.shared, C)
        cdef const real* mean = shared.mean
        cdef const real* rstd = shared.rstd
        cdef const real* scale = shared.scale
        cdef real* dgamma = p.accumulator
        cdef real* dbeta = p.accumulator + C
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
                dbeta[c] += sums[C + c]
            begin += MOMENT_PIXELS
        if p.dx != NULL and not self.of_batch:
            for i in range(pixels):
                for c in range(C):
                    p.dx[i * C + c] = p.dy[i * C + c] * scale[c]
