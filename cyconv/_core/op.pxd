"""What an operation of a program is, and what it is given of a pass."""

from cyconv._core.real cimport real

cdef enum:
    FORWARD = 1
    BACKWARD = 2


cdef struct Pass:
    # A block of images on its way through one operation; absent arrays are NULL.
    Py_ssize_t images, begin, batch   # of the block, where it begins, of the whole batch
    const real* parameters            # the arenas of the network, whole:
    const real* state
    const real* gradients             # summed over the batch, of the stages behind this one
    real* accumulator                 # this accumulator's gradients of the operation's parameters
    double* sums                      # this accumulator's sums of the operation
    bint accumulate                   # gradients and sums are added to, not written
    real* shared                      # the operation's memory, common to all blocks
    real* scratch                     # the thread's memory for one call
    const real* x                     # inputs
    const real* x2
    real* y                           # output
    real* dy                          # gradients of outputs, which may be overwritten
    real* dy2
    real* dx                          # gradients of inputs; dx is dy where the operation says so
    real* dx2
    const Py_ssize_t* labels          # of the block
    double loss_scale                 # what a sum of losses is multiplied by
    double label_smoothing
    const double* class_weight
    unsigned long long seed, step     # of counted random numbers


cdef class Op:
    cdef readonly Py_ssize_t inputs, outputs   # floats per image, of the first input and an output
    cdef readonly tuple segments               # slices of the arena: its parameters
    cdef readonly Py_ssize_t shared, sums      # floats that `shared` has, doubles that `sums` has
    cdef readonly bint in_place, aliases, seam, joins, splits
    cdef readonly double slope
    cdef readonly Py_ssize_t channels

    cpdef Py_ssize_t scratch(self, Py_ssize_t block)
    cdef void prepare(self, const Pass* p, int phases) noexcept nogil
    cdef void forward(self, const Pass* p) noexcept nogil
    cdef void forward_part(self, const Pass* p, Py_ssize_t part, Py_ssize_t parts) noexcept nogil
    cdef void backward(self, const Pass* p) noexcept nogil
    cdef void affine(self, const Pass* p, real* scale, real* shift) noexcept nogil
    cdef void finish(
        self, const Pass* p, double* sums, Py_ssize_t pitch, Py_ssize_t accumulators,
    ) noexcept nogil
