"""The training step: blocks of images through a run of layers and back, in one parallel region.

A thread takes a block of images through all operations forward, the loss, and all operations back
while what is between them sits in its core's cache. A block's gradients go into the accumulator of
its lane. Blocks and lanes are fixed by shapes, so the bits of the result are the same for any
number of threads.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc

from cyconv._core cimport pointwise
from cyconv._core.block cimport conv_backward, conv_forward
from cyconv._core.columns cimport Window, col2im_rows, im2col_rows, is_identity, zero
from cyconv._core.products cimport fills_vectors, transpose
from cyconv._core.real cimport real


cdef inline Py_ssize_t whole_lines(Py_ssize_t floats) noexcept nogil:
    """Round up to whole lines of the cache."""
    return (floats + 15) // 16 * 16


cdef class Op:
    """One layer's work on a block of images, both directions.

    Attributes
    ----------
    inputs, outputs : int
        Floats per image that the operation reads and writes.
    """

    cdef readonly Py_ssize_t inputs, outputs
    cdef Py_ssize_t y_at   # its place in a block's frame

    cdef Py_ssize_t columns(self) noexcept:
        """Return how many floats of scratch memory it needs."""
        return 0

    cdef void forward(self, const real* x, real* y, real* cols, Py_ssize_t n) noexcept nogil:
        pass

    cdef void prepare(self) noexcept nogil:
        """Compute what all blocks of a backward pass need of the parameters."""
        pass

    cdef void backward(
        self, const real* x, const real* y, real* dy, real* dx, real* cols,
        real* gradients, Py_ssize_t n, bint accumulate,
    ) noexcept nogil:
        """Write dx, unless it is NULL, and the parameters' gradients; dy may be overwritten."""
        pass


cdef class Conv(Op):
    """leaky_relu(im2col(x) · weight + bias); a linear layer is the case of a 1x1 image.

    Parameters
    ----------
    window : mapping
        The fields of a Geometry.
    F : int
        Output channels.
    arena : ndarray of float32
        All parameters; weight and then bias begin at `first`.
    slope : float
        Of the LeakyReLU; 1 for none.
    """

    cdef readonly Py_ssize_t first, F, weights
    cdef public double slope
    cdef public Py_ssize_t tile   # output rows whose columns are made at once
    cdef Py_ssize_t gradient_at
    cdef readonly Window window
    cdef real[::1] arena
    cdef public real[:, ::1] transposed   # room for the weight as a matrix (F, KH*KW*C)

    def __init__(self, Window window, Py_ssize_t F, real[::1] arena, Py_ssize_t first):
        self.window, self.F, self.arena, self.first, self.slope = window, F, arena, first, 1
        self.weights = window.KH * window.KW * window.C * F
        self.inputs = window.H * window.W * window.C
        self.outputs = window.OH * window.OW * F
        self.tile = window.OH

    cdef Py_ssize_t columns(self) noexcept:
        return self.tile * self.window.OW * self.window.KH * self.window.KW * self.window.C

    cdef void prepare(self) noexcept nogil:
        cdef Py_ssize_t K = self.transposed.shape[1]
        if fills_vectors(K):
            transpose(&self.arena[self.first], &self.transposed[0, 0], K, self.F, K)

    cdef void forward(self, const real* x, real* y, real* cols, Py_ssize_t n) noexcept nogil:
        cdef const real* weight = &self.arena[self.first]
        conv_forward(x, weight, weight + self.weights, y, cols, &self.window, self.F, <real> self.slope,
                     0, n * self.window.OH, self.tile)

    cdef void backward(
        self, const real* x, const real* y, real* dy, real* dx, real* cols,
        real* gradients, Py_ssize_t n, bint accumulate,
    ) noexcept nogil:
        cdef real* dweight = gradients + self.gradient_at
        if self.slope != 1:
            pointwise.leaky_relu_backward(y, dy, dy, n * self.outputs, <real> self.slope)
        if dx != NULL and not is_identity(&self.window):
            zero(dx, n * self.inputs)
        conv_backward(x, &self.arena[self.first], &self.transposed[0, 0], dy, dx, dweight,
                      dweight + self.weights, cols, &self.window, self.F, 0, n * self.window.OH,
                      self.tile, accumulate)


