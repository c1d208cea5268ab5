"""Which taps of a window lie inside the image, along one axis: the only place that decides it."""

from cyconv._core.geometry cimport Geometry


cdef struct Axis:
    # Tap t of position i reads the source at offset + i*step + t*apart, if that is in [low, high);
    # it is tap + t*tap_step of the kernel.
    Py_ssize_t offset, step, apart, taps, low, high, tap, tap_step


cdef struct Range:
    # begin <= i < end
    Py_ssize_t begin, end


cdef inline Axis axis_down(const Geometry* g) noexcept nogil:
    return Axis(-g.pad_top, g.stride_h, g.dilation_h, g.KH, 0, g.H, 0, 1)


cdef inline Axis axis_across(const Geometry* g) noexcept nogil:
    return Axis(-g.pad_left, g.stride_w, g.dilation_w, g.KW, 0, g.W, 0, 1)


cdef inline Range taps_at(const Axis* axis, Py_ssize_t i) noexcept nogil:
    """Return the taps of a position that lie inside the source: their number may be zero."""
    cdef Py_ssize_t at = axis.offset + i * axis.step - axis.low, size = axis.high - axis.low
    cdef Py_ssize_t apart = axis.apart
    cdef Range taps
    taps.begin, taps.end = 0, axis.taps
    if at < 0:
        taps.begin = min((apart - 1 - at) // apart, axis.taps)
    if at >= size:
        taps.end = 0
    elif at + (axis.taps - 1) * apart >= size:
        taps.end = (size - 1 - at) // apart + 1
    taps.end = max(taps.end, taps.begin)
    return taps


cdef inline Range inside(const Axis* axis, Py_ssize_t positions) noexcept nogil:
    """Return the positions of which all taps lie inside the image."""
    cdef Py_ssize_t last = axis.high - (axis.taps - 1) * axis.apart - 1 - axis.offset
    cdef Range whole
    whole.begin = min(positions, (axis.step - 1 - axis.offset) // axis.step)
    whole.end = min(positions, last // axis.step + 1 if last >= 0 else 0)
    whole.end = max(whole.end, whole.begin)
    return whole


cdef inline Axis readers(
    Py_ssize_t position, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t taps, Py_ssize_t low,
    Py_ssize_t high,
) noexcept nogil:
    """Return which outputs read a position of the padded image, and those `stride` behind it.

    Output o reads it by the kernel's tap k if o*stride + k*dilation == position. The outputs rise
    as k falls, from the last such k on.
    """
    cdef Axis axis
    axis.step, axis.low, axis.high = 1, low, high
    axis.tap, axis.tap_step = taps - 1, -1
    while axis.tap >= 0 and (position - axis.tap * dilation) % stride:
        axis.tap -= 1
    while -axis.tap_step < taps and axis.tap_step * dilation % stride:
        axis.tap_step -= 1
    axis.offset = (position - axis.tap * dilation) // stride
    axis.apart = max(-axis.tap_step * dilation // stride, 1)   # 0 is of a single tap only
    axis.taps = axis.tap // -axis.tap_step + 1 if axis.tap >= 0 else 0
    return axis


cdef inline bint same(Range a, Range b) noexcept nogil:
    return a.begin == b.begin and a.end == b.end
