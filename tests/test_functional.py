"""im2col, col2im and convolution on arrays of every kind; test_exactness.py has the many sizes."""

import itertools

import numpy as np
import pytest

import cyconv
from cyconv import naive
from tests import reference
from tests.reference import NAMES, arrays, assert_same, by_definition, everything

DTYPES = (np.float32, np.float64)


@pytest.fixture(scope="module")
def problems():
    """Return 1,000 random (geometry, integer arrays, results of the naive loops)."""
    rng = np.random.default_rng(7)
    drawn = []
    for case in reference.random_cases(1000, varied=True):
        given = arrays(case, rng)
        drawn.append((case, given, everything(naive, case, *given)))
    return drawn


def test_the_naive_loops_are_the_definition(problems):
    for case, given, results in problems:
        assert_same(results, by_definition(case, *given), case)


@pytest.mark.parametrize(("dtype", "threads"), list(itertools.product(DTYPES, (1, 3))))
def test_integers_in_exact_integers_out(problems, dtype, threads):
    cyconv.set_num_threads(threads)
    for case, given, expected in problems:
        results = everything(cyconv, case, *(array.astype(dtype) for array in given))
        assert {result.dtype for result in results} == {np.dtype(dtype)}
        assert_same(results, expected, case)


def test_col2im_is_the_adjoint_of_im2col(problems):
    for case, (x, cols, *_), _ in problems:
        left = (cyconv.im2col(x, case.kernel, **case.columns) * cols).sum()
        right = (x * cyconv.col2im(cols, case.x_shape, case.kernel, **case.columns)).sum()
        assert left == right, case


def test_backward_is_the_adjoint_of_forward(problems):
    for case, (x, _, weight, _, dy), _ in problems:
        dx, dweight, _ = cyconv.conv2d_backward(dy, x, weight, **case.geometry)
        product = (cyconv.conv2d(x, weight, **case.geometry) * dy).sum()
        assert product == (x * dx).sum() == (weight * dweight).sum(), case


def test_outputs_are_complete_when_buffers_start_as_nan(problems, nan_buffers):
    for case, given, expected in problems[::4]:
        assert_same(everything(cyconv, case, *given), expected, case)
    assert len(nan_buffers) > 1000


def test_naive_outputs_are_complete_when_buffers_start_as_nan(problems, nan_buffers):
    for case, given, expected in problems[::10]:
        assert_same(everything(naive, case, *given), expected, case)
    assert nan_buffers


def test_inputs_may_be_read_only_and_stay_as_they_are(problems):
    for case, given, _ in problems[::10]:
        copies = [array.copy() for array in given]
        for array in given:
            array.flags.writeable = False
        for module in (cyconv, naive):
            everything(module, case, *given)
        for array, copy in zip(given, copies, strict=True):
            array.flags.writeable = True
            np.testing.assert_array_equal(array, copy)


def misaligned(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)[1:]
    result = buffer.view(array.dtype).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned or array.size == 0
    return result


def sliced(array):
    buffer = np.full([2 * extent for extent in array.shape], np.nan, array.dtype)
    result = buffer[tuple(slice(None, None, 2) for _ in array.shape)]
    result[...] = array
    return result


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda array: np.flip(np.flip(array).copy()),
    "slices": sliced,
    "misaligned": misaligned,
    "lists": np.ndarray.tolist,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_in_memory_gives_the_same(problems, layout):
    for case, given, expected in problems[::10]:
        results = everything(cyconv, case, *map(LAYOUTS[layout], given))
        for name, result, wanted in zip(NAMES, results, expected, strict=True):
            assert result.flags.c_contiguous
            assert np.array_equal(result, wanted), f"{name} {case}"


def test_zero_strides_and_memory_maps(tmp_path):
    case = reference.Case((2, 4, 5, 3), 2, (3, 2), 1, 1, ((1, 1), (1, 1)), (4, 6))
    given = arrays(case, np.random.default_rng(0))
    row = given[0][:, :1]
    np.save(tmp_path / "x.npy", given[0])
    for x, same in (
        (np.broadcast_to(row, case.x_shape), np.repeat(row, 4, axis=1)),
        (np.load(tmp_path / "x.npy", mmap_mode="r"), given[0]),
    ):
        results = everything(cyconv, case, x, *given[1:])
        for result, wanted in zip(results, by_definition(case, same, *given[1:]), strict=True):
            np.testing.assert_array_equal(result, wanted)


