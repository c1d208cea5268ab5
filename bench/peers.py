"""cyconv and PyTorch as workers: what a case of a comparison does on either side.

Each works in a process of its own. A method of a side named like a kind of case does one, leaves
what is to be timed in `task`, and returns its result, which `check` compares.
"""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np
from harness import describe, give, seconds_each, twin, without_dropout

STILL = 1e-7  # learning rate of timed steps: thousands on one batch must not fit it
CHECKED_STEPS = 5
MEMORY_STEPS = 20


def images(batch, shape=(28, 28, 1)):
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((batch, *shape), np.float32), rng.integers(0, 10, batch)


def learning_rate(kinds):
    """Return the rate of the checked steps of a network with these kinds of layers.

    Where rounding moves a number past the kink of a ReLU, batch normalisation hands this on to the
    whole batch: at 1e-3 the fourth losses of vgg_small, batch 64, differ by 0.5 %.
    """
    return 1e-5 if "BatchNorm" in kinds else 1e-3


def convolution_data(shape, filters, stride, padding, absolute):
    """Return random x, w, b, dy, or their absolute values."""
    (N, H, W, _), (KH, KW, _, F) = shape, filters
    OH, OW = (H - KH + 2 * padding) // stride + 1, (W - KW + 2 * padding) // stride + 1
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, np.float32) for s in (shape, filters, (F,), (N, OH, OW, F))]
    return [np.abs(array) for array in arrays] if absolute else arrays


class Side:
    """One package in a process of its own; a case's method sets `task` and returns its result."""

    def time(self, iterations):
        """Return the seconds that the task takes."""
        return seconds_each(self.task, iterations)

    def memory(self, *case):
        """Return the peak of resident memory in MB, before and after training."""
        before = peak_memory()
        self.step(*case)
        for _ in range(MEMORY_STEPS - CHECKED_STEPS):
            self.task()
        return before, peak_memory()


def peak_memory():
    """Return this process's peak of resident memory in MB."""
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Cyconv(Side):
    """cyconv's side."""

    def __init__(self, threads):
        import cyconv

        cyconv.set_num_threads(threads)
        self.cyconv = cyconv

    def about(self):
        """Return the versions, and the processor that OpenBLAS works for."""
        import threadpoolctl

        blas = {each.get("architecture") for each in threadpoolctl.threadpool_info()} - {None}
        return f"cyconv {self.cyconv.__version__}, BLAS for {' and '.join(sorted(blas))}"

    def network(self, preset):
        """Return a description of the preset, from which its PyTorch twin is made."""
        net = self._preset(preset)
        return net.input_shape, describe(net)

    def weights(self, preset):
        """Return the preset's initial parameters and state by name."""
        net = self._preset(preset)
        return {**net.parameters(), **net.state()}

    def _preset(self, name):
        return getattr(self.cyconv.presets, name)()

    def step(self, preset, batch):
        """Train on one batch, without dropout; return the losses. What is timed has dropout."""
        net = checked = self._preset(preset)
        kinds = [type(layer).__name__ for layer in net.layers]
        if "Dropout" in kinds:
            checked = without_dropout(net)
        adam = self.cyconv.Adam(learning_rate(kinds))
        x, labels = images(batch, net.input_shape)
        losses = [checked.train_step(x, labels, adam) for _ in range(CHECKED_STEPS)]
        adam.learning_rate = STILL
        if net is not checked:
            adam = self.cyconv.Adam(STILL)
        self.task = partial(net.train_step, x, labels, adam)
        return losses

    def predict(self, preset, batch):
        """Predict the labels of one batch."""
        net = self._preset(preset)
        self.task = partial(net.predict, images(batch, net.input_shape)[0])
        return self.task()

    def conv(self, shape, filters, stride, padding, backward, absolute=False):
        """Convolve; return y, or y, dx, dw, db."""
        x, w, b, dy = convolution_data(shape, filters, stride, padding, absolute)
        conv2d, conv2d_backward = self.cyconv.conv2d, self.cyconv.conv2d_backward

        def forward():
            return [conv2d(x, w, b, stride, padding)]

        def both():
            y = conv2d(x, w, b, stride, padding)
            return [y, *conv2d_backward(dy, x, w, stride, padding)]

        self.task = both if backward else forward
        return self.task()


