"""How many threads the kernels use, and whose BLAS has one thread inside them."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import threadpoolctl

from cyconv._core import blas, cpu
from cyconv.geometry import integer


def _environment(name: str) -> int:
    """Return the number of threads that a variable of OpenMP's names, or 0."""
    text = os.environ.get(name, "").split(",")[0].strip()
    return int(text) if text.isdecimal() else 0


_count: int | None = None  # None until set or first asked for
_ran = False  # whether a kernel has had more than one thread
_alone = False  # whether this process was forked after that: it has one thread for good
_MOST = _environment("OMP_THREAD_LIMIT") or sys.maxsize  # which OpenMP reads once
_OPENMP_THREADS = cpu.openmp_threads()  # fewer, later on: a limit


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that kernels run on.

    Parameters
    ----------
    n : int or None
        From 1 to four times the cores. None: OMP_NUM_THREADS if it is set, otherwise the cores
        that this process may use (affinity and cgroup quota respected).

    Raises
    ------
    ValueError
        If `n` is anything else.
    RuntimeError
        In a child forked after a kernel ran, which cannot have more than one thread: OpenMP does
        not survive a fork.
    """
    global _count
    if n is None:
        _count = 1 if _alone else _automatic()
        return
    most = 4 * (os.cpu_count() or 1)
    try:
        number = integer(n, "set_num_threads", "n", 1)
    except TypeError as error:
        raise ValueError(f"{error}; None means automatic") from None
    if number > most:
        raise ValueError(
            f"set_num_threads: n must be from 1 to {most}, four times the cores, got {number}"
        )
    if _alone and number > 1:
        raise RuntimeError(
            "set_num_threads: a process forked after a kernel ran has one thread, because OpenMP "
            'does not survive a fork; start it with multiprocessing.get_context("spawn") instead'
        )
    _count = number


def get_num_threads() -> int:
    """Return the number of threads that kernels run on.

    A lower limit of OpenMP's, such as ``threadpoolctl.threadpool_limits(1)`` sets, holds as well,
    if it is lower than what OpenMP began with: as many threads cannot be told from no limit.
    """
    global _count
    if _count is None:
        _count = _automatic()
    limit = cpu.openmp_threads()
    return min(_count, _MOST, limit if limit < _OPENMP_THREADS else _count)


def kernel_threads() -> int:
    """Return the number of threads for a kernel that runs now: children forked later have one."""
    global _ran
    count = get_num_threads()
    _ran = _ran or count > 1
    return count


def _automatic() -> int:
    """Return the cores that this process may use."""
    wish = _environment("OMP_NUM_THREADS")
    return min(wish, 4 * (os.cpu_count() or 1)) if wish else available_cores()


def available_cores() -> int:
    """Return the cores within the affinity mask and the cgroup's quota, at least 1."""
    cores = cpu.openmp_cores() or os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(cores, 1)


def _after_fork_in_child() -> None:
    global _count, _alone
    _alone = _ran
    _count = 1
    blas.after_fork(True)


def one_blas_thread() -> blas.OneThread:
    """Return a context in which BLAS has one thread, as it has while a kernel runs."""
    return blas.OneThread()


def scipy_blas() -> list:
    """Return threadpoolctl's handles of the BLAS that SciPy was built with."""
    libraries = [
        library
        for library in threadpoolctl.ThreadpoolController().lib_controllers
        if library.user_api == "blas"
    ]
    own = [library for library in libraries if "scipy" in Path(library.filepath).parent.name]
    return own or libraries


def _functions() -> list[list[int]]:
    """Return where in memory the functions of BLAS are that `blas.look_with` wants.

    Other BLAS libraries in the process than SciPy's, NumPy's or PyTorch's, are left alone.
    """
    found = []
    for library in scipy_blas():
        for names in _NAMES:
            if all(hasattr(library.dynlib, name) for name in names):
                found.append([_address(library, name) for name in (*names, *_BUFFERS)])
                break
    return found


def _address(library: Any, name: str) -> int:
    function = getattr(library.dynlib, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


_NAMES = [
    *(
        (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
        for prefix in ("", "scipy_")
        for suffix in ("", "64_", "_64")
    ),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("flexiblas_get_num_threads", "flexiblas_set_num_threads"),
]
_BUFFERS = "blas_memory_alloc", "blas_memory_free"  # of OpenBLAS
blas.look_with(_functions)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_parent=lambda: blas.after_fork(False), after_in_child=_after_fork_in_child
    )
