"""Mistakes in labels, wherever they are an argument, and in what the loss takes beside them."""

import numpy as np
import pytest

from cyconv.losses import cross_entropy
from tests.errors.mistakes import LABELLED, LABELS, ones, raises

NOT_LABELS = {  # for two samples of ten classes: labels, the error and what its text must say
    "float": ([1.0, 2.0], ValueError, "must be integers, got float64", "astype(np.int64)"),
    "float32": (np.array([1, 2], np.float32), ValueError, "must be integers, got float32"),
    "negative": ([3, -1], ValueError, "from 0 to 9, got -1 at index 1"),
    "too large": ([10, 11], ValueError, "from 0 to 9, got 10 at index 0"),
    "too large for an int64": (
        np.array([0, 2**64 - 1], np.uint64),
        ValueError,
        f"got {2**64 - 1} at index 1",
    ),
    "too large for any integer": ([0, 10**30], (TypeError, ValueError), "labels"),
    "too few": ([1], ValueError, "must have shape (2,)", "got (1,)"),
    "too many": ([1, 2, 3], ValueError, "must have shape (2,)", "got (3,)"),
    "one-hot": (np.eye(10, dtype=int)[:2], ValueError, "must have shape (2,)", "got (2, 10)"),
    "a column": ([[1], [2]], ValueError, "must have shape (2,)", "got (2, 1)"),
    "a number": (1, ValueError, "must have shape (2,)", "got ()"),
    "None": (None, TypeError, "must be an array of integers, got NoneType"),
    "strings": (["1", "2"], TypeError, "integers, got str; use labels.astype(np.int64)"),
    "bytes": ([b"1", b"2"], TypeError, "integers, got bytes; use labels.astype(np.int64)"),
    "object": (np.array([1, 2], object), TypeError, "got object; use labels.astype(np.int64)"),
    "bool": ([True, False], TypeError, "integers, got bool; use labels.astype(np.int64)"),
    "complex": ([1j, 2j], TypeError, "must be an array of integers, got complex128"),
    "masked": (np.ma.masked_array([1, 2], False), TypeError, "masked array"),
    "ragged": ([[1], [2, 3]], (TypeError, ValueError), "labels"),
}


@pytest.mark.parametrize("who", LABELLED)
@pytest.mark.parametrize("kind", NOT_LABELS)
def test_what_is_not_a_label_for_each_sample(who, kind):
    labels, error, *pieces = NOT_LABELS[kind]
    with raises(error, f"{who}: labels", *pieces):
        LABELLED[who](labels=labels)


def test_shape_of_logits():
    text = "cross_entropy: logits must have shape (N, classes)"
    with raises(ValueError, text, "got (2, 5, 5)"):
        cross_entropy(ones(2, 5, 5), LABELS)


def test_logits_of_no_classes():
    with raises(ValueError, "cross_entropy: labels"):
        cross_entropy(ones(2, 0), [0, 0])


def test_logits_of_no_samples():
    with raises(ValueError, "cross_entropy: the mean of no losses"):
        cross_entropy(ones(0, 3), np.zeros(0, int))
