"""Maximum and mean of windows on arrays of every kind; test_exactness.py has the many sizes."""

import itertools

import numpy as np
import pytest

import cyconv
from cyconv import naive
from tests import reference
from tests.reference import POOLINGS, assert_same, pool_by_definition, pool_everything
from tests.test_functional import LAYOUTS

MODULES = pytest.mark.parametrize("module", (cyconv, naive), ids=("cyconv", "naive"))


@pytest.fixture(scope="module")
def problems():
    """Return 500 random (pooling, integer arrays, results of the naive loops)."""
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(500):
        case = reference.random_pool(rng)
        given = reference.pool_arrays(case, rng)
        drawn.append((case, given, pool_everything(naive, case, *given)))
    return drawn


def test_the_naive_loops_are_the_definition(problems):
    for case, given, results in problems:
        assert_same(results, pool_by_definition(case, *given), case, names=POOLINGS)


@MODULES
def test_outputs_are_complete_when_buffers_start_as_nan(module, problems, nan_buffers):
    for case, given, expected in problems[::4]:
        assert_same(pool_everything(module, case, *given), expected, case, names=POOLINGS)
    assert nan_buffers


@MODULES
def test_inputs_may_be_read_only_and_stay_as_they_are(module, problems):
    for case, given, _ in problems[::10]:
        arrays = [array.copy() for array in given]
        for array in arrays:
            array.flags.writeable = False
        pool_everything(module, case, *arrays)
        for array, before in zip(arrays, given, strict=True):
            np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_in_memory_gives_the_same(problems, layout):
    for case, given, expected in problems[::10]:
        results = pool_everything(cyconv, case, *map(LAYOUTS[layout], given))
        assert_same(results, expected, case, names=POOLINGS)


@pytest.mark.parametrize(
    ("dtype", "threads"), list(itertools.product((np.float32, np.float64), (1, 4)))
)
def test_the_bits_are_those_of_the_naive_loops(problems, dtype, threads):
    rng = np.random.default_rng(3)
    cyconv.set_num_threads(threads)

    def draw(rng, shape):
        return np.where(
            rng.random(shape) < 0.5, rng.normal(size=shape), rng.choice((0, -0.0), shape)
        )

    for case, *_ in problems:
        given = reference.pool_arrays(case, rng, draw, dtype)
        expected = pool_everything(naive, case, *given)
        results = pool_everything(cyconv, case, *given)
        assert_same(results, expected, case, names=POOLINGS)
        for forward in (0, 2):  # a gradient of -0 may be added to 0 or stand alone
            assert results[forward].tobytes() == expected[forward].tobytes(), case


def test_nan_is_the_maximum_and_infinities_are_numbers(problems):
    rng = np.random.default_rng(5)

    def special(rng, shape):
        return rng.choice((0.0, 1.0, np.inf, -np.inf, -np.inf, np.nan), shape)

    for (case, (_, dy), _), dtype in itertools.product(problems, (np.float32, np.float64)):
        x = special(rng, case.x_shape).astype(dtype)
        dy = dy.astype(dtype)
        expected = reference.max_pool2d(x, case), reference.max_pool2d_backward(dy, x, case)
        for module in (cyconv, naive):
            y = module.max_pool2d(x, case.kernel, **case.pooling)
            dx = module.max_pool2d_backward(dy, x, case.kernel, **case.pooling)
            for result, wanted in zip((y, dx), expected, strict=True):
                np.testing.assert_array_equal(result, wanted, str(case))


@MODULES
def test_the_first_of_equal_maxima_takes_dy(module):
    x, dy = np.zeros((1, 4, 6, 5)), np.arange(1.0, 31).reshape(1, 2, 3, 5)
    dx = module.max_pool2d_backward(dy, x, 2)
    np.testing.assert_array_equal(dx[:, ::2, ::2], dy)
    assert dx.sum() == dy.sum()


@MODULES
def test_padding_is_no_maximum_and_no_part_of_the_mean(module):
    x = np.full((1, 3, 3, 2), -7.0)
    for pool in (module.max_pool2d, module.avg_pool2d):
        np.testing.assert_array_equal(pool(x, 3, 1, 1), x)


@MODULES
def test_an_empty_batch_gives_empty_outputs(module):
    x, dy = np.zeros((0, 4, 6, 5), np.float32), np.zeros((0, 2, 3, 5), np.float32)
    assert module.max_pool2d(x, 2).shape == module.avg_pool2d(x, 2).shape == dy.shape
    assert module.max_pool2d_backward(dy, x, 2).shape == x.shape
    assert module.avg_pool2d_backward(dy, x.shape, 2).shape == x.shape


def test_a_batch_is_its_images_one_at_a_time(problems):
    for case, (x, dy), expected in problems[::10]:
        for n in range(len(x)):
            one = case._replace(x_shape=(1, *case.x_shape[1:]))
            results = pool_everything(cyconv, one, x[n : n + 1], dy[n : n + 1])
            assert_same(results, [each[n : n + 1] for each in expected], one, names=POOLINGS)


