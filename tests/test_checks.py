"""The gate at its limits: the last that is allowed passes, and one more is refused by its name."""

import math
import os
import sys
from fractions import Fraction

import numpy as np
import pytest

import cyconv
from cyconv import Network, checks, threads, tuning
from cyconv.geometry import LIMIT
from cyconv.layers import Conv2D, Im2Col, Linear

MEMORY = 1000


@pytest.fixture
def small(monkeypatch):
    """Let the machine have little memory, and BLAS count to ten."""
    monkeypatch.setattr(checks, "_MEMORY", MEMORY)
    monkeypatch.setattr(checks, "BLAS_LIMIT", 10)
    monkeypatch.setattr(tuning, "WHOLE_BATCH_BYTES", 0)


def ones(*shape):
    return np.ones(shape, np.float32)


MOST = [
    (
        lambda n: checks.allocate((n,), np.uint8, "f", "y"),
        MEMORY,
        MemoryError,
        "f: y of shape (1001,) takes 1,001 bytes, more than this machine's memory",
    ),
    (
        lambda n: checks.representable((n,), "f", "y"),
        sys.maxsize // 8,
        OverflowError,
        "f: y of shape (1152921504606846976,) has 1,152,921,504,606,846,976 elements, more than",
    ),
    (
        lambda n: checks.blas_extent(n, "f", "size"),
        10,
        OverflowError,
        "f: size is 11, but BLAS counts to 10",
    ),
    (
        lambda n: cyconv.conv_output_size(n, 1),
        LIMIT,
        OverflowError,
        "conv_output_size: kernel, stride and the padded size must be at most 4,611,686,018,427",
    ),
    (
        lambda n: checks.labels([0, n], 2, 5, "f"),
        4,
        ValueError,
        "f: labels must be from 0 to 4, got 5 at index 1",
    ),
    (
        lambda n: checks.number(-n, "f", "rate"),
        0,
        ValueError,
        "f: rate must be finite and at least 0, got -1",
    ),
    (
        cyconv.set_num_threads,
        4 * (os.cpu_count() or 1),
        ValueError,
        "set_num_threads: n must be from 1 to",
    ),
]


@pytest.mark.parametrize(("call", "most", "error", "text"), MOST)
def test_the_most_is_allowed_and_one_more_is_refused(call, most, error, text, small):
    call(most)
    with pytest.raises(error) as raised:
        call(most + 1)
    assert str(raised.value).startswith(text)


def test_what_no_address_holds_is_an_overflow_and_no_lack_of_memory():
    with pytest.raises(MemoryError, match=r"f: y of shape .* bytes, more than this machine"):
        checks.allocate((sys.maxsize,), np.uint8, "f", "y")
    with pytest.raises(OverflowError, match=r"f: y of shape .* bytes, more than an address"):
        checks.allocate((sys.maxsize + 1,), np.uint8, "f", "y")


def test_no_labels_for_no_images():
    assert checks.labels(np.zeros(0, int), 0, 10, "f").shape == (0,)


def test_an_array_that_no_kernel_can_walk_is_copied_and_no_other():
    good = ones(2, 3)
    assert checks.array(good, "f", "x") is good
    for value in (good[:, ::-1], good.T, np.zeros(25, np.uint8)[1:].view(np.float32)):
        result = checks.array(value, "f", "x")
        assert result.flags.c_contiguous
        assert result.flags.aligned
        np.testing.assert_array_equal(result, value)


