"""im2col, col2im, convolution and its gradients on NumPy arrays: check, allocate, call a kernel.

Images are NHWC, x[n, h, w, c]; filters are (KH, KW, C, F); columns are (N*OH*OW, KH*KW*C), one row
for each output pixel and one column for each filter tap, so that ``cols @ weight.reshape(-1, F)``
is the NHWC output. float32 is the fast path; float64 works everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks, tuning
from cyconv._core import WINOGRAD, of
from cyconv.geometry import Geometry, Padding, Pair, Placing, Rounding, divides, integer, resolve
from cyconv.memory import count_accumulators
from cyconv.threads import kernel_threads


def im2col(
    x: ArrayLike,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    rounding: Rounding = "exact",
) -> np.ndarray:
    """Return the patches under every output pixel as the rows of a matrix.

    ``cols[(n, oh, ow), (kh, kw, c)] = x[n, oh*sh - ph + kh*dh, ow*sw - pw + kw*dw, c]``, zero
    outside the image (the course's slide "im2col").

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C), float32 or float64
    kernel_size, stride : int or (y, x)
    padding : int, (y, x), ((top, bottom), (left, right)), "valid" or "same"
        Zeros around the image; "same" gives ceil(H / stride) rows, the extra zero goes after.
    dilation : int or (y, x)
        Step from one tap of the kernel to the next.
    rounding : "exact" or "floor"
        What becomes of an output size that is not an integer: an error, or the integer below.

    Returns
    -------
    ndarray of shape (N*OH*OW, KH*KW*C)

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or element type.
    ValueError
        If a shape or size is wrong, or an output size is not an integer.
    MemoryError, OverflowError
        If the columns cannot be held.
    """
    placing = Placing(stride, padding, dilation, rounding)
    x, geometry = check_im2col(x, kernel_size, placing, "im2col")
    cols = empty_columns(x, geometry, "im2col")
    if cols.size:
        of(x.dtype).convolution.im2col(x, cols, geometry._asdict(), kernel_threads())
    return cols


def col2im(
    cols: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    rounding: Rounding = "exact",
) -> np.ndarray:
    """Add every element of a column matrix to the pixel that im2col copies it from.

    The exact adjoint of `im2col`: ``<im2col(x), cols> == <x, col2im(cols)>`` (the course's slide
    "Exercise: how do we backprop im2col?").

    Parameters
    ----------
    cols : ndarray of shape (N*OH*OW, KH*KW*C), float32 or float64
    input_shape : (N, H, W, C)
        Shape of the images.
    kernel_size, stride, padding, dilation, rounding
        As in `im2col`.

    Returns
    -------
    ndarray of shape (N, H, W, C)

    Raises
    ------
    TypeError, ValueError, MemoryError, OverflowError
        As in `im2col`.
    """
    placing = Placing(stride, padding, dilation, rounding)
    cols, geometry, shape = check_col2im(cols, input_shape, kernel_size, placing, "col2im")
    x = checks.allocate(shape, cols.dtype, "col2im", "x")
    if x.size:
        of(x.dtype).convolution.col2im(cols, x, geometry._asdict(), kernel_threads())
    return x


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    rounding: Rounding = "exact",
    *,
    winograd: bool = True,
) -> np.ndarray:
    """Convolve a batch of images with a set of filters.

    ``y[n, oh, ow, f] = bias[f] + sum over kh, kw, c of x[n, oh*sh - ph + kh*dh, ow*sw - pw + kw*dw,
    c] * weight[kh, kw, c, f]`` (the course's slide "2D convolution forward loop"), computed as
    im2col and one matrix product for each tile of output rows, or from the image where that is
    faster. Of several groups, each convolves its share of the channels with its share of the
    filters, in their order. The zeros of the padding may be skipped, so an infinite weight at a
    border may or may not give NaN.

    In float32, 3x3 kernels of stride 1 with many channels and filters, 16 at least, go Winograd's
    way: F(2x2, 3x3) of Lavin & Gray 2016, "Fast algorithms for convolutional neural networks".
    Whole numbers stay exact, rounding errors are as large, and an infinity gives NaN.

    Parameters
    ----------
    x : ndarray of shape (N, H, W, C), float32 or float64
    weight : ndarray of shape (KH, KW, C/groups, F), of the same type
    bias : ndarray of shape (F,), of the same type, optional
    stride, padding, dilation, rounding
        As in `im2col`.
    groups : int
        A divisor of C and F; with ``groups=C`` each channel has filters of its own (depthwise).
    winograd : bool
        False leaves out Winograd's way, as CYCONV_WINOGRAD=0 in the environment does everywhere.

    Returns
    -------
    ndarray of shape (N, OH, OW, F)

    Raises
    ------
    TypeError, ValueError, MemoryError, OverflowError
        As in `im2col`.
    """
    winograd = checks.flag(winograd, "conv2d", "winograd")
    placing = Placing(stride, padding, dilation, rounding)
    x, weight, bias, geometry = check_conv2d(x, weight, bias, groups, placing, "conv2d")
    F = weight.shape[3]
    y = checks.allocate((len(x), geometry.OH, geometry.OW, F), x.dtype, "conv2d", "y")
    if y.size:
        rows = len(x) * geometry.OH
        conv = of(x.dtype).convolution
        columns = conv.makes_columns(geometry._asdict(), F)
        tile = tile_rows(geometry, rows, x.itemsize) if columns else least_rows(geometry, F)
        threads = min(kernel_threads(), -(-rows // tile))
        cols = working_memory(x, geometry, F, tile if columns else 0, threads, "conv2d")
        u = transformed(weight, geometry, False, threads, "conv2d") if winograd else None
        conv.conv2d(x, weight, bias, u, y, cols, geometry._asdict(), tile, threads)
    return y


def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Pair = 1,
    padding: Padding = 0,
    need_dx: bool = True,
    dilation: Pair = 1,
    groups: int = 1,
    rounding: Rounding = "exact",
    *,
    winograd: bool = True,
) -> tuple[np.ndarray | Any, np.ndarray, np.ndarray]:  # Any: dx is None on request only
    """Return the gradients of a convolution with respect to its input and parameters.

    ``dweight = colsᵀ · dy``, ``dbias`` = column sums of ``dy``, ``dx = col2im(dy · weightᵀ)`` (the
    course's slides "2D convolution backward loop").

    Parameters
    ----------
    dy : ndarray of shape (N, OH, OW, F), float32 or float64
        Gradient of a loss with respect to the output of ``conv2d(x, weight, ...)``.
    x : ndarray of shape (N, H, W, C), of the same type
    weight : ndarray of shape (KH, KW, C/groups, F), of the same type
    stride, padding, dilation, rounding
        As in `im2col`.
    groups : int
        As in `conv2d`.
    need_dx : bool
        False leaves out dx, which the first layer of a network does not need.
    winograd : bool
        As in `conv2d`; False leaves it out of dx.

    Returns
    -------
    dx : ndarray of shape (N, H, W, C), or None
    dweight : ndarray of shape (KH, KW, C/groups, F)
    dbias : ndarray of shape (F,)

    Raises
    ------
    TypeError, ValueError, MemoryError, OverflowError
        As in `im2col`.
    """
    winograd = checks.flag(winograd, "conv2d_backward", "winograd")
    placing = Placing(stride, padding, dilation, rounding)
    dy, x, weight, geometry = check_conv2d_backward(
        dy, x, weight, groups, placing, "conv2d_backward"
    )
    F = weight.shape[3]
    dx = checks.allocate(x.shape, x.dtype, "conv2d_backward", "dx") if need_dx else None
    if len(x) == 0:
        return dx, np.zeros_like(weight), np.zeros(F, x.dtype)
    height = part_height(geometry, F, len(x), x.itemsize)
    whole = max(height, geometry.OH)  # rows of whole images
    parts = -(-len(x) * geometry.OH // whole) * -(-whole // height)
    tile = tile_rows(geometry, height, x.itemsize)
    size = weight.size + F
    accumulators = np.empty((count_accumulators(parts, size * x.itemsize), size), x.dtype)
    threads = min(kernel_threads(), len(accumulators))
    cols = working_memory(x, geometry, F, tile, threads, "conv2d_backward")
    conv, transposed, u_back = of(x.dtype).convolution, None, None
    if need_dx and winograd:
        u_back = transformed(weight, geometry, True, threads, "conv2d_backward")
    if need_dx and u_back is None and conv.needs_transposed(geometry._asdict()):
        transposed = np.empty((F, weight.size // F), x.dtype)
        conv.transpose(weight.reshape(-1, F), transposed, threads)
    conv.conv2d_backward(
        dy,
        x,
        weight,
        transposed,
        u_back,
        dx,
        accumulators,
        cols,
        geometry._asdict(),
        height,
        tile,
        threads,
    )
    total = np.empty(accumulators.shape[1], x.dtype)
    of(x.dtype).elementwise.add_up(accumulators, total, threads)
    return dx, total[: weight.size].reshape(weight.shape), total[weight.size :]


def part_height(geometry: Geometry, F: int, images: int, itemsize: int) -> int:
    """Return the output rows of one part of a batch: whole images, or a strip of one image.

    Images are cut into strips if there are fewer images than accumulators.
    """
    OH, OW = geometry.OH, geometry.OW
    if images < tuning.ACCUMULATORS:
        strips = -(-tuning.ACCUMULATORS // images)
        reach = (geometry.KH - 1) * geometry.dilation_h + 1
        apart = -(-reach // geometry.stride_h)  # strips of a phase share no line of dx
        return min(OH, max(-(-OH // strips), least_rows(geometry, F), apart))
    block = tuning.TILE_BYTES // (OH * OW * geometry.taps * itemsize)
    least = -(-least_rows(geometry, F) // OH)
    return OH * max(1, least, min(block, -(-images // tuning.ACCUMULATORS)))


def least_rows(geometry: Geometry, F: int) -> int:
    """Return how many output rows are worth a thread."""
    products = geometry.OW * geometry.taps * F
    return max(-(-tuning.MIN_PIXELS // geometry.OW), -(-tuning.MIN_PRODUCTS // products))


def tile_rows(geometry: Geometry, rows: int, itemsize: int) -> int:
    """Return how many output rows' columns fit into a tile: at least 1, at most `rows`."""
    return max(1, min(rows, tuning.TILE_BYTES // (geometry.OW * geometry.taps * itemsize)))


def working_memory(
    x: np.ndarray, geometry: Geometry, F: int, tile: int, threads: int, who: str
) -> np.ndarray:
    """Return memory for each thread: for the columns of one tile of output rows, for instance."""
    checks.blas_extent(tile * geometry.OW, who, "the number of pixels in one output row")
    size = of(x.dtype).convolution.working_floats(geometry._asdict(), F, tile, len(x))
    return checks.aligned(threads, max(1, size), x.dtype, who, "working memory")


def transformed(
    weight: np.ndarray, geometry: Geometry, back: bool, threads: int, who: str
) -> np.ndarray | None:
    """Return the weight as Winograd's way takes it for y, or for dx; None if it is not taken."""
    conv = of(weight.dtype).convolution
    size = conv.winograd_floats(geometry._asdict(), weight.shape[3])[back]
    if not (WINOGRAD and size):
        return None
    (u,) = checks.aligned(1, size, weight.dtype, who, "transformed weights")
    conv.transform(weight, u, back, threads)
    return u


def check_im2col(
    x: ArrayLike, kernel_size: Pair, placing: Placing, who: str
) -> tuple[np.ndarray, Geometry]:
    """Return (x, geometry) of a call of im2col, or raise."""
    x = checks.array(x, who, "x", ("N", "H", "W", "C"))
    checks.not_empty(x, who, "x")
    return x, resolve(x.shape[1:], kernel_size, *placing[:2], who, *placing[2:])


def empty_columns(x: np.ndarray, geometry: Geometry, who: str) -> np.ndarray:
    """Return an uninitialised column matrix for the images `x`."""
    shape = (len(x) * geometry.OH * geometry.OW, geometry.taps)
    return checks.allocate(shape, x.dtype, who, "cols")


def check_col2im(
    cols: ArrayLike, input_shape: tuple[int, ...], kernel_size: Pair, placing: Placing, who: str
) -> tuple[np.ndarray, Geometry, tuple[int, ...]]:
    """Return (cols, geometry, input shape) of a call of col2im, or raise."""
    shape = checks.batch_shape(input_shape, who)
    geometry = resolve(shape[1:], kernel_size, *placing[:2], who, *placing[2:])
    rows = shape[0] * geometry.OH * geometry.OW
    cols = checks.array(cols, who, "cols", (rows, geometry.taps))
    return cols, geometry, shape


def check_conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    groups: int,
    placing: Placing,
    who: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Geometry]:
    """Return (x, weight, bias, geometry) of a call of conv2d, or raise."""
    x = checks.array(x, who, "x", ("N", "H", "W", "C"))
    groups = integer(groups, who, "groups", 1)
    checks.not_empty(x, who, "x")
    divides(groups, x.shape[3], who, "channels of x")
    weight = checks.array(weight, who, "weight", ("KH", "KW", x.shape[3] // groups, "F"))
    if 0 in weight.shape:
        raise ValueError(
            f"{who}: weight must have no empty axis, got {checks.shape_text(weight.shape)}"
        )
    divides(groups, weight.shape[3], who, "filters of weight")
    if bias is None:
        bias = np.zeros(weight.shape[3], x.dtype)
    bias = checks.array(bias, who, "bias", (weight.shape[3],))
    checks.same_dtype(who, x=x, weight=weight, bias=bias)
    geometry = resolve(x.shape[1:], weight.shape[:2], *placing[:2], who, *placing[2:])
    geometry = geometry._replace(C=weight.shape[2])
    checks.blas_extent(geometry.taps, who, "the number of taps KH*KW*C")
    checks.blas_extent(geometry.pitch, who, "the number of channels")
    checks.blas_extent(weight.shape[3], who, "the number of filters")
    return x, weight, bias, geometry


def check_conv2d_backward(
    dy: ArrayLike, x: ArrayLike, weight: ArrayLike, groups: int, placing: Placing, who: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Geometry]:
    """Return (dy, x, weight, geometry) of a call of conv2d_backward, or raise."""
    x, weight, _, geometry = check_conv2d(x, weight, None, groups, placing, who)
    dy = checks.array(dy, who, "dy", (len(x), geometry.OH, geometry.OW, weight.shape[3]))
    checks.same_dtype(who, x=x, dy=dy)
    return dy, x, weight, geometry
