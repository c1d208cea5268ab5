"""Convolution, of which a linear layer is the case of a 1x1 image.

An operation on blocks of images; functions on arrays; and the linear layer on whole batches. All
are here so that the kernels are compiled once.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memcmp, memcpy

from cyconv._core cimport convolution, pointwise, products
from cyconv._core.blas cimport enter, leave
from cyconv._core.columns cimport col2im_rows, im2col_rows, zero
from cyconv._core.convolution cimport Convolution, adds_dx, conv_backward, conv_forward
from cyconv._core.geometry cimport Geometry
from cyconv._core.linear cimport Linear, forward_tile, input_tile, is_transposed, weight_tile
from cyconv._core.op cimport BACKWARD, FORWARD, Op, Pass
from cyconv._core.real cimport real
from cyconv._core.team cimport team, team_for
from cyconv._core.tuning cimport (
    CHUNK,
    MAX_IMAGES_PER_PART,
    PARTS_PER_THREAD,
    SPLIT_PRODUCTS,
    TILE_ROWS,
    WINDOWS_PIXELS,
)
from cyconv._core.vectors cimport VECTOR_LENGTH
from cyconv._core.winograd cimport (
    backwards,
    can_winograd,
    panels,
    transform_weights,
    weight_floats,
)

# Whether the tiles of a linear layer's y may have any width. Not where BLAS has the product: the
# order of its sums depends on it.
ANY_WIDTH = products.has_vectors()
# With fewer images than these each thread has one tile: the weights are read once, in long lines.
FEW_IMAGES = TILE_ROWS


cdef bint keep(real* kept, const real* values, Py_ssize_t count) noexcept nogil:
    """Tell whether `values` are other bits than those kept, and keep them."""
    if memcmp(kept, values, count * sizeof(real)) == 0:
        return False
    memcpy(kept, values, count * sizeof(real))
    return True


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
    cdef Py_ssize_t kept_at         # weight and scale that the memory at u_at was made from, or 0

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
        # The order of BLAS's sums depends on the rows of a product.
        self.splits = (products.has_vectors() and geometry.OH > 1
                       and self.outputs * (self.weights // F) >= SPLIT_PRODUCTS * VECTOR_LENGTH)
        self.shared = F
        if winograd and can_winograd(&geometry, F):
            self.u_at = self.shared
            self.shared += weight_floats(&geometry, F)
        if self.u_at and not goes_back:
            self.kept_at = self.shared
            self.shared += self.weights + F
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
        return self.F + convolution.working_floats(g, self.F, min(self.tile, block * g.OH), block)

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
        cdef real* folded = p.shared + self.folded_at   # where there is a norm
        cdef real* scale = folded + self.weights
        cdef real* shift = scale + self.F
        cdef bint new = self.kept_at == 0
        zero(p.shared, self.F)
        if self.norm is not None:
            self.norm.affine(p, scale, shift)
            for f in range(self.F):
                p.shared[f] = shift[f] + (scale[f] * bias[f] if self.bias_begin >= 0 else 0)
            if self.kept_at:
                new = keep(p.shared + self.kept_at + self.weights, scale, self.F)
        # Passes that only go forward find the weights that the last one had, as a rule.
        if self.kept_at and not keep(p.shared + self.kept_at, weight, self.weights) and not new:
            return
        if self.norm is not None:
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
            elif products.needs_transposed(K):
                products.transpose(weight, p.shared + self.transposed_at, K, self.F, K)

    cdef void forward(self, const Pass* p) noexcept nogil:
        self.forward_part(p, 0, 1)

    cdef void forward_part(self, const Pass* p, Py_ssize_t part, Py_ssize_t parts) noexcept nogil:
        cdef Py_ssize_t rows = p.images * self.geometry.OH, pairs = (rows + 1) // 2
        cdef Convolution conv
        conv.u = p.shared + self.u_at if self.u_at else NULL
        conv.x, conv.weight, conv.bias = p.x, self.weight(p), self.bias(p)
        conv.y, conv.slope, conv.cols = p.y, <real> self.slope, p.scratch + self.F
        conv.g, conv.F, conv.tile = &self.geometry, self.F, self.tile
        # Winograd's tiles have two rows.
        conv_forward(
            &conv, 2 * (part * pairs // parts), min(rows, 2 * ((part + 1) * pairs // parts)))

    cdef void backward(self, const Pass* p) noexcept nogil:
        cdef Convolution conv
        pointwise.leaky_relu_backward(p.y, p.dy, p.dy, p.images * self.outputs, <real> self.slope)
        conv.x, conv.dy, conv.dx, conv.weight = p.x, p.dy, p.dx, self.weight(p)
        conv.transposed, conv.cols = p.shared + self.transposed_at, p.scratch + self.F
        conv.u_back = p.shared + self.u_back_at if self.u_back_at else NULL
        conv.dweight, conv.accumulate = p.accumulator, p.accumulate
        conv.dbias = p.accumulator + self.weights if self.bias_begin >= 0 else p.scratch
        conv.g, conv.F, conv.tile = &self.geometry, self.F, self.tile
        conv_backward(&conv, 0, p.images * self.geometry.OH)


def im2col(
    const real[:, :, :, ::1] x,      # IN
    real[:, ::1] cols,               # OUT
    Geometry geometry,
    int threads,
):
    """cols[(n, oh, ow), (kh, kw, c)] = x[n, oh*sh - pt + kh, ow*sw - pl + kw, c].

    Writes: every element of cols, zeros included.   Aliasing: x and cols must not overlap.
    Parallel over: output rows (n, oh).              Retains: nothing.
    """
    cdef Py_ssize_t t, begin, rows = x.shape[0] * geometry.OH
    cdef Py_ssize_t size = geometry.OW * geometry.KH * geometry.KW * geometry.C
    team(threads)
    for t in prange(threads, nogil=True, schedule="static", num_threads=threads):
        begin = t * rows // threads
        im2col_rows(&x[0, 0, 0, 0], &cols[0, 0] + begin * size, &geometry, begin,
                    (t + 1) * rows // threads)


def col2im(
    const real[:, ::1] cols,         # IN
    real[:, :, :, ::1] x,            # OUT
    Geometry geometry,
    int threads,
):
    """x[n, ih, iw, c] = sum of every element of cols that im2col copies from there.

    Writes: every element of x.     Aliasing: cols and x must not overlap.
    Parallel over: images.          Retains: nothing.
    """
    cdef Py_ssize_t n, size = geometry.OH * geometry.OW * geometry.KH * geometry.KW * geometry.C
    team(threads)
    for n in prange(x.shape[0], nogil=True, schedule="static", num_threads=threads):
        zero(&x[n, 0, 0, 0], x.shape[1] * x.shape[2] * x.shape[3])
        col2im_rows(&cols[0, 0] + n * size, &x[n, 0, 0, 0], &geometry, 0, geometry.OH)


def makes_columns(Geometry geometry, Py_ssize_t F):
    """Tell whether `conv2d` makes columns for F filters."""
    return convolution.makes_columns(&geometry, F)


def needs_transposed(Geometry geometry):
    """Tell whether `conv2d_backward` reads the weight's transpose for dx."""
    return products.needs_transposed(geometry.KH * geometry.KW * geometry.C)