def test_a_batch_of_none_gives_an_empty_output_and_zero_gradients(problems):
    for case, given, _ in problems[::50]:
        empty = case._replace(x_shape=(0, *case.x_shape[1:]))
        x, cols, weight, bias, dy = arrays(empty, np.random.default_rng(0))
        for module in (cyconv, naive):
            columns, image, y, dx, dweight, dbias = everything(
                module, empty, x, cols, given[2], given[3], dy
            )
            assert columns.shape == cols.shape
            assert image.shape == dx.shape == x.shape
            assert y.shape == dy.shape
            assert dweight.shape == weight.shape
            assert dbias.shape == bias.shape
            assert not dweight.any()
            assert not dbias.any()


def test_no_bias_and_no_dx():
    case = reference.random_cases(1, seed=5)[0]
    x, _, weight, bias, dy = arrays(case, np.random.default_rng(0))
    geometry = case.geometry
    for module in (cyconv, naive):
        np.testing.assert_array_equal(
            module.conv2d(x, weight, **geometry),
            module.conv2d(x, weight, np.zeros_like(bias), **geometry),
        )
        dx, *gradients = module.conv2d_backward(dy, x, weight, **geometry, need_dx=False)
        assert dx is None
        expected = reference.conv2d_backward(dy, x, weight, case)[1:]
        for gradient, wanted in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(gradient, wanted)


@pytest.mark.parametrize("case", reference.LARGE, ids=str)
def test_float32_is_within_the_bound_of_a_sum_of_products(case):
    rng = np.random.default_rng(3)
    given = arrays(case, rng, lambda rng, shape: rng.normal(size=shape), np.float32)
    exact = [np.float64(array) for array in given]
    expected = by_definition(case, *exact)
    magnitudes = by_definition(case, *map(np.abs, exact))
    counts = by_definition(case, *map(np.ones_like, exact))
    for threads in (1, 3):
        cyconv.set_num_threads(threads)
        results = everything(cyconv, case, *given)
        for name, *compared in zip(NAMES, results, expected, counts, magnitudes, strict=True):
            reference.assert_within(*compared, what=name)


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_what_is_not_finite_reaches_the_outputs_that_read_it_and_no_others(value):
    x = np.zeros((1, 6, 6, 1), np.float32)
    x[0, 2, 3] = value
    weight = np.ones((3, 3, 1, 1), np.float32)
    read = np.zeros((4, 4), bool)
    read[0:3, 1:4] = True  # the outputs whose 3x3 window holds (2, 3)
    y = cyconv.conv2d(x, weight)[0, :, :, 0]
    np.testing.assert_array_equal(y, np.where(read, np.float32(value), 0))


