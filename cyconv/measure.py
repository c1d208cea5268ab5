"""What is measured, and what it is held against: naive loops, a large sgemm, the machine's peak."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import threadpoolctl

from cyconv import naive
from cyconv._core import SIMD, of
from cyconv.geometry import Geometry, Padding, Pair, Rounding, resolve, shortest
from cyconv.layers import Conv2D, Linear
from cyconv.optimizers import Adam
from cyconv.threads import kernel_threads, set_num_threads
from cyconv.timing import seconds_each

SGEMM = 1536  # extent of the square matrices of a large sgemm
SGEMM_OPERATIONS = 2 * SGEMM**3
PEAK_TIMES = 2**20  # multiply-adds of each element in registers: some milliseconds
STILL = 1e-7  # learning rate of timed steps: thousands on one batch must not fit it
PROCESSOR = Path("/proc/cpuinfo")
NAIVE_SECONDS = 0.03  # of one call of each naive pass: all calls together take half a second


class Convolution(NamedTuple):
    """The sizes of a layer of products; a linear layer is a convolution over one pixel.

    Attributes
    ----------
    image : tuple of int
        (H, W, C) of one image.
    filters : tuple of int
        (KH, KW, C, F), in groups (KH, KW, C/groups, F).
    stride, padding, dilation, groups, rounding
        As in `cyconv.conv2d`.
    name : str
        Kind and place in the network, "conv 0" or "conv 3.body.0".
    """

    image: tuple[int, int, int]
    filters: tuple[int, int, int, int]
    stride: Pair = 1
    padding: Padding = 0
    dilation: Pair = 1
    groups: int = 1
    rounding: Rounding = "exact"
    name: str = ""

    @classmethod
    def of(cls, layer) -> Convolution:
        """Return the sizes of a Conv2D, Conv1D or Linear that belongs to a network."""
        shape = layer.parameters["weight"].shape
        if len(shape) == 2:
            return cls((1, 1, shape[0]), (1, 1, *shape), name=f"linear {layer.name}")
        return cls(
            (1, *layer.input_shape)[-3:],
            shape,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.rounding,
            f"conv {layer.name}",
        )

    @property
    def geometry(self) -> Geometry:
        """Input, output and window; its errors are those of `cyconv.conv2d`."""
        return resolve(
            self.image,
            self.filters[:2],
            self.stride,
            self.padding,
            "conv2d",
            self.dilation,
            self.rounding,
        )

    @property
    def operations(self) -> int:
        """Floating-point operations of one pass over one image."""
        return 2 * self.geometry.OH * self.geometry.OW * math.prod(self.filters)

    @property
    def sizes(self) -> str:
        """Images and filters as they are read: "28x28x1, 8x8x4"; of a linear layer "64 to 10"."""
        (H, W, C), (KH, KW, _, F) = self.image, self.filters
        return f"{C} to {F}" if H == W == KH == KW == 1 else f"{H}x{W}x{C}, {KH}x{KW}x{F}"

    def __str__(self) -> str:
        stride, padding, dilation = map(shortest, (self.stride, self.padding, self.dilation))
        parts = (
            f"{self.name}: " if self.name else "",
            self.sizes,
            f" stride {stride}" if stride != 1 else "",
            f" pad {padding}" if padding != 0 else "",
            f" dilation {dilation}" if dilation != 1 else "",
            f" groups {self.groups}" if self.groups != 1 else "",
            " floor" if self.rounding != "exact" else "",
        )
        return "".join(parts)


def convolutions(net) -> list[Convolution]:
    """Return the sizes of the convolutions and linear layers, those inside others included."""
    layers = (each for layer in net.layers for each in layer.walk())
    return [Convolution.of(layer) for layer in layers if isinstance(layer, (Conv2D, Linear))]


def forward_operations(net) -> int:
    """Return the floating-point operations of the products and convolutions on one image."""
    return sum(each.operations for each in convolutions(net))


def step_operations(net) -> int:
    """Return those of a training step: forward, dweight, and dx except for the first layer."""
    return 3 * forward_operations(net) - sum(each.operations for each in convolutions(net)[:1])


def integers(rng, shape) -> np.ndarray:
    """Return small integers in float32, whose products add up without rounding."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def relative_bound(K):
    """Return the bound on the error of a float32 sum of K products, over that of their sizes.

    ``|error| <= relative_bound(K) * sum(|a||b|)``: K roundings at worst, and the square root of
    that in practice (N. J. Higham, T. Mary, "A new approach to probabilistic rounding error
    analysis", 2019).
    """
    return 2.0**-24 * np.minimum(K + 2, 4 * np.sqrt(K + 2))


def draw(convolution, images: int, random) -> tuple:
    """Return x, weight, bias and dy of a convolution, each made by `random(shape)`."""
    geometry, F = convolution.geometry, convolution.filters[3]
    shapes = (
        (images, *convolution.image),
        convolution.filters,
        (F,),
        (images, geometry.OH, geometry.OW, F),
    )
    return tuple(random(shape) for shape in shapes)


