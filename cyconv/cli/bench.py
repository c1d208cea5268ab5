"""cyconv bench: how fast this machine trains and predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np

from cyconv import __version__, functional, measure, naive, presets
from cyconv.cli.options import (
    add_command,
    add_preset_option,
    add_thread_option,
    plural,
    positive_number,
)
from cyconv.measure import Convolution
from cyconv.threads import get_num_threads
from cyconv.timing import interleave, print_row, seconds_each

EXAMPLE = """\
examples:
  cyconv bench                                   takes about a minute
  cyconv bench --preset exercise --seconds 0.2   longer turns, steadier figures
"""
TASKS = {
    f"{name} {batch}": (make, operations, batch)
    for name, make, operations, batches in (
        ("train", measure.step_task, measure.step_operations, (64, 512)),
        ("predict", measure.predict_task, measure.forward_operations, (1, 64, 1024)),
    )
    for batch in batches
}
LAYER_BATCH = 512  # of the convolutions that are compared with the naive loops
TURNS = 7
HEAD, WIDTHS = ("images/s", "GFLOP/s", "share"), (11, 7, 5)
LAYER_HEAD = "times as fast as the naive loops", "forward", "backward"
LAYER_WIDTHS = 48, 8, 8


def add(commands) -> None:
    parser = add_command(
        commands,
        "bench",
        run,
        "measure training and prediction on this machine",
        "Measure training and prediction of a network, on one thread and on all, beside\n"
        "the peak of this machine and a large sgemm, and its convolutions beside the\n"
        "naive loops.",
        EXAMPLE,
    )
    option = parser.add_argument
    add_preset_option(parser, f"default: {' and '.join(presets.MEASURED)}; all")
    add_thread_option(parser)
    option(
        "--seconds",
        type=positive_number,
        default=0.05,
        metavar="X",
        help="of each turn, unless one call takes longer (default: %(default)s)",
    )
    option("--json", action="store_true", help="print the results as JSON")


def run(args) -> int:
    """Measure and print network after network."""
    threads = get_num_threads()
    about = measure.about(threads)
    if not args.json:
        idle = "; a speed-up means something on idle cores only" if threads > 1 else ""
        print(f"cyconv {__version__}, {about}\nmedians of {TURNS} turns{idle}", flush=True)
    records = []
    for preset in (args.preset,) if args.preset else presets.MEASURED:
        records.append(_measure(preset, threads, args.seconds))
        if not args.json:
            _print(records[-1])
    if args.json:
        print(json.dumps({"cyconv": __version__, "about": about, "networks": records}, indent=2))
    return 0


def _measure(preset: str, threads: int, seconds: float) -> dict:
    """Return how fast a network is, as --json has it; all tasks take turns."""
    make = getattr(presets, preset)
    net, counts = make(), sorted({1, threads})
    limits = {n: measure.limits(n) for n in counts}
    runs: dict[tuple, Callable] = {
        (name, n): limit.run for n in counts for name, limit in limits[n].items()
    }
    for name, (task_of, _, batch) in TASKS.items():
        task = task_of(make(), batch)
        for n in counts:
            runs[name, n] = measure.on_threads(n, task)
    batches = {}  # of cyconv over those of the naive loops
    for layer in (each for each in measure.convolutions(net) if each.name.startswith("conv")):
        few, slow, fast = _against_naive(layer)
        batches[layer] = LAYER_BATCH / few
        for name in slow:
            runs[layer, name, "naive"] = partial(seconds_each, slow[name])
            runs[layer, name] = measure.on_threads(threads, fast[name])
    times = dict(zip(runs, interleave(list(runs.values()), TURNS, seconds).T, strict=True))
    reached = {
        n: {name: limit.operations / times[name, n] for name, limit in limits[n].items()}
        for n in counts
    }
    tasks = [
        {
            "task": name,
            "speed_up": np.median(times[name, 1] / times[name, threads]),
            "threads": {
                n: _speed(batch, operations(net), times[name, n], reached[n]) for n in counts
            },
        }
        for name, (_, operations, batch) in TASKS.items()
    ]
    factors = [
        {
            "layer": str(layer),
            **{
                name: larger * np.median(times[layer, name, "naive"] / times[layer, name])
                for name in ("forward", "backward")
            },
        }
        for layer, larger in batches.items()
    ]
    return {
        "preset": preset,
        "parameters": sum(layer.size for layer in net.layers),
        **{
            f"{name}_gflops": {n: 1e-9 * np.median(reached[n][name]) for n in counts}
            for name in reached[threads]
        },
        "tasks": tasks,
        "times_as_fast_as_naive": factors,
    }


def _against_naive(layer: Convolution) -> tuple[int, dict, dict]:
    """Return a number of images, the naive passes over them, and cyconv's over LAYER_BATCH.

    Raises
    ------
    ArithmeticError
        If they differ on these images.
    """
    images = measure.naive_images(layer, LAYER_BATCH)
    random = partial(measure.integers, np.random.default_rng(0))
    x, weight, bias, dy = measure.draw(layer, LAYER_BATCH, random)
    few = x[:images], weight, bias, dy[:images]
    slow, same = (measure.passes(package, layer, *few) for package in (naive, functional))
    for name, task in slow.items():
        if not all(map(np.array_equal, task(), same[name]())):
            raise ArithmeticError(f"{layer}: {name} is not what the naive loops say; see verify")
    return images, slow, measure.passes(functional, layer, x, weight, bias, dy)


def _speed(batch, operations, seconds, limits) -> dict:
    """Return the medians of a task's speed, from the times of its turns and the limits in them."""
    rates = batch / seconds
    return {
        "images_per_second": np.median(rates),
        "gflops": 1e-9 * np.median(operations * rates),
        **{
            f"share_of_{name}": np.median(operations * rates / limit)
            for name, limit in limits.items()
        },
    }


def _print(record) -> None:
    """Print the two tables of a network."""
    print(f"\n{record['preset']} network, {record['parameters']:,} parameters")
    print("share: of the peak, which is multiply-adds in registers on the same threads")
    counts = list(record["sgemm_gflops"])
    head = [cell for n in counts for cell in (f"{n}: {HEAD[0]}", *HEAD[1:])]
    more = len(counts) > 1
    widths = 12, *WIDTHS * len(counts), *[8] * more
    print_row(["task", *head, *["speed-up"] * more], widths)
    peaks = record["peak_gflops"]
    for name, rates in (("peak", peaks), ("large sgemm", record["sgemm_gflops"])):
        cells = [name]
        for n, rate in rates.items():
            cells += ["-", f"{rate:.1f}", f"{rate / peaks[n]:.0%}"]
        print_row([*cells, *["-"] * more], widths)
    for task in record["tasks"]:
        cells = [task["task"]]
        for speed in task["threads"].values():
            rate, gflops, share = (
                speed[key] for key in ("images_per_second", "gflops", "share_of_peak")
            )
            cells += [f"{rate:,.0f}", f"{gflops:.1f}", f"{share:.0%}"]
        print_row([*cells, *[f"{task['speed_up']:.2f}"] * more], widths)
    print(
        f"\nnot equal work: the naive loops take few images on one thread, cyconv takes\n"
        f"{LAYER_BATCH} on {plural(counts[-1], 'thread')}"
    )
    print_row(LAYER_HEAD, LAYER_WIDTHS)
    for layer in record["times_as_fast_as_naive"]:
        name, *factors = layer.values()
        print_row([name, *(f"{factor:.1f}" for factor in factors)], LAYER_WIDTHS)