PIXEL = ones(1, 1, 1, 1)
IMAGE = ones(1, 20, 20, 1)  # 1,600 bytes: nothing of its size can be allocated
TOO_LARGE = {  # what is allocated, and its first call that asks for more than there is
    "im2col: x": lambda: cyconv.im2col(IMAGE[:, ::-1], 1, 19),
    "im2col: cols": lambda: cyconv.im2col(IMAGE, 1),
    "col2im: x": lambda: cyconv.col2im(ones(4, 1), IMAGE.shape, 1, 19),
    "conv2d: y": lambda: cyconv.conv2d(IMAGE, PIXEL),
    "conv2d: working memory": lambda: cyconv.conv2d(IMAGE, ones(9, 9, 1, 1), dilation=2),
    "conv2d_backward: dx": lambda: cyconv.conv2d_backward(ones(1, 2, 2, 1), IMAGE, PIXEL, 19),
    "max_pool2d: y": lambda: cyconv.max_pool2d(IMAGE, 1),
    "max_pool2d_backward: dx": lambda: cyconv.max_pool2d_backward(PIXEL, IMAGE, 20),
    "avg_pool2d: y": lambda: cyconv.avg_pool2d(IMAGE, 1),
    "avg_pool2d_backward: dx": lambda: cyconv.avg_pool2d_backward(PIXEL, IMAGE.shape, 20),
    "naive.im2col: cols": lambda: cyconv.naive.im2col(IMAGE, 1),
    "naive.col2im: x": lambda: cyconv.naive.col2im(ones(4, 1), IMAGE.shape, 1, 19),
    "naive.conv2d: y": lambda: cyconv.naive.conv2d(IMAGE, PIXEL),
    "Network: parameters": lambda: Network([Linear(30)], (10,)),
    "Network: working memory": lambda: Network([Linear(2)], (1,)).predict(ones(200, 1)),
    "Linear: parameters and gradients": lambda: Linear(100).forward(ones(1, 1)),
    "Linear: working memory": lambda: Linear(5).forward(ones(100, 1)),
    "Linear: x": lambda: Linear(1).forward(ones(1, 300)[:, ::-1]),
}
UNCOUNTED = {
    "conv2d: the number of taps KH*KW*C is 18": lambda: cyconv.conv2d(
        ones(1, 3, 3, 2), ones(3, 3, 2, 1)
    ),
    "conv2d: the number of channels is 12": lambda: cyconv.conv2d(
        ones(1, 1, 1, 12), ones(1, 1, 6, 2), groups=2
    ),
    "conv2d: the number of filters is 11": lambda: cyconv.conv2d(PIXEL, ones(1, 1, 1, 11)),
    "conv2d: the number of pixels in one output row is 11": lambda: cyconv.conv2d(
        ones(1, 3, 11, 1), ones(2, 1, 1, 1), dilation=2
    ),
    "Conv2D '0': the number of taps KH*KW*C is 18": lambda: Network([Conv2D(1, 3)], (3, 3, 2)),
    "Conv2D '0': the number of channels is 12": lambda: Network(
        [Conv2D(2, 1, groups=2)], (1, 1, 12)
    ),
    "Conv2D '0': out_channels is 11": lambda: Network([Conv2D(11, 1)], (1, 1, 1)),
    "Linear '0': the number of input features is 11": lambda: Network([Linear(1)], (11,)),
    "Linear '0': out_features is 11": lambda: Network([Linear(11)], (1,)),
    "Linear: the batch is 11": lambda: Linear(1).forward(ones(11, 1)),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_an_array_beyond_the_memory_is_named_with_its_size(name, monkeypatch):
    monkeypatch.setattr(checks, "_MEMORY", MEMORY)
    with pytest.raises(MemoryError) as raised:
        TOO_LARGE[name]()
    assert str(raised.value).startswith(f"{name} of shape (")
    assert "bytes, more than this machine's memory" in str(raised.value)


@pytest.mark.parametrize("text", UNCOUNTED)
def test_a_matrix_that_blas_cannot_count_is_refused(text, small):
    with pytest.raises(OverflowError) as raised:
        UNCOUNTED[text]()
    assert str(raised.value).startswith(f"{text}, but BLAS counts to 10")


@pytest.mark.parametrize(
    ("layer", "input_shape", "text"),
    [
        (Im2Col(2**20, padding=2**21), (1, 1, 1), "Im2Col '0': output"),
        (Conv2D(1, 1, padding=2**29), (1, 1, 1), "Conv2D '0': the columns of one image"),
        (Linear(2**31 - 1), (2**31 - 1,), "Linear '0': weight"),
    ],
)
def test_more_than_an_address_holds_is_refused_when_the_network_is_made(layer, input_shape, text):
    with pytest.raises(OverflowError, match=f"{text} of shape .* more than an address can hold"):
        Network([layer], input_shape)


def test_a_forked_child_may_have_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "_alone", True)
    cyconv.set_num_threads(1)
    with pytest.raises(RuntimeError, match=r'set_num_threads: a process forked after .*"spawn"'):
        cyconv.set_num_threads(2)
    assert cyconv.get_num_threads() == 1


def test_a_number_too_large_for_a_float_is_named_without_its_digits():
    for value in (10**400, -(10**400), 10**5000, Fraction(10**400)):
        for bound, text in ((math.inf, "finite and at least 0"), (1, "below 1 and at least 0")):
            with pytest.raises(
                ValueError, match=rf"^who: name must be {text}, got .* for a float$"
            ):
                checks.number(value, "who", "name", below=bound)