def working_floats(Geometry geometry, Py_ssize_t F, Py_ssize_t tile, Py_ssize_t images):
    """Return how many floats of working memory a thread needs, with columns of `tile` rows."""
    return convolution.working_floats(&geometry, F, tile, images)


def winograd_floats(Geometry geometry, Py_ssize_t F):
    """Return how many floats the weight takes for Winograd's way of y and of dx, 0 if not taken."""
    cdef Geometry back = backwards(&geometry, F)
    cdef Py_ssize_t floats = weight_floats(&geometry, F)
    return (floats if can_winograd(&geometry, F) else 0,
            floats if can_winograd(&back, geometry.C) else 0)


def transform(
    const real[:, :, :, ::1] weight,   # IN
    real[::1] u,                       # OUT
    bint back,
    int threads,
):
    """u = the weight as Winograd's way takes it, for y or, going back, for dx.

    Writes: every element of u.   Aliasing: none allowed.
    Parallel over: filters.       Retains: nothing.
    """
    cdef Py_ssize_t panel, C = weight.shape[3 if back else 2], F = weight.shape[2 if back else 3]
    threads = team_for(u.shape[0], threads)
    for panel in prange(panels(F), nogil=True, schedule="static", num_threads=threads):
        transform_weights(&weight[0, 0, 0, 0], &u[0], C, F, back, panel)


