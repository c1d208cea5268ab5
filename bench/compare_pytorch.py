"""How fast is cyconv beside PyTorch on the CPU?

Training steps, prediction, single convolutions (with dx), and the peak memory of a training
process. Each side works in its own process, and they take turns, one at a time. Before a case is
timed, both sides must agree: losses of five Adam steps, labels, or outputs and gradients, from the
same weights and data. PyTorch runs each case in every variant below, and its fastest counts.

Times are medians of the turns; the ratio, PyTorch over cyconv, is the median of the ratios of
neighbouring turns: above 1, cyconv is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from functools import partial
from itertools import product

import numpy as np
from harness import Worker, interleave, print_row, seconds_each

FORMATS = "contiguous_format", "channels_last"
ADAMS = "foreach", "fused"
VARIANTS = {
    "step": list(product(FORMATS, ADAMS)),
    "predict": list(product(FORMATS)),
    "conv": list(product(FORMATS)),
    "memory": list(product(FORMATS, ["fused"])),  # foreach holds copies
}
CONVOLUTIONS = {  # images, filters, stride, padding
    "512x28x28x1, 8x8x4 stride 2": ((512, 28, 28, 1), (8, 8, 1, 4), 2, 0),
    "512x11x11x4, 6x6x8": ((512, 11, 11, 4), (6, 6, 4, 8), 1, 0),
    "512x6x6x8, 4x4x16": ((512, 6, 6, 8), (4, 4, 8, 16), 1, 0),
    "512x3x3x16, 3x3x10": ((512, 3, 3, 16), (3, 3, 16, 10), 1, 0),
    "512x28x28x1, 6x6x32 stride 2 pad 2": ((512, 28, 28, 1), (6, 6, 1, 32), 2, 2),
    "512x14x14x32, 6x6x64 stride 2 pad 2": ((512, 14, 14, 32), (6, 6, 32, 64), 2, 2),
    "64x28x28x32, 3x3x64 pad 1": ((64, 28, 28, 32), (3, 3, 32, 64), 1, 1),
    "32x56x56x64, 3x3x64 pad 1": ((32, 56, 56, 64), (3, 3, 64, 64), 1, 1),
    "32x28x28x128, 3x3x128 pad 1": ((32, 28, 28, 128), (3, 3, 128, 128), 1, 1),
}
CASES = {
    **{
        f"memory {preset} {batch}": ("memory", preset, batch)
        for preset, batch in (("exercise", 512), ("wide", 512))
    },
    **{
        f"step {preset} {batch}": ("step", preset, batch)
        for preset, batch in product(("exercise", "wide"), (64, 512))
    },
    **{f"predict exercise {batch}": ("predict", "exercise", batch) for batch in (1, 64, 1024)},
    **{
        f"conv {'fwd+bwd' if backward else 'fwd'} {name}": ("conv", *convolution, backward)
        for backward, (name, convolution) in product((False, True), CONVOLUTIONS.items())
    },
}
LEARNING_RATE = 1e-3
STILL = 1e-7  # learning rate of timed steps: thousands on one batch must not fit it
CHECKED_STEPS = 5
MEMORY_STEPS = 20
TRIAL_TURNS = 3  # of each variant of PyTorch
MEMORY_HEAD = (
    "peak memory", "PyTorch MB", "cyconv MB", "ratio",
    "over imports: PyTorch", "cyconv", "ratio", "PyTorch's variant",
)  # fmt: skip
MEMORY_WIDTHS = 20, 10, 9, 6, 21, 7, 6, 24
SPEED_HEAD = (
    "case", "PyTorch ms", "cyconv ms", "images/s", "ratio", "quartiles", "PyTorch's variant"
)  # fmt: skip
SPEED_WIDTHS = 48, 10, 9, 10, 6, 13, 25


def images(batch):
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((batch, 28, 28, 1), np.float32), rng.integers(0, 10, batch)


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

    def parameters(self, preset):
        """Return the preset's initial parameters."""
        return getattr(self.cyconv.presets, preset)().parameters()

    def step(self, preset, batch):
        """Train on one batch; return the losses."""
        net = getattr(self.cyconv.presets, preset)()
        adam = self.cyconv.Adam(LEARNING_RATE)
        x, labels = images(batch)
        self.task = partial(net.train_step, x, labels, adam)
        losses = [self.task() for _ in range(CHECKED_STEPS)]
        adam.learning_rate = STILL
        return losses

    def predict(self, preset, batch):
        """Predict the labels of one batch."""
        self.task = partial(getattr(self.cyconv.presets, preset)().predict, images(batch)[0])
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
    """PyTorch's side: eager, channels first, in one of the two memory formats."""

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def about(self):
        """Return the version, and the vector units that it uses."""
        return f"PyTorch {self.torch.__version__}, {self.torch.backends.cpu.get_cpu_capability()}"

    def network(self, preset, memory_format, parameters):
        """Return the preset up to the logits, with cyconv's parameters if they are given."""
        nn = self.torch.nn
        if preset == "exercise":
            layers = [
                nn.Conv2d(1, 4, 8, stride=2), nn.LeakyReLU(0.1),
                nn.Conv2d(4, 8, 6), nn.LeakyReLU(0.1),
                nn.Conv2d(8, 16, 4), nn.LeakyReLU(0.1),
                nn.Conv2d(16, 10, 3), nn.Flatten(),
            ]  # fmt: skip
        else:
            layers = [
                nn.Conv2d(1, 32, 6, stride=2, padding=2), nn.LeakyReLU(0.1),
                nn.Conv2d(32, 64, 6, stride=2, padding=2), nn.LeakyReLU(0.1), nn.Flatten(),
                nn.Linear(7 * 7 * 64, 1024), nn.LeakyReLU(0.1),
                nn.Linear(1024, 10),
            ]  # fmt: skip
        model = nn.Sequential(*layers)
        if parameters is not None:
            state = {name: self.torch.tensor(_oihw(array)) for name, array in parameters.items()}
            model.load_state_dict(state)
        return model.to(memory_format=getattr(self.torch, memory_format))

    def tensor(self, nhwc, memory_format):
        """Return an array of images, or of transposed filters, as a tensor in NCHW order."""
        tensor = self.torch.from_numpy(nhwc).permute(0, 3, 1, 2)
        return tensor.contiguous(memory_format=getattr(self.torch, memory_format))

    def step(self, variant, parameters, preset, batch):
        """Train on one batch; return the losses."""
        memory_format, adam = variant
        model = self.network(preset, memory_format, parameters)
        optimizer = self.torch.optim.Adam(model.parameters(), LEARNING_RATE, **{adam: True})
        cross_entropy = self.torch.nn.CrossEntropyLoss()
        x, labels = images(batch)
        x, labels = self.tensor(x, memory_format), self.torch.from_numpy(labels)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        self.task = step
        losses = [step() for _ in range(CHECKED_STEPS)]
        optimizer.param_groups[0]["lr"] = STILL
        return losses

    def predict(self, variant, parameters, preset, batch):
        """Predict the labels of one batch."""
        model = self.network(preset, *variant, parameters).eval()
        x = self.tensor(images(batch)[0], *variant)

        @self.torch.inference_mode()
        def predict():
            return model(x).argmax(1).numpy()

        self.task = predict
        return predict()

    def conv(self, variant, _, shape, filters, stride, padding, backward):
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


