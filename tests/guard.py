"""Arrays against a page that can be neither read nor written.

One element too far, behind an array or before it, ends the process, whoever reads or writes it: a
kernel of ours or BLAS.
"""

import ctypes
import math
import mmap
import sys
from contextlib import contextmanager
from unittest import mock

import numpy as np

from cyconv import checks

AVAILABLE = sys.platform in ("linux", "darwin")
SIDES = ("behind", "before")


def forbid(address):
    """Let no one read or write the page at an address."""
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if mprotect(address, mmap.PAGESIZE, 0):  # 0 is PROT_NONE
        raise OSError(ctypes.get_errno(), "mprotect")


def empty(shape, dtype, side):
    """Return an array of NaN, or of -1, that ends or begins where a forbidden page does."""
    dtype, page = np.dtype(dtype), mmap.PAGESIZE
    size = math.prod(shape) * dtype.itemsize
    whole = -(-size // page) * page
    pages = mmap.mmap(-1, page + whole + page, mmap.MAP_PRIVATE | mmap.MAP_ANON)
    memory = np.frombuffer(pages, np.uint8)
    first = page if side == "before" else page + whole - size
    array = memory[first : first + size]
    array[...] = 0xFF
    forbid(memory.ctypes.data)
    forbid(memory.ctypes.data + page + whole)
    return array.view(dtype).reshape(shape)


def copy(array, side):
    """Return a copy that lies against a forbidden page."""
    result = empty(array.shape, array.dtype, side)
    result[...] = array
    return result


@contextmanager
def pages(side):
    """Let all that the package asks NumPy for, and its scratch memory, lie against such pages."""

    def new(shape, dtype=float):
        return empty(shape if isinstance(shape, tuple) else (shape,), dtype, side)

    def zeros(shape, dtype=float):
        result = new(shape, dtype)
        result[...] = 0
        return result

    def contiguous(array, dtype=None):
        return copy(np.asarray(array, dtype), side)

    def aligned(rows, size, dtype, *_):  # a row has what is needed, not whole lines
        return new((rows, size), dtype)

    with (
        mock.patch.multiple(
            np,
            empty=new,
            empty_like=lambda array: new(array.shape, array.dtype),
            zeros=zeros,
            zeros_like=lambda array: zeros(array.shape, array.dtype),
            ascontiguousarray=contiguous,
        ),
        mock.patch.object(checks, "aligned", aligned),
    ):
        yield
