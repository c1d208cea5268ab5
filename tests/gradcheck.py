"""Gradients against central differences, in float64."""

import numpy as np

from cyconv.layers import LeakyReLU, MaxPool2D, Residual

STEP = 1e-5


def check_gradient(loss, array, gradient, name, tolerance=1e-6, most=None, seed=0, least=0.9):
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
    least : float
        The share of them that must be away from kinks.

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
    assert compared >= least * len(places), f"{name}: {compared} of {len(places)} away from kinks"
    return compared


def sides_of_kinks(layer, x, **mode):
    """Return a layer's output, and on which side of each kink inside it the computation was."""
    if isinstance(layer, Residual):
        y, sides = 0, b""
        for branch in (layer.body, layer.shortcut):
            out, more = sides_of_chain(branch, x, **mode)
            y, sides = y + out, sides + more
        return y, sides
    y = layer.forward(x, **mode) if layer.is_described else layer.forward(x)
    if isinstance(layer, LeakyReLU):
        return y, (x > 0).tobytes()
    if isinstance(layer, MaxPool2D):
        return y, (layer.backward(np.ones_like(y)) > 0).tobytes()
    return y, b""


def sides_of_chain(layers, x, **mode):
    """Return the output of layers in a row, and the sides of all their kinks."""
    sides = b""
    for layer in layers:
        x, more = sides_of_kinks(layer, x, **mode)
        sides += more
    return x, sides