def transpose(
    const real[:, ::1] matrix,       # IN
    real[:, ::1] transposed,         # OUT
    int threads,
):
    """transposed = matrixᵀ.

    Writes: every element of transposed.   Aliasing: none allowed.
    Parallel over: rows of the matrix.     Retains: nothing.
    """
    cdef Py_ssize_t t, rows = matrix.shape[0], columns = matrix.shape[1]
    cdef Py_ssize_t some = max(1, CHUNK // columns)
    threads = team_for(rows * columns, threads)
    for t in prange((rows + some - 1) // some, nogil=True, num_threads=threads):
        products.transpose(&matrix[t * some, 0], &transposed[0, t * some],
                           min(some, rows - t * some), columns, rows)


def conv2d(
    const real[:, :, :, ::1] x,        # IN
    const real[:, :, :, ::1] weight,   # IN
    const real[::1] bias,              # IN
    const real[::1] u,                 # IN: the weight for Winograd's way, or None
    real[:, :, :, ::1] y,              # OUT
    real[:, ::1] cols,                 # TMP: working memory of each thread
    Geometry geometry,
    Py_ssize_t tile,
    int threads,
):
    """y = im2col(x) · weight + bias; where columns are made, those of `tile` output rows at a time.

    Writes: every element of y.                      Aliasing: y must not overlap an input.
    Parallel over: parts of output rows (n, oh).    Retains: nothing.
    """
    cdef Py_ssize_t t, rows = x.shape[0] * geometry.OH
    # Small images share parts, where few pixels of one have the same taps. Tiles and the order of a
    # pixel's sum are the same whatever the part, and so are the bits.
    cdef Py_ssize_t parts = PARTS_PER_THREAD if geometry.OH * geometry.OW >= WINDOWS_PIXELS else 1
    cdef Py_ssize_t part = min(
        MAX_IMAGES_PER_PART * geometry.OH, (rows + parts * threads - 1) // (parts * threads))
    cdef Convolution conv
    if convolution.makes_columns(&geometry, weight.shape[3]):
        part -= part % tile
    part = max(part, tile)
    if u is not None:
        part += part % 2   # Winograd's tiles have two rows
    conv.x, conv.weight, conv.bias = &x[0, 0, 0, 0], &weight[0, 0, 0, 0], &bias[0]
    conv.y, conv.slope = &y[0, 0, 0, 0], 1
    conv.u = NULL
    if u is not None:
        conv.u = &u[0]
    conv.g, conv.F, conv.tile = &geometry, weight.shape[3], tile
    enter(threads)
    for t in prange((rows + part - 1) // part, nogil=True, schedule="dynamic",
                    num_threads=threads):
        forward_part(&conv, &cols[threadid(), 0], t * part, min((t + 1) * part, rows))
    leave(threads)


cdef void forward_part(
    const Convolution* shared, real* cols, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """The output rows begin <= (n, oh) < end, with columns in `cols`."""
    cdef Convolution conv = shared[0]
    conv.cols = cols
    conv_forward(&conv, begin, end)


cdef void add_gradients(
    const Convolution* shared, real* accumulator, real* cols, Py_ssize_t images,
    Py_ssize_t height, Py_ssize_t index, Py_ssize_t accumulators, Py_ssize_t phase,
) noexcept nogil:
    """The gradients of the parts index, index + accumulators, ... of the batch, in this order.

    Those of the first part are written, the others added. If an image is cut into strips, phase 0
    does the even ones and phase 1 the odd ones, because adjacent strips update the same rows of dx.
    """
    cdef Convolution conv = shared[0]
    cdef const Geometry* g = conv.g
    cdef Py_ssize_t strips = (g.OH + height - 1) // height, whole = max(height, g.OH)
    cdef Py_ssize_t rows = images * g.OH, weights = g.KH * g.KW * g.C * conv.F
    cdef Py_ssize_t begin, end, part = index
    conv.dweight, conv.dbias, conv.cols = accumulator, accumulator + weights, cols
    conv.accumulate = strips > 1
    if strips > 1 and phase == 0:
        zero(accumulator, weights + conv.F)
    while part // strips * whole < rows:
        begin = part // strips * whole + part % strips * height
        end = min(min(begin + height, (part // strips + 1) * whole), rows)
        if strips == 1 or part % strips % 2 == phase:
            conv_backward(&conv, begin, end)
            conv.accumulate = True
        part += accumulators


def conv2d_backward(
    const real[:, :, :, ::1] dy,       # IN
    const real[:, :, :, ::1] x,        # IN
    const real[:, :, :, ::1] weight,   # IN
    const real[:, ::1] transposed,     # IN: the weight as a matrix (F, KH*KW*C), or None
    const real[::1] u_back,            # IN: the weight for Winograd's way of dx, or None
    real[:, :, :, ::1] dx,             # OUT, or None
    real[:, ::1] accumulators,         # OUT: dweight, then dbias, of each accumulator
    real[:, ::1] cols,                 # TMP: working memory of each thread
    Geometry geometry,
    Py_ssize_t height,
    Py_ssize_t tile,
    int threads,
):
    """dx, and dweight and dbias as one partial sum for each accumulator.

    A part of the batch has `height` output rows: those of whole images, or a strip of one image
    that shares no row of dx with the next strip but one. The accumulators take parts in turn.
    Writes: every element of dx and accumulators.   Aliasing: outputs must not overlap inputs.
    Parallel over: accumulators.                    Retains: nothing.
    """
    cdef Py_ssize_t index, phase, line, lines = 0 if dx is None else dx.shape[0] * dx.shape[1]
    cdef Convolution conv
    conv.dy, conv.x, conv.weight = &dy[0, 0, 0, 0], &x[0, 0, 0, 0], &weight[0, 0, 0, 0]
    conv.transposed, conv.u_back = NULL, NULL
    if transposed is not None:
        conv.transposed = &transposed[0, 0]
    if u_back is not None:
        conv.u_back = &u_back[0]
    conv.dx = NULL if dx is None else &dx[0, 0, 0, 0]
    conv.g, conv.F, conv.tile = &geometry, weight.shape[3], tile
    enter(threads)
    if height < geometry.OH and adds_dx(&conv):
        for line in prange(lines, nogil=True, schedule="static", num_threads=threads):
            zero(conv.dx + line * geometry.W * geometry.pitch, geometry.W * geometry.pitch)
    for phase in range(2 if height < geometry.OH else 1):
        for index in prange(accumulators.shape[0], nogil=True, schedule="dynamic",
                            num_threads=threads):
            add_gradients(&conv, &accumulators[index, 0], &cols[threadid(), 0], x.shape[0], height,
                          index, accumulators.shape[0], phase)
    leave(threads)


def linear_forward(
    const real[:, ::1] x,            # IN
    const real[:, ::1] weight,       # IN
    const real[::1] bias,            # IN
    real[:, ::1] y,                  # OUT
    double slope,
    Py_ssize_t tile,
    int threads,
):
    """y = leaky_relu(x · weight + bias); a slope of 1 leaves out the LeakyReLU.

    Writes: every element of y.                  Aliasing: y must not overlap an input.
    Parallel over: tiles of `tile` columns of y. Retains: nothing.
    """
    cdef Py_ssize_t t, F = weight.shape[1]
    cdef Linear layer
    layer.N, layer.K, layer.F, layer.slope = x.shape[0], x.shape[1], F, <real> slope
    layer.x, layer.weight, layer.bias, layer.y = &x[0, 0], &weight[0, 0], &bias[0], &y[0, 0]
    enter(threads)
    for t in prange((F + tile - 1) // tile, nogil=True, schedule="dynamic", num_threads=threads):
        forward_tile(&layer, t * tile, min(tile, F - t * tile))
    leave(threads)


def linear_backward(
    const real[:, ::1] dy,           # IN
    const real[:, ::1] x,            # IN
    const real[:, ::1] weight,       # IN
    real[:, ::1] dx,                 # OUT, or None
    real[:, ::1] dweight,            # OUT
    real[::1] dbias,                 # OUT
    real[::1] dy_transposed,         # TMP: as large as dy
    real[:, ::1] dx_transposed,      # TMP: dx_images * tile for each thread
    Py_ssize_t tile,
    Py_ssize_t dx_images,            # whose dx is computed at once
    int threads,
):
    """dweight = xᵀ · dy, dbias = column sums of dy, dx = dy · weightᵀ.

    Writes: every element of the outputs.        Aliasing: outputs must not overlap inputs.
    Parallel over: tiles of `tile` rows of dweight and columns of dx.   Retains: nothing.
    """
    cdef Py_ssize_t N = x.shape[0], K = x.shape[1], F = weight.shape[1], t, k, n
    cdef Py_ssize_t tiles = (K + tile - 1) // tile
    cdef Linear layer
    layer.N, layer.K, layer.F, layer.dx_images = N, K, F, dx_images
    layer.x, layer.weight, layer.dy, layer.dweight = (
        &x[0, 0], &weight[0, 0], &dy[0, 0], &dweight[0, 0])
    layer.dy_transposed = &dy_transposed[0]
    layer.dx = NULL if dx is None else &dx[0, 0]
    enter(threads)
    if layer.dx != NULL and is_transposed(N):
        # dyᵀ of a few images at a time: a large row stride would map to few cache sets.
        for t in prange((N + dx_images - 1) // dx_images, nogil=True, num_threads=threads):
            n = t * dx_images
            products.transpose(
                &dy[n, 0], &dy_transposed[0] + n * F, min(dx_images, N - n), F,
                min(dx_images, N - n))
    for t in prange((1 if dx is None else 2) * tiles + 1, nogil=True, schedule="dynamic",
                    num_threads=threads):
        k = (t % tiles) * tile
        if t < tiles:
            weight_tile(&layer, k, min(tile, K - k))
        elif t < 2 * tiles and layer.dx != NULL:
            input_tile(&layer, &dx_transposed[threadid(), 0], k, min(tile, K - k))
        else:
            pointwise.column_sums(&dy[0, 0], &dbias[0], N, F, False)
    leave(threads)
