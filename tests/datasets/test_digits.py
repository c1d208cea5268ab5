"""The digits of the package are the published ones, scaled as MNIST's are."""

from pathlib import Path

import numpy as np
import pytest

from cyconv import datasets
from cyconv.datasets import load_digits


@pytest.fixture(scope="module")
def small():
    """Return the file as it is: (images, labels)."""
    with np.load(Path(datasets.__file__).with_name("digits.npz"), allow_pickle=False) as file:
        return file["images"], file["labels"]


def test_shapes_types_and_split():
    (x_train, y_train), (x_test, y_test) = load_digits()
    arrays = [x_train, y_train, x_test, y_test]
    assert [array.shape for array in arrays] == [(1500, 28, 28), (1500,), (297, 28, 28), (297,)]
    for array in arrays:
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous


def test_labels_are_counted_as_published():
    (_, y_train), (_, y_test) = load_digits()
    counts = np.bincount(np.concatenate([y_train, y_test]))
    published = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # optdigits.names, testing set
    assert counts.tolist() == published


def test_the_file_is_the_set_that_scikit_learn_has(small):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    theirs = sklearn_datasets.load_digits()
    np.testing.assert_array_equal(small[0], theirs.images)
    np.testing.assert_array_equal(small[1], theirs.target)


def test_scaling_is_bilinear_into_the_middle(small):
    (x_train, _), (x_test, _) = load_digits()
    images = np.concatenate([x_train, x_test])
    at = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    for image, original in list(zip(images, small[0], strict=True))[::60]:
        rows = np.array([np.interp(at, np.arange(8), row) for row in original])
        expected = np.array([np.interp(at, np.arange(8), column) for column in rows.T]).T
        assert abs(image[4:24, 4:24] - expected * 255 / 16).max() <= 0.5 + 1e-9
    assert images.max() == 255
    border = np.ones((28, 28), bool)
    border[4:24, 4:24] = False
    assert not images[:, border].any()


def test_a_caller_may_change_the_arrays():
    load_digits()[0][0][:] = 7
    assert (load_digits()[0][0] != 7).any()