cdef class Im2Col(Op):
    """The columns of x as an output of their own."""

    cdef Window window

    def __init__(self, Window window):
        self.window = window
        self.inputs = window.H * window.W * window.C
        self.outputs = window.OH * window.OW * window.KH * window.KW * window.C

    cdef void forward(self, const real* x, real* y, real* cols, Py_ssize_t n) noexcept nogil:
        im2col_rows(x, y, &self.window, 0, n * self.window.OH)

    cdef void backward(
        self, const real* x, const real* y, real* dy, real* dx, real* cols,
        real* gradients, Py_ssize_t n, bint accumulate,
    ) noexcept nogil:
        if dx != NULL:
            zero(dx, n * self.inputs)
            col2im_rows(dy, dx, &self.window, 0, n * self.window.OH)


cdef class LeakyReLU(Op):
    """x where x > 0, slope * x elsewhere."""

    cdef readonly double slope

    def __init__(self, Py_ssize_t size, double slope):
        self.inputs = self.outputs = size
        self.slope = slope

    cdef void forward(self, const real* x, real* y, real* cols, Py_ssize_t n) noexcept nogil:
        pointwise.leaky_relu(x, y, n * self.inputs, <real> self.slope)

    cdef void backward(
        self, const real* x, const real* y, real* dy, real* dx, real* cols,
        real* gradients, Py_ssize_t n, bint accumulate,
    ) noexcept nogil:
        if dx != NULL:
            pointwise.leaky_relu_backward(y, dy, dx, n * self.inputs, <real> self.slope)


