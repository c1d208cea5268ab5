"""Mistakes in the arrays and sizes of functions: im2col, col2im, conv2d and its backward pass."""

import os

import pytest

import cyconv
from cyconv import naive
from tests.errors.mistakes import FUNCTION_CALLS, FUNCTIONS, ones, raises, written

MODULES = {"": cyconv, "naive.": naive}  # by the prefix in errors


@pytest.mark.parametrize("prefix", MODULES)
@pytest.mark.parametrize(
    ("name", "argument", "given", "required"),
    [
        ("im2col", "x", (5, 6, 3), "(N, H, W, C)"),
        ("im2col", "x", (1, 2, 5, 6, 3), "(N, H, W, C)"),
        ("im2col", "x", (), "(N, H, W, C)"),
        ("col2im", "cols", (29, 18), "(30, 18)"),
        ("col2im", "cols", (30, 17), "(30, 18)"),
        ("col2im", "cols", (540,), "(30, 18)"),
        ("conv2d", "x", (2, 5, 6), "(N, H, W, C)"),
        ("conv2d", "weight", (3, 2, 2, 4), "(KH, KW, 3, F)"),
        ("conv2d", "weight", (3, 2, 3), "(KH, KW, 3, F)"),
        ("conv2d", "bias", (3,), "(4,)"),
        ("conv2d", "bias", (1, 4), "(4,)"),
        ("conv2d_backward", "dy", (2, 3, 4, 4), "(2, 3, 5, 4)"),
        ("conv2d_backward", "dy", (1, 3, 5, 4), "(2, 3, 5, 4)"),
        ("conv2d_backward", "dy", (2, 3, 5), "(2, 3, 5, 4)"),
        ("conv2d_backward", "x", (2, 5, 6), "(N, H, W, C)"),
        ("conv2d_backward", "weight", (3, 2, 4, 4), "(KH, KW, 3, F)"),
    ],
    ids=written,
)
def test_shapes_of_arrays(prefix, name, argument, given, required):
    who = f"{prefix}{name}"
    got = f"got {given}" if given else "()"
    with raises(ValueError, f"{who}: {argument} must have shape {required}", got):
        FUNCTION_CALLS[who, argument](**{argument: ones(*given)})


@pytest.mark.parametrize(
    ("who", "argument", "shape"),
    [
        ("im2col", "x", (2, 0, 6, 3)),
        ("im2col", "x", (2, 5, 6, 0)),
        ("conv2d", "x", (2, 5, 0, 3)),
        ("conv2d", "weight", (3, 0, 3, 4)),
        ("conv2d", "weight", (3, 2, 3, 0)),
        ("conv2d_backward", "weight", (0, 2, 3, 4)),
    ],
    ids=written,
)
def test_empty_axes(who, argument, shape):
    with raises(ValueError, f"{who}: {argument} must have no empty axis", str(shape)):
        FUNCTION_CALLS[who, argument](**{argument: ones(*shape)})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, ValueError),
        (5, ValueError),
        ((2, 5, 6), ValueError),
        ((2, 5, 6, 3, 1), ValueError),
        ((2, 5, 6, 0), ValueError),
        ((-1, 5, 6, 3), ValueError),
        ((2, 5.0, 6, 3), TypeError),
        ((True, 5, 6, 3), TypeError),
    ],
    ids=written,
)
def test_input_shape_of_col2im(value, error):
    with raises(error, "col2im: input_shape"):
        FUNCTIONS["col2im"](input_shape=value)


PIXEL = ones(1, 1, 1, 1)
PADDED = {
    "conv2d": lambda module, padding: module.conv2d(PIXEL, PIXEL, padding=padding),
    "im2col": lambda module, padding: module.im2col(PIXEL, 1, padding=padding),
    "col2im": lambda module, padding: module.col2im(
        PIXEL[0, 0], (1, padding, padding, 1), 1, padding, "same"
    ),
}
STRIDED = {
    "conv2d": lambda module, stride: module.conv2d(PIXEL, PIXEL, stride=stride),
    "im2col": lambda module, stride: module.im2col(PIXEL, 1, stride=stride),
}


@pytest.mark.parametrize("prefix", MODULES)
@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize(
    ("padding", "error"),
    [
        pytest.param(2 * 10**6, MemoryError, id="10**13 bytes"),
        pytest.param(2**32, OverflowError, id="2**66 bytes"),
        pytest.param(10**30, OverflowError, id="an extent over 2**63"),
    ],
)
def test_sizes_that_no_memory_or_integer_holds(prefix, name, padding, error):
    with raises(error, f"{prefix}{name}: "):
        PADDED[name](MODULES[prefix], padding)


@pytest.mark.parametrize("prefix", MODULES)
@pytest.mark.parametrize("name", STRIDED)
def test_a_stride_that_no_integer_holds(prefix, name):
    with raises(OverflowError, f"{prefix}{name}: "):
        STRIDED[name](MODULES[prefix], 10**30)


@pytest.mark.parametrize("prefix", MODULES)
def test_positions_that_no_integer_holds(prefix):
    with raises(OverflowError, f"{prefix}conv2d: "):
        MODULES[prefix].conv2d(PIXEL, PIXEL, None, (2**62, 1), ((0, 2**64), (0, 0)))


@pytest.mark.parametrize(
    "value", (0, -1, 10**5, True, "2", 1.5, [], 4 * (os.cpu_count() or 1) + 1), ids=repr
)
def test_numbers_of_threads(value):
    with raises(ValueError, "set_num_threads: n must be", repr(value)):
        cyconv.set_num_threads(value)