def test_as_in_pytorch(problems):
    torch = pytest.importorskip("torch")
    pools = torch.nn.functional
    compared = 0
    for case, (x, dy), expected in problems:
        (top, bottom), (left, right) = case.pads
        if top != bottom or left != right or 2 * top > case.kernel[0] or 2 * left > case.kernel[1]:
            continue
        for y, dx, pool in (
            (*expected[:2], pools.max_pool2d),
            (*expected[2:], lambda *sizes: pools.avg_pool2d(*sizes, count_include_pad=False)),
        ):
            image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
            result = pool(image, case.kernel, case.steps, (top, left))
            if result.shape[2:] != case.outputs:  # "same" with a stride
                continue
            result.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
            found = (result.detach(), image.grad)
            for torchs, wanted in zip(found, (y, dx), strict=True):
                np.testing.assert_allclose(torchs.permute(0, 2, 3, 1), wanted, 1e-12, 1e-12)
            compared += 1
    assert compared > 200


X, DY = np.ones((2, 5, 6, 3), np.float32), np.ones((2, 3, 5, 3), np.float32)
GOOD = {
    "max_pool2d": {"x": X},
    "max_pool2d_backward": {"dy": DY, "x": X},
    "avg_pool2d": {"x": X},
    "avg_pool2d_backward": {"dy": DY, "input_shape": X.shape},
}
WINDOW = {"kernel_size": (3, 2), "stride": 1}
SIZE_MISTAKES = [
    (0, ValueError, "must be at least 1, got 0"),
    ((2, -1), ValueError, "[1] must be at least 1, got -1"),
    ((1, 2, 3), ValueError, "must be an integer or a pair (y, x), got (1, 2, 3)"),
    (True, TypeError, "must be an integer, got True"),
    (2.0, TypeError, "must be an integer, got 2.0"),
    ("2", TypeError, "must be an integer, got '2'"),
]
MISTAKES = [
    *(("kernel_size", *row) for row in SIZE_MISTAKES),
    *(("stride", *row) for row in SIZE_MISTAKES),
    ("kernel_size", None, TypeError, "kernel_size must be an integer, got None"),
    ("kernel_size", 7, ValueError, "kernel 7 is larger than height 5 padded by 0 + 0"),
    ("stride", 3, ValueError, 'padding="same" or rounding="floor"'),
    ("padding", -1, ValueError, "padding must be at least 0, got -1"),
    ("padding", "full", ValueError, 'padding must be numbers, "valid" or "same", got \'full\''),
    ("padding", None, TypeError, "padding must be an integer, got None"),
    ("padding", 2, ValueError, "padding must be smaller than kernel_size (3, 2)"),
    ("padding", (3, 0), ValueError, "so that every window holds a pixel, got (3, 0)"),
    ("padding", ((0, 0), (0, 2)), ValueError, "window holds a pixel, got ((0, 0), (0, 2))"),
    ("rounding", "ceil", ValueError, 'rounding must be "exact" or "floor", got \'ceil\''),
    ("rounding", None, TypeError, 'rounding must be "exact" or "floor", got None'),
]
ARRAY_MISTAKES = [
    ("max_pool2d", "x", X[0], ValueError, "x must have shape (N, H, W, C), got (5, 6, 3)"),
    ("max_pool2d", "x", X[:, :0], ValueError, "x must have no empty axis but the batch"),
    ("max_pool2d", "x", X.astype(int), TypeError, "x must be float32 or float64, got int64"),
    ("avg_pool2d", "x", X.astype(np.float16), TypeError, "x must be float32 or float64"),
    ("avg_pool2d", "x", None, TypeError, "x must be"),
    ("max_pool2d_backward", "dy", DY[:1], ValueError, "dy must have shape (2, 3, 5, 3)"),
    ("max_pool2d_backward", "dy", DY.astype(float), TypeError, "dy must be float32 as x is"),
    ("avg_pool2d_backward", "dy", DY[..., :1], ValueError, "dy must have shape (2, 3, 5, 3)"),
    (
        "avg_pool2d_backward",
        "input_shape",
        (5, 6, 3),
        ValueError,
        "input_shape must be (N, H, W, C)",
    ),
    (
        "avg_pool2d_backward",
        "input_shape",
        5,
        ValueError,
        "input_shape must be (N, H, W, C), got 5",
    ),
    ("avg_pool2d_backward", "input_shape", (2, 5, 6, 0), ValueError, "input_shape[3] must be at"),
    ("avg_pool2d_backward", "input_shape", (2, 5.0, 6, 3), TypeError, "input_shape[1] must be an"),
]


@MODULES
@pytest.mark.parametrize(
    ("name", "argument", "value", "error", "text"),
    [*((name, *mistake) for name in GOOD for mistake in MISTAKES), *ARRAY_MISTAKES],
)
def test_mistakes_are_named(module, name, argument, value, error, text):
    prefix = "naive." if module is naive else ""
    with pytest.raises(error, match=f"^{prefix}{name}: ") as raised:
        getattr(module, name)(**{**GOOD[name], **WINDOW, argument: value})
    assert text in str(raised.value)
