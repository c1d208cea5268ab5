"""Nonsense in every argument of every public function: a result or a documented error, no crash.

The functions are called in processes of their own with little memory, `python -m
tests.test_nonsense`; the last line that one prints tells what ended it.
"""

import json
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, datasets, layers, metrics, naive, presets
from cyconv.errors import CheckpointError, DataFormatError, DownloadError
from cyconv.layers import Conv2D, Flatten, LeakyReLU, Linear, Softmax
from cyconv.losses import cross_entropy
from tests.zoo import BY_KIND

resource = pytest.importorskip("resource", reason="memory cannot be limited here")

DOCUMENTED = (TypeError, ValueError, OverflowError, MemoryError, RuntimeError)
DIVERGED = (FloatingPointError,)
FILES = (OSError, CheckpointError, DataFormatError, DownloadError)
MEMORY = 2**30  # bytes that a process may take beside what it has when it begins

VALUES = (
    0, 1, 2, 3, 4, 5, -1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, -(2**63), 10**30, True, False,
    None, 0.0, 0.5, 1.5, -1e-9, 1e300, float("nan"), float("inf"), 1j, "", "2", "same", "valid",
    "float32", "mnist", "digits", "net.safetensors", "\0", b"2", (), (1,), (2, 1), (0, 1), (-1, 1),
    (1, 2, 3), [2, 2], [None, "a"], ((1, 0), (0, 1)), ((1,), 2), ((1, 0), (0, 1), (0, 0)),
    (2**63, 1), (2, 5, 6, 3), (2**31, 2**31, 2**31, 2**31), {}, {1, 2}, object(), len, range(3),
    np.int64(2), np.uint8(3), np.float32(1), np.array(2), np.array([1, 2]), np.array("x"),
)  # fmt: skip
DTYPES = ("f4", "f4", "f8", "u1", "i8", "f2", "i1", "?", "c8", ">f4", "O", "U3", "S2", "M8[s]")
NUMBERS = (0, 1, -1, 2, 0.5, 1e-45, 1e4, 3e38, -3e38, np.nan, np.inf, -np.inf)


def pick(rng, values):
    """Return one of the values as it is."""
    return values[rng.integers(len(values))]


def strange_array(rng, like):
    """Return an array that may be of another shape, type or layout, and hold any numbers."""
    shape = list(like.shape)
    if rng.random() < 0.3:
        shape = list(rng.integers(0, 6, rng.integers(0, 6)))
    elif shape and rng.random() < 0.3:
        shape[rng.integers(len(shape))] += rng.integers(-1, 2)
    dtype = np.dtype(pick(rng, DTYPES)) if rng.random() < 0.3 else like.dtype
    numbers = rng.choice(pick(rng, (NUMBERS, NUMBERS[:3])), shape)
    with np.errstate(all="ignore"):
        array = np.zeros(shape, dtype) if dtype.kind == "M" else numbers.astype(dtype)
    layouts = (
        array, array, array.T, np.flip(array), array.tolist(), np.asfortranarray(array),
        np.ma.masked_array(array),
        np.broadcast_to(np.zeros((), like.dtype), (2**19, 2**19, 2**19, 1)[: like.ndim]),
    )  # fmt: skip
    return pick(rng, layouts)


def nonsense(rng, good):
    """Return something to take the place of a good argument."""
    if isinstance(good, np.ndarray) and rng.random() < 0.7:
        return strange_array(rng, good)
    return pick(rng, VALUES)


