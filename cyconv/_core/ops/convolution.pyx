"""Convolution, of which a linear layer is the case of a 1x1 image."""

from cyconv._core cimport pointwise
from cyconv._core.convolution cimport (
    Convolution,
    adds_dx,
    conv_backward,
    conv_forward,
    working_floats,
)
from cyconv._core.columns cimport zero
from cyconv._core.geometry cimport Geometry
from cyconv._core.op cimport BACKWARD, FORWARD, Op, Pass
from cyconv._core.products cimport needs_transposed, transpose
from cyconv._core.real cimport real
from cyconv._core.winograd cimport (
    backwards,
    can_winograd,
    panels,
    transform_weights,
    weight_floats,
)


cdef class Conv(Op):
    """leaky_relu(im2col(x) · weight + bias).

    Parameters
    ----------
    geometry : mapping
        The fields of a Geometry.
    F : int
        Output channels.
    tile : int
        Output rows whose columns are made at once.
    slices : mapping
        Where the layer's weight is in the arena, and its bias, if it has one.
    goes_back : bool
        Whether there is a way back.
    winograd : bool
        Whether to take Winograd's way where it is faster.
    """

    cdef readonly Py_ssize_t F, tile
    cdef Py_ssize_t weights, weight_begin, bias_begin   # the latter is -1 if there is no bias
    cdef readonly Geometry geometry
    cdef Op norm                  # whose scale and shift the weights take in
    # `shared` begins with a bias, of zeros or with the shift; then there are, at
    cdef Py_ssize_t transposed_at   # the weight as a matrix (F, KH*KW*C)
    cdef Py_ssize_t u_at, u_back_at   # the weight as Winograd's way takes it, 0 if it does not
    cdef Py_ssize_t folded_at       # the weight with the scale, then scale and shift

    def __init__(
        self, Geometry geometry, Py_ssize_t F, Py_ssize_t tile, slices, bint goes_back,
        bint winograd,
    ):
        cdef Geometry back = backwards(&geometry, F)
        weight, bias = slices["weight"], slices.get("bias")
        self.segments = (weight,) if bias is None else (weight, bias)
        self.weight_begin, self.bias_begin = weight.start, -1 if bias is None else bias.start
        self.geometry, self.F, self.tile = geometry, F, tile
        self.weights = geometry.KH * geometry.KW * geometry.C * F
        self.inputs = geometry.H * geometry.W * geometry.pitch
        self.outputs = geometry.OH * geometry.OW * F
        self.joins = True
        self.shared = F
        if winograd and can_winograd(&geometry, F):
            self.u_at = self.shared
            self.shared += weight_floats(&geometry, F)
        if goes_back and winograd and can_winograd(&back, geometry.C):
            self.u_back_at = self.shared
            self.shared += weight_floats(&geometry, F)
        elif goes_back:
            self.transposed_at = self.shared
            self.shared += self.weights

    def fold(self, Op norm):
        """Let the weights take in what follows, which scales each of the F channels."""
        self.norm = norm
        self.folded_at = self.shared
        self.shared += self.weights + 2 * self.F

    cpdef Py_ssize_t scratch(self, Py_ssize_t block):
        cdef const Geometry* g = &self.geometry
        return self.F + working_floats(g, self.F, min(self.tile, block * g.OH), block)

    cdef const real* weight(self, const Pass* p) noexcept nogil:
        return p.parameters + self.weight_begin if self.norm is None else p.shared + self.folded_at

    cdef const real* bias(self, const Pass* p) noexcept nogil:
        if self.bias_begin < 0 or self.norm is not None:
            return p.shared
        return p.parameters + self.bias_begin

    cdef void prepare(self, const Pass* p, int phases) noexcept nogil:
        cdef Py_ssize_t K = self.weights // self.F, C = self.geometry.C, k, f
        cdef const real* weight = p.parameters + self.weight_begin
        cdef const real* bias = p.parameters + self.bias_begin
        cdef real* folded
        cdef real* scale
        cdef real* shift
        zero(p.shared, self.F)
        if self.norm is not None:
            folded = p.shared + self.folded_at
            scale, shift = folded + self.weights, folded + self.weights + self.F
            self.norm.affine(p, scale, shift)
            for f in range(self.F):
                p.shared[f] = shift[f] + (scale[f] * bias[f] if self.bias_begin >= 0 else 0)
            for k in range(K):
                for f in range(self.F):
                    folded[k * self.F + f] = weight[k * self.F + f] * scale[f]
        weight = self.weight(p)
        if phases & FORWARD and self.u_at:
            for k in range(panels(self.F)):
                transform_weights(weight, p.shared + self.u_at, C, self.F, False, k)
        if phases & BACKWARD and p.dx != NULL:
            if self.u_back_at:
                for k in range(panels(C)):
                    transform_weights(weight, p.shared + self.u_back_at, self.F, C, True, k)
            elif needs_transposed(K):
                transpose(weight, p.shared + self.transposed_at, K, self.F, K)

    cdef void forward(self, const Pass* p) noexcept nogil:
        cdef Convolution conv
        conv.u = p.shared + self.u_at if self.u_at else NULL
        conv.x, conv.weight, conv.bias = p.x, self.weight(p), self.bias(p)
        conv.y, conv.slope, conv.cols = p.y, <real> self.slope, p.scratch + self.F
        conv.g, conv.F, conv.tile = &self.geometry, self.F, self.tile
        conv_forward(&conv, 0, p.images * self.geometry.OH)

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Convolution conv
        pointwise.leaky_relu_backward(p.y, p.dy, p.dy, p.images * self.outputs, <real> self.slope)
        conv.x, conv.dy, conv.dx, conv.weight = p.x, p.dy, p.dx, self.weight(p)
        conv.transposed, conv.cols = p.shared + self.transposed_at, p.scratch + self.F
        conv.u_back = p.shared + self.u_back_at if self.u_back_at else NULL
        conv.dweight, conv.accumulate = p.accumulator, p.accumulate
        conv.dbias = p.accumulator + self.weights if self.bias_begin >= 0 else p.scratch
        conv.g, conv.F, conv.tile = &self.geometry, self.F, self.tile
        if adds_dx(&conv):
            zero(p.dx, p.images * self.inputs)
        conv_backward(&conv, 0, p.images * self.geometry.OH)
