"""Depthwise convolution: a filter for each channel, so that vectors run along the channels.

A matrix product has nothing to share here. The windows are read from the image; eight output pixels
with the same taps inside the image share each vector of weights. dx is such a convolution as well:
an input pixel sums over the output pixels that read it, of which, with a stride, every residue of
its position has others. All channels of a tap are neighbours: the weight is a matrix (KH*KW, F).
"""

from cyconv._core.axis cimport Axis, Range, axis_across, axis_down, readers, same, taps_at
from cyconv._core.columns cimport zero
from cyconv._core.geometry cimport Geometry, is_identity
from cyconv._core.kernel cimport kernel
from cyconv._core.real cimport real
from cyconv._core.tuning cimport DEPTHWISE_LINE_TAPS, DEPTHWISE_PIXELS, DEPTHWISE_TAPS
from cyconv._core.vectors cimport VECTOR_LENGTH, leaky, load, store, vector


cdef struct Sweep:
    # target[p, :] = leaky(start[p, :] + sum over taps of source[p, tap, :] * weight[tap, :])
    const real* source
    const real* weight
    const real* start
    real* target
    # Floats from one pixel to the next, and from one tap to the next, down and across.
    Py_ssize_t source_step, start_step, target_step, down, across, weight_down, weight_across
    Range rows, columns
    real slope


cdef struct TapPlaces:
    # Of some taps: where in the image, from a window's corner, and where in the weight.
    Py_ssize_t[DEPTHWISE_TAPS] x, weight


cdef inline bint is_depthwise(const Geometry* g, Py_ssize_t F) noexcept nogil:
    """Tell whether each channel has one filter, and there are several."""
    return g.C == 1 and g.pitch > 1 and F == g.pitch


