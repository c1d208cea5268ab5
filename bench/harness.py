"""Workers in processes of their own, the turns they take, and what all comparisons share.

A worker imports this file and its script, and must be free to import the cyconv of another commit,
or none beside PyTorch: cyconv/timing.py and tests/torch_twins.py are run here without their
packages.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
from fnmatch import fnmatchcase
from pathlib import Path
from runpy import run_path

_REPOSITORY = Path(__file__).parents[1]
_TIMING = run_path(str(_REPOSITORY / "cyconv" / "timing.py"))
_TWINS = run_path(str(_REPOSITORY / "tests" / "torch_twins.py"))
interleave, print_row, seconds_each = (
    _TIMING[name] for name in ("interleave", "print_row", "seconds_each")
)
describe, give, twin, without_dropout = (
    _TWINS[name] for name in ("describe", "give", "twin", "without_dropout")
)

# What holds cyconv and its peers to a level of vector units. MKL, which PyTorch has for linear
# layers, obeys on Intel's processors only.
VARIABLES = (
    "CYCONV_SIMD", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
)  # fmt: skip
LEVELS = {
    "baseline": ("baseline", "default", "SSE41", "SSE4_2", "Nehalem"),
    "v3": ("v3", "avx2", "AVX2", "AVX2", "Haswell"),
    "v4": ("v4", "avx512", "AVX512_CORE", "AVX512", "SkylakeX"),
}


def parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of the options that all comparisons have; `begin` reads them."""
    options = argparse.ArgumentParser(description=description.split("\n")[0])
    option = options.add_argument
    option("--threads", type=int, default=2, help="of each side (default: 2)")
    option("--turns", type=int, default=7, help="of each side (default: 7)")
    option("--seconds", type=float, default=0.2, help="of a turn (default: 0.2)")
    option(
        "--level",
        choices=LEVELS,
        help="vector units that all sides are held to (default: what the processor has)",
    )
    option(
        "--cases",
        nargs="+",
        metavar="PATTERN",
        default=[""],
        help='only cases whose name has one of these in it, such as "resnet* 64"',
    )
    option("--json", metavar="FILE", help="write the results to this file")
    return options


def begin(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options that were given; workers from now on are held to their level."""
    given = options.parse_args()
    if given.level:
        os.environ |= dict(zip(VARIABLES, LEVELS[given.level], strict=True))
    return given


def chosen(cases: dict, patterns) -> dict:
    """Return the cases whose name has one of the patterns in it."""
    return {
        name: case
        for name, case in cases.items()
        if any(fnmatchcase(name, f"*{pattern}*") for pattern in patterns)
    }


def print_table(cases: dict, measure, columns: dict[str, str]) -> dict:
    """Measure case after case, print a row for each as it is known, and return the records.

    Parameters
    ----------
    cases : dict
        What `measure(case)` makes a record of, a dictionary, by the names of the rows.
    columns : dict
        How a column's cells are formatted from a record, by the column's head.
    """
    widths = [max(map(len, cases)), *(max(len(head), 11) for head in columns)]
    print_row(["case", *columns], widths)
    records = {}
    for name, case in cases.items():
        records[name] = record = measure(case)
        print_row([name, *(form.format(**record) for form in columns.values())], widths)
    return records


def summary(records: dict) -> str:
    """Return the geometric mean of the ratios, the worst one, and how many are at least 1."""
    ratios = {name: record["ratio"] for name, record in records.items()}
    worst, good = min(ratios, key=ratios.get), sum(ratio >= 1 for ratio in ratios.values())
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    return (
        f"ratio: geometric mean {mean:.2f}; the worst {ratios[worst]:.2f}, {worst}; "
        f"at or above 1: {good} of {len(ratios)}, {good / len(ratios):.0%}"
    )


def write(options: argparse.Namespace, about: str, records: dict) -> None:
    """Write the records to the file of --json, if there is one."""
    if options.json:
        document = {"about": about, "threads": options.threads, "cases": records}
        Path(options.json).write_text(json.dumps(document, indent=1))


class Worker:
    """An object in a process of its own: the process makes it and calls its methods.

    Parameters
    ----------
    make : callable
        Called in the process with `args`; importable, like a class of the script.
    """

    def __init__(self, make, *args):
        self._made = make, args
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, *self._made), daemon=True)
        self._process.start()
        far.close()

    def call(self, method: str, *args):
        """Return what the method returns, or raise what it raises.

        Raises
        ------
        RuntimeError
            If the process ended; the next call has a new one.
        """
        try:
            self._pipe.send((method, args))
            result = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            self._start()
            name = self._made[0].__name__
            raise RuntimeError(f"{name}.{method}: its process ended") from None
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe, make, args):
    served = make(*args)
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(served, method)(*args))
        except Exception as error:
            pipe.send(error)
