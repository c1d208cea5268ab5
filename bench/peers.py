"""cyconv and its peers as workers: what a case of a comparison does on each side.

Each works in a process of its own. A case is the name of a method of the sides, the number of
images and further arguments. The method does the case, leaves what is to be timed in `task`, and
returns its result, which `check` compares.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
from harness import (
    Worker,
    describe,
    give,
    interleave,
    print_table,
    seconds_each,
    summary,
    twin,
    without_dropout,
)

STILL = 1e-7  # learning rate of timed steps: thousands on one batch must not fit it
CHECKED_STEPS = 5
MEMORY_STEPS = 20
TRIAL_TURNS = 3  # of each variant of a peer
FORMATS = "contiguous_format", "channels_last"
ADAMS = "foreach", "fused"


def batch(images, shape):
    """Return so many random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((images, *shape), np.float32), rng.integers(0, 10, images)


def learning_rate(kinds):
    """Return the rate of the checked steps of a network with these kinds of layers.

    Where rounding moves a number past the kink of a ReLU, batch normalisation hands this on to the
    whole batch: at 1e-3 the fourth losses of vgg_small, batch 64, differ by 0.5 %.
    """
    return 1e-5 if "BatchNorm" in kinds else 1e-3


def convolution_data(images, image, filters, window, absolute=False):
    """Return random x, w, b, dy, or their absolute values."""
    KH, KW, _, F = filters
    sizes = zip(image, (KH, KW), *map(_pair, (window["stride"], window["padding"])), strict=False)
    output = [(size - K + 2 * padding) // stride + 1 for size, K, stride, padding in sizes]
    return random_arrays((images, *image), filters, (F,), (images, *output, F), absolute=absolute)


def random_arrays(*shapes, absolute=False):
    """Return random arrays, or their absolute values."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, np.float32) for shape in shapes]
    return [np.abs(array) for array in arrays] if absolute else arrays


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def separable(cyconv):
    """Return a network of depthwise-separable layers (Howard et al. 2017) on 32x32x3."""
    layers = cyconv.layers

    def conv(filters, kernel, stride=1, groups=1):
        return [
            layers.Conv2D(
                filters, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False,
                rounding="floor",
            ),
            layers.BatchNorm(),
            layers.ReLU(),
        ]  # fmt: skip

    stack, channels = conv(32, 3), 32
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2)):
        stack += conv(channels, 3, stride, channels) + conv(filters, 1)
        channels = filters
    stack += [layers.GlobalAvgPool2D(), layers.Linear(10), layers.Softmax()]
    return cyconv.Network(stack, (32, 32, 3))


class Side:
    """One package in a process of its own; a case's method sets `task` and returns its result.

    Attributes
    ----------
    name, module : str
        What it is called, and what it is imported as.
    obeys_level : bool
        Whether `harness.LEVELS` hold it to vectors that are shorter than the processor's.
    form : str
        The method of `Cyconv` that returns a network in the form that this side takes.
    variants : dict
        Ways to do a case, by its method, which has one of them as its first argument on all sides
        but cyconv's. A method that is not named has one way, ().
    """

    obeys_level = True
    variants: ClassVar[dict[str, list[tuple]]] = {}

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

    def most_level(self):
        """Return the highest level of vector units that the processor has."""
        from cyconv._core import cpu

        return cpu.LEVEL

    def about(self):
        """Return what the numbers depend on."""
        from cyconv import get_num_threads, measure
        from cyconv.threads import available_cores

        threads = get_num_threads()
        self.limits = measure.limits(threads)
        parts = f"{measure.processor()}, {available_cores()} cores", measure.about(threads)
        rates = [f"{name} {max(self.reached(name) for _ in range(5)) / 1e9:.0f} GFLOP/s"
                 for name in self.limits]  # fmt: skip
        return "; ".join((*parts, f"cyconv {self.cyconv.__version__}", ", ".join(rates)))

    def reached(self, name):
        """Return the operations a second of the peak or of a large sgemm now."""
        return self.limits[name].operations / self.limits[name].run(2)

    def network(self, preset):
        """Return what PyTorch's twin is made of: shape of an image, layers, initial arrays."""
        net = self._preset(preset)
        return net.input_shape, describe(net), {**net.parameters(), **net.state()}

    def onnx(self, preset):
        """Return the shape of an image, and the bytes of the network's ONNX file."""
        from cyconv.export import to_onnx

        net = self._preset(preset)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            to_onnx(net, path)
            return net.input_shape, path.read_bytes()

    def _preset(self, name):
        if name == "separable":
            return separable(self.cyconv)
        return getattr(self.cyconv.presets, name)()

    def operations(self, kind, images, *args):
        """Return the floating-point operations of a case."""
        from cyconv import measure

        if kind in ("step", "predict"):
            of = measure.step_operations if kind == "step" else measure.forward_operations
            return images * of(self._preset(args[0]))
        *sizes, backward = args
        if kind == "linear":
            inputs, outputs = sizes
            sizes = (1, 1, inputs), (1, 1, inputs, outputs), {}
        image, filters, window = sizes
        one = measure.Convolution(image, filters, **window).operations
        return images * one * (3 if backward else 1)

    def step(self, images, preset):
        """Train on one batch, without dropout; return the losses. What is timed has dropout."""
        net = checked = self._preset(preset)
        kinds = [type(layer).__name__ for layer in net.layers]
        if "Dropout" in kinds:
            checked = without_dropout(net)
        adam = self.cyconv.Adam(learning_rate(kinds))
        x, labels = batch(images, net.input_shape)
        losses = [checked.train_step(x, labels, adam) for _ in range(CHECKED_STEPS)]
        adam.learning_rate = STILL
        if net is not checked:
            adam = self.cyconv.Adam(STILL)
        self.task = partial(net.train_step, x, labels, adam)
        return losses

    def predict(self, images, preset):
        """Predict the labels of one batch, with memory that is ready, as the runtimes have it."""
        net = self._preset(preset)
        self.task = partial(net.predictor(images), batch(images, net.input_shape)[0])
        return self.task()

    def conv(self, images, image, filters, window, backward, absolute=False):
        """Convolve; return y, or y, dx, dw, db."""
        x, w, b, dy = convolution_data(images, image, filters, window, absolute)
        conv2d, conv2d_backward = self.cyconv.conv2d, self.cyconv.conv2d_backward

        def forward():
            return [conv2d(x, w, b, **window)]

        def both():
            y = conv2d(x, w, b, **window)
            return [y, *conv2d_backward(dy, x, w, **window)]

        self.task = both if backward else forward
        return self.task()

    def linear(self, images, inputs, outputs, backward, absolute=False):
        """Let a network of one linear layer compute; return y, or y, dx, dw, db."""
        x, w, b, dy = linear_data(images, inputs, outputs, absolute)
        net = self.cyconv.Network([self.cyconv.layers.Linear(outputs)], (inputs,))
        for array, value in zip(net.parameters().values(), (w, b), strict=True):
            array[...] = value

        def forward():
            return [net.forward(x)]

        def both():
            return [net.forward(x), net.backward(dy), *net.gradients().values()]

        self.task = both if backward else forward
        return self.task()


class PyTorch(Side):
    """PyTorch's side: eager, channels first, in one of the two memory formats.

    A network is what `Cyconv.network` returned; it keeps PyTorch's initial weights if it has no
    arrays.
    """

    name, module, form = "PyTorch", "torch", "network"
    variants: ClassVar = {
        "step": list(product(FORMATS, ADAMS)),
        "memory": list(product(FORMATS, ["fused"])),  # foreach holds copies
        "predict": list(product(FORMATS)),
        "conv": list(product(FORMATS)),
    }

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def about(self):
        """Return the version, and the vector units that it uses."""
        return f"PyTorch {self.torch.__version__}, {self.torch.backends.cpu.get_cpu_capability()}"

    def model(self, layers, arrays, memory_format):
        """Return the twin of a network up to the logits."""
        model = twin(layers)
        if arrays:
            give(model, layers, arrays)
        return model.to(memory_format=getattr(self.torch, memory_format))

    def tensor(self, nhwc, memory_format):
        """Return an array of images, or of transposed filters, as a tensor in NCHW order."""
        tensor = self.torch.from_numpy(nhwc).permute(0, 3, 1, 2)
        return tensor.contiguous(memory_format=getattr(self.torch, memory_format))

    def step(self, variant, images, network):
        """Train on one batch, without dropout; return the losses. What is timed has dropout."""
        memory_format, adam = variant
        shape, layers, arrays = network
        model = self.model(layers, arrays, memory_format)
        rate = learning_rate([layer["kind"] for layer in layers])
        optimizer = self.torch.optim.Adam(model.parameters(), rate, **{adam: True})
        cross_entropy = self.torch.nn.CrossEntropyLoss()
        x, labels = batch(images, shape)
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

    def predict(self, variant, images, network):
        """Predict the labels of one batch."""
        shape, layers, arrays = network
        model = self.model(layers, arrays, *variant).eval()
        x = self.tensor(batch(images, shape)[0], *variant)

        @self.torch.inference_mode()
        def predict():
            return model(x).argmax(1).numpy()

        self.task = predict
        return predict()

    def conv(self, variant, images, image, filters, window, backward):
        """Convolve; return y, or y, dx, dw, db, in cyconv's order of axes."""
        grad, window = self.torch.autograd.grad, {**window}
        del window["rounding"]  # it always rounds down
        conv2d = partial(self.torch.nn.functional.conv2d, **window)
        x, w, b, dy = convolution_data(images, image, filters, window)
        x, dy = self.tensor(x, *variant), self.tensor(dy, *variant)
        w = self.tensor(w.transpose(3, 0, 1, 2), *variant)
        b = self.torch.from_numpy(b)

        @self.torch.inference_mode()
        def forward():
            return [conv2d(x, w, b)]

        def both():
            y = conv2d(x, w, b)
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

    def linear(self, variant, images, inputs, outputs, backward):
        """Let a linear layer compute; return y, or y, dx, dw, db, in cyconv's order of axes."""
        torch = self.torch
        x, w, b, dy = map(torch.from_numpy, linear_data(images, inputs, outputs))
        layer = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(w.T), layer.bias.copy_(b)
        x.requires_grad_(backward)

        @torch.inference_mode()
        def forward():
            return [layer(x)]

        def both():
            y = layer(x)
            return [y, *torch.autograd.grad(y, (x, layer.weight, layer.bias), dy)]

        self.task = both if backward else forward
        y, *gradients = (array.detach().numpy() for array in self.task())
        if not backward:
            return [y]
        dx, dw, db = gradients
        return [y, dx, dw.T, db]


class OnnxRuntime(Side):
    """ONNX Runtime, on the file that cyconv exports."""

    name, module, form = "ONNX Runtime", "onnxruntime", "onnx"
    obeys_level = False

    def __init__(self, threads):
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads

    def about(self):
        """Return the version."""
        return f"ONNX Runtime {self.onnxruntime.__version__}"

    def predict(self, variant, images, network):
        """Predict the labels of one batch."""
        shape, file = network
        session = self.onnxruntime.InferenceSession(
            file, self.options, providers=["CPUExecutionProvider"]
        )
        x = {"input": batch(images, shape)[0]}
        self.task = lambda: session.run(None, x)[0].argmax(axis=1)
        return self.task()


class OpenVINO(Side):
    """OpenVINO, on the file that cyconv exports, compiled for the size of the batch."""

    name, module, form = "OpenVINO", "openvino", "onnx"

    def __init__(self, threads):
        import openvino

        self.core = openvino.Core()
        self.version = openvino.__version__.split("-")[0]
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",  # all threads at one batch
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def about(self):
        """Return the version."""
        return f"OpenVINO {self.version}"

    def predict(self, variant, images, network):
        """Predict the labels of one batch."""
        shape, file = network
        x = batch(images, shape)[0]
        model = self.core.read_model(file)
        model.reshape(list(x.shape))
        request = self.core.compile_model(model, "CPU", self.options).create_infer_request()
        share = {"share_inputs": True, "share_outputs": True}
        self.task = lambda: request.infer([x], **share)[0].argmax(axis=1)
        return self.task()


def linear_data(images, inputs, outputs, absolute=False):
    """Return random x, w, b, dy, or their absolute values."""
    shapes = (images, inputs), (inputs, outputs), (outputs,), (images, outputs)
    return random_arrays(*shapes, absolute=absolute)


def check(case, cyconv, theirs):
    """Raise AssertionError unless cyconv's result of a case equals the other side's."""
    kind, _, *args = case
    products = kind in ("conv", "linear")
    if products:
        magnitudes = cyconv.call(*case, True)
    ours = cyconv.call(*case)
    if kind == "step":
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    elif kind == "predict":
        np.testing.assert_array_equal(ours, theirs)
    else:
        # Sums of K products, rounded on both sides: |error| <= c * sums of absolute products.
        pixels = ours[0][..., 0].size
        if kind == "conv":
            KH, KW, C, F = args[1]
            inputs, outputs = KH * KW * C, KH * KW * F // args[2].get("groups", 1)
        else:
            inputs, outputs = args[:2]
        counts = inputs, outputs, pixels, pixels  # of y, dx, dw, db
        for K, a, b, magnitude in zip(counts, ours, theirs, magnitudes, strict=False):
            bound = 2 * 2.0**-24 * min(K + 2, 4 * math.sqrt(K + 2)) * magnitude
            if a.shape != b.shape or not (np.abs(a - b) <= bound).all():
                raise AssertionError(f"the results of {case} differ")


def compare(cases, options, sides, beside=()):
    """Check and time the cases, print the table, and return what it depends on and the records.

    Parameters
    ----------
    options
        What `harness.begin` returned.
    sides : sequence of type
        The fastest of these that are there counts: the ratio is its time over cyconv's.
    beside : sequence of type
        Others that are shown, and count only if there are no `sides`.
    """
    cyconv, install = Worker(Cyconv, options.threads), "python -m pip install -e '.[bench]'"
    lower = options.level not in (None, cyconv.call("most_level"))
    there, left_out = [], []
    for side in (*sides, *beside):
        if not importlib.util.find_spec(side.module):
            left_out.append(f"{side.name} is not installed and is left out: {install}")
        elif lower and not side.obeys_level:
            left_out.append(f"{side.name} cannot be held to {options.level} and is left out")
        else:
            there.append(side)
    if not there:
        sys.exit("\n".join(left_out))
    peers = {side: Worker(side, options.threads) for side in there}
    # cyconv's last: it measures limits, and an import beside it would take part of the processor.
    theirs = [worker.call("about") for worker in peers.values()]
    about = "; ".join((cyconv.call("about"), *theirs))
    print("\n".join([about, *left_out]))
    judges = [side for side in there if side in sides] or there
    names = " or ".join(side.name for side in judges)
    print(f"ratio: time of {names}{', the faster,' * (len(judges) > 1)} over cyconv's", flush=True)

    def measure(case):
        return _measure(case, cyconv, peers, judges, options)

    columns = {
        **{f"{side.name} ms": f"{{{side.name} ms:.3f}}" for side in there},
        "cyconv ms": "{cyconv ms:.3f}",
        "images/s": "{images_per_second:,.0f}",
        "of peak": "{share_of_peak:.0%}",
        "ratio": "{ratio:.2f}",
        "quartiles": "{low:.2f} - {high:.2f}",
        "against": "{against}",
    }
    records = print_table(cases, measure, columns)
    print(summary(records))
    return about, records


def _measure(case, cyconv, peers, judges, options):
    """Return the record of a case, once all results are the same."""
    kind, images, *args = case
    variants, shares, operations = {}, [], cyconv.call("operations", *case)
    for side, worker in peers.items():
        theirs = (cyconv.call(side.form, *args),) if kind in ("step", "predict") else args

        def trial(variant, worker=worker, theirs=theirs):
            try:
                worker.call(kind, variant, images, *theirs)
            except RuntimeError:  # some convolutions make PyTorch fail, or end, in one layout
                return math.inf
            run = partial(worker.call, "time")
            return np.median(interleave([run], TRIAL_TURNS, options.seconds / 2))

        ways = side.variants.get(kind, [()])
        variants[side] = min(ways, key=trial) if len(ways) > 1 else ways[0]
        check(case, cyconv, worker.call(kind, variants[side], images, *theirs))

    def run_cyconv(iterations):
        seconds = cyconv.call("time", iterations)
        shares.append(operations / seconds / cyconv.call("reached", "peak"))
        return seconds

    runs = [*(partial(worker.call, "time") for worker in peers.values()), run_cyconv]
    *times, ours = interleave(runs, options.turns, options.seconds).T
    times = dict(zip(peers, times, strict=True))
    fastest = min(judges, key=lambda side: np.median(times[side]))
    low, ratio, high = np.quantile(times[fastest] / ours, [0.25, 0.5, 0.75])
    seconds = np.median(ours)
    return {
        **{f"{side.name} ms": 1e3 * np.median(each) for side, each in times.items()},
        "cyconv ms": 1e3 * seconds,
        "images_per_second": images / seconds,
        "share_of_peak": np.median(shares[-options.turns :]),
        "ratio": ratio,
        "low": low,
        "high": high,
        "against": " ".join((fastest.name, *variants[fastest])),
    }