X, WEIGHT = np.ones((2, 5, 6, 12), np.float32), np.ones((3, 2, 4, 6), np.float32)
DY = np.ones((2, 3, 5, 6), np.float32)
CALLS = {
    "im2col": lambda module, **given: module.im2col(X, (3, 2), **given),
    "col2im": lambda module, **given: module.col2im(X, X.shape, (3, 2), **given),
    "conv2d": lambda module, **given: module.conv2d(X, WEIGHT, **{"groups": 3, **given}),
    "conv2d_backward": lambda module, **given: module.conv2d_backward(
        DY, X, WEIGHT, **{"groups": 3, **given}
    ),
}
SIZES = [
    (0, ValueError, "{} must be at least 1, got 0"),
    (-1, ValueError, "{} must be at least 1, got -1"),
    (True, TypeError, "{} must be an integer, got True"),
    (1.0, TypeError, "{} must be an integer, got 1.0"),
    ("1", TypeError, "{} must be an integer, got '1'"),
    (None, TypeError, "{} must be an integer, got None"),
]
MISTAKES = [
    *(("dilation", *row) for row in SIZES),
    ("dilation", (1, 0), ValueError, "dilation[1] must be at least 1, got 0"),
    ("dilation", (1, 2, 3), ValueError, "dilation must be an integer or a pair (y, x)"),
    ("dilation", 3, ValueError, "kernel 3 with dilation 3 is larger than height 5 padded by 0 + 0"),
    ("dilation", 2**62, OverflowError, "must be at most"),
    ("rounding", "ceil", ValueError, 'rounding must be "exact" or "floor", got \'ceil\''),
    ("rounding", None, TypeError, 'rounding must be "exact" or "floor", got None'),
    ("rounding", False, TypeError, 'rounding must be "exact" or "floor", got False'),
    (
        "stride",
        (3, 1),
        ValueError,
        'use padding=((0, 1), (0, 0)), padding="same" or rounding="floor"',
    ),
]
GROUP_MISTAKES = [
    *(("groups", *row) for row in SIZES),
    ("groups", (1, 1), TypeError, "groups must be an integer, got (1, 1)"),
    ("groups", 5, ValueError, "groups must divide the 12 channels of x, got 5"),
    ("groups", 12, ValueError, "weight must have shape (KH, KW, 1, F), got (3, 2, 4, 6)"),
    ("groups", 1, ValueError, "weight must have shape (KH, KW, 12, F), got (3, 2, 4, 6)"),
]


@pytest.mark.parametrize("module", (cyconv, naive), ids=("cyconv", "naive"))
@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        *itertools.product(CALLS, MISTAKES),
        *itertools.product(("conv2d", "conv2d_backward"), GROUP_MISTAKES),
    ],
    ids=str,
)
def test_mistakes_in_dilation_groups_and_rounding(module, name, mistake):
    argument, value, error, text = mistake
    prefix = "naive." if module is naive else ""
    with pytest.raises(error, match=f"^{prefix}{name}: ") as raised:
        CALLS[name](module, **{argument: value})
    assert text.format(argument) in str(raised.value)


@pytest.mark.parametrize("module", (cyconv, naive), ids=("cyconv", "naive"))
def test_groups_must_divide_the_filters(module):
    with pytest.raises(
        ValueError, match="conv2d: groups must divide the 7 filters of weight, got 3"
    ):
        module.conv2d(X, np.ones((3, 2, 4, 7), np.float32), groups=3)


def test_groups_are_convolutions_side_by_side():
    rng = np.random.default_rng(11)
    x, weight = rng.normal(size=(3, 9, 8, 12)), rng.normal(size=(3, 3, 4, 6))
    parts = [
        cyconv.conv2d(
            x[..., 4 * group : 4 * group + 4], weight[..., 2 * group : 2 * group + 2], dilation=2
        )
        for group in range(3)
    ]
    y = cyconv.conv2d(x, weight, dilation=2, groups=3)
    np.testing.assert_allclose(y, np.concatenate(parts, axis=3), rtol=1e-12)


def test_a_dilated_kernel_is_a_larger_one_with_zeros():
    rng = np.random.default_rng(12)
    x, weight = reference.integers(rng, (3, 9, 8, 5)), reference.integers(rng, (3, 2, 5, 6))
    wide = np.zeros((5, 4, 5, 6))
    wide[::2, ::3] = weight
    np.testing.assert_array_equal(cyconv.conv2d(x, weight, dilation=(2, 3)), cyconv.conv2d(x, wide))


def test_rounded_down_the_last_lines_are_not_read():
    rng = np.random.default_rng(13)
    x, weight = reference.integers(rng, (3, 8, 10, 5)), reference.integers(rng, (3, 3, 5, 6))
    y = cyconv.conv2d(x, weight, stride=(2, 3), rounding="floor")
    np.testing.assert_array_equal(y, cyconv.conv2d(x[:, :7, :9], weight, stride=(2, 3)))
    dx, *_ = cyconv.conv2d_backward(y, x, weight, stride=(2, 3), rounding="floor")
    assert not dx[:, 7:].any()
    assert not dx[:, :, 9:].any()
