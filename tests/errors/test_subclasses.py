"""A subclass that changes what `build` says, and inherits operations on sizes of their own."""

import numpy as np
import pytest

from cyconv import Network
from cyconv.initializers import ones
from cyconv.layers import BatchNorm, Conv2D, Dropout, Flatten, Linear, Residual, Softmax
from cyconv.optimizers import SGD
from tests.errors.mistakes import raises
from tests.zoo import BY_KIND

READ = {  # what an operation reads of a layer's arrays
    "Conv2D": ("weight", "bias"),
    "Conv1D": ("weight",),
    "Linear": ("weight", "bias"),
    "BatchNorm": ("weight", "bias", "running_mean", "running_var"),
}
PASSES = {
    "forward": lambda net, x: net.forward(x),
    "training": lambda net, x: net.forward(x, training=True),
    "predict_proba": lambda net, x: net.predict_proba(x),
    "train_step": lambda net, x: net.train_step(x, np.zeros(len(x), int), SGD(0.1)),
}


def changed(kind, build):
    """Return a layer of the table whose class has another `build`."""
    layer = BY_KIND[kind].make()
    return type("Changed", (type(layer),), {"build": build})(**layer.config)


def refused(layer, input_shape, text):
    """See each kind of pass refused, and the layer's own."""
    net = Network([layer, Flatten(), Linear(2), Softmax()], input_shape)
    x = np.ones((3, *input_shape), np.float32)
    for each in PASSES.values():
        with raises(ValueError, f"{type(layer).__name__} '0': its operations {text}"):
            each(net, x)


@pytest.mark.parametrize("factor", (0, 2))
@pytest.mark.parametrize("kind", [name for name in BY_KIND if name not in ("Square", "Gain")])
def test_an_output_that_the_operations_do_not_make(kind, factor):
    row = BY_KIND[kind]

    def build(self, shape):
        first, *others = type(self).__base__.build(self, shape)
        return factor * first + 1, *others

    refused(changed(kind, build), row.input_shape, "do not make the output (N, ")


@pytest.mark.parametrize("kind", ("Conv2D", "MaxPool2D", "AvgPool2D", "GlobalAvgPool2D", "Im2Col"))
def test_an_input_that_is_not_what_comes_in(kind):
    def build(self, shape):
        return type(self).__base__.build(self, (shape[0] + 2, *shape[1:]))

    layer = changed(kind, build)
    refused(layer, BY_KIND[kind].input_shape[:1] * 2 + (2,), "do not make the output (N, ")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in READ for name in READ[kind]])
@pytest.mark.parametrize("more", (-1, 1))
def test_an_array_that_is_not_as_long_as_the_operations_read(kind, name, more):
    def build(self, shape):
        output = type(self).__base__.build(self, shape)
        sizes = self.parameter_shapes | self.state_shapes
        size = int(np.prod(sizes[name])) + more
        self.declare(name, (size,), ones, trained=name in self.parameter_shapes)
        return output

    row = BY_KIND[kind]
    size = {"running_mean": "5", "running_var": "5"}.get(name, "")
    refused(changed(kind, build), row.input_shape, f"read {size}")


def test_an_array_that_is_not_declared():
    class Bare(Linear):
        def build(self, shape):
            return (self.out_features,)

    refused(Bare(3), (4,), "read 12 numbers of weight, build declares 0; define operations as")


def test_a_softmax_at_the_end_that_promises_more_classes():
    class More(Softmax):
        def build(self, shape):
            return (1000,)

    net = Network([Linear(3), More()], (4,))
    with raises(ValueError, "Network: its operations do not make the output (N, 1000)"):
        net.train_step(np.ones((2, 4), np.float32), [0, 999], SGD(0.1))


@pytest.mark.parametrize("size", ("OH", "OW"))
def test_windows_beyond_the_image(size):
    class Beyond(Conv2D):
        def build(self, shape):
            super().build(shape)
            more = {size: getattr(self.geometry, size) + 1}
            self.geometry = self.geometry._replace(**more)
            return self.geometry.OH, self.geometry.OW, self.out_channels

    refused(Beyond(2, 3, padding=1), (5, 6, 2), "do not make the output (N, ")


@pytest.mark.parametrize("returned", (None, 99, -1))
def test_operations_that_return_no_buffer(returned):
    class Nowhere(Dropout):
        def operations(self, program, x):
            return returned

    refused(Nowhere(), (4,), "do not make the output (N, 4)")


def test_a_build_that_keeps_to_the_sizes_is_run():
    class Ones(Conv2D):
        def build(self, shape):
            output = super().build(shape)
            self.declare("weight", self.parameter_shapes["weight"], ones)
            self.declare("unused", (7,), ones)
            return tuple(output)

    class Own(Conv2D):
        def build(self, shape):
            output = super().build(shape)
            self.declare("bias", (self.out_channels,), ones)
            return output

    class Block(Residual):
        def build(self, shape):
            self.entered = shape
            return super().build(shape)

    class Named(BatchNorm):
        def build(self, shape):
            return super().build(tuple(shape))

    layers = [Block([Ones(1, 3, padding=1), Named()]), Own(2, 2, bias=False), Flatten(), Softmax()]
    net = Network(layers, (3, 3, 1))
    x = np.ones((2, 3, 3, 1), np.float32)
    np.testing.assert_allclose(net.forward(x), net.predict_proba(x), rtol=1e-5)
    assert net.layers[0].body[0].forward(x)[0, 1, 1, 0] == 9
    before = net.parameters()["1.bias"].copy()
    net.train_step(x, [1, 1], SGD(0.1))
    assert not np.array_equal(before, net.parameters()["1.bias"])
