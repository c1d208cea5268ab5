"""Initial values of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


def zeros(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return zeros of the given shape."""
    return np.zeros(shape)


def ones(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return ones of the given shape."""
    return np.ones(shape)


def xavier_uniform(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return values drawn uniformly from [-a, a] with ``a = sqrt(6 / (fan_in + fan_out))``.

    Glorot & Bengio 2010, equation 16. The last two axes are input and output features; those
    before them are the receptive field, which multiplies both fans as in PyTorch.

    Parameters
    ----------
    shape : (..., in_features, out_features)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of the given shape, float64
    """
    *field, features, filters = shape
    bound = math.sqrt(6 / (math.prod(field) * (features + filters)))
    return rng.uniform(-bound, bound, shape)