def passes(package, convolution, x, weight, bias, dy) -> dict:
    """Return the two passes as tasks, by the functions of `package`: cyconv or cyconv.naive."""
    placing = convolution.stride, convolution.padding
    more = convolution.dilation, convolution.groups, convolution.rounding
    return {
        "forward": lambda: (package.conv2d(x, weight, bias, *placing, *more),),
        "backward": lambda: package.conv2d_backward(dy, x, weight, *placing, True, *more),
    }


def naive_images(convolution, batch: int) -> int:
    """Return for how many images, at most `batch`, the naive loops take NAIVE_SECONDS."""
    one = draw(convolution, 1, partial(integers, np.random.default_rng(0)))
    tasks = passes(naive, convolution, *one).values()
    seconds = sum(seconds_each(task, 1) for task in tasks)
    return max(1, min(batch, round(NAIVE_SECONDS / seconds)))


def step_task(net, batch: int):
    """Return the task of a network's training step on one batch.

    Raises
    ------
    ArithmeticError
        If its loss is not what the layers give one after the other.
    """
    x, labels = _images(net, batch)
    expected = -np.log(net.forward(x, training=True)[np.arange(batch), labels]).mean()
    task = partial(net.train_step, x, labels, Adam(STILL))
    if not np.isclose(loss := task(), expected, rtol=1e-5):
        raise ArithmeticError(f"Network.train_step: the loss is {loss}, by layers {expected}")
    return task


def predict_task(net, batch: int):
    """Return the task of predicting one batch.

    Raises
    ------
    ArithmeticError
        If a label is not the most probable class, as the layers one after the other have it.
    """
    x, _ = _images(net, batch)
    probabilities = net.forward(x)
    task = partial(net.predict, x)
    if not np.allclose(probabilities[np.arange(batch), task()], probabilities.max(axis=1), 1e-5):
        raise ArithmeticError("Network.predict: a label is not the most probable class by layers")
    return task


def _images(net, batch):
    rng = np.random.default_rng(0)
    return rng.random((batch, *net.input_shape), np.float32), rng.integers(0, net.classes, batch)


def on_threads(threads: int, task):
    """Return `run(iterations)` of a task on this number of threads of cyconv."""

    def run(iterations):
        set_num_threads(threads)
        return seconds_each(task, iterations)

    return run


def one_blas_thread_each(run):
    """Return `run` with one thread of BLAS for each thread that calls it."""

    def limited(iterations):
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            return run(iterations)

    return limited


def sgemm_task(threads: int):
    """Return the task of a large product on every thread, for `one_blas_thread_each`."""
    a = np.ones((SGEMM, SGEMM), np.float32)
    results, pool = [np.empty_like(a) for _ in range(threads)], ThreadPoolExecutor(threads)
    return lambda: list(pool.map(partial(np.matmul, a, a), results))


def peak_task(threads: int):
    """Return the task of multiply-adds in registers on every thread; twice, they change nothing."""
    kernel = of("float32").peak
    row = np.arange(1, kernel.ROW + 1, dtype=np.float32) / (2 * kernel.ROW)
    x = np.tile(row, (threads, 1))
    return lambda: kernel.multiply_adds(x, -1, 1, PEAK_TIMES, kernel_threads())


class Limit(NamedTuple):
    """What no layer exceeds: a run for `timing.interleave`, and the operations of an iteration."""

    run: Callable[[int], float]
    operations: int


def limits(threads: int) -> dict[str, Limit]:
    """Return two limits of layers on this number of threads.

    "peak" is a loop of multiply-adds in registers: what the vector units of the kernels' own level
    can do at most. "sgemm" is a large product, by what BLAS has for this processor.
    """
    peak = on_threads(threads, peak_task(threads))
    sgemm = one_blas_thread_each(on_threads(threads, sgemm_task(threads)))
    return {
        "peak": Limit(peak, threads * 2 * of("float32").peak.ROW * PEAK_TIMES),
        "sgemm": Limit(sgemm, threads * SGEMM_OPERATIONS),
    }


def about(threads: int) -> str:
    """Return what the numbers depend on: threads, vector units, the processor of BLAS."""
    blas = {each.get("architecture") for each in threadpoolctl.threadpool_info()} - {None}
    kernels = f"cyconv for {SIMD}, BLAS for {' and '.join(sorted(blas))}"
    return f"float32, {threads} thread{'s' * (threads > 1)}; {kernels}"


def processor() -> str:
    """Return the processor's name and family, or at least its architecture."""
    try:
        text = PROCESSOR.read_text("utf-8", "replace")
    except OSError:
        text = ""
    known = dict(re.findall(r"^(model name|cpu family|model)\s*: (.+)", text, re.M))
    family = "family {cpu family} model {model}" if {"cpu family", "model"} <= known.keys() else ""
    return ", ".join(
        filter(None, (known.get("model name"), family.format(**known), platform.machine()))
    )
