"""cyconv info: what this installation runs on."""

from __future__ import annotations

import platform

import numpy
import scipy

import cyconv
from cyconv._core import HAS_OPENMP, SIMD
from cyconv.threads import available_cores, get_num_threads, scipy_blas


def add(commands) -> None:
    parser = commands.add_parser(
        "info", help="show versions, OpenMP, BLAS and threads", description=__doc__
    )
    parser.set_defaults(run=run)


def run(args) -> int:
    """Print one line for each thing that decides speed or results."""
    openmp = "yes" if HAS_OPENMP else "no: the kernels run on one thread"
    blas = [f"{library.internal_api} {library.version}" for library in scipy_blas()]
    rows = {
        "cyconv": cyconv.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "BLAS": ", ".join(blas) or "unknown",
        "OpenMP": openmp,
        "SIMD": f"{SIMD} (CYCONV_SIMD chooses another)",
        "threads": f"{get_num_threads()} (of {available_cores()} cores that may be used)",
        "machine": platform.machine(),
    }
    for name, value in rows.items():
        print(f"{name:<8} {value}")
    return 0
