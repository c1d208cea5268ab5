"""All that is compiled and runs without the GIL. It knows nothing of the rest of the package.

The kernels are built for up to three levels of vector units, named as the x86-64 levels are:
baseline (128 bits), v3 (256 bits, FMA) and v4 (512 bits). The best one that the processor has is
taken, or the one that the environment variable CYCONV_SIMD names.
"""

import os
from importlib import import_module
from importlib.util import find_spec

from cyconv._core.cpu import HAS_OPENMP, LEVEL

LEVELS = ("baseline", "v3", "v4")


def _suffix(level: str) -> str:
    return "" if level == "baseline" else f"_{level}"


def _choose(wish: str | None) -> str:
    """Return the level to take: the wish, or the best of those built that the processor has."""
    able = LEVELS[: LEVELS.index(LEVEL) + 1]
    usable = [level for level in able if find_spec(f"{__name__}.stage{_suffix(level)}")]
    if wish and wish not in usable:
        raise ImportError(
            f"cyconv: CYCONV_SIMD must be one of {', '.join(usable)} on this machine, got {wish!r}"
        )
    return wish or usable[-1]


SIMD = _choose(os.environ.get("CYCONV_SIMD"))
conv, elementwise, linear, stage = (
    import_module(f"{__name__}.{name}{_suffix(SIMD)}")
    for name in ("conv", "elementwise", "linear", "stage")
)

__all__ = ["HAS_OPENMP", "LEVELS", "SIMD", "conv", "elementwise", "linear", "stage"]
