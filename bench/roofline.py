"""How far are the layers from what the machine can do?

Every layer and pass of the two presets at batch 512. Its ceiling is the lower of two that are
measured in the same run: the peak of the vector units, multiply-adds in registers on every thread,
and the bandwidth of a large copy (bytes read and bytes written) times the operations for each byte
that must move at least once: inputs, weights and outputs. Data that lies in a cache already may
exceed the second, and a pass that leaves out operations, those with the padding, the first.

Results are compared first, on integers, where they must be exact. Then all tasks take turns, and
the best turn of each counts, as what the machine can do. The time of dx is that of a backward pass
with it less that of one without; the backward pass of a linear layer is timed after its forward
pass, and the time of that alone taken off.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

import cyconv
from cyconv import measure
from cyconv.measure import Convolution, integers
from cyconv.timing import interleave, print_row

BATCH = 512
PRESETS = {"exercise": cyconv.presets.exercise, "wide": cyconv.presets.wide}
SECONDS = 0.01  # of a turn, unless one call takes longer: short ones find a quiet moment
COPY = 2**25  # numbers of the large copy: larger than any cache
HEAD = "layer", "pass", "MFLOP", "MB", "FLOP/byte", "ceiling", "ms", "GFLOP/s", "share"
WIDTHS = 30, 8, 7, 6, 9, 10, 7, 7, 5
MARKERS = {"forward": "o", "dweight": "s", "dx": "^", "backward": "D"}


class Pass(NamedTuple):
    """One direction of a layer, and the task that is timed for it."""

    layer: str
    name: str
    operations: int
    bytes: int
    task: Callable
    beyond: bool = False  # the previous pass's task is part of this one

    @property
    def intensity(self) -> float:
        """Operations for each byte that must move."""
        return self.operations / self.bytes


def passes(net):
    """Return the passes of a network, checked; the first layer needs no dx."""
    rng = np.random.default_rng(0)
    found = []
    for layer in (each for each in net.layers if each.parameters):
        x, dy = (integers(rng, (BATCH, *s)) for s in (layer.input_shape, layer.output_shape))
        w, b = layer.parameters.values()
        w[...], b[...] = integers(rng, w.shape), integers(rng, b.shape)
        make = _linear_passes if w.ndim == 2 else _conv_passes
        found += make(layer, x, w, b, dy)
    return found


def _conv_passes(layer, x, w, b, dy):
    KH, KW, _, F = w.shape
    window = layer.stride, layer.padding
    forward = partial(cyconv.conv2d, x, w, b, *window)
    backward = partial(cyconv.conv2d_backward, dy, x, w, *window)
    cols = cyconv.naive.im2col(x, (KH, KW), *window)
    y, dcols, dw, db = _products(cols, w.reshape(-1, F), b, dy.reshape(-1, F))
    dx = cyconv.naive.col2im(dcols, x.shape, (KH, KW), *window)
    _assert_equal([forward(), *backward()], [y, dx, dw, db])
    name, operations = _name_and_operations(layer)
    work = operations, 4 * (x.size + w.size + b.size + dy.size)
    found = [
        Pass(name, "forward", *work, forward),
        Pass(name, "dweight", *work, partial(backward, need_dx=False)),
        Pass(name, "dx", *work, backward, beyond=True),
    ]
    return found if layer.number else found[:2]


def _linear_passes(layer, x, w, b, dy):
    forward = partial(layer.forward, x)

    def both():
        layer.forward(x)
        return layer.backward(dy)

    _assert_equal([forward(), both(), *layer.gradients.values()], _products(x, w, b, dy))
    name, operations = _name_and_operations(layer)
    least = 4 * (x.size + w.size + b.size + dy.size)
    return [
        Pass(name, "forward", operations, least, forward),
        Pass(name, "backward", 2 * operations, least + 4 * (x.size + w.size), both, beyond=True),
    ]


def _name_and_operations(layer):
    """Return a layer's name, and the operations of a pass over the batch."""
    sizes = Convolution.of(layer)
    return f"{sizes.name}: {sizes.sizes}", BATCH * sizes.operations


def _products(cols, w, b, dy):
    """Return y, dcols, dweight and dbias by NumPy."""
    return cols @ w + b, dy @ w.T, cols.T @ dy, dy.sum(axis=0)


def _assert_equal(results, expected):
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b.reshape(a.shape))


def copy_task(threads):
    """Return the task of a large copy, its parts divided among the threads."""
    arrays, pool = (np.zeros(COPY, np.float32), np.ones(COPY, np.float32)), ThreadPoolExecutor()
    parts = [np.array_split(array, threads) for array in arrays]
    return lambda: list(pool.map(np.copyto, *parts))


def on_threads(threads, task):
    """Return `run(iterations)` of a task on this number of threads of cyconv; each calls BLAS."""
    return measure.one_blas_thread_each(measure.on_threads(threads, task))


