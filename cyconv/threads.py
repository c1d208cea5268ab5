"""How many threads the kernels use, and one thread for BLAS inside them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import threadpoolctl

from cyconv.geometry import integer

_count: int | None = None  # None until set or first asked for
_forked = False


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
        In a forked child, which cannot have more than one thread: OpenMP does not survive a fork.
    """
    global _count
    if n is None:
        _count = 1 if _forked else _automatic()
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
    if _forked and number > 1:
        raise RuntimeError(
            "set_num_threads: a forked process has one thread, because OpenMP does not survive a "
            'fork; start it with multiprocessing.get_context("spawn") instead'
        )
    _count = number


def get_num_threads() -> int:
    """Return the number of threads that kernels run on."""
    global _count
    if _count is None:
        _count = _automatic()
    return _count


def _automatic() -> int:
    """Return the cores that this process may use."""
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    cores = available_cores()
    if wish.isdecimal() and int(wish) > 0:
        return min(int(wish), 4 * (os.cpu_count() or 1))
    return cores


def available_cores() -> int:
    """Return the cores within the affinity mask and the cgroup's quota, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(cores, 1)


def _after_fork() -> None:
    global _count, _forked, _blas
    _forked = True
    _count = 1
    _blas = _OneBlasThread()


class _OneBlasThread:
    """Limit SciPy's BLAS to one thread while any kernel runs, and give it back afterwards.

    The limit belongs to the process, so entries are counted: the first one sets it and the last
    one restores it. Other BLAS libraries in the process, NumPy's or PyTorch's, are left alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:
                self._libraries = scipy_blas()
            self._inside += 1
            if self._inside == 1:
                self._before = [library.get_num_threads() for library in self._libraries]
                self._set([1] * len(self._libraries))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(self._before)

    def _set(self, counts) -> None:
        for library, before, count in zip(self._libraries or (), self._before, counts, strict=True):
            if before != 1:
                # threadpoolctl obeys one Python thread only, until it is told to forget it.
                forget = getattr(library, "clear_controlling_thread", lambda force: None)
                forget(force=True)
                library.set_num_threads(count)
                forget(force=True)


def scipy_blas() -> list:
    """Return threadpoolctl's handles of the BLAS that SciPy was built with."""
    blas = [
        library
        for library in threadpoolctl.ThreadpoolController().lib_controllers
        if library.user_api == "blas"
    ]
    own = [library for library in blas if "scipy" in Path(library.filepath).parent.name]
    return own or blas


_blas = _OneBlasThread()


def one_blas_thread() -> _OneBlasThread:
    """Return the context in which kernels that call BLAS run."""
    return _blas


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
