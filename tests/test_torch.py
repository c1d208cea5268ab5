"""The same training as PyTorch's, in the same process."""

import numpy as np
import pytest

import cyconv

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - only if there is torch


def exercise():
    return nn.Sequential(
        nn.Conv2d(1, 4, 8, stride=2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(4, 8, 6),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 16, 4),
        nn.LeakyReLU(0.1),
        nn.Conv2d(16, 10, 3),
        nn.Flatten(),
    )


def wide():
    return nn.Sequential(
        nn.Conv2d(1, 32, 6, stride=2, padding=2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(32, 64, 6, stride=2, padding=2),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1024),
        nn.LeakyReLU(0.1),
        nn.Linear(1024, 10),
    )


def give_weights(net, model):
    """Copy parameters: NHWC and (KH, KW, C, F) become NCHW and (F, C, KH, KW)."""
    parameters = list(net.parameters().values())
    layers = [layer for layer in model if isinstance(layer, (nn.Conv2d, nn.Linear))]
    for layer, weight, bias in zip(layers, parameters[::2], parameters[1::2], strict=True):
        if weight.ndim == 4:
            weight = weight.transpose(3, 2, 0, 1)
        elif len(weight) == 7 * 7 * 64:  # its rows follow the order in which images are flattened
            weight = weight.reshape(7, 7, 64, -1).transpose(3, 2, 0, 1).reshape(-1, len(weight))
        else:
            weight = weight.T
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))


@pytest.mark.parametrize("make", (exercise, wide))
def test_the_losses_of_the_first_20_steps_of_adam(make):
    # With other seeds a gradient that is zero but for rounding may turn one of Adam's first steps,
    # which divide it by its own size: there float32 differs from float64 as well.
    net, model = getattr(cyconv.presets, make.__name__)(seed=2), make()
    give_weights(net, model)
    (x, labels), _ = cyconv.datasets.load_digits()
    images = torch.from_numpy(x.astype(np.float32) / 255)[:, None]
    answers = torch.from_numpy(labels.astype(np.int64))
    ours, theirs = cyconv.Adam(1e-3), torch.optim.Adam(model.parameters(), 1e-3)
    measured, expected = [], []
    for step in range(20):
        picked = slice(40 * step, 40 * step + 40)
        measured.append(net.train_step(x[picked], labels[picked], ours))
        theirs.zero_grad()
        loss = nn.functional.cross_entropy(model(images[picked]), answers[picked])
        loss.backward()
        theirs.step()
        expected.append(loss.item())
    np.testing.assert_allclose(measured, expected, rtol=1e-4)
    assert expected[-1] < expected[0]


def test_a_torch_tensor_is_an_array():
    x = torch.arange(2.0 * 5 * 5).reshape(2, 5, 5, 1)
    np.testing.assert_array_equal(cyconv.im2col(x, 3), cyconv.im2col(x.numpy(), 3))
