"""The sizes of a convolution or pooling, as kernels take them."""


cdef struct Geometry:
    # One convolution's sizes for one image: the fields of cyconv.geometry.Geometry. Of several
    # groups it is one group's: `C` channels of an image that has `pitch` of them at each pixel.
    Py_ssize_t H, W, C, KH, KW, OH, OW, stride_h, stride_w, pad_top, pad_left
    Py_ssize_t dilation_h, dilation_w, pad_bottom, pad_right
    Py_ssize_t pitch


cdef inline bint is_identity(const Geometry* g) noexcept nogil:
    """Tell whether the column matrix is the image itself (1x1 kernel, stride 1, no padding).

    Its rows are `pitch` floats apart.
    """
    return (g.KH == 1 and g.KW == 1 and g.stride_h == 1 and g.stride_w == 1
            and g.OH == g.H and g.OW == g.W)


cdef inline bint has_runs(const Geometry* g) noexcept nogil:
    """Tell whether the taps (kw, c) of one kh are neighbours in the image, and so are the lines."""
    return g.pitch == g.C and g.dilation_h == 1 and g.dilation_w == 1