X, PIXELS = np.ones((2, 5, 6, 3), np.float32), np.ones((2, 5, 6, 3), np.uint8)
WEIGHT, BIAS = np.ones((3, 2, 3, 4), np.float32), np.ones(4, np.float32)
DY, COLS = np.ones((2, 3, 5, 4), np.float32), np.ones((30, 18), np.float32)
LOGITS, LABELS = np.ones((2, 4), np.float32), np.array([1, 2])
FLAT, COUNTS = np.ones(6, np.float32), np.ones((2, 2), np.int64)
PLACING = {"stride": 1, "padding": 0, "dilation": 1, "rounding": "exact"}
POOLING = {"kernel_size": (3, 2), "stride": 1, "padding": 0, "rounding": "exact"}
POOLED = np.ones((2, 3, 5, 3), np.float32)
FUNCTIONS = {
    "im2col": {"x": X, "kernel_size": (3, 2), **PLACING},
    "col2im": {"cols": COLS, "input_shape": X.shape, "kernel_size": (3, 2), **PLACING},
    "conv2d": {"x": X, "weight": WEIGHT, "bias": BIAS, "groups": 1, **PLACING},
    "conv2d_backward": {
        "dy": DY, "x": X, "weight": WEIGHT, "need_dx": True, "groups": 1, **PLACING,
    },
    "max_pool2d": {"x": X, **POOLING},
    "max_pool2d_backward": {"dy": POOLED, "x": X, **POOLING},
    "avg_pool2d": {"x": X, **POOLING},
    "avg_pool2d_backward": {"dy": POOLED, "input_shape": X.shape, **POOLING},
}  # fmt: skip


def network(layers=None, **arguments):
    """Return a network, a small one for images like X if it is not told."""
    small = [Conv2D(2, 3), LeakyReLU(), Flatten(), Linear(4), Softmax()]
    return Network(small if layers is None else layers, **{"input_shape": X.shape[1:], **arguments})


def of_layer(row):
    """Return f(x, ...), which makes a layer and goes forward and back, and its good arguments."""
    sample = row.make()

    def call(x, training, **config):
        again = row.make()  # a layer that is an argument belongs to one network
        same = {name: again.config[name] for name in config if config[name] is good[name]}
        layer = type(sample)(**{**config, **same})
        return layer.backward(layer.forward(x, training))

    good = {"x": np.ones((2, *row.input_shape), np.float32), "training": True, **sample.config}
    return call, good


def of_network(method):
    """Return f(...), which calls a method of a new network."""
    return lambda **arguments: getattr(network(), method)(**arguments)


def backward(x, dy):
    """Go forward and back through a network."""
    net = network()
    net.forward(x)
    return net.backward(dy)


def fit(callbacks, **arguments):
    """Train for one epoch, however many are asked for."""
    if isinstance(callbacks, (list, tuple)):
        callbacks = [*callbacks, lambda *_: True]
    return network().fit(callbacks=callbacks, **arguments)


def train_step(optimizer, **arguments):
    """Take the first step of an optimizer."""
    return network().train_step(optimizer=optimizer or Adam(), **arguments)


def set_num_threads(n):
    """Change the number of threads and change it back."""
    cyconv.set_num_threads(n)
    cyconv.set_num_threads(2)


