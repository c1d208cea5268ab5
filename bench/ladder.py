"""What is each step worth on the way from the slides' seven loops to the speed of the machine?

One layer, and the training step of the exercise network (forward, loss, backward, Adam), rung by
rung. In the step, rungs 1 to 6 go layer by layer over the whole batch with the rung's convolutions;
rung 7 takes blocks of images through the whole network. The loops of rungs 2 and 3 are in
ladder_loops.pyx, which is compiled first. In rung 5, cyconv has products of its own in the place of
sgemm where filters are few.

Every rung is compared with the first: the layer on integers, where both must be exact, the step by
its loss and gradients. Then all take turns, with a large sgemm on each of as many threads: the
limit, by its best turn. Times of the rungs are medians; the factor is that over the rung before.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from roofline import BATCH, about, on_threads, require

import cyconv
from cyconv import measure
from cyconv.layers import Conv2D
from cyconv.timing import interleave, print_row

LAYER = 1  # of the convolutions: 11x11x4, 8 filters of 6x6
SECONDS = 0.1  # of a turn, unless one call takes longer
TOLERANCE = 1e-4  # of the largest gradient: sums of up to 62,000 rounded products
HEAD = "rung", "threads", "us/image", "images/s", "GFLOP/s", "of limit", "factor", "total"
WIDTHS = 40, 7, 8, 9, 7, 8, 6, 6


class Rung(NamedTuple):
    """One way to convolve, with the arguments and results of `cyconv.naive`."""

    name: str
    conv2d: Callable
    conv2d_backward: Callable
    threads: int = 1


class RungConv2D(Conv2D):
    """A convolution by a rung: a layer with a forward of its own is a stage of its own."""

    def __init__(self, rung, **config):
        super().__init__(**config)
        self.rung = rung

    def forward(self, x):
        """Return y."""
        self.x = x
        return self.rung.conv2d(x, *self.parameters.values(), self.stride)

    def backward(self, dy):
        """Write dweight and dbias, and return dx, or None for the first layer."""
        weight, need_dx = self.parameters["weight"], self.number > 0
        dx, dweight, dbias = self.rung.conv2d_backward(
            dy, self.x, weight, self.stride, need_dx=need_dx
        )
        self.gradients["weight"][...], self.gradients["bias"][...] = dweight, dbias
        return dx


def compiled_loops():
    """Return ladder_loops.pyx as a module, compiled in a temporary folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source = shutil.copy(Path(__file__).with_name("ladder_loops.pyx"), folder)
        command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", source]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        sys.path.insert(0, folder)
        import ladder_loops
    return ladder_loops


def by_columns(times_weight, transposed_times_dy, dy_times_transposed):
    """Return conv2d and conv2d_backward by im2col over the whole batch and three products."""

    def conv2d(x, weight, bias, stride):
        F = weight.shape[3]
        cols = cyconv.im2col(x, weight.shape[:2], stride)
        y = times_weight(cols, weight.reshape(-1, F))
        y += bias
        OH = cyconv.conv_output_size(x.shape[1], weight.shape[0], stride[0])
        return y.reshape(len(x), OH, -1, F)

    def conv2d_backward(dy, x, weight, stride, need_dx=True):
        F = weight.shape[3]
        rows = dy.reshape(-1, F)
        cols = cyconv.im2col(x, weight.shape[:2], stride)
        dweight = transposed_times_dy(cols, rows).reshape(weight.shape)
        dbias = np.ones(len(rows), np.float32) @ rows
        if not need_dx:
            return None, dweight, dbias
        dcols = dy_times_transposed(rows, weight.reshape(-1, F))
        return cyconv.col2im(dcols, x.shape, weight.shape[:2], stride), dweight, dbias

    return conv2d, conv2d_backward


def ladder(loops, threads):
    """Return the rungs of a convolution, from the lowest."""
    own = loops.times_weight, loops.transposed_times_dy, loops.dy_times_transposed
    blas = np.matmul, lambda cols, dy: cols.T @ dy, lambda dy, weight: dy @ weight.T
    fast = cyconv.conv2d, cyconv.conv2d_backward
    return [
        Rung("1 the slides' seven loops", cyconv.naive.conv2d, cyconv.naive.conv2d_backward),
        Rung("2 the seven loops in the order of memory", loops.conv2d, loops.conv2d_backward),
        Rung("3 im2col and a product of three loops", *by_columns(*own)),
        Rung("4 im2col and sgemm over the whole batch", *by_columns(*blas)),
        Rung("5 in cache-sized blocks: cyconv.conv2d", *fast),
        Rung("6 with threads", *fast, threads),
    ]


