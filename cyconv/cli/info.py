"""cyconv info: what this installation runs on."""

from __future__ import annotations

import json
import platform
import re
from importlib import metadata
from pathlib import Path

import numpy
import scipy

import cyconv
from cyconv import measure
from cyconv._core import HAS_OPENMP, SIMD
from cyconv.cli.options import add_command
from cyconv.datasets.mnist import find_mnist
from cyconv.errors import DownloadError
from cyconv.threads import available_cores, get_num_threads, scipy_blas

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def add(commands) -> None:
    parser = add_command(
        commands,
        "info",
        run,
        "show versions, OpenMP, BLAS, threads, caches and data",
        __doc__,
        "examples:\n  cyconv info\n  cyconv info --json    for a report or a program",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(args) -> int:
    """Print one line for each thing that decides speed or results, as far as it is known."""
    openmp = "yes" if HAS_OPENMP else "no: the kernels run on one thread"
    blas = [f"{library.internal_api} {library.version}" for library in scipy_blas()]
    try:
        directory = find_mnist()
        data = f"MNIST in {directory}" if directory else "no MNIST here: cyconv train downloads it"
    except DownloadError as error:
        data = str(error)
    rows = {
        "cyconv": cyconv.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "BLAS": ", ".join(blas) or "unknown",
        "OpenMP": openmp,
        "SIMD": f"{SIMD} (CYCONV_SIMD chooses another)",
        "threads": f"{get_num_threads()} (of {available_cores()} cores that may be used)",
        "processor": measure.processor(),
        "caches": _caches(),
        "data": data,
        "extras": _extras(),
    }
    rows = {name: value for name, value in rows.items() if value}
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for name, value in rows.items():
        print(f"{name:<9} {value}")
    return 0


def _caches() -> str:
    """Return the first core's data caches, where Linux tells them."""
    found = []
    try:
        for folder in sorted(CACHES.glob("index*")):
            level, kind, size = (
                (folder / name).read_text("ascii").strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction":
                kib = int(size.removesuffix("K"))
                extent = f"{kib} KiB" if kib % 1024 else f"{kib // 1024} MiB"
                found.append(f"L{level}{'d' if kind == 'Data' else ''} {extent}")
    except (OSError, ValueError):
        return ""
    return ", ".join(found)


def _extras() -> str:
    """Return which extras are complete, and what the others lack, as the installation says."""
    try:
        requirements = metadata.requires("cyconv") or []
    except metadata.PackageNotFoundError:
        return ""
    lacking: dict[str, list[str]] = {}
    for requirement in requirements:
        found = re.match(r"""([\w.-]+).*\bextra == ["']([\w.-]+)["']""", requirement)
        if found and found[1] != "cyconv":
            lacking.setdefault(found[2], []).extend([] if _installed(found[1]) else [found[1]])
    parts = [", ".join(extra for extra, names in lacking.items() if not names)]
    parts += [f"{extra} lacks {' and '.join(names)}" for extra, names in lacking.items() if names]
    return "; ".join(filter(None, parts))


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