def _oihw(array):
    """Return a parameter of cyconv in PyTorch's order of axes."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1).copy()
    if array.ndim == 2 and len(array) == 7 * 7 * 64:  # after Flatten: rows from HWC to CHW
        array = array.reshape(7, 7, 64, -1).transpose(2, 0, 1, 3).reshape(array.shape)
    return array.T.copy()


def check(case, cyconv, theirs):
    """Raise AssertionError unless cyconv's result of a case equals PyTorch's."""
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


def compare_memory(case, threads):
    """Return the record of a memory case, from fresh processes."""

    def measure(side, *args):
        worker = Worker(side, threads)
        before, after = worker.call("memory", *args)
        worker.close()
        return after, after - before

    ours = measure(Cyconv, *case[1:])
    theirs, variant = min((measure(PyTorch, v, None, *case[1:]), v) for v in VARIANTS["memory"])
    return {
        "variant": " ".join(variant),
        "pytorch_mb": theirs[0],
        "cyconv_mb": ours[0],
        "ratio": theirs[0] / ours[0],
        "pytorch_growth_mb": theirs[1],
        "cyconv_growth_mb": ours[1],
        "growth_ratio": theirs[1] / ours[1],
    }


def compare_speed(case, pytorch, cyconv, turns, seconds):
    """Return the record of a timed case."""
    kind, *args = case
    parameters = None if kind == "conv" else cyconv.call("parameters", args[0])
    run_pytorch, run_cyconv = partial(pytorch.call, "time"), partial(cyconv.call, "time")

    def trial(variant):
        pytorch.call(kind, variant, parameters, *args)
        return np.median(interleave([run_pytorch], TRIAL_TURNS, seconds / 2))

    best = min(VARIANTS[kind], key=trial)
    check(case, cyconv, pytorch.call(kind, best, parameters, *args))
    times = interleave([run_pytorch, run_cyconv], turns, seconds)
    ratios = times[:, 0] / times[:, 1]
    batch = args[0][0] if kind == "conv" else args[1]
    return {
        "variant": " ".join(best),
        "pytorch_ms": 1e3 * np.median(times[:, 0]),
        "cyconv_ms": 1e3 * np.median(times[:, 1]),
        "images_per_second": batch / np.median(times[:, 1]),
        "ratio": np.median(ratios),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }


def print_memory(cases, threads):
    """Measure and print the peaks of memory; return the records by case."""
    print_row(MEMORY_HEAD, MEMORY_WIDTHS)
    records = {}
    for name, case in cases.items():
        records[name] = record = compare_memory(case, threads)
        variant, *numbers = record.values()
        forms = "{:.0f}", "{:.0f}", "{:.2f}", "{:.0f}", "{:.0f}", "{:.2f}"
        cells = [form.format(number) for form, number in zip(forms, numbers, strict=True)]
        print_row([name, *cells, variant], MEMORY_WIDTHS)
    print()
    return records


def print_speed(cases, options):
    """Measure and print the times; return the records by case."""
    pytorch, cyconv = Worker(PyTorch, options.threads), Worker(Cyconv, options.threads)
    print(f"{pytorch.call('about')}; {cyconv.call('about')}")
    print_row(SPEED_HEAD, SPEED_WIDTHS)
    records = {}
    for name, case in cases.items():
        records[name] = record = compare_speed(
            case, pytorch, cyconv, options.turns, options.seconds
        )
        low, high = record["ratio_quartiles"]
        cells = [
            f"{record['pytorch_ms']:.3f}",
            f"{record['cyconv_ms']:.3f}",
            f"{record['images_per_second']:,.0f}",
            f"{record['ratio']:.2f}",
            f"{low:.2f} - {high:.2f}",
            record["variant"],
        ]
        print_row([name, *cells], SPEED_WIDTHS)
    return records


def main():
    """Measure, print the tables, and write the records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="of either side (default: 2)")
    parser.add_argument("--cases", default="", help="only cases whose name has this in it")
    parser.add_argument("--turns", type=int, default=7, help="of each side (default: 7)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn (default: 0.2)")
    parser.add_argument("--json", metavar="FILE", help="write the results to this file")
    options = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        print("python -m pip install -e '.[bench]'", file=sys.stderr)
        sys.exit(2)
    chosen = {name: case for name, case in CASES.items() if options.cases in name}
    memory = {name: case for name, case in chosen.items() if case[0] == "memory"}
    speed = {name: case for name, case in chosen.items() if case[0] != "memory"}
    print(f"{options.threads} threads, float32")
    # Memory first: a process inherits the peak of the one that starts it, which grows with data.
    records = print_memory(memory, options.threads) if memory else {}
    if speed:
        records |= print_speed(speed, options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"threads": options.threads, "cases": records}, file, indent=1)


if __name__ == "__main__":
    main()
