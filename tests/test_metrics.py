"""The confusion matrix, precision and recall: by hand, by their laws, and against scikit-learn."""

import numpy as np
import pytest

from cyconv.metrics import confusion_matrix, precision_and_recall

LABELS, PREDICTED = [0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 3, 1]
MATRIX = np.array([[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])


@pytest.fixture
def draw():
    """Return (labels, predicted) of 500 images, in which some of 12 classes never occur."""
    random = np.random.default_rng(0)
    return random.integers(0, 9, 500), random.integers(2, 12, 500)


def test_a_row_is_a_truth_and_a_column_a_guess():
    matrix = confusion_matrix(LABELS, PREDICTED, 4)
    assert matrix.dtype == np.int64 and np.array_equal(matrix, MATRIX)


def test_no_images_are_a_matrix_of_zeros():
    assert np.array_equal(confusion_matrix(np.empty(0, int), np.empty(0, int), 2), np.zeros((2, 2)))


def test_precision_and_recall_are_nan_where_there_is_nothing_to_share():
    precision, recall = precision_and_recall(MATRIX)
    np.testing.assert_array_equal(precision, [1, 1 / 3, np.nan, 0])
    np.testing.assert_array_equal(recall, [2 / 3, 1 / 2, np.nan, 0])


def test_turning_the_matrix_swaps_precision_and_recall(draw):
    matrix = confusion_matrix(*draw, 12)
    assert matrix.sum() == 500 and matrix.trace() == np.equal(*draw).sum()
    assert np.array_equal(confusion_matrix(*draw[::-1], 12), matrix.T)
    precision, recall = precision_and_recall(matrix)
    np.testing.assert_array_equal(precision_and_recall(matrix.T), (recall, precision))


def test_scikit_learn_counts_the_same(draw):
    peer = pytest.importorskip("sklearn.metrics")
    matrix, classes = confusion_matrix(*draw, 12), range(12)
    assert np.array_equal(matrix, peer.confusion_matrix(*draw, labels=classes))
    expected = peer.precision_recall_fscore_support(*draw, labels=classes, zero_division=np.nan)
    np.testing.assert_array_equal(precision_and_recall(matrix), expected[:2])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((None, [0], 2), TypeError, "confusion_matrix: labels must be an array of integers"),
        (([0], ["0"], 2), TypeError, "confusion_matrix: predicted"),
        (([0.0], [0], 2), ValueError, "labels must be integers, got float64"),
        (([[0]], [0], 2), ValueError, "labels must have shape (1,)"),
        (([0, 1, 2], [0, 1, 1], 2), ValueError, "labels must be from 0 to 1, got 2 at index 2"),
        (([0, 1], [0, -1], 2), ValueError, "predicted: labels must be from 0 to 1, got -1"),
        (([0, 1], [0], 2), ValueError, "predicted: labels must have shape (2,)"),
        (([], [], 0), ValueError, "confusion_matrix: classes must be at least 1, got 0"),
        (([0], [0], True), TypeError, "confusion_matrix: classes must be an integer, got True"),
    ],
)
def test_what_cannot_be_counted_is_named(arguments, error, text):
    with pytest.raises(error) as raised:
        confusion_matrix(*arguments)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("matrix", "error", "text"),
    [
        (None, TypeError, "matrix must be int64"),
        (np.eye(2), TypeError, "matrix must be int64, got float64; use matrix.astype(np.int64)"),
        (MATRIX[0], ValueError, "matrix must have shape (classes, classes), got (4,)"),
        (MATRIX[:3], ValueError, "matrix must have shape (3, 3), got (3, 4)"),
        (MATRIX[:0, :0], ValueError, "matrix must hold counts of at least one class"),
        (
            -MATRIX,
            ValueError,
            "matrix must hold counts of at least one class, none of them negative",
        ),
    ],
)
def test_what_is_no_confusion_matrix_is_named(matrix, error, text):
    with pytest.raises(error) as raised:
        precision_and_recall(matrix)
    assert str(raised.value).startswith(f"precision_and_recall: {text}")
