"""What tests of networks share: twins in float64, bounds on rounding, the bits of some steps."""

import math
import os

import numpy as np

import cyconv
from cyconv import Adam, Network
from tests import reference
from tests.zoo import batch, network

THREADS = [n for n in (1, 2, 3, 5) if n <= 4 * (os.cpu_count() or 1)]


def in_float64(net, name):
    """Return the same network with the same parameters in float64."""
    twin = network(name, dtype=np.float64)
    for key, parameter in twin.parameters().items():
        parameter[...] = net.parameters()[key]
    return twin


def copies(arrays):
    return {key: array.copy() for key, array in arrays.items()}


def loss_and_gradients(net, x, labels):
    """Return the loss by its definition, and the gradients by `Network.backward`."""
    probabilities = net.forward(x, training=True)
    rows = np.arange(len(x))
    dy = np.zeros_like(probabilities)
    dy[rows, labels] = -1 / (probabilities[rows, labels] * len(x))
    dx = net.backward(dy)
    return -np.log(probabilities[rows, labels]).mean(), dx, copies(net.gradients())


def relative_error_bound(net, images):
    """Return the sum over all products of a step of the bound on a sum of K products.

    Each layer's sums run over its taps forward, over filters and taps for dx, and over the
    batch's pixels for dweight; errors of different layers add up to first order.
    """
    total = 0.0
    for layer in net.layers:
        total += reference.relative_bound(np.float64(layer.output_shape[-1]))
        for parameter in layer.parameters.values():
            taps, F = parameter.size // parameter.shape[-1], parameter.shape[-1]
            pixels = images * math.prod(layer.output_shape[:-1])
            total += reference.relative_bound(np.array([taps, F * taps, pixels], float)).sum()
    return total


def assert_same_gradients(net, expected, bound):
    """Check gradients in float32 against those in float64.

    One that is zero by nature, as that of a bias before a batch normalisation, is a sum that
    cancels: it is held against the whole gradient.
    """
    whole = np.linalg.norm([np.linalg.norm(gradient) for gradient in expected.values()])
    assert net.gradients().keys() == expected.keys()
    for key, gradient in net.gradients().items():
        error = np.linalg.norm(gradient - expected[key])
        scale = max(np.linalg.norm(expected[key]), 0.01 * whole)
        assert error <= bound * scale, f"{key}: {error / scale:.3g} > {bound:.3g}"


def trained(name, steps, images, threads, step=Network.train_step):
    """Return all bits of a network's parameters and losses after some steps."""
    cyconv.set_num_threads(threads)
    net, optimizer = network(name), Adam()
    x, labels = batch(net, images)
    losses = [step(net, x, labels, optimizer) for _ in range(steps)]
    return np.array(losses).tobytes() + net._parameters.tobytes() + net.predict_proba(x).tobytes()