cdef inline kernel depthwise_forward(
    const real* x, const real* weight, const real* bias, real* y, const Geometry* g, real slope,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """y = leaky_relu(x convolved with weight + bias) for the output rows begin <= (n, oh) < end.

    Writes: y of these rows.   Aliasing: none allowed.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Py_ssize_t F = g.pitch, row
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Sweep s
    s.slope, s.start, s.start_step = slope, bias, 0
    s.source_step, s.target_step = g.stride_w * F, F
    s.down, s.across = g.dilation_h * g.W * F, g.dilation_w * F
    s.weight, s.weight_down, s.weight_across = weight, g.KW * F, F
    for row in range(begin, end):
        s.rows = taps_at(&down, row % g.OH)
        s.source = x + ((row // g.OH * g.H + row % g.OH * g.stride_h - g.pad_top) * g.W
                        - g.pad_left) * F
        s.target = y + row * g.OW * F
        sweep_line(&s, &across, g.OW, F)


cdef inline kernel depthwise_input(
    const real* dy, const real* weight, real* dx, const Geometry* g, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """dx[n, ih, iw, f] += weight[kh, kw, 0, f] * dy[n, oh, ow, f] for the given output rows.

    Writes: the pixels under the rows, which must hold numbers unless the kernel is 1x1.
    Aliasing: none allowed.   Parallel over: nothing.   Retains: nothing.
    """
    cdef Py_ssize_t n, oh_begin, oh_end
    if is_identity(g):
        zero(dx + begin * g.W * g.pitch, (end - begin) * g.W * g.pitch)
    for n in range(begin // g.OH, (end - 1) // g.OH + 1):
        oh_begin, oh_end = max(begin - n * g.OH, 0), min(end - n * g.OH, g.OH)
        input_lines(dy + n * g.OH * g.OW * g.pitch, weight, dx + n * g.H * g.W * g.pitch, g,
                    oh_begin, oh_end)


cdef inline void input_lines(
    const real* dy, const real* weight, real* dx, const Geometry* g, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """The lines of one image that the output rows begin <= oh < end read."""
    # forward: y[oh, ow] += x[oh*stride_h + kh*dilation_h - pad_top, ...] * weight[kh, kw],
    # so a line takes dy of oh = (ih + pad_top - kh*dilation_h) / stride_h, where that is whole.
    cdef Py_ssize_t F = g.pitch, ih, iw, ih_begin = begin * g.stride_h - g.pad_top
    cdef Py_ssize_t ih_end = (end - 1) * g.stride_h + (g.KH - 1) * g.dilation_h + 1 - g.pad_top
    cdef Axis down, across
    cdef Sweep s
    s.slope = 1
    s.source_step = F
    s.start_step = s.target_step = g.stride_w * F
    for ih in range(max(ih_begin, 0), min(ih_end, g.H)):
        down = readers(ih + g.pad_top, g.stride_h, g.dilation_h, g.KH, begin, end)
        s.rows = taps_at(&down, 0)
        s.down, s.weight_down = down.apart * g.OW * F, down.tap_step * g.KW * F
        for iw in range(min(g.stride_w, g.W)):
            across = readers(iw + g.pad_left, g.stride_w, g.dilation_w, g.KW, 0, g.OW)
            s.across, s.weight_across = across.apart * F, across.tap_step * F
            s.source = dy + (down.offset * g.OW + across.offset) * F
            s.weight = weight + (down.tap * g.KW + across.tap) * F
            s.start = s.target = dx + (ih * g.W + iw) * F
            sweep_line(&s, &across, (g.W - iw + g.stride_w - 1) // g.stride_w, F)


cdef inline void sweep_line(
    Sweep* s, const Axis* across, Py_ssize_t pixels, Py_ssize_t F,
) noexcept nogil:
    """All pixels of a line, up to DEPTHWISE_PIXELS with the same taps at once."""
    cdef Py_ssize_t i = 0, count
    while i < pixels:
        s.columns = taps_at(across, i)
        count = DEPTHWISE_PIXELS
        while count > 1 and (
                i + count > pixels or not same(taps_at(across, i + count - 1), s.columns)):
            count //= 2
        if (s.source_step == s.across and count > 2
                and s.columns.end - s.columns.begin == DEPTHWISE_LINE_TAPS):
            if count == DEPTHWISE_PIXELS:
                sweep_channels(s, i, DEPTHWISE_PIXELS, DEPTHWISE_LINE_TAPS, F)
            else:
                sweep_channels(s, i, DEPTHWISE_PIXELS // 2, DEPTHWISE_LINE_TAPS, F)
        elif count == DEPTHWISE_PIXELS:
            sweep_channels(s, i, DEPTHWISE_PIXELS, 0, F)
        elif count == DEPTHWISE_PIXELS // 2:
            sweep_channels(s, i, DEPTHWISE_PIXELS // 2, 0, F)
        elif count == DEPTHWISE_PIXELS // 4:
            sweep_channels(s, i, DEPTHWISE_PIXELS // 4, 0, F)
        else:
            sweep_channels(s, i, 1, 0, F)
        i += count


cdef inline void sweep_channels(
    const Sweep* s, Py_ssize_t i, Py_ssize_t pixels, Py_ssize_t width, Py_ssize_t F,
) noexcept nogil:
    cdef Py_ssize_t f = 0
    while f + VECTOR_LENGTH <= F:
        sweep(s, i, pixels, width, f, VECTOR_LENGTH)
        f += VECTOR_LENGTH
    if f < F:
        sweep(s, i, pixels, width, f, F - f)


cdef inline void sweep(
    const Sweep* s, Py_ssize_t i, Py_ssize_t pixels, Py_ssize_t width, Py_ssize_t f, Py_ssize_t n,
) noexcept nogil:
    """n channels of the pixels i, i + 1, ...; `pixels` and `width` are numbers the compiler sees.

    With a `width`, a pixel's taps are as many neighbours, and it shares all but one with the next
    pixel: each is read once.
    """
    cdef Py_ssize_t row, p, k, _
    cdef vector[DEPTHWISE_PIXELS] total
    cdef vector[DEPTHWISE_LINE_TAPS] factors
    cdef vector factor, value
    cdef const real* source
    cdef const real* weight
    for p in range(pixels):
        total[p] = load(s.start + (i + p) * s.start_step + f, n)
    for row in range(s.rows.begin, s.rows.end):
        source = s.source + row * s.down + s.columns.begin * s.across + i * s.source_step + f
        weight = s.weight + row * s.weight_down + s.columns.begin * s.weight_across + f
        if width:
            for k in range(width):
                factors[k] = load(weight + k * s.weight_across, n)
            for p in range(pixels + width - 1):
                value = load(source + p * s.across, n)
                for k in range(width):
                    if 0 <= p - k < pixels:
                        total[p - k] = total[p - k] + value * factors[k]
        else:
            for _ in range(s.columns.end - s.columns.begin):
                factor = load(weight, n)
                for p in range(pixels):
                    total[p] = total[p] + load(source + p * s.source_step, n) * factor
                source += s.across
                weight += s.weight_across
    for p in range(pixels):
        store(s.target + (i + p) * s.target_step + f, leaky(total[p], s.slope), n)


cdef inline kernel depthwise_weight(
    const real* x, const real* dy, real* dw, const Geometry* g, Py_ssize_t begin, Py_ssize_t end,
    bint accumulate,
) noexcept nogil:
    """dw[kh, kw, 0, f] (+)= x[n, ih, iw, f] * dy[n, oh, ow, f] for the given output rows.

    Writes: dw.                Aliasing: none allowed.
    Parallel over: nothing.    Retains: nothing.
    """
    cdef Py_ssize_t F = g.pitch, row, ow, ow_end
    cdef Axis down = axis_down(g), across = axis_across(g)
    cdef Range rows, columns
    cdef const real* corner
    if not accumulate:
        zero(dw, g.KH * g.KW * F)
    for row in range(begin, end):
        rows = taps_at(&down, row % g.OH)
        corner = x + ((row // g.OH * g.H + row % g.OH * g.stride_h - g.pad_top) * g.W
                      - g.pad_left) * F
        ow = 0
        while ow < g.OW:
            columns = taps_at(&across, ow)
            ow_end = ow + 1
            while ow_end < g.OW and same(taps_at(&across, ow_end), columns):
                ow_end += 1
            weight_taps(corner + ow * g.stride_w * F, dy + (row * g.OW + ow) * F, dw, g, rows,
                        columns, ow_end - ow)
            ow = ow_end


cdef inline void weight_taps(
    const real* corner, const real* dy, real* dw, const Geometry* g, Range rows, Range columns,
    Py_ssize_t pixels,
) noexcept nogil:
    """The taps of neighbouring pixels, nine at once: as many as a 3x3 kernel has."""
    cdef Py_ssize_t width = columns.end - columns.begin
    cdef Py_ssize_t taps = (rows.end - rows.begin) * width, t = 0, count, i, kh, kw
    cdef TapPlaces at
    while t < taps:
        count = 1
        if t + DEPTHWISE_TAPS <= taps:
            count = DEPTHWISE_TAPS
        elif t + DEPTHWISE_LINE_TAPS <= taps:
            count = DEPTHWISE_LINE_TAPS
        for i in range(count):
            kh, kw = rows.begin + (t + i) // width, columns.begin + (t + i) % width
            at.x[i] = (kh * g.dilation_h * g.W + kw * g.dilation_w) * g.pitch
            at.weight[i] = (kh * g.KW + kw) * g.pitch
        if count == DEPTHWISE_TAPS:
            weight_channels(corner, dy, dw, &at, g, pixels, DEPTHWISE_TAPS)
        elif count == DEPTHWISE_LINE_TAPS:
            weight_channels(corner, dy, dw, &at, g, pixels,
                            DEPTHWISE_LINE_TAPS)
        else:
            weight_channels(corner, dy, dw, &at, g, pixels, 1)
        t += count


cdef inline void weight_channels(
    const real* corner, const real* dy, real* dw, const TapPlaces* at, const Geometry* g,
    Py_ssize_t pixels, Py_ssize_t taps,
) noexcept nogil:
    cdef Py_ssize_t f = 0
    while f + VECTOR_LENGTH <= g.pitch:
        weight_vector(corner + f, dy + f, dw + f, at, g, pixels, taps, VECTOR_LENGTH)
        f += VECTOR_LENGTH
    if f < g.pitch:
        weight_vector(corner + f, dy + f, dw + f, at, g, pixels, taps, g.pitch - f)


cdef inline void weight_vector(
    const real* x, const real* dy, real* dw, const TapPlaces* at, const Geometry* g,
    Py_ssize_t pixels, Py_ssize_t taps, Py_ssize_t n,
) noexcept nogil:
    """n channels of some taps, a number that the compiler sees."""
    # forward: y[p] += x[p + at.x[i]] * weight[at.weight[i]]
    cdef Py_ssize_t step = g.stride_w * g.pitch, i, _
    cdef vector[DEPTHWISE_TAPS] total
    cdef vector slope
    for i in range(taps):
        total[i] = load(dw + at.weight[i], n)
    for _ in range(pixels):
        slope = load(dy, n)
        for i in range(taps):
            total[i] = total[i] + load(x + at.x[i], n) * slope
        x += step
        dy += g.pitch
    for i in range(taps):
        store(dw + at.weight[i], total[i], n)