cdef class Softmax(Op):
    """exp(x) / sum exp(x) over each run of `classes` elements."""

    cdef readonly Py_ssize_t classes

    def __init__(self, Py_ssize_t size, Py_ssize_t classes):
        self.inputs = self.outputs = size
        self.classes = classes

    cdef void forward(self, const real* x, real* y, real* cols, Py_ssize_t n) noexcept nogil:
        pointwise.softmax(x, y, n * self.inputs // self.classes, self.classes)

    cdef void backward(
        self, const real* x, const real* y, real* dy, real* dx, real* cols,
        real* gradients, Py_ssize_t n, bint accumulate,
    ) noexcept nogil:
        if dx != NULL:
            pointwise.softmax_backward(y, dy, dx, n * self.inputs // self.classes, self.classes)


cdef class Stage:
    """A run of operations that a block of images goes through without leaving the cache.

    Memory comes from the caller: a frame of `frame_size` floats holds what the operations put out
    for a block, one frame for each block whose backward pass is still to come; scratch memory of
    `scratch_size` floats holds one thread's columns and gradients.

    Parameters
    ----------
    ops : sequence of Op
    first : int
        Where the parameters of the first operation begin in the arena.
    block : int
        Largest number of images in a block.
    """

    cdef readonly tuple ops
    cdef readonly Py_ssize_t inputs, outputs, frame_size, scratch_size, block
    cdef Py_ssize_t count, gradient_size, columns_at
    cdef void** op   # borrowed from `ops`: calling through them counts no references

    def __cinit__(self, ops, Py_ssize_t first, Py_ssize_t block):
        cdef Op op
        cdef Py_ssize_t i, columns = 0
        self.ops = tuple(ops)
        self.count = len(self.ops)
        self.op = <void**> malloc(self.count * sizeof(void*))
        if self.op == NULL:
            raise MemoryError(f"Stage: no memory for {self.count} pointers")
        self.block = block
        self.inputs = self.ops[0].inputs
        self.outputs = self.ops[self.count - 1].outputs
        self.scratch_size = whole_lines(self.inputs * block)   # pixels as floats
        self.columns_at = self.scratch_size
        for i, op in enumerate(self.ops):
            self.op[i] = <void*> op
            op.y_at = self.frame_size
            columns = max(columns, op.columns())
            self.frame_size += whole_lines(op.outputs * block)
            self.gradient_size = max(self.gradient_size, whole_lines(op.outputs * block))
            if isinstance(op, Conv):
                (<Conv> op).gradient_at = (<Conv> op).first - first
        self.scratch_size += whole_lines(columns) + 2 * self.gradient_size

    def __dealloc__(self):
        free(self.op)

    cdef void prepare(self, bint need_dx) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(0 if need_dx else 1, self.count):
            (<Op> self.op[i]).prepare()

    cdef const real* source(
        self, const real* x, const unsigned char* pixels, Py_ssize_t image, Py_ssize_t n,
        real* scratch,
    ) noexcept nogil:
        """Return the block that begins with `image`, its pixels divided by 255."""
        cdef Py_ssize_t i
        if pixels == NULL:
            return x + image * self.inputs
        pixels += image * self.inputs
        for i in range(n * self.inputs):
            scratch[i] = <real> pixels[i] / <real> 255
        return scratch

    cdef void run_forward(
        self, const real* x, real* y, real* frame, real* scratch, Py_ssize_t n,
    ) noexcept nogil:
        """The block's output goes to y, what is between to the frame."""
        cdef Py_ssize_t i
        cdef const real* source = x
        cdef real* target
        for i in range(self.count):
            target = y if i == self.count - 1 else frame + (<Op> self.op[i]).y_at
            (<Op> self.op[i]).forward(source, target, scratch + self.columns_at, n)
            source = target

    cdef void run_backward(
        self, const real* x, const real* y, real* dy, real* dx, real* frame, real* scratch,
        real* gradients, Py_ssize_t n, bint accumulate,
    ) noexcept nogil:
        """Take dy of the block back to dx; gradients on the way take turns in two places."""
        cdef Py_ssize_t i = self.count - 1
        cdef real* spare = scratch + self.scratch_size - 2 * self.gradient_size
        cdef const real* source
        cdef real* target
        while i >= 0:
            source = x if i == 0 else frame + (<Op> self.op[i - 1]).y_at
            target = dx if i == 0 else spare + (i % 2) * self.gradient_size
            (<Op> self.op[i]).backward(
                source, y, dy, target, scratch + self.columns_at, gradients, n, accumulate)
            y, dy = source, target
            i -= 1

    cdef void backward_lane(
        self, const real* x, const unsigned char* pixels, const real* y, real* dy, real* dx,
        real* frames, real* scratch, real* gradients, Py_ssize_t images, Py_ssize_t block,
        Py_ssize_t lane, Py_ssize_t lanes,
    ) noexcept nogil:
        cdef Py_ssize_t b = lane, first, n
        while b * block < images:
            first = b * block
            n = min(block, images - first)
            self.run_backward(
                self.source(x, pixels, first, n, scratch), y + first * self.outputs,
                dy + first * self.outputs, NULL if dx == NULL else dx + first * self.inputs,
                frames + b * self.frame_size, scratch, gradients, n, b != lane)
            b += lanes

    cdef double step_lane(
        self, const real* x, const unsigned char* pixels, const Py_ssize_t* labels, real* dx,
        real* frame, real* scratch, real* gradients, Py_ssize_t images, Py_ssize_t block,
        Py_ssize_t lane, Py_ssize_t lanes,
    ) noexcept nogil:
        cdef Py_ssize_t b = lane, first, n
        cdef double loss = 0
        cdef const real* source
        cdef real* y = frame + (<Op> self.op[self.count - 1]).y_at
        cdef real* dy = (scratch + self.scratch_size - 2 * self.gradient_size
                          + (self.count % 2) * self.gradient_size)
        while b * block < images:
            first = b * block
            n = min(block, images - first)
            source = self.source(x, pixels, first, n, scratch)
            self.run_forward(source, y, frame, scratch, n)
            loss += pointwise.cross_entropy(
                y, labels + first, dy, n, self.outputs, 1.0 / images)
            self.run_backward(source, y, dy, NULL if dx == NULL else dx + first * self.inputs,
                              frame, scratch, gradients, n, b != lane)
            b += lanes
        return loss

    def forward(
        self,
        const real[:, ::1] x,               # IN, or None
        const unsigned char[:, ::1] pixels,  # IN, or None
        real[:, ::1] y,                     # OUT
        real[:, ::1] frames,                # OUT: one for each block if `keep`, else TMP
        real[:, ::1] scratch,               # TMP: one for each thread
        Py_ssize_t block,
        bint keep,
        int threads,
    ):
        """y = the run's output for every image.

        Writes: every element of y, and the frames.   Aliasing: outputs must not overlap inputs.
        Parallel over: blocks of images.              Retains: nothing.
        """
        cdef Py_ssize_t b, first, images = y.shape[0]
        cdef const real* x_or_null = NULL
        cdef const unsigned char* pixels_or_null = NULL
        if pixels is None:
            x_or_null = &x[0, 0]
        else:
            pixels_or_null = &pixels[0, 0]
        for b in prange((images + block - 1) // block, nogil=True, schedule="dynamic",
                        num_threads=threads):
            first = b * block
            self.run_forward(
                self.source(x_or_null, pixels_or_null, first, min(block, images - first),
                            &scratch[threadid(), 0]),
                &y[first, 0], &frames[b if keep else threadid(), 0], &scratch[threadid(), 0],
                min(block, images - first))

    def backward(
        self,
        const real[:, ::1] x,               # IN, or None
        const unsigned char[:, ::1] pixels,  # IN, or None
        const real[:, ::1] y,               # IN: what `forward` wrote
        real[:, ::1] dy,                    # IN, overwritten
        real[:, ::1] dx,                    # OUT, or None
        real[:, ::1] frames,                # IN: what `forward` kept
        real[:, ::1] scratch,               # TMP: one for each thread
        real[:, ::1] lanes,                 # OUT: the gradients of each lane
        Py_ssize_t block,
        int threads,
    ):
        """dx, and the parameters' gradients as one partial sum for each lane.

        Writes: every element of dx and lanes.   Aliasing: outputs must not overlap inputs.
        Parallel over: lanes.                    Retains: nothing.
        """
        cdef Py_ssize_t lane
        cdef const real* x_or_null = NULL
        cdef const unsigned char* pixels_or_null = NULL
        if pixels is None:
            x_or_null = &x[0, 0]
        else:
            pixels_or_null = &pixels[0, 0]
        cdef real* dx_or_null = NULL if dx is None else &dx[0, 0]
        self.prepare(dx is not None)
        for lane in prange(lanes.shape[0], nogil=True, schedule="dynamic", num_threads=threads):
            self.backward_lane(
                x_or_null, pixels_or_null, &y[0, 0], &dy[0, 0], dx_or_null, &frames[0, 0],
                &scratch[threadid(), 0], &lanes[lane, 0], y.shape[0], block, lane, lanes.shape[0])

    def step(
        self,
        const real[:, ::1] x,               # IN, or None
        const unsigned char[:, ::1] pixels,  # IN, or None
        const Py_ssize_t[::1] labels,        # IN
        real[:, ::1] dx,                    # OUT, or None
        real[:, ::1] frames,                # TMP: one for each thread
        real[:, ::1] scratch,               # TMP: one for each thread
        real[:, ::1] lanes,                 # OUT: the gradients of each lane
        double[::1] losses,                  # OUT: the sum of the losses of each lane
        Py_ssize_t block,
        int threads,
    ):
        """Forward, softmax with cross-entropy, and backward; gradients are those of the mean loss.

        Writes: every element of dx, lanes and losses.   Aliasing: none allowed.
        Parallel over: lanes.                            Retains: nothing.
        """
        cdef Py_ssize_t lane
        cdef const real* x_or_null = NULL
        cdef const unsigned char* pixels_or_null = NULL
        if pixels is None:
            x_or_null = &x[0, 0]
        else:
            pixels_or_null = &pixels[0, 0]
        cdef real* dx_or_null = NULL if dx is None else &dx[0, 0]
        self.prepare(dx is not None)
        for lane in prange(lanes.shape[0], nogil=True, schedule="dynamic", num_threads=threads):
            losses[lane] = self.step_lane(
                x_or_null, pixels_or_null, &labels[0], dx_or_null, &frames[threadid(), 0],
                &scratch[threadid(), 0], &lanes[lane, 0], labels.shape[0], block, lane,
                lanes.shape[0])
