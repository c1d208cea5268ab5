"""All that is compiled and runs without the GIL. It knows nothing of the rest of the package.

The kernels are built for float at up to three levels of vector units, named as the x86-64 levels
are: baseline (128 bits), v3 (256 bits, FMA) and v4 (512 bits). The best one that the processor has
is taken, or the one that the environment variable CYCONV_SIMD names; a process has only one of
them. One more build computes in double. `of(dtype)` returns the modules of a build.
"""

import os
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import SimpleNamespace

LEVELS = ("baseline", "v3", "v4")


def _suffix(build: str) -> str:
    return "" if build == "baseline" else f"_{build}"


def _choose(wish: str, most: str) -> str:
    """Return the level to take: the wish, or the best of those built, `most` being the last."""
    able = LEVELS[: LEVELS.index(most) + 1]
    usable = [level for level in able if find_spec(f"{__name__}.stage{_suffix(level)}")]
    if wish and wish not in usable:
        raise ImportError(
            f"cyconv: CYCONV_SIMD must be one of {', '.join(usable)} on this machine, got {wish!r}"
        )
    return wish or usable[-1]


def _flag(name: str) -> bool:
    """Return what an environment variable switches on, or off with 0."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ImportError(f"cyconv: {name} must be 0 or 1, got {value!r}")
    return value != "0"


@contextmanager
def _patience():
    """Let gcc's OpenMP runtime, if it is loaded now, spin 10,000 times before a thread sleeps.

    By default it spins 30 times longer. On a machine that does something else as well, a thread
    that waits then takes the time of the thread it waits for: a training step of 0.2 ms took 12 ms
    beside one busy process. The runtime reads the variable only when it is loaded.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _load(build: str) -> SimpleNamespace:
    """Return the modules of one build by their names: each that has a build in double."""
    found = {}
    for package in (__name__, f"{__name__}.ops"):
        for module in iter_modules(import_module(package).__path__):
            name, separator, _ = module.name.partition("_double")
            if separator:
                found[name] = import_module(f"{package}.{name}{_suffix(build)}")
    return SimpleNamespace(**found)


with _patience():
    import cyconv._core.atomic as atomic
    import cyconv._core.blas as blas
    from cyconv._core.cpu import HAS_OPENMP, LEVEL

    SIMD = _choose(os.environ.get("CYCONV_SIMD", "").lower(), LEVEL)
    WINOGRAD = _flag("CYCONV_WINOGRAD")
    _builds = {"float32": _load(SIMD), "float64": _load("double")}


@cache
def of(dtype) -> SimpleNamespace:
    """Return the kernels that compute in `dtype`, float32 or float64: modules by their names."""
    return _builds[str(dtype)]


__all__ = ["HAS_OPENMP", "LEVELS", "SIMD", "WINOGRAD", "atomic", "blas", "of"]
