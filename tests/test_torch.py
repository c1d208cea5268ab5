"""The same training as PyTorch's, in the same process."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest

import cyconv
from tests.torch_twins import describe, give, take, twin, without_dropout
from tests.zoo import batch, network

torch = pytest.importorskip("torch")

STEPS, BATCH = 20, 16


class Row(NamedTuple):
    """A preset's images, and how near float32 stays to PyTorch's with which learning rates."""

    input_shape: tuple[int, int, int]
    adam: float
    sgd: float
    tolerance: float


# Where rounding moves a number past the kink of a ReLU or turns a maximum, float32 leaves float64,
# cyconv's and PyTorch's alike; batch normalisation hands this on to all images. The more layers,
# the smaller the steps that keep it small. In float64 all presets agree at usual rates.
PRESETS = {
    "exercise": Row((28, 28, 1), 1e-3, 1e-2, 1e-4),
    "wide": Row((28, 28, 1), 1e-4, 1e-3, 1e-4),
    "lenet5": Row((28, 28, 1), 1e-4, 1e-3, 1e-4),
    "mnist_convnet": Row((28, 28, 1), 1e-4, 1e-3, 1e-4),
    "vgg_small": Row((16, 16, 3), 1e-5, 1e-5, 2e-3),
    "resnet8": Row((16, 16, 3), 1e-5, 1e-4, 2e-3),
    "resnet20": Row((16, 16, 3), 1e-5, 1e-5, 2e-3),
}
EXACT = Row((), 1e-3, 1e-2, 1e-7)  # in float64
OPTIMIZERS = {
    "adam": (cyconv.Adam, torch.optim.Adam, {}),
    "sgd": (cyconv.SGD, torch.optim.SGD, {"momentum": 0.9}),
}


def digits(input_shape):
    """Return the middle of the embedded digits; colours are a digit and its mirror images."""
    H, W, C = input_shape
    (x, labels), _ = cyconv.datasets.load_digits()
    top, left = (28 - H) // 2, (28 - W) // 2
    x = x[: STEPS * BATCH].reshape(-1, 28, 28)[:, top : top + H, left : left + W]
    x = np.stack([x, x[:, ::-1], x[:, :, ::-1]][:C], axis=-1)
    return x, labels[: STEPS * BATCH]


def cancelled(layers):
    """Return the names of the biases that a batch normalisation takes away again.

    Their gradients are zero but for rounding, which Adam turns into full steps.
    """
    names = {
        f"{layer['name']}.bias"
        for layer, after in itertools.pairwise(layers)
        if (layer["kind"], after["kind"]) == ("Conv2D", "BatchNorm")
    }
    for layer in layers:
        names |= cancelled(layer["body"]) | cancelled(layer["shortcut"])
    return names


def assert_near(measured, expected, tolerance):
    """Raise unless each array is near, beside its largest element, or a bias beside its weight."""
    for name, array in measured.items():
        largest = np.abs(expected[name]).max()
        if name.endswith("bias"):  # it starts from zero
            largest = max(largest, np.abs(expected[name.removesuffix("bias") + "weight"]).max())
        np.testing.assert_allclose(
            array, expected[name], rtol=0, atol=tolerance * largest, err_msg=name
        )


def train_both(net, x, labels, optimizer, row):
    """Train a network and its twin; raise unless losses, parameters and statistics agree."""
    net = without_dropout(net)
    layers, dtype = describe(net), next(iter(net.parameters().values())).dtype
    x, labels = x.astype(dtype) / dtype.type(255), labels.astype(np.int64)
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    model = twin(layers).to(images.dtype)
    give(model, layers, net.parameters() | net.state())
    ours, theirs, options = OPTIMIZERS[optimizer]
    rate = getattr(row, optimizer)
    ours, theirs = ours(rate, **options), theirs(model.parameters(), rate, **options)
    measured, expected = [], []
    for first in range(0, len(x), BATCH):
        picked = slice(first, first + BATCH)
        measured.append(net.train_step(x[picked], labels[picked], ours))
        theirs.zero_grad()
        answers = torch.from_numpy(labels[picked])
        loss = torch.nn.functional.cross_entropy(model(images[picked]), answers)
        loss.backward()
        theirs.step()
        expected.append(loss.item())
    np.testing.assert_allclose(measured, expected, rtol=row.tolerance)
    arrays = net.parameters() | net.state()
    kept = {name: array for name, array in arrays.items() if name not in cancelled(layers)}
    assert_near(kept, take(model, layers), row.tolerance)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_20_steps(preset, optimizer, dtype):
    row = PRESETS[preset]
    net = getattr(cyconv.presets, preset)(seed=2, dtype=dtype, input_shape=row.input_shape)
    train_both(net, *digits(row.input_shape), optimizer, row if dtype == "float32" else EXACT)


@pytest.mark.parametrize(
    "name", ("pooling", "batch normalisation", "depthwise and separable", "residual")
)
def test_layers_that_no_preset_has(name):
    net = network(name, dtype="float64")
    train_both(net, *batch(net, STEPS * BATCH), "adam", EXACT)


def test_a_torch_tensor_is_an_array():
    x = torch.arange(2.0 * 5 * 5).reshape(2, 5, 5, 1)
    np.testing.assert_array_equal(cyconv.im2col(x, 3), cyconv.im2col(x.numpy(), 3))