def entries():
    """Yield (name, function, good arguments, errors beside DOCUMENTED)."""
    for module in (cyconv, naive):
        for name, good in FUNCTIONS.items():
            yield f"{module.__name__}.{name}", getattr(module, name), good, ()
    for name, row in BY_KIND.items():
        if name in layers.__all__:
            yield f"layers.{name}", *of_layer(row), ()
    size = {"size": 28, "kernel": 3, "stride": 1, "padding": 0, "dilation": 1, "rounding": "exact"}
    yield "conv_output_size", cyconv.conv_output_size, size, ()
    yield "set_num_threads", set_num_threads, {"n": 1}, ()
    good = {"layers": None, "input_shape": X.shape[1:], "seed": 0, "dtype": "float32"}
    yield "Network", network, good, ()
    for x in (X, PIXELS):
        for method in ("forward", "predict", "predict_proba"):
            good = {"x": x, "training": False} if method == "forward" else {"x": x}
            yield f"Network.{method} {x.dtype}", of_network(method), good, DIVERGED
        good = {"x": x, "labels": LABELS}
        yield f"Network.evaluate {x.dtype}", of_network("evaluate"), good, DIVERGED
        good |= {"optimizer": None, "loss": None}
        yield f"Network.train_step {x.dtype}", train_step, good, DIVERGED
    yield "Network.backward", backward, {"x": X, "dy": LOGITS}, ()
    yield "Network.load", Network.load, {"path": "net.safetensors", "layers": ()}, FILES
    yield "Network.save", of_network("save"), {"path": "other.safetensors"}, FILES
    good = {"x": X, "labels": LABELS, "epochs": 1, "batch_size": 2, "callbacks": []}
    more = {"validation_data": (X, LABELS), "shuffle": True, "seed": 0, "optimizer": None}
    yield "Network.fit", fit, {**good, **more}, DIVERGED
    # presets.wide takes the same ones, but its weights take time.
    good = {"seed": 0, "dtype": "float32", "input_shape": (28, 28, 1), "classes": 10}
    for name in ("exercise", "lenet5", "mnist_convnet", "resnet8"):
        yield f"presets.{name}", getattr(presets, name), good, ()
    yield "Adam", Adam, {"learning_rate": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}, ()
    good = {"parameters": FLAT, "gradients": FLAT.copy()}
    yield "Adam.step", lambda **both: Adam().step(**both), good, ()
    yield "cross_entropy", cross_entropy, {"logits": LOGITS, "labels": LABELS}, ()
    matrix = {"labels": LABELS, "predicted": LABELS, "classes": 4}
    yield "confusion_matrix", metrics.confusion_matrix, matrix, ()
    yield "precision_and_recall", metrics.precision_and_recall, {"matrix": COUNTS}, ()
    yield "datasets.load", datasets.load, {"name": "digits", "directory": None}, FILES
    yield "datasets.load_mnist", datasets.load_mnist, {"directory": "."}, FILES
    yield "datasets.read_idx", datasets.read_idx, {"path": "labels.idx", "shape": (2,)}, FILES


def described(argument):
    """Return what is worth knowing of an argument."""
    if isinstance(argument, np.ndarray):
        return f"{argument.dtype}{argument.shape}{argument.strides}"
    return f"{argument!r:.80}"


def call_all(count):
    """Call each function with `count` generated inputs; print how many gave a result, as JSON."""
    rng, results = np.random.default_rng(0), {}
    for name, function, good, more in entries():
        results[name] = 0
        for _ in range(count):
            changed = rng.choice(list(good), min(len(good), rng.integers(1, 3)), replace=False)
            strange = {key: nonsense(rng, good[key]) for key in changed}
            print(name, *(f"{key}={described(strange[key])}" for key in changed), flush=True)
            try:
                function(**{**good, **strange})
                results[name] += 1
            except (*DOCUMENTED, *more):
                pass
    print(json.dumps(results))


def limit_memory():
    """Let an allocation of more than MEMORY fail."""
    # OpenBLAS takes its buffers now, with room to do so.
    for _, function, good, more in entries():
        with suppress(*more):
            function(**good)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_nonsense_gives_a_result_or_a_documented_error(count, figure, tmp_path):
    inputs = count(120, 500, 10_000)
    network().save(tmp_path / "net.safetensors")
    (tmp_path / "labels.idx").write_bytes(bytes.fromhex("00000801 00000002 0102"))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", __name__, str(inputs)],
        cwd=tmp_path,  # where it may write
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "CYCONV_DATA": "",
            "CYCONV_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{done.returncode} in {lines[-1:]}\n{done.stderr[-3000:]}"
    results = json.loads(lines[-1])
    for name, returned in results.items():  # neither refused at the door nor all accepted
        assert 0 < returned < inputs or name == "datasets.load_mnist", name
    figure("nonsense inputs, no crash", inputs * len(results))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    datasets.mnist.MIRRORS = ("https://127.0.0.1:9/",)  # nothing is there
    limit_memory()
    call_all(int(sys.argv[1]))
