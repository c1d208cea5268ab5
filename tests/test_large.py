"""More than 2**31 elements of columns: every index is wide enough, and they are never all made."""

import os
import tracemalloc

import numpy as np
import pytest

import cyconv

IMAGES, PERIOD = 10_000, 100  # the images repeat
SHAPE, FILTERS = (28, 28, 16), (5, 5, 16, 4)
OUTPUT = (24, 24, 4)
COLUMNS = IMAGES * 24 * 24 * 5 * 5 * 16
MOST_SCRATCH = 2**27  # bytes beside the results; the columns would take 9 GB
NEEDED = 4 * 2**30  # bytes of memory in the machine


def total_memory():
    """Return the bytes of memory in the machine, or 0 if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return 0


def peak_of(call):
    """Return (result, peak of the bytes of arrays that the call made)."""
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def repeats(array, period):
    """Tell whether a large array is a small one again and again."""
    return (array.reshape(-1, *period.shape) == period).all()


@pytest.mark.skipif(total_memory() < NEEDED, reason=f"needs {NEEDED >> 30} GB of memory")
def test_ten_thousand_images_are_right_from_the_first_to_the_last():
    assert COLUMNS > 2**31
    rng = np.random.default_rng(0)
    shapes = (PERIOD, *SHAPE), (PERIOD, *OUTPUT), FILTERS, OUTPUT[-1:]
    some_x, some_dy, weight, bias = (
        rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes
    )
    x, dy = (np.tile(some, (IMAGES // PERIOD, 1, 1, 1)) for some in (some_x, some_dy))

    y, peak = peak_of(lambda: cyconv.conv2d(x, weight, bias))
    assert y.nbytes <= peak < y.nbytes + MOST_SCRATCH
    assert repeats(y, cyconv.naive.conv2d(some_x, weight, bias))
    del y

    (dx, dweight, dbias), peak = peak_of(lambda: cyconv.conv2d_backward(dy, x, weight))
    assert dx.nbytes <= peak < dx.nbytes + MOST_SCRATCH
    some_dx, some_dweight, some_dbias = cyconv.naive.conv2d_backward(some_dy, some_x, weight)
    assert repeats(dx, some_dx)
    # Whole numbers below 2**24 all along: sums of so many random signs stay small, and are exact.
    np.testing.assert_array_equal(dweight, some_dweight * (IMAGES // PERIOD))
    np.testing.assert_array_equal(dbias, some_dbias * (IMAGES // PERIOD))


@pytest.mark.parametrize(("dtype", "copies"), [("float32", 5), ("float64", 2)])
def test_large_weights_have_few_accumulators(dtype, copies):
    """Beside dweight, and the weights that dx needs: transposed or, 16/9 as large, Winograd's."""
    dy, x = np.ones((2, 16, 6, 6, 512), dtype)
    weight = np.ones((3, 3, 512, 512), dtype)
    (dx, *_), peak = peak_of(lambda: cyconv.conv2d_backward(dy, x, weight, padding=1))
    assert peak < dx.nbytes + (copies + 2.1) * weight.nbytes + MOST_SCRATCH / 32
    layers = [cyconv.layers.Conv2D(512, 3, padding=1) for _ in range(2)]
    net = cyconv.Network(
        [*layers, cyconv.layers.Flatten(), cyconv.layers.Softmax()], x.shape[1:], dtype=dtype
    )
    labels = np.zeros(len(x), int)
    _, peak = peak_of(lambda: net.train_step(x, labels, cyconv.SGD(1e-9)))
    # 19 of them when each batch had 16; Winograd's weights for y and dx are 3.6 of these.
    assert peak < 6 * net._parameters.nbytes
