"""What the tests compare with: definitions in NumPy and float64, without a line of cyconv."""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class Case(NamedTuple):
    """One convolution or pooling, its geometry in the forms in which a caller may write it."""

    x_shape: tuple[int, int, int, int]
    F: int
    kernel: tuple[int, int]
    stride: int | tuple[int, int] | None
    padding: object
    pads: tuple[tuple[int, int], tuple[int, int]]  # what `padding` means
    outputs: tuple[int, int]
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    rounding: str = "exact"

    @property
    def steps(self):
        if self.stride is None:
            return self.kernel
        return self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)

    @property
    def apart(self):
        """The steps between the taps of the kernel."""
        return self.dilation if isinstance(self.dilation, tuple) else (self.dilation,) * 2

    @property
    def reach(self):
        """Extents of the window, from its first tap to its last."""
        return reach(self.kernel, self.apart)

    @property
    def columns(self):
        """How im2col and col2im are told the geometry."""
        names = "stride", "padding", "dilation", "rounding"
        return {name: getattr(self, name) for name in names}

    @property
    def geometry(self):
        """How the convolutions are told it."""
        return {**self.columns, "groups": self.groups}

    @property
    def pooling(self):
        """How the poolings are told it."""
        return {name: getattr(self, name) for name in ("stride", "padding", "rounding")}


NAMES = ("im2col", "col2im", "conv2d", "dx", "dweight", "dbias")  # what `everything` returns
POOLINGS = ("max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward")
# 4 and 8 filters have kernels of their own; the others fill vectors, or half of one, or less.
FILTERS = (*range(1, 21), 4, 8, 4, 8, 16, 32, 48, 64, 130)
CHANNELS = (1, 2, 3, 4, 5, 8, 12, 16, 40)  # up to 1,000 taps: a sum in several parts
# Channels and filters of which 3x3 kernels go Winograd's way.
WINOGRAD = (24, 32, 33, 40)
# One filter a channel, or one window: vectors are along the channels.
DEEP = (*range(1, 21), 24, 31, 32, 33, 40, 48, 63, 64, 70, 130)


def reach(kernel, apart):
    """Return the extents of a kernel whose taps are so far apart."""
    return tuple((taps - 1) * step + 1 for taps, step in zip(kernel, apart, strict=True))


def same_pads(size, reach, stride):
    """Return TensorFlow's (before, after): just enough for ceil(size / stride) outputs."""
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def random_case(rng, varied=False):
    """Draw a small convolution; strides, kernels, paddings and dilations differ between the axes.

    Every other one that is `varied` has a dilation, groups, or a size that is rounded down.
    """

    def draw(low, high):
        return int(rng.integers(low, high + 1))

    def pick(values):
        return values[draw(0, len(values) - 1)]

    varied = varied and draw(0, 1)
    while True:
        kernel, dilation, rounding, groups = (draw(1, 5), draw(1, 5)), 1, "exact", 1
        if varied:
            dilation = pick((1, 2, 3, (1, 2), (3, 1), (2, 3)))
            rounding = pick(("exact", "floor"))
            groups = pick((1, 2, 3, 4, "depthwise", "depthwise"))
        C, F = pick(CHANNELS), pick(FILTERS)
        if groups == "depthwise":
            C = F = groups = pick(DEEP)
        elif groups > 1:
            C, F = groups * pick((1, 2, 3, 4, 16)), groups * pick((1, 2, 3, 4, 8, 16, 17))
        winograd = not varied and draw(0, 3) == 0
        if winograd:
            kernel, C, F = (3, 3), pick(WINOGRAD), pick(WINOGRAD)
        if varied and dilation == 1 and groups == 1 and rounding == "exact":
            continue
        case = Case((0, 0, 0, C), F, kernel, 0, 0, (), (), dilation, groups, rounding)
        case = _place(draw, case, winograd=winograd)
        if min(case.x_shape) > 0:
            return case


def random_pool(rng):
    """Draw a small pooling, a quarter of them of windows that lie side by side."""

    def draw(low, high):
        return int(rng.integers(low, high + 1))

    while True:
        kernel, C = (draw(1, 4), draw(1, 4)), DEEP[draw(0, len(DEEP) - 1)]
        rounding = ("exact", "floor")[draw(0, 1)]
        case = Case((0, 0, 0, C), C, kernel, 0, 0, (), (), rounding=rounding)
        case = _place(draw, case, [size - 1 for size in kernel], side_by_side=draw(0, 3) == 0)
        if min(case.x_shape) > 0:
            return case