def about(threads) -> str:
    """Return what the numbers depend on."""
    return f"batch {BATCH}, {measure.about(threads)}"


def require(module, extra) -> None:
    """End the script with the command that installs a missing module."""
    if importlib.util.find_spec(module) is None:
        print(f"python -m pip install -e '.[{extra}]'", file=sys.stderr)
        sys.exit(2)


def draw(path, panels, peak, sgemm, bandwidth):
    """Draw both presets' points under the roof; `panels` maps a preset to (pass, GFLOP/s)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(11, 4.8), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True)
    roof = f"peak {peak:.0f} GFLOP/s, memory {bandwidth:.0f} GB/s"
    for axis, (preset, points) in zip(axes, panels.items(), strict=True):
        axis.loglog([1, peak / bandwidth, 500], [bandwidth, peak, peak], color="0.2", label=roof)
        axis.axhline(sgemm, color="0.6", linestyle=":", label=f"sgemm {sgemm:.0f} GFLOP/s")
        colors = {}
        for each, speed in points:
            color = colors.setdefault(each.layer, f"C{len(colors)}")
            axis.plot(each.intensity, speed, MARKERS[each.name], color=color)
        edge = max(each.intensity for each, _ in points)
        for layer, color in colors.items():
            own = [(each.intensity, speed) for each, speed in points if each.layer == layer]
            side, shift = ("left", 8) if own[0][0] == edge else ("right", -8)
            axis.annotate(layer.split(":")[0], np.exp(np.log(own).mean(axis=0)), (shift, 0),
                          textcoords="offset points", ha=side, va="center", color=color,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        for name, marker in MARKERS.items():
            axis.plot([], [], marker, color="0.4", label=name)
        axis.legend(loc="lower right", frameon=False)
        axis.set(title=f"{preset} network", xlabel="operations per byte that must move")
        axis.grid(color="0.9")
        for each in (axis.xaxis, axis.yaxis):
            ticks = LogLocator(subs=(1, 2, 5))
            each.set(major_locator=ticks, major_formatter="{x:g}", minor_formatter="")
    axes[0].set_ylabel("GFLOP/s")
    figure.savefig(path, dpi=150)


def main():
    """Check, measure, print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--turns", type=int, default=15, help="of each task (default: 15)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the roofline into this file")
    options = parser.parse_args()
    if options.plot:
        require("matplotlib", "plot")
    cyconv.set_num_threads(options.threads)
    threads = cyconv.get_num_threads()
    presets = {preset: passes(make()) for preset, make in PRESETS.items()}
    rows = [each for found in presets.values() for each in found]
    limits = measure.limits(threads)
    tasks = [copy_task(threads), *(measure.step_task(make(), BATCH) for make in PRESETS.values())]
    tasks += [each.task for each in rows]
    runs = [limit.run for limit in limits.values()]
    runs += [on_threads(threads, task) for task in tasks]
    best = interleave(runs, options.turns, SECONDS).min(axis=0)
    held, (copy, *steps), best = np.split(best, [len(limits), len(runs) - len(rows)])
    seconds = best - np.roll(best, 1) * [each.beyond for each in rows]
    if min(seconds) <= 0:
        sys.exit("too noisy: a backward pass with dx took less time than one without")
    peak, sgemm = (
        limit.operations / time / 1e9 for limit, time in zip(limits.values(), held, strict=True)
    )
    bandwidth = 2 * 4 * COPY / copy / 1e9
    print(about(threads))
    print(f"multiply-adds in registers: {peak:.0f} GFLOP/s, a large sgemm: {sgemm:.0f} GFLOP/s "
          f"({sgemm / peak:.0%}), a large copy: {bandwidth:.1f} GB/s")  # fmt: skip
    panels, left = {preset: [] for preset in presets}, iter(seconds)
    for (preset, found), step in zip(presets.items(), steps, strict=True):
        print(f"\n{preset} network")
        print_row(HEAD, WIDTHS)
        for each, time in zip(found, left, strict=False):
            reached, memory = each.operations / time / 1e9, bandwidth * each.intensity
            ceiling, which = min((peak, "peak"), (memory, "memory"))
            cells = (each.layer, each.name, f"{each.operations / 1e6:.1f}",
                     f"{each.bytes / 1e6:.2f}", f"{each.intensity:.1f}", f"{which} {ceiling:.0f}",
                     f"{1e3 * time:.3f}", f"{reached:.0f}", f"{reached / ceiling:.0%}")  # fmt: skip
            print_row(cells, WIDTHS)
            panels[preset].append((each, reached))
        limit = BATCH / (sum(each.operations for each in found) / peak / 1e9)
        print(f"all operations of a step at the peak: {limit:,.0f} images/s; "
              f"train_step: {BATCH / step:,.0f}, {BATCH / step / limit:.0%}")  # fmt: skip
    if options.plot:
        draw(options.plot, panels, peak, sgemm, bandwidth)


if __name__ == "__main__":
    main()
