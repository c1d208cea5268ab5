"""Winograd's way: where it is taken, what its bits depend on, and what leaves it out.

That it is exact on whole numbers, and touches nothing beside an array, is in the laws of all
convolutions: test_exactness.py, test_functional.py, test_guard.py.
"""

import hashlib
import tracemalloc

import numpy as np
import pytest

import cyconv
from cyconv import tuning
from tests import zoo

SHAPES = {  # (N, H, W, C), F, padding
    "even": ((5, 8, 12, 32), 32, 1),
    "odd": ((5, 9, 11, 40), 37, 0),
    "beside each other": ((5, 9, 10, 33), 40, ((0, 2), (1, 0))),
    "wide padding": ((3, 8, 9, 40), 33, 4),
}
OTHERS = {
    "stride": {"stride": 2, "rounding": "floor"},
    "dilation": {"dilation": 2},
    "groups": {"groups": 2},
    "kernel": {"kernel": (3, 1)},
    "channels": {"C": 15},
    "filters": {"F": 15},
    "size": {"H": 3, "C": 96, "F": 96},
    "their product": {"H": 9, "C": 28},
    "float64": {"dtype": np.float64},
}


def problem(shape, F, padding, kernel=(3, 3), dtype=np.float32):
    """Return (x, weight, dy) of a convolution, not whole numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(dtype)
    weight = rng.normal(size=(*kernel, shape[3], F)).astype(dtype)
    y = cyconv.conv2d(x, weight, padding=padding)
    return x, weight, rng.normal(size=y.shape).astype(dtype)


@pytest.fixture(params=SHAPES)
def given(request):
    shape, F, padding = SHAPES[request.param]
    return *problem(shape, F, padding), padding


def both(x, weight, dy, padding, **options):
    """Return y and dx."""
    dx, *_ = cyconv.conv2d_backward(dy, x, weight, padding=padding, **options)
    return cyconv.conv2d(x, weight, padding=padding, **options), dx


def test_it_is_taken_unless_it_is_left_out(given):
    for result, direct in zip(both(*given), both(*given, winograd=False), strict=True):
        assert not np.array_equal(result, direct)
        np.testing.assert_allclose(result, direct, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_other_shapes_go_the_direct_way(name):
    options = {"H": 20, "C": 32, "F": 32, "kernel": (3, 3), "dtype": np.float32, **OTHERS[name]}
    H, C, F, kernel, dtype = (options.pop(key) for key in ("H", "C", "F", "kernel", "dtype"))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, H, 20, C)).astype(dtype)
    weight = rng.normal(size=(*kernel, C // options.get("groups", 1), F)).astype(dtype)
    y, direct = (
        cyconv.conv2d(x, weight, padding=1, **options, winograd=way) for way in (True, False)
    )
    np.testing.assert_array_equal(y, direct)
    results = (
        cyconv.conv2d_backward(y, x, weight, padding=1, **options, winograd=way)
        for way in (True, False)
    )
    for result, direct in zip(*results, strict=True):
        np.testing.assert_array_equal(result, direct)


def test_the_bits_of_an_image_depend_on_nothing_beside_it(given, monkeypatch):
    x, weight, dy, padding = given
    y, dx = both(*given)
    for accumulators, threads in ((16, 1), (16, 3), (1, 2), (2, 8)):
        for least in (1, tuning.MIN_PRODUCTS):
            monkeypatch.setattr(tuning, "ACCUMULATORS", accumulators)
            monkeypatch.setattr(tuning, "MIN_PRODUCTS", least)
            monkeypatch.setattr(tuning, "MIN_PIXELS", 1)
            cyconv.set_num_threads(threads)
            for n in (slice(None), slice(1, 2), slice(2, None)):
                results = both(x[n], weight, dy[n], padding)
                for result, expected in zip(results, (y[n], dx[n]), strict=True):
                    np.testing.assert_array_equal(result, expected)


WORK = """
import hashlib
import numpy as np
from tests import test_winograd
print(test_winograd.digest())
"""


def digest(**options):
    """Return a digest of y, dx and what a network predicts and learns."""
    net = zoo.network("Winograd's way")
    x, labels = zoo.batch(net, 5)
    y = [*both(*problem(*SHAPES["odd"]), SHAPES["odd"][2], **options), net.forward(x)]
    net.train_step(x, labels, zoo.Still())
    y += net.gradients().values()
    return hashlib.sha256(b"".join(array.tobytes() for array in y)).hexdigest()


def test_the_environment_leaves_it_out(python, monkeypatch):
    printed = {value: python(WORK, CYCONV_WINOGRAD=value).strip() for value in ("", "1", "0")}
    assert printed[""] == printed["1"] == digest()
    monkeypatch.setattr("cyconv.program.WINOGRAD", False)
    assert printed["0"] == digest(winograd=False) != printed["1"]


def test_the_environment_says_0_or_1(python):
    printed = python(
        """
        try:
            import cyconv
        except ImportError as error:
            print(error)
        """,
        CYCONV_WINOGRAD="off",
    )
    assert printed.strip() == "cyconv: CYCONV_WINOGRAD must be 0 or 1, got 'off'"


@pytest.mark.parametrize("value", (0, "no", None))
@pytest.mark.parametrize("module", (cyconv, cyconv.naive))
def test_the_argument_is_true_or_false(module, value):
    x, weight = np.zeros((1, 3, 3, 1)), np.zeros((3, 3, 1, 1))
    with pytest.raises(TypeError, match=r"conv2d: winograd must be True or False, got"):
        module.conv2d(x, weight, winograd=value)
    with pytest.raises(TypeError, match=r"conv2d_backward: winograd must be True or False, got"):
        module.conv2d_backward(x[:, 1:2, 1:2], x, weight, winograd=value)


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_a_pixel_is_finite_if_what_it_is_computed_from_is(given, value):
    x, weight, dy, _ = given
    for array, index in ((x, (1, 4, 5, 3)), (dy, (0, 3, 2, 1))):
        array[index] = value
    for result, direct in zip(both(*given), both(*given, winograd=False), strict=True):
        finite = np.isfinite(direct)
        assert not finite.all()
        np.testing.assert_array_equal(np.isfinite(result), finite)
        np.testing.assert_allclose(result[finite], direct[finite], rtol=1e-3, atol=1e-4)
    weight[1, 2, 0, 1] = value
    y, dx = both(*given)
    assert not np.isfinite(y[..., 1]).any()
    assert not np.isfinite(dx[..., 0]).any()


def test_memory_does_not_grow_with_the_batch():
    """Beside the results there are the transformed weights, and tiles for each thread."""
    x, weight = np.ones((32, 28, 28, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)
    cyconv.set_num_threads(2)
    most = 2 * (16 * 64 * 64 * 4 + 2**20)
    for call in (
        lambda: cyconv.conv2d(x, weight, padding=1),
        lambda: cyconv.conv2d_backward(x, x, weight, padding=1)[0],
    ):
        tracemalloc.start()
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        accumulators = 16 * weight.nbytes
        assert peak < result.nbytes + most + accumulators
