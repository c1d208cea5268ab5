"""What the tests of mistakes share: calls with good arguments, and what a text must hold."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

import cyconv
from cyconv import Adam, layers, naive, presets
from cyconv.losses import cross_entropy
from tests.zoo import BY_KIND


@contextmanager
def raises(error, *pieces):
    """Check that the block raises this error, and that its short text holds all pieces."""
    with pytest.raises(error) as raised:
        yield
    text = str(raised.value)
    missing = [piece for piece in pieces if piece not in text]
    assert not missing, f"{missing} must be in: {text}"
    assert len(text) < 400, f"people read an error: {text}"


def written(value):
    """Return a sequence as code writes it, for the name of a test; pytest names the rest."""
    return repr(value) if isinstance(value, tuple | list) else None


def ones(*shape, dtype=np.float32):
    """Return an array of ones."""
    return np.ones(shape, dtype)


# Good arguments; each mistake replaces one of them.
X = ones(2, 5, 6, 3)
WEIGHT = ones(3, 2, 3, 4)
BIAS = ones(4)
DY = ones(2, 3, 5, 4)
COLS = ones(30, 18)
POOLED, POOL = ones(2, 3, 5, 3), {"kernel_size": (3, 2), "stride": 1}
IMAGES = ones(2, 28, 28, 1)
LABELS = np.array([0, 9])
LOGITS = ones(2, 10)


def method_call(method, *arguments):
    """Return f(argument=value, ...), which calls a method of a new exercise network."""

    def call(**changed):
        good = {"x": IMAGES, "labels": LABELS, "optimizer": Adam()}
        return getattr(presets.exercise(), method)(**{**pick(good, arguments), **changed})

    return call


def pick(mapping, keys):
    """Return the part of a mapping that has these keys."""
    return {key: mapping[key] for key in keys}


def backward_call(row):
    """Return f(dy), which calls backward after a forward pass of two samples of ones."""

    def call(dy):
        layer = row.make()
        layer.forward(ones(2, *row.input_shape))
        return layer.backward(dy)

    return call


FUNCTIONS = {  # by the name that stands in their errors
    f"{prefix}{name}": partial(getattr(module, name), **arguments)
    for prefix, module in (("", cyconv), ("naive.", naive))
    for name, arguments in {
        "im2col": {"x": X, "kernel_size": (3, 2)},
        "col2im": {"cols": COLS, "input_shape": (2, 5, 6, 3), "kernel_size": (3, 2)},
        "conv2d": {"x": X, "weight": WEIGHT, "bias": BIAS},
        "conv2d_backward": {"dy": DY, "x": X, "weight": WEIGHT},
        "max_pool2d": {"x": X, **POOL},
        "max_pool2d_backward": {"dy": POOLED, "x": X, **POOL},
        "avg_pool2d": {"x": X, **POOL},
        "avg_pool2d_backward": {"dy": POOLED, "input_shape": (2, 5, 6, 3), **POOL},
    }.items()
}
METHODS = {
    "Network.forward": method_call("forward", "x"),
    "Network.predict": method_call("predict", "x"),
    "Network.predict_proba": method_call("predict_proba", "x"),
    "Network.evaluate": method_call("evaluate", "x", "labels"),
    "Network.train_step": method_call("train_step", "x", "labels", "optimizer"),
    "Network.fit": method_call("fit", "x", "labels"),
}
LABELLED = {
    **pick(METHODS, ("Network.train_step", "Network.evaluate", "Network.fit")),
    "cross_entropy": partial(cross_entropy, logits=LOGITS, labels=LABELS),
}

# For (who, argument): f(argument=array).
FUNCTION_CALLS = {
    (who, argument): call
    for who, call in FUNCTIONS.items()
    for argument, value in call.keywords.items()
    if isinstance(value, np.ndarray)
}
METHOD_CALLS = {(who, "x"): call for who, call in METHODS.items()}
ROWS = pick(BY_KIND, sorted({*layers.__all__, "Square"} - {"Layer"}))  # each layer that checks
LAYER_CALLS = {
    **{(who, "x"): lambda x, row=row: row.make().forward(x) for who, row in ROWS.items()},
    **{(who, "dy"): backward_call(row) for who, row in ROWS.items()},
}
ARRAY_CALLS = {
    **FUNCTION_CALLS,
    **METHOD_CALLS,
    **LAYER_CALLS,
    ("cross_entropy", "logits"): LABELLED["cross_entropy"],
}