def layer_tasks(rungs):
    """Return (name, threads, task) for the layer by each rung, checked, and its operations."""
    layer = measure.convolutions(cyconv.presets.exercise())[LAYER]
    integers = partial(measure.integers, np.random.default_rng(0))
    x, w, b, dy = measure.draw(layer, BATCH, integers)
    named, results = [], []
    for rung in rungs:
        task = partial(rung.conv2d, x, w, b, layer.stride)
        named.append((rung.name, rung.threads, task))
        results.append((task(), *rung.conv2d_backward(dy, x, w, layer.stride)))
        np.testing.assert_equal(results[-1], results[0])
    return named, layer.operations


def step_tasks(rungs):
    """Return the training step by each rung and by the whole network, as `layer_tasks` does."""
    places = [(rung.name, rung.threads, network(rung)) for rung in rungs]
    places.append(("7 the whole network per block", rungs[-1].threads, cyconv.presets.exercise()))
    named = [(name, n, measure.step_task(net, BATCH)) for name, n, net in places]
    losses = [task() for _, _, task in named]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    first, *others = (net for _, _, net in places)
    for net in others:
        for name, expected in first.gradients().items():
            bound = TOLERANCE * np.abs(expected).max()
            np.testing.assert_allclose(net.gradients()[name], expected, rtol=0, atol=bound)
    return named, measure.step_operations(first)


def network(rung):
    """Return the exercise network with the rung's convolutions."""
    preset = cyconv.presets.exercise()
    layers = [
        RungConv2D(rung, **layer.config) if isinstance(layer, Conv2D) else type(layer)()
        for layer in preset.layers
    ]
    return cyconv.Network(layers, preset.input_shape)


def print_table(title, tasks, work, seconds, limits):
    """Print the ladder of a question from its seconds for each image; return the picture's bars."""
    print(f"\n{title}")
    print_row(HEAD, WIDTHS)
    bars, before = [], seconds[0]
    for (name, n, _), each in zip(tasks, seconds, strict=True):
        speed, rate, factor = work / each / 1e9, f"{1 / each:,.0f}", f"{before / each:.1f}"
        cells = (name, n, f"{1e6 * each:.2f}", rate, f"{speed:.1f}", f"{speed / limits[n]:.1%}",
                 factor, f"{seconds[0] / each:.1f}")  # fmt: skip
        print_row(cells, WIDTHS)
        bars.append((name, speed, f"× {factor}   {rate} images/s", "C0"))
        before = each
    for n, limit in limits.items():
        name = f"limit: sgemm on {n} thread{'s' * (n > 1)}"
        bars.append((name, limit, f"{limit:.0f} GFLOP/s", "0.6"))
    return bars


def draw(path, panels):
    """Draw the ladders as bars over a logarithmic axis: equal factors have equal lengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.8), layout="constrained", facecolor="white")
    heights = [len(bars) for bars in panels.values()]
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights)
    for axis, (title, bars) in zip(axes, panels.items(), strict=True):
        names, speeds, texts, colors = zip(*bars, strict=True)
        drawn = axis.barh(names, speeds, color=colors)
        axis.bar_label(drawn, texts, padding=5)
        axis.set(title=title, xscale="log", xlim=(1, 12 * max(speeds)))
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter("{x:g}")
    axes[-1].set_xlabel("GFLOP/s")
    figure.savefig(path, dpi=150)


def main():
    """Compile, check, measure, print the tables, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, help="of the highest rungs (default: all cores)")
    parser.add_argument("--turns", type=int, default=7, help="of each rung (default: 7)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the ladders into this file")
    options = parser.parse_args()
    require("Cython", "bench")
    if options.plot:
        require("matplotlib", "plot")
    cyconv.set_num_threads(options.threads)
    rungs = ladder(compiled_loops(), cyconv.get_num_threads())
    questions = {
        "layer, forward: 11x11x4, 8 filters of 6x6": layer_tasks(rungs),
        "training step of the exercise network": step_tasks(rungs),
    }
    limits = dict.fromkeys(rung.threads for rung in rungs)
    runs = [on_threads(n, measure.sgemm_task(n)) for n in limits]
    runs += [on_threads(n, task) for tasks, _ in questions.values() for _, n, task in tasks]
    times = interleave(runs, options.turns, SECONDS)
    fastest, seconds = times.min(axis=0), iter(np.median(times, axis=0) / BATCH)
    for n, best, _ in zip(limits, fastest, seconds, strict=False):
        limits[n] = n * measure.SGEMM_OPERATIONS / best / 1e9
    print(about(rungs[-1].threads))
    print("limit: " + ", ".join(f"{limit:.0f} GFLOP/s on {n}" for n, limit in limits.items()))
    panels = {
        title: print_table(title, tasks, work, list(islice(seconds, len(tasks))), limits)
        for title, (tasks, work) in questions.items()
    }
    if options.plot:
        draw(options.plot, panels)


if __name__ == "__main__":
    main()
