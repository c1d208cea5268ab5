"""What an operation of a program is, and what it is given of a pass."""


from cyconv._core.real cimport real


cdef class Op:
    """One operation on blocks of images, in both directions. It retains nothing of a pass itself.

    A subclass in `_core/ops/` sets the attributes and overrides what it needs. Any number of
    threads may be in the same operation at once, each with a `Pass` of its own.

    Attributes
    ----------
    inputs, outputs : int
        Floats per image that it reads from each input, and writes.
    segments : tuple of slice
        Where its parameters are in the network's arena, in the order that an accumulator has
        their gradients in.
    shared, sums : int
        Memory that is common to the blocks of a pass, and sums that each accumulator has. In a
        program that only goes forward the memory is zero before the first pass, and left as it is.
    in_place : bool
        The gradient of its first input takes the place of that of its output.
    aliases : bool
        Its outputs are its first input: it only works backward, or on `sums`.
    seam : bool
        Its result needs the whole batch, so the operations that read it come in a later stage.
    joins : bool
        It can apply the LeakyReLU behind it, and does not yet: its `slope` is 1, the identity.
    splits : bool
        Threads may share the work on one block: it overrides `forward_part`.
    channels : int
        If it is not 0: it is scale * x + shift with a scale and a shift for each channel, by which
        a convolution before it can multiply its weights.
    """

    def __cinit__(self):
        self.slope = 1
        self.segments = ()

    @property
    def size(self):
        """Number of its parameters."""
        return sum(segment.stop - segment.start for segment in self.segments)

    def join(self, double slope):
        """Apply the LeakyReLU behind it."""
        self.slope, self.joins = slope, False

    cpdef Py_ssize_t scratch(self, Py_ssize_t block):
        """Return how many floats of scratch memory a block of images takes."""
        return 0

    cdef void prepare(self, const Pass* p, int phases) noexcept nogil:
        """Compute what all blocks share, before the first of them."""
        pass

    cdef void forward(self, const Pass* p) noexcept nogil:
        """Write y of a block, and its share of the sums."""
        pass

    cdef void forward_part(self, const Pass* p, Py_ssize_t part, Py_ssize_t parts) noexcept nogil:
        """Write one of so many parts of y, each thread having scratch memory of its own."""
        pass

    cdef void backward(self, const Pass* p) noexcept nogil:
        """Write dx, unless it is NULL, and the parameters' gradients of a block."""
        pass

    cdef void affine(self, const Pass* p, real* scale, real* shift) noexcept nogil:
        """Write scale and shift of each channel."""
        pass

    cdef void finish(
        self, const Pass* p, double* sums, Py_ssize_t pitch, Py_ssize_t accumulators,
    ) noexcept nogil:
        """Put the accumulators' sums together after the forward pass; they lie `pitch` apart."""
        pass
