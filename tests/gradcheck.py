"""Gradients against central differences, in float64."""

import numpy as np

STEP = 1e-5


def check_gradient(loss, array, gradient, name, tolerance=1e-6, most=None, seed=0):
    """Compare `gradient` with the differences of `loss` when `array` is changed in place.

    Parameters
    ----------
    loss : callable
        Returns (value, sides): a number, and on which side of every kink the computation was.
        Where the sides change between two samples, a difference says nothing and is left out.
    array, gradient : ndarray of float64, of one shape
    name : str
        What a failure names.
    most : int, optional
        Coordinates to look at, drawn at random; all of them if it is left out.

    Returns
    -------
    int
        How many coordinates were compared.
    """
    assert array.dtype == np.float64, name
    assert gradient.shape == array.shape, name
    places = np.arange(array.size)
    if most is not None and most < array.size:
        places = np.random.default_rng(seed).choice(places, most, replace=False)
    compared = 0
    for place in places:
        at = np.unravel_index(place, array.shape)
        before = array[at]
        array[at] = before + STEP
        above, sides_above = loss()
        array[at] = before - STEP
        below, sides_below = loss()
        array[at] = before
        if sides_above != sides_below:
            continue
        compared += 1
        numeric, analytic = (above - below) / (2 * STEP), gradient[at]
        error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), 1)
        assert error < tolerance, (
            f"{name}{[int(i) for i in at]}: gradient {analytic:.9g}, but differences of the loss "
            f"({below:.12g}, {above:.12g}) give {numeric:.9g}; relative error {error:.2g}"
        )
    assert compared > 0.9 * len(places), f"{name}: {compared} of {len(places)} away from kinks"
    return compared
