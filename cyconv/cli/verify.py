"""cyconv verify: compare the kernels with the naive loops, in results and in time."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np

from cyconv import __version__, checks, functional, measure, naive, presets
from cyconv.cli.options import (
    add_command,
    add_preset_option,
    add_thread_option,
    plural,
    whole_number,
)
from cyconv.geometry import pair
from cyconv.measure import Convolution
from cyconv.threads import get_num_threads
from cyconv.timing import interleave, print_row, seconds_each

EXAMPLE = """\
examples:
  cyconv verify --input 28 28 1 --kernel 8 --filters 4 --stride 2
  cyconv verify --input 32 40 3 --kernel 3 5 --filters 16 --padding same
"""
LEGEND = """\
A batch of {batch} repeats the few images that the naive loops have time for.
error/bound: the largest error on reals over the float32 bound; must not exceed 1.
us: microseconds for one image, median of turns. factor: naive us over cyconv us,
which is not equal work: the naive loops take the few images on one thread, cyconv
the whole batch on {threads}. of peak, of sgemm: shares of what multiply-adds in
registers and a large matrix product reach on the same threads.
Linear layers are compared as convolutions over one pixel."""
HEAD = (
    "pass", "integers", "error/bound", "naive us", "cyconv us", "factor",
    "GFLOP/s", "of peak", "of sgemm",
)  # fmt: skip
WIDTHS = 8, 8, 11, 9, 9, 6, 7, 7, 8
RESULTS = {
    "im2col": ("cols",),
    "col2im": ("x",),
    "forward": ("y",),
    "backward": ("dx", "dweight", "dbias"),
}
PRODUCTS = {"forward": 1, "backward": 2}  # matrix products in a pass, dweight and dx in the second
TURNS, SECONDS = 5, 0.02  # of each side; of a turn, unless one call takes longer


def add(commands) -> None:
    parser = add_command(
        commands,
        "verify",
        run,
        "compare the kernels with the naive loops",
        "Compare im2col, col2im, convolution and its gradients with the naive loops:\n"
        "on integers exactly, on reals within the bound of float32, and in time. Exits\n"
        "with 1 if any result differs. Without a geometry: the layers of a network, or of\n"
        f"{' and '.join(presets.MEASURED)}.",
        EXAMPLE,
    )
    parser.usage = "cyconv verify [options]"
    option, size = parser.add_argument, whole_number(1)
    add_preset_option(parser, "one network")
    option("--input", type=size, nargs=3, metavar=("H", "W", "C"), help="size of an image")
    option("--kernel", type=size, nargs="+", metavar="K", help="size of a filter, or y x")
    option("--filters", type=size, metavar="F", help="number of filters")
    option("--stride", type=size, nargs="+", metavar="S", help="or y x (default: 1)")
    option(
        "--padding",
        type=_padding,
        nargs="+",
        metavar="P",
        help="or y x, or top bottom left right, or same, or valid (default: 0)",
    )
    option("--batch", type=size, default=512, metavar="N", help="images (default: %(default)s)")
    add_thread_option(parser)
    option("--json", action="store_true", help="print the results as JSON")


def run(args) -> int:
    """Compare, measure and print layer after layer; return 1 if a result differs."""
    layers = _layers(args)
    threads = get_num_threads()
    about = measure.about(threads)
    if not args.json:
        legend = LEGEND.format(batch=args.batch, threads=plural(threads, "thread"))
        print(f"cyconv {__version__}, {about}\n{legend}", flush=True)
    records = []
    for layer in layers:
        records.append(_verify(layer, args.batch))
        if not args.json:
            _print(records[-1])
    agree = not any(record["differences"] for record in records)
    if args.json:
        document = {"cyconv": __version__, "about": about, "agree": agree, "layers": records}
        print(json.dumps(document, indent=2))
    else:
        print("\nall results agree" if agree else "\nsome results differ")
    return 0 if agree else 1


def _padding(text: str) -> int | str:
    """Parse one word of --padding."""
    return text if text in ("same", "valid") else whole_number(0)(text)


def _layers(args) -> list[Convolution]:
    """Return the convolution that the arguments describe, or those of the presets."""
    needed = args.input, args.kernel, args.filters
    if not any((*needed, args.stride, args.padding)):
        return [
            layer._replace(name=f"{preset} {layer.name}")
            for preset in ((args.preset,) if args.preset else presets.MEASURED)
            for layer in measure.convolutions(getattr(presets, preset)())
        ]
    if args.preset:
        args.parser.error("--preset has its own layers: it does not go with a geometry")
    if not all(needed):
        args.parser.error("a layer needs --input, --kernel and --filters")
    padding = args.padding or [0]
    if len(padding) == 4:
        padding = [tuple(padding[:2]), tuple(padding[2:])]
    kernel, stride, padding = (
        values[0] if len(values) == 1 else tuple(values)
        for values in (args.kernel, args.stride or [1], padding)
    )
    try:
        filters = (*pair(kernel, "conv2d", "kernel_size"), args.input[2], args.filters)
        layer = Convolution(tuple(args.input), filters, stride, padding)
        layer.geometry  # noqa: B018 - raises what is wrong
    except (TypeError, ValueError, OverflowError) as error:
        args.parser.error(str(error))
    return [layer]


def _verify(layer: Convolution, batch: int) -> dict:
    """Return what was compared and measured of a layer, as --json has it."""
    images = measure.naive_images(layer, batch)
    rng = np.random.default_rng(0)
    worst: dict[tuple[str, str], float] = {}
    differences = []
    for kind, random in (
        ("reals", partial(rng.standard_normal, dtype=np.float32)),
        ("integers", partial(measure.integers, rng)),
    ):
        few = _draw(layer, images, random)
        slow, fast = _tasks(naive, layer, *few), _tasks(functional, layer, *_repeat(few, batch))
        expected = _naive(layer, few, batch)
        bounds = _bounds(layer, few, batch) if kind == "reals" else dict.fromkeys(expected, 0.0)
        for (name, what), result in _results(fast).items():
            ratio, where = _compare(result, expected[name, what], bounds[name, what])
            worst[name, kind] = max(ratio, worst.get((name, kind), 0.0))
            if where:
                differences.append(f"{name} on {kind}: {what}{where}")
    passes = []
    speeds, limits = _speeds(layer, slow, fast, images, batch)
    for name, speed in zip(fast, speeds, strict=True):
        error = worst[name, "reals"]
        results = {
            "pass": name,
            "exact_on_integers": worst[name, "integers"] == 0,
            "error_over_bound": error if math.isfinite(error) else None,
        }
        passes.append(results | speed)
    return {
        "layer": str(layer),
        "image": layer.image,
        "filters": layer.filters,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "rounding": layer.rounding,
        "batch": batch,
        "naive_images": images,
        "differences": differences,
        **limits,
        "passes": passes,
    }


def _draw(layer, images, random) -> tuple[np.ndarray, ...]:
    """Return x, weight, bias, dy, and the columns for col2im, each made by `random(shape)`."""
    geometry = layer.geometry
    cols = random((images * geometry.OH * geometry.OW, geometry.taps))
    return *measure.draw(layer, images, random), cols


def _repeat(few, batch) -> list[np.ndarray]:
    """Return the arrays of `_draw` for a batch that repeats their images."""
    x, weight, bias, dy, cols = few

    def repeat(name, part):
        full = checks.allocate(
            (len(part) // len(x) * batch, *part.shape[1:]), part.dtype, "verify", name
        )
        for first in range(0, len(full), len(part)):
            full[first : first + len(part)] = part[: len(full) - first]
        return full

    return [repeat("x", x), weight, bias, repeat("dy", dy), repeat("cols", cols)]


def _tasks(package, layer, x, weight, bias, dy, cols) -> dict:
    """Return what is compared as tasks, by the functions of cyconv.functional or cyconv.naive."""
    window = layer.filters[:2], layer.stride, layer.padding, layer.dilation, layer.rounding
    return {
        "im2col": lambda: (package.im2col(x, *window),),
        "col2im": lambda: (package.col2im(cols, x.shape, *window),),
        **measure.passes(package, layer, x, weight, bias, dy),
    }


def _results(tasks) -> dict[tuple[str, str], np.ndarray]:
    """Return the results of all tasks by the names of the task and of the result."""
    return {
        (name, what): result
        for name, task in tasks.items()
        for what, result in zip(RESULTS[name], task(), strict=True)
    }


def _naive(layer, few, batch) -> dict[tuple[str, str], np.ndarray]:
    """Return the naive loops' results in float64 for the batch that repeats `few`.

    Those that have a part for each image are those of the few. The gradients of the parameters sum
    over the batch: each image's dy counts as often as the batch has it.
    """
    x, weight, bias, dy, cols = (array.astype(np.float64) for array in few)
    often = np.bincount(np.arange(batch) % len(x)).reshape(-1, 1, 1, 1)
    results = _results(_tasks(naive, layer, x, weight, bias, dy * often, cols))
    results["backward", "dx"] /= often
    return results


def _bounds(layer, few, batch) -> dict[tuple[str, str], np.ndarray]:
    """Return the errors that float32 may have: loops over ones count the products of a sum."""
    counts = _naive(layer, map(np.ones_like, few), batch)
    magnitudes = _naive(layer, map(np.abs, few), batch)
    return {key: measure.relative_bound(counts[key]) * magnitudes[key] for key in counts}


def _compare(result, expected, bound) -> tuple[float, str]:
    """Return the largest error over its bound, and the first element that is beyond it, or "".

    `expected` and `bound` are for the first images of `result`, which repeats them.
    """
    worst, where = 0.0, ""
    bound = np.broadcast_to(bound, expected.shape)
    for first in range(0, len(result), len(expected)):
        part = result[first : first + len(expected)]
        error = np.abs(part - expected[: len(part)])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0, 0.0, error / bound[: len(part)])
        ratio[np.isnan(ratio)] = np.inf
        worst = max(worst, ratio.max())
        if worst > 1 and not where:
            index = tuple(map(int, np.unravel_index(np.argmax(ratio > 1), ratio.shape)))
            place = [first + index[0], *index[1:]]
            where = f"{place} is {part[index]:.9g}, the naive loops say {expected[index]:.9g}"
    return float(worst), where


def _speeds(layer, slow, fast, images, batch) -> tuple[list[dict], dict]:
    """Return how fast each pass is by both sides, and the limits, with which they take turns."""
    limits = measure.limits(get_num_threads())
    tasks = [partial(seconds_each, task) for task in (*slow.values(), *fast.values())]
    runs = [*(limit.run for limit in limits.values()), *tasks]
    held, *sides = np.split(
        interleave(runs, TURNS, SECONDS).T, [len(limits), len(limits) + len(slow)]
    )
    reached = {
        name: limit.operations / times
        for (name, limit), times in zip(limits.items(), held, strict=True)
    }
    speeds = []
    for name, slow_times, fast_times in zip(fast, sides[0] / images, sides[1] / batch, strict=True):
        speed = {
            "naive_us": 1e6 * np.median(slow_times),
            "cyconv_us": 1e6 * np.median(fast_times),
            "factor": np.median(slow_times / fast_times),
        }
        if name in PRODUCTS:
            rates = PRODUCTS[name] * layer.operations / fast_times
            shares = {f"of_{name}": np.median(rates / limit) for name, limit in reached.items()}
            speed |= {"gflops": 1e-9 * np.median(rates), **shares}
        speeds.append(speed)
    return speeds, {f"{name}_gflops": 1e-9 * np.median(rate) for name, rate in reached.items()}


def _print(record) -> None:
    """Print what was compared and measured of a layer."""
    print(f"\n{record['layer']} (naive: {record['naive_images']} of {record['batch']} images)")
    print(f"peak {record['peak_gflops']:.0f} GFLOP/s, sgemm {record['sgemm_gflops']:.0f} GFLOP/s")
    print_row(HEAD, WIDTHS)
    for each in record["passes"]:
        error = each["error_over_bound"]
        cells = [
            each["pass"],
            "exact" if each["exact_on_integers"] else "DIFFERS",
            "-" if error is None else f"{error:.2g}",
            f"{each['naive_us']:.2f}",
            f"{each['cyconv_us']:.2f}",
            f"{each['factor']:.1f}",
            f"{each['gflops']:.1f}" if "gflops" in each else "-",
            f"{each['of_peak']:.0%}" if "of_peak" in each else "-",
            f"{each['of_sgemm']:.0%}" if "of_sgemm" in each else "-",
        ]
        print_row(cells, WIDTHS)
    for line in record["differences"]:
        print(line)
