"""Exact at scale: the laws of test_functional.py on very many sizes, and however a batch is cut.

Sums of products of small whole numbers do not round, in float32 either and in any order.
"""

import itertools
from collections import Counter
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

import cyconv
from cyconv import naive, tuning
from cyconv._core import of
from tests import reference
from tests.reference import POOLINGS, arrays, assert_same, everything, pool_everything
from tests.steps import (
    assert_same_gradients,
    in_float64,
    loss_and_gradients,
    relative_error_bound,
)
from tests.zoo import ALL_NETWORKS, Still, batch, network

DTYPES = (np.float32, np.float64)
RUNS = tuple(itertools.product(DTYPES, (1, 3)))  # element type and threads


def problems(count, seed=0):
    """Yield random geometries and whole numbers for them."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        case = reference.random_case(rng, varied=True)
        yield case, arrays(case, rng)


@contextmanager
def cuts(seed=0):
    """Yield a function that draws new tile, part and accumulator sizes."""
    rng = np.random.default_rng(seed)
    names = "TILE_BYTES", "ACCUMULATORS", "MIN_PIXELS", "MIN_PRODUCTS"
    before = {name: getattr(tuning, name) for name in names}

    def draw():
        tuning.TILE_BYTES = int(rng.choice((before["TILE_BYTES"], 1, 2 ** rng.integers(8, 16))))
        tuning.ACCUMULATORS = int(rng.choice((before["ACCUMULATORS"], 1, 2, 3)))
        for name in ("MIN_PIXELS", "MIN_PRODUCTS"):
            setattr(tuning, name, 1 if rng.integers(4) else before[name])

    try:
        yield draw
    finally:
        for name, value in before.items():
            setattr(tuning, name, value)


@pytest.fixture
def cut_into(monkeypatch):
    """Count how often each kind of split occurred."""
    seen = Counter()

    def count_forward(conv2d, x, weight, bias, u, y, cols, geometry, tile, threads):
        seen["tiles, forward"] += tile < len(x) * geometry["OH"]
        seen["Winograd, forward"] += u is not None
        conv2d(x, weight, bias, u, y, cols, geometry, tile, threads)

    def count_backward(backward, dy, x, weight, transposed, u, dx, accumulators, cols, *sizes):
        geometry, height, tile, _ = sizes
        seen["Winograd, backward"] += u is not None
        images, strips = height > geometry["OH"], height < geometry["OH"]
        several = len(accumulators) * height < len(x) * geometry["OH"]
        seen["accumulators"] += len(accumulators) > 1
        seen["parts an accumulator"] += several
        seen["images a part"] += images
        seen["images a part, parts an accumulator"] += images and several
        seen["strips an image"] += strips
        seen["strips an image, parts an accumulator"] += strips and several
        seen["tiles a part"] += tile < height
        backward(dy, x, weight, transposed, u, dx, accumulators, cols, *sizes)

    for conv in (of(dtype).convolution for dtype in ("float32", "float64")):
        monkeypatch.setattr(conv, "conv2d", partial(count_forward, conv.conv2d))
        monkeypatch.setattr(conv, "conv2d_backward", partial(count_backward, conv.conv2d_backward))
    return seen


def test_random_geometries_are_exact(count, figure, cut_into):
    geometries = count(500, 5_000, 100_000)
    with cuts() as cut:
        for case, given in problems(geometries):
            expected = everything(naive, case, *given)
            for dtype, threads in RUNS:
                cyconv.set_num_threads(threads)
                cut()
                results = everything(cyconv, case, *(array.astype(dtype) for array in given))
                assert {result.dtype for result in results} == {np.dtype(dtype)}
                assert_same(results, expected, case, dtype, threads)
    # The cuts that are meant did occur: what is not reached is not checked.
    assert len(cut_into) == 10
    for several, calls in cut_into.items():
        assert calls > geometries / 50, several
    figure("random geometries, exact", geometries)


def test_random_poolings_are_exact(count, figure):
    rng = np.random.default_rng(9)
    poolings = count(500, 5_000, 100_000)
    for _ in range(poolings):
        case = reference.random_pool(rng)
        given = reference.pool_arrays(case, rng)
        for dtype in DTYPES:
            arrays = [array.astype(dtype) for array in given]
            expected = pool_everything(naive, case, *arrays)
            for threads in (1, 3):
                cyconv.set_num_threads(threads)
                results = pool_everything(cyconv, case, *arrays)
                assert {result.dtype for result in results} == {np.dtype(dtype)}
                assert_same(results, expected, case, dtype, threads, names=POOLINGS)
    figure("random poolings, exact", poolings)


def test_the_small_box_is_exact_or_refused(count, figure):
    rng = np.random.default_rng(1)
    found = Counter()
    sizes = range(1, 6)
    boxes = itertools.product(sizes, sizes, sizes, sizes, range(3), range(1, 4))
    part = count(7, 1, 1)
    for box in itertools.islice(boxes, 0, None, part):
        H, W, KH, KW, padding, stride = box
        spans = H - KH + 2 * padding, W - KW + 2 * padding
        fits = all(span >= 0 and span % stride == 0 for span in spans)
        outputs = tuple(span // stride + 1 if fits else 1 for span in spans)
        C, F = 1 + found.total() % 4, 1 + found.total() % 17
        case = reference.Case((2, H, W, C), F, (KH, KW), stride, padding, (), outputs)
        given = arrays(case, rng)
        if fits:
            expected = everything(naive, case, *given)
            for dtype, threads in RUNS:
                cyconv.set_num_threads(threads)
                results = everything(cyconv, case, *(array.astype(dtype) for array in given))
                assert_same(results, expected, case, dtype, threads)
        else:
            for module in (cyconv, naive):
                assert_refused(module, case, *given)
        found[fits] += 1
    assert found.total() == -(-(5**4) * 3 * 3 // part)
    figure("small box, exact", found[True])
    figure("small box, refused", found[False])


def assert_refused(module, case, x, cols, weight, bias, dy):
    """Check that all functions name the sizes that leave no whole number of outputs."""
    for call in (
        lambda: module.im2col(x, case.kernel, **case.columns),
        lambda: module.col2im(cols, case.x_shape, case.kernel, **case.columns),
        lambda: module.conv2d(x, weight, bias, **case.geometry),
        lambda: module.conv2d_backward(dy, x, weight, **case.geometry),
    ):
        with pytest.raises(ValueError, match=r"kernel \d.*(is larger than|leaves)"):
            call()


def dot(a, b):
    """Return the sum of products of whole numbers, exact in float64."""
    return (a.astype(np.float64) * b).sum()


def test_adjoint_identities_are_exact(count, figure):
    geometries = count(500, 5_000, 100_000)
    for index, (case, given) in enumerate(problems(geometries, seed=2)):
        x, cols, weight, bias, dy = (array.astype(DTYPES[index % 2]) for array in given)
        columns, image, y, dx, dweight, _ = everything(
            cyconv, case, x, cols, weight, np.zeros_like(bias), dy
        )
        assert dot(columns, cols) == dot(x, image), case
        assert dot(y, dy) == dot(x, dx) == dot(weight, dweight), case
    figure("adjoint identities, exact", geometries)


CUTS = {
    "one image, one row, one accumulator": {"BLOCK_BYTES": 1, "ACCUMULATORS": 1},
    "three images, two accumulators": {"MAX_IMAGES_PER_BLOCK": 3, "ACCUMULATORS": 2},
    "one block": {"BLOCK_BYTES": 2**40, "MAX_IMAGES_PER_BLOCK": 23, "MIN_BLOCKS": 1},
    "every linear layer on its own": {"WHOLE_BATCH_BYTES": 0, "ACCUMULATORS": 2},
    "large weights": {"ACCUMULATOR_BYTES": 1},
    "none on its own": {"WHOLE_BATCH_BYTES": 2**40},
}


@pytest.mark.parametrize("name", ALL_NETWORKS)
@pytest.mark.parametrize("cut", CUTS)
def test_a_training_step_may_be_cut_anywhere(name, cut, monkeypatch):
    for constant, value in CUTS[cut].items():
        monkeypatch.setattr(tuning, constant, value)
    net = network(name)
    x, labels = batch(net, 23)
    expected_loss, _, expected = loss_and_gradients(in_float64(net, name), x / 255, labels)
    bound = relative_error_bound(net, len(x))
    loss = net.train_step(x, labels, Still())
    assert abs(loss - expected_loss) <= bound * max(expected_loss, 1)
    assert_same_gradients(net, expected, bound)
