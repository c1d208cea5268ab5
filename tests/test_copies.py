"""Copies of layers: arrays of their own, the same results, and no pass under way."""

import copy
import pickle

import numpy as np
import pytest

from cyconv import Network
from tests.zoo import LAYERS, network

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("row", LAYERS)
def test_a_layer_that_was_used_and_its_copy_are_two(row, how):
    layer, shape = LAYERS[row].make(), LAYERS[row].input_shape
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    layer.enter(x)  # which builds a user's layer too
    y = layer.forward(x)
    twin = COPIES[how](layer)
    np.testing.assert_array_equal(twin.forward(x), y)
    np.testing.assert_array_equal(twin.backward(y), layer.backward(y))
    for name, gradient in layer.gradients.items():
        np.testing.assert_array_equal(twin.gradients[name], gradient)
    for array in (twin.parameters | twin.state).values():
        array += 1  # these are what it computes with, and nobody else's
    np.testing.assert_array_equal(layer.forward(x), y)
    if twin.parameters:
        assert not np.array_equal(twin.forward(x), y)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_has_no_pass_under_way(how):
    layer = LAYERS["Linear"].make()
    y = layer.forward(np.ones((2, 11), np.float32))
    with pytest.raises(RuntimeError, match="Linear: backward needs a forward before it"):
        COPIES[how](layer).backward(y)


@pytest.mark.parametrize("how", COPIES)
def test_a_layer_of_a_network_is_copied_out_of_it(how):
    net = network("residual")
    twin = COPIES[how](net.layers[3])
    x = np.random.default_rng(0).random((2, *twin.input_shape), np.float32)
    np.testing.assert_array_equal(twin.forward(x), net.layers[3].forward(x))
    assert twin.parameters["body.0.weight"].size and not np.shares_memory(
        twin.parameters["body.0.weight"], net._parameters
    )
    with pytest.raises(ValueError, match="Residual '3': this layer is part of a network already"):
        Network([twin], twin.input_shape)


def test_a_shallow_copy_shares_the_arrays():
    layer = LAYERS["Linear"].make()
    layer.forward(np.ones((2, 11), np.float32))
    assert copy.copy(layer).parameters["weight"] is layer.parameters["weight"]
