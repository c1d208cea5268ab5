"""Mistakes in kernel, stride and padding, of functions and layers."""

from functools import partial

import numpy as np
import pytest

import cyconv
from cyconv import Network, naive
from cyconv.layers import AvgPool2D, Conv1D, Conv2D, Im2Col, MaxPool2D, Softmax
from tests.errors.mistakes import COLS, DY, FUNCTIONS, X, ones, pick, raises, written

WITH_KERNEL_SIZE = {
    **pick(FUNCTIONS, ("im2col", "naive.im2col", "col2im")),
    "Conv2D": partial(Conv2D, out_channels=2, kernel_size=3),
    "Im2Col": partial(Im2Col, kernel_size=3),
}
# The kernel of these is the shape of their weight.
WITH_STRIDE = {**WITH_KERNEL_SIZE, **pick(FUNCTIONS, ("conv2d", "conv2d_backward"))}


@pytest.mark.parametrize(
    ("who", "argument"),
    [
        *((who, "kernel_size") for who in WITH_KERNEL_SIZE),
        *((who, argument) for who in WITH_STRIDE for argument in ("stride", "dilation")),
    ],
)
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0, ValueError, "must be at least 1, got 0"),
        (-1, ValueError, "must be at least 1, got -1"),
        ((2, 0), ValueError, "[1] must be at least 1, got 0"),
        ((1, 2, 3), ValueError, "must be an integer or a pair (y, x), got (1, 2, 3)"),
        ((2,), ValueError, "must be an integer or a pair (y, x), got (2,)"),
        (True, TypeError, "must be an integer, got True"),
        (1.0, TypeError, "must be an integer, got 1.0"),
        ("1", TypeError, "must be an integer, got '1'"),
        (None, TypeError, "must be an integer, got None"),
        ((1, 1.5), TypeError, "[1] must be an integer, got 1.5"),
        ((True, 1), TypeError, "[0] must be an integer, got True"),
        (np.array([1, 1]), TypeError, "must be an integer, got array"),
        (np.float64(1), TypeError, "must be an integer, got"),
    ],
    ids=written,
)
def test_kernel_size_stride_and_dilation(who, argument, value, error, text):
    with raises(error, f"{who}: {argument}", text):
        WITH_STRIDE[who](**{argument: value})


@pytest.mark.parametrize("who", WITH_STRIDE)
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-1, ValueError, "must be at least 0, got -1"),
        ((0, -1), ValueError, "[1] must be at least 0, got -1"),
        (((0, 0), (0, -1)), ValueError, "[1][1] must be at least 0, got -1"),
        (((-1, 0), (0, 0)), ValueError, "[0][0] must be at least 0, got -1"),
        ((1, 2, 3), ValueError, "must be an integer or a pair (y, x), got (1, 2, 3)"),
        (((1, 1),), ValueError, "must be ((top, bottom), (left, right))"),
        (((1, 1), (1, 1, 1)), ValueError, "[1] must be an integer or a pair"),
        ("full", ValueError, 'must be numbers, "valid" or "same", got \'full\''),
        ("SAME", ValueError, "got 'SAME'"),
        (True, TypeError, "must be an integer, got True"),
        (0.5, TypeError, "must be an integer, got 0.5"),
        (None, TypeError, "must be an integer, got None"),
        (((0, 0), (0, "1")), TypeError, "[1][1] must be an integer, got '1'"),
    ],
    ids=written,
)
def test_padding(who, value, error, text):
    with raises(error, f"{who}: padding", text):
        WITH_STRIDE[who](padding=value)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("kernel_size", 0, ValueError),
        ("kernel_size", (1, 3), TypeError),
        ("kernel_size", True, TypeError),
        ("stride", -2, ValueError),
        ("stride", (1, 1), TypeError),
        ("dilation", 0, ValueError),
        ("dilation", (1, 1), TypeError),
        ("padding", -1, ValueError),
        ("padding", (1, 2, 3), ValueError),
        ("padding", ((1, 2), (3, 4)), TypeError),
        ("padding", "full", ValueError),
    ],
    ids=written,
)
def test_arguments_of_conv1d(argument, value, error):
    with raises(error, f"Conv1D: {argument}"):
        Conv1D(**{"out_channels": 2, "kernel_size": 3, argument: value})