class PyTorch(Side):
    """PyTorch's side: eager, channels first, in one of the two memory formats.

    A network is what `Cyconv.network` returned; it keeps PyTorch's initial weights if `weights` is
    None.
    """

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def about(self):
        """Return the version, and the vector units that it uses."""
        return f"PyTorch {self.torch.__version__}, {self.torch.backends.cpu.get_cpu_capability()}"

    def model(self, layers, weights, memory_format):
        """Return the twin of a network up to the logits."""
        model = twin(layers)
        if weights is not None:
            give(model, layers, weights)
        return model.to(memory_format=getattr(self.torch, memory_format))

    def tensor(self, nhwc, memory_format):
        """Return an array of images, or of transposed filters, as a tensor in NCHW order."""
        tensor = self.torch.from_numpy(nhwc).permute(0, 3, 1, 2)
        return tensor.contiguous(memory_format=getattr(self.torch, memory_format))

    def step(self, variant, network, weights, batch):
        """Train on one batch, without dropout; return the losses. What is timed has dropout."""
        memory_format, adam = variant
        shape, layers = network
        model = self.model(layers, weights, memory_format)
        rate = learning_rate([layer["kind"] for layer in layers])
        optimizer = self.torch.optim.Adam(model.parameters(), rate, **{adam: True})
        cross_entropy = self.torch.nn.CrossEntropyLoss()
        x, labels = images(batch, shape)
        x, labels = self.tensor(x, memory_format), self.torch.from_numpy(labels)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        self.task = step
        for module in model.modules():
            if isinstance(module, self.torch.nn.Dropout):
                module.eval()
        losses = [step() for _ in range(CHECKED_STEPS)]
        model.train()
        optimizer.param_groups[0]["lr"] = STILL
        return losses

    def predict(self, variant, network, weights, batch):
        """Predict the labels of one batch."""
        shape, layers = network
        model = self.model(layers, weights, *variant).eval()
        x = self.tensor(images(batch, shape)[0], *variant)

        @self.torch.inference_mode()
        def predict():
            return model(x).argmax(1).numpy()

        self.task = predict
        return predict()

    def conv(self, variant, shape, filters, stride, padding, backward):
        """Convolve; return y, or y, dx, dw, db, in cyconv's order of axes."""
        conv2d, grad = self.torch.nn.functional.conv2d, self.torch.autograd.grad
        x, w, b, dy = convolution_data(shape, filters, stride, padding, absolute=False)
        x, dy = self.tensor(x, *variant), self.tensor(dy, *variant)
        w = self.tensor(w.transpose(3, 0, 1, 2), *variant)
        b = self.torch.from_numpy(b)

        @self.torch.inference_mode()
        def forward():
            return [conv2d(x, w, b, stride, padding)]

        def both():
            y = conv2d(x, w, b, stride, padding)
            return [y, *grad(y, (x, w, b), dy)]

        if backward:
            for leaf in (x, w, b):
                leaf.requires_grad_()
        self.task = both if backward else forward
        y, *gradients = (array.detach().numpy() for array in self.task())
        if not backward:
            return [y.transpose(0, 2, 3, 1)]
        dx, dw, db = gradients
        return [y.transpose(0, 2, 3, 1), dx.transpose(0, 2, 3, 1), dw.transpose(2, 3, 1, 0), db]


def check(case, cyconv, theirs):
    """Raise AssertionError unless cyconv's result of a case equals the other side's."""
    kind, *args = case
    if kind == "conv":
        magnitudes = cyconv.call("conv", *args, True)
    ours = cyconv.call(kind, *args)
    if kind == "step":
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    elif kind == "predict":
        np.testing.assert_array_equal(ours, theirs)
    else:
        # Sums of K products, rounded on both sides: |error| <= c * sums of absolute products.
        (KH, KW, C, F), pixels = args[1], ours[0][..., 0].size
        counts = KH * KW * C, KH * KW * F, pixels, pixels  # of y, dx, dw, db
        for K, a, b, magnitude in zip(counts, ours, theirs, magnitudes, strict=False):
            bound = 2 * 2.0**-24 * min(K + 2, 4 * math.sqrt(K + 2)) * magnitude
            if a.shape != b.shape or (np.abs(a - b) > bound).any():
                raise AssertionError(f"the results of {case} differ")