def _place(draw, case, most=(6, 6), side_by_side=False, winograd=False):
    """Draw what a case lacks: stride, paddings of at most `most`, and an image that fits."""
    steps = (1, 1) if winograd else (draw(1, 3), draw(1, 3))
    form = ("int", "pair", "pairs", "valid", "same")[draw(0, 4)]
    stride = steps
    if side_by_side:
        stride, steps, form = None, case.kernel, ("valid", form)[draw(0, 1)]
    elif draw(0, 2) == 0:
        stride, steps = steps[0], (steps[0], steps[0])
    if form == "same":
        sizes = draw(1, 9), draw(1, 9)
        outputs = tuple(math.ceil(size / step) for size, step in zip(sizes, steps, strict=True))
        pads = tuple(map(same_pads, sizes, case.reach, steps))
        padding = form
    else:
        top, bottom, left, right = (draw(0, most[axis]) for axis in (0, 0, 1, 1))
        both = min(top, most[1])
        padding, pads = {
            "int": (both, ((both, both), (both, both))),
            "pair": ((top, left), ((top, top), (left, left))),
            "pairs": (((top, bottom), (left, right)), ((top, bottom), (left, right))),
            "valid": ("valid", ((0, 0), (0, 0))),
        }[form]
        outputs = (draw(6, 12), draw(6, 12)) if winograd else (draw(1, 5), draw(1, 5))
        sizes = tuple(
            (outputs[axis] - 1) * steps[axis]
            + case.reach[axis]
            - sum(pads[axis])
            + (draw(0, steps[axis] - 1) if case.rounding == "floor" else 0)
            for axis in range(2)
        )
    N = draw(1, 3) if draw(0, 7) else draw(4, 40)
    return case._replace(
        x_shape=(N, *sizes, case.x_shape[3]),
        stride=stride,
        padding=padding,
        pads=pads,
        outputs=outputs,
    )


def random_cases(count, seed=0, varied=False):
    """Return `count` random convolutions."""
    rng = np.random.default_rng(seed)
    return [random_case(rng, varied) for _ in range(count)]


# Large enough for several tiles, blocks and accumulators, with sums long enough to round.
LARGE = [
    Case((37, 28, 28, 1), 4, (8, 8), 2, 0, ((0, 0), (0, 0)), (11, 11)),
    Case((5, 14, 14, 32), 64, (6, 6), 2, 2, ((2, 2), (2, 2)), (7, 7)),
    Case((3, 30, 41, 5), 7, (3, 5), (1, 2), (1, 2), ((1, 1), (2, 2)), (30, 21)),
    Case((9, 12, 13, 40), 24, (1, 1), 1, 0, ((0, 0), (0, 0)), (12, 13)),
    # Winograd's way, in several blocks of tiles, with sizes that are not whole tiles.
    Case((17, 15, 14, 24), 40, (3, 3), 1, ((0, 2), (1, 0)), ((0, 2), (1, 0)), (15, 13)),
    # More weights than windows.pxd takes at once: in all lines, in one line, in 128 taps.
    Case((2, 4, 5, 520), 64, (3, 3), 1, 1, ((1, 1), (1, 1)), (4, 5)),
    Case((2, 4, 5, 300), 160, (3, 3), 1, 1, ((1, 1), (1, 1)), (4, 5)),
    Case((1, 3, 3, 100), 2048, (2, 3), 1, 1, ((1, 1), (1, 1)), (4, 3)),
    # Few filters, of which four, two and one are computed together, and pixels that are left over.
    Case((3, 9, 21, 40), 7, (5, 3), 1, (2, 1), ((2, 2), (1, 1)), (9, 21)),
    Case((5, 13, 18, 24), 3, (7, 4), 2, 3, ((3, 3), (3, 3)), (7, 11)),
    # The gradient of the weight in several blocks of pixels and of taps, with filters left over.
    Case((2, 16, 150, 100), 130, (1, 1), 1, 0, ((0, 0), (0, 0)), (16, 150)),
    Case((2, 16, 17, 70), 130, (3, 3), 1, 1, ((1, 1), (1, 1)), (16, 17)),
    Case((1, 3, 260, 70), 64, (1, 3), 1, 0, ((0, 0), (0, 0)), (3, 258)),
    Case((18, 10, 31, 48), 48, (3, 3), 1, 1, ((1, 1), (1, 1)), (10, 31), groups=48),
    Case((2, 20, 21, 24), 48, (3, 3), (2, 1), 2, ((2, 2), (2, 2)), (10, 21), 2, 3, "floor"),
]


