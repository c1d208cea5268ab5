"""Initial values of parameters."""

from __future__ import annotations

import math

import numpy as np


def zeros(shape, rng: np.random.Generator) -> np.ndarray:
    """Return zeros of the given shape."""
    return np.zeros(shape)


def xavier_uniform(shape, rng: np.random.Generator) -> np.ndarray:
    """Return values drawn uniformly from [-a, a] with ``a = sqrt(6 / (fan_in + fan_out))``.

    Glorot & Bengio 2010, equation 16, for the matrix that the product sees: a filter bank
    (KH, KW, C, F) has KH*KW*C inputs and F outputs.

    Parameters
    ----------
    shape : (..., F)
        All axes but the last are inputs.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of the given shape, float64
    """
    bound = math.sqrt(6 / (math.prod(shape[:-1]) + shape[-1]))
    return rng.uniform(-bound, bound, shape)
