"""What the tests compare with: definitions in NumPy and float64, without a line of cyconv."""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class Case(NamedTuple):
    """One convolution, its geometry in the forms in which a caller may write it."""

    x_shape: tuple[int, int, int, int]
    F: int
    kernel: tuple[int, int]
    stride: int | tuple[int, int]
    padding: object
    pads: tuple[tuple[int, int], tuple[int, int]]  # what `padding` means
    outputs: tuple[int, int]

    @property
    def steps(self):
        return self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)


NAMES = ("im2col", "col2im", "conv2d", "dx", "dweight", "dbias")  # what `everything` returns
# 4 and 8 filters have kernels of their own; the others fill vectors, or half of one, or less.
FILTERS = (*range(1, 21), 4, 8, 4, 8, 16, 32, 48, 64, 130)
CHANNELS = (1, 2, 3, 4, 5, 8, 12, 16, 40)  # up to 1,000 taps: a sum in several parts


def same_pads(size, kernel, stride):
    """Return TensorFlow's (before, after): just enough for ceil(size / stride) outputs."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def random_case(rng):
    """Draw a small geometry; strides, kernels and paddings differ between the axes."""

    def draw(low, high):
        return int(rng.integers(low, high + 1))

    while True:
        kernel, steps = (draw(1, 5), draw(1, 5)), (draw(1, 3), draw(1, 3))
        form = ("int", "pair", "pairs", "valid", "same")[draw(0, 4)]
        stride = steps
        if draw(0, 2) == 0:
            stride, steps = steps[0], (steps[0], steps[0])
        if form == "same":
            sizes = draw(1, 9), draw(1, 9)
            outputs = tuple(math.ceil(size / step) for size, step in zip(sizes, steps, strict=True))
            pads = tuple(map(same_pads, sizes, kernel, steps))
            padding = form
        else:
            (top, bottom), (left, right) = (draw(0, 6), draw(0, 6)), (draw(0, 6), draw(0, 6))
            padding, pads = {
                "int": (top, ((top, top), (top, top))),
                "pair": ((top, left), ((top, top), (left, left))),
                "pairs": (((top, bottom), (left, right)), ((top, bottom), (left, right))),
                "valid": ("valid", ((0, 0), (0, 0))),
            }[form]
            outputs = draw(1, 5), draw(1, 5)
            sizes = tuple(
                (outputs[axis] - 1) * steps[axis] + kernel[axis] - sum(pads[axis])
                for axis in range(2)
            )
        if min(sizes) > 0:
            N = draw(1, 3) if draw(0, 7) else draw(4, 40)
            C, F = CHANNELS[draw(0, len(CHANNELS) - 1)], FILTERS[draw(0, len(FILTERS) - 1)]
            return Case((N, *sizes, C), F, kernel, stride, padding, pads, outputs)


def random_cases(count, seed=0):
    """Return `count` random geometries."""
    rng = np.random.default_rng(seed)
    return [random_case(rng) for _ in range(count)]


# Large enough for several tiles, blocks and lanes, with sums long enough to round.
LARGE = [
    Case((37, 28, 28, 1), 4, (8, 8), 2, 0, ((0, 0), (0, 0)), (11, 11)),
    Case((5, 14, 14, 32), 64, (6, 6), 2, 2, ((2, 2), (2, 2)), (7, 7)),
    Case((3, 30, 41, 5), 7, (3, 5), (1, 2), (1, 2), ((1, 1), (2, 2)), (30, 21)),
    Case((9, 12, 13, 40), 24, (1, 1), 1, 0, ((0, 0), (0, 0)), (12, 13)),
    # More weights than windows.pxd takes at once: in all lines, in one line, in 128 taps.
    Case((2, 4, 5, 520), 64, (3, 3), 1, 1, ((1, 1), (1, 1)), (4, 5)),
    Case((2, 4, 5, 300), 160, (3, 3), 1, 1, ((1, 1), (1, 1)), (4, 5)),
    Case((1, 3, 3, 100), 2048, (2, 3), 1, 1, ((1, 1), (1, 1)), (4, 3)),
]


def integers(rng, shape, dtype=np.float64):
    """Return small whole numbers: their sums of products are exact in float32."""
    return rng.integers(-4, 5, shape).astype(dtype)


def arrays(case, rng, draw=integers, dtype=np.float64):
    """Return (x, cols, weight, bias, dy) that fit a geometry."""
    N, _, _, C = case.x_shape
    pixels, taps = N * math.prod(case.outputs), math.prod(case.kernel) * C
    shapes = (
        case.x_shape, (pixels, taps), (*case.kernel, C, case.F), (case.F,),
        (N, *case.outputs, case.F),
    )  # fmt: skip
    return [draw(rng, shape).astype(dtype) for shape in shapes]


def everything(module, case, x, cols, weight, bias, dy):
    """Return what the four functions of a module make of the arrays, in the order of NAMES."""
    geometry = {"stride": case.stride, "padding": case.padding}
    return (
        module.im2col(x, case.kernel, **geometry),
        module.col2im(cols, case.x_shape, case.kernel, **geometry),
        module.conv2d(x, weight, bias, **geometry),
        *module.conv2d_backward(dy, x, weight, **geometry),
    )


def windows(x, case):
    """Return the patches of x under every output pixel: (N, OH, OW, KH, KW, C)."""
    padded = np.pad(x, ((0, 0), *case.pads, (0, 0)))
    patches = sliding_window_view(padded, case.kernel, axis=(1, 2))
    return patches[:, :: case.steps[0], :: case.steps[1]].transpose(0, 1, 2, 4, 5, 3)


def im2col(x, case):
    """Return the patches as rows."""
    return windows(x, case).reshape(-1, math.prod(case.kernel) * x.shape[3])


def col2im(cols, case):
    """Return the images in which every patch has been added at the place it comes from."""
    N, H, W, C = case.x_shape
    (top, bottom), (left, right) = case.pads
    (KH, KW), (stride_h, stride_w), (OH, OW) = case.kernel, case.steps, case.outputs
    patches = cols.reshape(N, OH, OW, KH, KW, C)
    padded = np.zeros((N, top + H + bottom, left + W + right, C))
    for oh in range(OH):
        for ow in range(OW):
            h, w = oh * stride_h, ow * stride_w
            padded[:, h : h + KH, w : w + KW] += patches[:, oh, ow]
    return padded[:, top : top + H, left : left + W]


def conv2d(x, weight, bias, case):
    """Return the convolution as one sum of products over patches."""
    return np.einsum("nhwijc,ijcf->nhwf", windows(x, case), weight) + bias


def conv2d_backward(dy, x, weight, case):
    """Return (dx, dweight, dbias)."""
    dcols = np.einsum("nhwf,ijcf->nhwijc", dy, weight)
    dweight = np.einsum("nhwijc,nhwf->ijcf", windows(x, case), dy)
    return col2im(dcols, case), dweight, dy.sum(axis=(0, 1, 2))


def by_definition(case, x, cols, weight, bias, dy):
    """Return what `everything` does from the definitions, in float64."""
    return (
        im2col(x, case),
        col2im(cols, case),
        conv2d(x, weight, bias, case),
        *conv2d_backward(dy, x, weight, case),
    )


def assert_same(results, expected, *case):
    """Check what `everything` returned, each number exactly."""
    for name, result, wanted in zip(NAMES, results, expected, strict=True):
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


class Adam:
    """Algorithm 1 of Kingma & Ba (2014), as printed."""

    def __init__(self, size, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.m, self.v, self.t = np.zeros(size), np.zeros(size), 0
        self.learning_rate, (self.beta1, self.beta2), self.eps = learning_rate, betas, eps

    def step(self, theta, g):
        """Return the next theta."""
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = self.v / (1 - self.beta2**self.t)
        return theta - self.learning_rate * m_hat / (np.sqrt(v_hat) + self.eps)


class AdamW(Adam):
    """Algorithm 2 of Loshchilov & Hutter (2019), the decay times the rate as in PyTorch."""

    def __init__(self, size, weight_decay=0.01, **others):
        super().__init__(size, **others)
        self.weight_decay = weight_decay

    def step(self, theta, g):
        """Return the next theta."""
        return super().step(theta * (1 - self.learning_rate * self.weight_decay), g)


class SGD:
    """The algorithm in PyTorch's documentation of torch.optim.SGD, dampening 0."""

    def __init__(self, size, learning_rate, momentum=0, nesterov=False, weight_decay=0):
        self.b, self.learning_rate, self.momentum = None, learning_rate, momentum
        self.nesterov, self.weight_decay = nesterov, weight_decay

    def step(self, theta, g):
        """Return the next theta."""
        g = g + self.weight_decay * theta
        if self.momentum:
            self.b = g if self.b is None else self.momentum * self.b + g
            g = g + self.momentum * self.b if self.nesterov else self.b
        return theta - self.learning_rate * g


def clipped(g, max_norm):
    """Return g scaled as torch.nn.utils.clip_grad_norm_ does."""
    return g if max_norm is None else g * min(1, max_norm / (np.linalg.norm(g) + 1e-6))


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