def integers(rng, shape, dtype=np.float64):
    """Return small whole numbers: their sums of products are exact in float32."""
    return rng.integers(-4, 5, shape).astype(dtype)


def arrays(case, rng, draw=integers, dtype=np.float64):
    """Return (x, cols, weight, bias, dy) that fit a geometry."""
    N, _, _, C = case.x_shape
    pixels, taps = N * math.prod(case.outputs), math.prod(case.kernel) * C
    shapes = (
        case.x_shape, (pixels, taps), (*case.kernel, C // case.groups, case.F), (case.F,),
        (N, *case.outputs, case.F),
    )  # fmt: skip
    return [draw(rng, shape).astype(dtype) for shape in shapes]


def pool_arrays(case, rng, draw=integers, dtype=np.float64):
    """Return (x, dy) that fit a pooling."""
    shapes = case.x_shape, (case.x_shape[0], *case.outputs, case.x_shape[3])
    return [draw(rng, shape).astype(dtype) for shape in shapes]


def everything(module, case, x, cols, weight, bias, dy, **options):
    """Return what the four functions of a module make of the arrays, in the order of NAMES."""
    return (
        module.im2col(x, case.kernel, **case.columns),
        module.col2im(cols, case.x_shape, case.kernel, **case.columns),
        module.conv2d(x, weight, bias, **case.geometry, **options),
        *module.conv2d_backward(dy, x, weight, **case.geometry, **options),
    )


def windows(x, case, outside=0):
    """Return the patches of x under every output pixel: (N, OH, OW, KH, KW, C)."""
    padded = np.pad(x, ((0, 0), *case.pads, (0, 0)), constant_values=outside)
    patches = sliding_window_view(padded, case.reach, axis=(1, 2))
    patches = patches[:, :: case.steps[0], :: case.steps[1], :, :: case.apart[0], :: case.apart[1]]
    return patches.transpose(0, 1, 2, 4, 5, 3)


def im2col(x, case):
    """Return the patches as rows."""
    return windows(x, case).reshape(-1, math.prod(case.kernel) * x.shape[3])


def col2im(cols, case):
    """Return the images in which every patch has been added at the place it comes from."""
    N, H, W, C = case.x_shape
    (top, bottom), (left, right) = case.pads
    (stride_h, stride_w), (OH, OW) = case.steps, case.outputs
    patches = cols.reshape(N, OH, OW, *case.kernel, C)
    padded = np.zeros((N, top + H + bottom, left + W + right, C))
    for oh in range(OH):
        for ow in range(OW):
            h, w = oh * stride_h, ow * stride_w
            rows = slice(h, h + case.reach[0], case.apart[0])
            columns = slice(w, w + case.reach[1], case.apart[1])
            padded[:, rows, columns] += patches[:, oh, ow]
    return padded[:, top : top + H, left : left + W]


def grouped(array, case):
    """Return an array with its last axis in two: (groups, channels or filters of a group)."""
    return array.reshape(*array.shape[:-1], case.groups, -1)


def conv2d(x, weight, bias, case):
    """Return the convolution as one sum of products over patches."""
    patches, weight = grouped(windows(x, case), case), grouped(weight, case)
    y = np.einsum("nhwijgc,ijcgf->nhwgf", patches, weight)
    return y.reshape(*y.shape[:3], -1) + bias


def conv2d_backward(dy, x, weight, case):
    """Return (dx, dweight, dbias)."""
    patches, slopes = grouped(windows(x, case), case), grouped(dy, case)
    dcols = np.einsum("nhwgf,ijcgf->nhwijgc", slopes, grouped(weight, case))
    dweight = np.einsum("nhwijgc,nhwgf->ijcgf", patches, slopes)
    return col2im(dcols, case), dweight.reshape(weight.shape), dy.sum(axis=(0, 1, 2))


def inside(case):
    """Return which taps of each window lie in the image: (1, OH, OW, KH, KW, 1)."""
    return windows(np.ones((1, *case.x_shape[1:3], 1)), case) == 1


def max_pool2d(x, case):
    """Return the largest pixel of each window."""
    return windows(x, case, -np.inf).max(axis=(3, 4))


def max_pool2d_backward(dy, x, case):
    """Return dx, in which dy has been added at the first largest pixel of each window."""
    patches = windows(x, case, -np.inf)
    largest = (patches == max_pool2d(x, case)[:, :, :, None, None]) | np.isnan(patches)
    taps = (largest & inside(case)).reshape(*patches.shape[:3], -1, patches.shape[5])
    first = np.arange(taps.shape[3])[:, None] == taps.argmax(axis=3)[:, :, :, None]
    return col2im(first * dy[:, :, :, None], case)


def avg_pool2d(x, case):
    """Return the mean of the pixels of each window."""
    return windows(x, case).sum(axis=(3, 4)) / inside(case).sum(axis=(3, 4))


def avg_pool2d_backward(dy, case):
    """Return dx, in which dy has been shared among the pixels of its window."""
    taps = inside(case)
    shares = (dy / taps.sum(axis=(3, 4)))[:, :, :, None, None]
    return col2im(taps * shares, case)


def pool_everything(module, case, x, dy):
    """Return what the four poolings of a module make of the arrays, in the order of POOLINGS."""
    geometry = case.pooling
    return (
        module.max_pool2d(x, case.kernel, **geometry),
        module.max_pool2d_backward(dy, x, case.kernel, **geometry),
        module.avg_pool2d(x, case.kernel, **geometry),
        module.avg_pool2d_backward(dy, case.x_shape, case.kernel, **geometry),
    )


def pool_by_definition(case, x, dy):
    """Return what `pool_everything` does from the definitions, in float64."""
    return (
        max_pool2d(x, case),
        max_pool2d_backward(dy, x, case),
        avg_pool2d(x, case),
        avg_pool2d_backward(dy, case),
    )


def by_definition(case, x, cols, weight, bias, dy):
    """Return what `everything` does from the definitions, in float64."""
    return (
        im2col(x, case),
        col2im(cols, case),
        conv2d(x, weight, bias, case),
        *conv2d_backward(dy, x, weight, case),
    )


def assert_same(results, expected, *case, names=NAMES):
    """Check what `everything` returned, each number exactly."""
    for name, result, wanted in zip(names, results, expected, strict=True):
        assert np.array_equal(result, wanted), (name, *case)


def softmax(x):
    """Return exp(x) over its sum along the last axis."""
    e = np.exp(np.float64(x) - np.max(x, axis=-1, keepdims=True).astype(np.float64))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(logits, labels, smoothing=0.0, weight=None):
    """Return (mean of -log softmax(logits) times the targets, its gradient)."""
    logits = np.float64(logits)
    classes = logits.shape[1]
    weight = np.ones(classes) if weight is None else np.float64(weight)
    targets = weight * ((1 - smoothing) * np.eye(classes)[labels] + smoothing / classes)
    losses = targets * (np.logaddexp.reduce(logits, axis=1, keepdims=True) - logits)
    gradient = targets.sum(axis=1, keepdims=True) * softmax(logits) - targets
    return losses.sum() / weight[labels].sum(), gradient / weight[labels].sum()


def relative_bound(K):
    """Return the bound on the relative error of a float32 sum of K products."""
    return 2.0**-24 * np.minimum(K + 2, 4 * np.sqrt(K + 2))


def assert_within(actual, expected, K, magnitude, what=""):
    """Check float32 sums of K products, of which `magnitude` is the sum of absolute values."""
    assert actual.shape == expected.shape, what
    error, bound = np.abs(np.float64(actual) - expected), relative_bound(K) * magnitude
    worst = np.unravel_index(np.argmax(error - bound), error.shape)
    assert (error <= bound).all(), (
        f"{what}{list(map(int, worst))}: {actual[worst]} is not {expected[worst]}, "
        f"error {error[worst]:.3g} > {np.broadcast_to(bound, error.shape)[worst]:.3g}"
    )