@pytest.mark.parametrize("argument", ("kernel_size", "stride", "dilation"))
def test_arguments_of_conv1d_are_named_as_they_were_given(argument):
    with raises(ValueError, f"Conv1D: {argument} must be at least 1, got 0"):
        Conv1D(**{"out_channels": 2, "kernel_size": 3, argument: 0})


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("size", 0, ValueError),
        ("size", 2.0, TypeError),
        ("kernel", 0, ValueError),
        ("kernel", True, TypeError),
        ("kernel", (3, 3), TypeError),
        ("stride", 0, ValueError),
        ("stride", "2", TypeError),
        ("padding", -1, ValueError),
        ("padding", (0, 0, 0), ValueError),
        ("padding", ((0, 0), (0, 0)), TypeError),
        ("padding", "full", ValueError),
        ("dilation", 0, ValueError),
    ],
    ids=written,
)
def test_arguments_of_conv_output_size(argument, value, error):
    good = {"size": 9, "kernel": 3, "stride": 1, "padding": 0}
    with raises(error, f"conv_output_size: {argument}"):
        cyconv.conv_output_size(**{**good, argument: value})


def test_an_output_size_that_no_float_holds():
    with raises((OverflowError, ValueError), "conv_output_size: "):
        cyconv.conv_output_size(10**400, 2, 3, 0)


@pytest.mark.parametrize(
    ("who", "call", "text"),
    [
        ("im2col", lambda: cyconv.im2col(X, 6), "kernel 6 is larger than height 5"),
        ("im2col", lambda: cyconv.im2col(X, (5, 9), 1, 1), "kernel 9 is larger than width 6"),
        ("conv2d", lambda: cyconv.conv2d(X, ones(7, 1, 3, 1)), "use a kernel of at most 5"),
        ("Im2Col '0'", lambda: Network([Im2Col(9)], (8, 8, 1)), "kernel 9 is larger than height 8"),
        ("MaxPool2D '0'", lambda: Network([MaxPool2D(9)], (8, 8, 1)), "use a kernel of at most 8"),
        (
            "Conv2D '0'",
            lambda: Network([Conv2D(1, 3, dilation=4)], (8, 8, 1)),
            "kernel 3 with dilation 4 is larger than height 8",
        ),
        ("conv_output_size", lambda: cyconv.conv_output_size(5, 6, 1, 0), "kernel 6 is larger"),
    ],
)
def test_a_geometry_without_an_output(who, call, text):
    with raises(ValueError, f"{who}: ", text):
        call()


@pytest.mark.parametrize(
    ("who", "call", "text"),
    [
        ("im2col", lambda: cyconv.im2col(X, 2, 2), "leaves 2.5 output rows"),
        (
            "conv2d",
            lambda: cyconv.conv2d(X, ones(2, 2, 3, 1), None, (1, 3)),
            "leaves 2.33333 output columns",
        ),
        (
            "conv2d_backward",
            lambda: cyconv.conv2d_backward(DY, X, ones(2, 2, 3, 4), 2),
            "kernel 2, stride 2, padding 0 on height 5 leaves 2.5 output rows",
        ),
        ("naive.conv2d", lambda: naive.conv2d(X, ones(2, 2, 3, 1), None, 2), "2.5 output rows"),
        ("col2im", lambda: cyconv.col2im(COLS, (2, 5, 6, 3), 2, 2), "leaves 2.5 output rows"),
        ("Conv2D", lambda: Conv2D(2, 2, stride=2).forward(X), "leaves 2.5 output rows"),
        (
            "Conv2D '1'",
            lambda: Network([Conv2D(1, 3), Conv2D(1, 3, stride=2), Softmax()], (6, 5, 1)),
            "kernel 3, stride 2, padding 0 on height 4 leaves 1.5 output rows",
        ),
        (
            "Conv1D '0'",
            lambda: Network([Conv1D(1, 3, stride=2)], (6, 1)),
            "width 6 leaves 2.5 output columns",
        ),
        (
            "AvgPool2D '0'",
            lambda: Network([AvgPool2D(2)], (8, 7, 1)),
            'width 7 leaves 3.5 output columns; use padding=((0, 0), (0, 1)), padding="same" or',
        ),
        ("conv_output_size", lambda: cyconv.conv_output_size(28, 3, 2, 1), "leaves 14.5 output"),
    ],
)
def test_a_geometry_with_a_fraction_of_an_output(who, call, text):
    with raises(ValueError, f"{who}: ", text):
        call()
