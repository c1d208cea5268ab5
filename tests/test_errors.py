"""A table of mistakes: what each raises, and that its text names who, which argument, and why."""

import math
import os
import types
from functools import partial

import numpy as np
import pytest

import cyconv
from cyconv import Adam, Network, layers, naive, presets
from cyconv.initializers import zeros
from cyconv.layers import Conv1D, Conv2D, Flatten, Im2Col, LeakyReLU, Linear, Softmax
from cyconv.losses import cross_entropy

F32 = np.float32
ROWS = []


def row(name, call, error, *pieces):
    """Add a mistake; its error's text must hold all pieces."""
    ROWS.append(pytest.param(call, error, pieces, id=name))


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


# fmt: off - a table

# Good arguments; each row replaces one of them.
ARRAYS = types.SimpleNamespace(
    x=ones(2, 5, 6, 3),
    weight=ones(3, 2, 3, 4),
    bias=ones(4),
    dy=ones(2, 3, 5, 4),
    cols=ones(30, 18),
    image=ones(2, 28, 28, 1),
    labels=np.array([0, 9]),
    logits=ones(2, 10),
)


def network_call(method, more=()):
    """Return f(argument=value, ...) that calls a method of a new exercise network."""

    def call(**changed):
        arguments = {
            "x": ARRAYS.image,
            **({"labels": ARRAYS.labels} if "labels" in more else {}),
            **({"optimizer": Adam()} if "optimizer" in more else {}),
            **changed,
        }
        return getattr(presets.exercise(), method)(**arguments)

    return call


def backward(layer, shape):
    """Return f(dy) that calls backward after a forward pass."""

    def call(dy):
        layer_ = layer()
        layer_.forward(ones(*shape))
        return layer_.backward(dy)

    return call


FUNCTIONS = [
    (f"{prefix}{name}", partial(getattr(module, name), **arguments), names)
    for prefix, module in (("", cyconv), ("naive.", naive))
    for name, arguments, names in (
        ("im2col", {"x": ARRAYS.x, "kernel_size": (3, 2)}, ["x"]),
        (
            "col2im",
            {"cols": ARRAYS.cols, "input_shape": (2, 5, 6, 3), "kernel_size": (3, 2)},
            ["cols"],
        ),
        (
            "conv2d",
            {"x": ARRAYS.x, "weight": ARRAYS.weight, "bias": ARRAYS.bias},
            ["x", "weight", "bias"],
        ),
        (
            "conv2d_backward",
            {"dy": ARRAYS.dy, "x": ARRAYS.x, "weight": ARRAYS.weight},
            ["dy", "x", "weight"],
        ),
    )
]
NETWORK_METHODS = [
    ("Network.forward", network_call("forward"), ["x"]),
    ("Network.predict", network_call("predict"), ["x"]),
    ("Network.predict_proba", network_call("predict_proba"), ["x"]),
    ("Network.evaluate", network_call("evaluate", ["labels"]), ["x"]),
    ("Network.train_step", network_call("train_step", ["labels", "optimizer"]), ["x"]),
    ("Network.fit", network_call("fit", ["labels"]), ["x"]),
]
LAYERS = [
    ("Conv2D", lambda x: Conv2D(2, 3).forward(x), ["x"]),
    ("Conv1D", lambda x: Conv1D(2, 3).forward(x), ["x"]),
    ("Im2Col", lambda x: Im2Col(3).forward(x), ["x"]),
    ("Linear", lambda x: Linear(2).forward(x), ["x"]),
    ("LeakyReLU", lambda x: LeakyReLU().forward(x), ["x"]),
    ("Softmax", lambda x: Softmax().forward(x), ["x"]),
    ("Flatten", lambda x: Flatten().forward(x), ["x"]),
    ("Conv2D", backward(lambda: Conv2D(4, 3), (2, 5, 6, 3)), ["dy"]),
    ("Linear", backward(lambda: Linear(4), (2, 3)), ["dy"]),
    ("LeakyReLU", backward(LeakyReLU, (2, 3)), ["dy"]),
]
ENTRIES = [
    *FUNCTIONS,
    *NETWORK_METHODS,
    *LAYERS,
    ("cross_entropy", partial(cross_entropy, labels=ARRAYS.labels), ["logits"]),
]

# What is no array of floats, and what the text must say.
KINDS = {
    "None": (None, "NoneType"),
    "strings": ([["a", "b"]], "list"),
    "object": (object(), "object"),
    "ragged": ([[1.0], [1.0, 2.0]], "array"),
    "complex": (ones(2, 3, dtype=np.complex64), "complex64"),
    "masked": (np.ma.masked_array(ones(2, 3), False), "masked array"),
    "float16": (ones(2, 3, dtype=np.float16), "float16", ".astype(np.float32)"),
    "int64": (ones(2, 3, dtype=np.int64), "int64", ".astype(np.float32)"),
    "big-endian": (ones(2, 3, dtype=">f4"), ">f4", ".astype(np.float32)"),
    "bool": (ones(2, 3, dtype=bool), "bool", ".astype(np.float32)"),
    "dates": (np.zeros((2, 3), "datetime64[s]"), "datetime64"),
}
for who, call, names in ENTRIES:
    for name in names:
        for kind, (value, *pieces) in KINDS.items():
            if (name, kind) != ("bias", "None"):
                row(
                    f"{who} {name} {kind}",
                    partial(call, **{name: value}),
                    TypeError,
                    f"{who}: {name} ",
                    *pieces,
                )
for who, call, names in (*FUNCTIONS, *LAYERS):
    for name in names:
        row(
            f"{who} {name} uint8",
            partial(call, **{name: ones(2, 3, dtype=np.uint8)}),
            TypeError,
            f"{who}: {name} ",
            "uint8",
            f"{name}.astype(np.float32)",
        )

# Two arrays of different precision.
for who, call, names in FUNCTIONS:
    for name in names:
        if len(names) > 1 and name != "x":
            double = getattr(ARRAYS, name).astype(np.float64)
            row(
                f"{who} {name} float64 with float32",
                partial(call, **{name: double}),
                TypeError,
                f"{who}: {name} must be float32",
                "float64",
                f"{name}.astype(",
            )
row(
    "Linear dy float64 with float32",
    partial(LAYERS[-2][1], dy=ones(2, 4, dtype=np.float64)),
    TypeError,
    "Linear: dy must be float32",
    "float64",
)

# Shapes: who, call, argument, the shape given, the shape required.
SHAPES = [
    *(
        (f"{prefix}{who}", call, name, given, required)
        for prefix in ("", "naive.")
        for who, name, given, required in (
            ("im2col", "x", (5, 6, 3), "(N, H, W, C)"),
            ("im2col", "x", (1, 2, 5, 6, 3), "(N, H, W, C)"),
            ("im2col", "x", (), "(N, H, W, C)"),
            ("col2im", "cols", (29, 18), "(30, 18)"),
            ("col2im", "cols", (30, 17), "(30, 18)"),
            ("col2im", "cols", (540,), "(30, 18)"),
            ("conv2d", "x", (2, 5, 6), "(N, H, W, C)"),
            ("conv2d", "weight", (3, 2, 2, 4), "(KH, KW, 3, F)"),
            ("conv2d", "weight", (3, 2, 3), "(KH, KW, 3, F)"),
            ("conv2d", "bias", (3,), "(4,)"),
            ("conv2d", "bias", (1, 4), "(4,)"),
            ("conv2d_backward", "dy", (2, 3, 4, 4), "(2, 3, 5, 4)"),
            ("conv2d_backward", "dy", (1, 3, 5, 4), "(2, 3, 5, 4)"),
            ("conv2d_backward", "dy", (2, 3, 5), "(2, 3, 5, 4)"),
            ("conv2d_backward", "x", (2, 5, 6), "(N, H, W, C)"),
            ("conv2d_backward", "weight", (3, 2, 4, 4), "(KH, KW, 3, F)"),
        )
        for entry, call, _ in FUNCTIONS
        if entry == prefix + who
    ),
    *((who, call, "x", (2, 28, 27, 1), "(N, 28, 28, 1)") for who, call, _ in NETWORK_METHODS),
    *((who, call, "x", (28, 28), "(N, 28, 28, 1)") for who, call, _ in NETWORK_METHODS),
    *((who, call, "x", (2, 28, 28, 3), "(N, 28, 28, 1)") for who, call, _ in NETWORK_METHODS),
    ("Conv2D", LAYERS[7][1], "dy", (2, 3, 4, 3), "(2, 3, 4, 4)"),
    ("Linear", LAYERS[8][1], "dy", (1, 4), "(2, 4)"),
    ("LeakyReLU", LAYERS[9][1], "dy", (3, 2), "(2, 3)"),
    ("cross_entropy", ENTRIES[-1][1], "logits", (2, 5, 5), "(N, classes)"),
]
for who, call, name, given, required in SHAPES:
    row(
        f"{who} {name} of shape {given}",
        partial(call, **{name: ones(*given)}),
        ValueError,
        f"{who}: {name} must have shape {required}",
        f"got {given}" if given else "()",
    )
for (who, call, _), given, required in (
    (LAYERS[0], (2, 5, 6), "(N, H, W, C)"),
    (LAYERS[1], (2, 5, 6, 3), "(N, W, C)"),
    (LAYERS[2], (2, 5), "(N, H, W, C)"),
    (LAYERS[3], (2, 5, 6, 3), "(N, features)"),
):  # a layer is built for samples: the text leaves out how many there were
    row(
        f"{who} x of shape {given}",
        partial(call, ones(*given)),
        ValueError,
        f"{who}: x must have shape {required}",
        f"got (N, {', '.join(map(str, given[1:]))})",
    )
for name in ("LeakyReLU", "Softmax", "Flatten"):
    layer = getattr(layers, name)
    row(
        f"{name} of a vector",
        lambda layer=layer: layer().forward(ones(3)),
        ValueError,
        f"{name}: x",
    )


def second_batch(layer, first, second):
    built = layer()
    built.forward(ones(*first))
    return built.forward(ones(*second))


row(
    "Linear of another width",
    partial(second_batch, lambda: Linear(2), (2, 3), (2, 4)),
    ValueError,
    "Linear: x must have shape (N, 3), got (2, 4)",
)
row(
    "a layer in a network is named by its index",
    lambda: presets.exercise().layers[2].forward(ones(64, 10, 11, 4)),
    ValueError,
    "Conv2D '2': x must have shape (N, 11, 11, 4), got (64, 10, 11, 4)",
)
row(
    "Network.backward of another shape",
    lambda: [net := presets.exercise(), net.forward(ARRAYS.image), net.backward(ones(2, 9))],
    ValueError,
    "Softmax '8': dy must have shape (2, 10), got (2, 9)",
)
row(
    "Network of an array for a dtype",
    lambda: Network([Flatten()], (2, 2, 1), dtype=ones(3)),
    TypeError,
    "Network: dtype must be float32 or float64",
)
row(
    "Network.backward before forward",
    lambda: presets.exercise().backward(ones(2, 10)),
    RuntimeError,
    "Softmax '8': backward needs a forward",
)

# Empty axes.
for who, call, name, shape in (
    ("im2col", FUNCTIONS[0][1], "x", (2, 0, 6, 3)),
    ("im2col", FUNCTIONS[0][1], "x", (2, 5, 6, 0)),
    ("conv2d", FUNCTIONS[2][1], "x", (2, 5, 0, 3)),
    ("conv2d", FUNCTIONS[2][1], "weight", (3, 0, 3, 4)),
    ("conv2d", FUNCTIONS[2][1], "weight", (3, 2, 3, 0)),
    ("conv2d_backward", FUNCTIONS[3][1], "weight", (0, 2, 3, 4)),
):
    row(
        f"{who} {name} of shape {shape}",
        partial(call, **{name: ones(*shape)}),
        ValueError,
        f"{who}: {name} must have no empty axis",
        str(shape),
    )
row("Linear without features", lambda: Linear(2).forward(ones(3, 0)), ValueError, "Linear: ")
row("LeakyReLU of empty images", lambda: LeakyReLU().forward(ones(3, 0)), ValueError, "LeakyReLU")
row("no classes", lambda: cross_entropy(ones(2, 0), [0, 0]), ValueError, "cross_entropy: labels")
row(
    "no logits",
    lambda: cross_entropy(ones(0, 3), np.zeros(0, int)),
    ValueError,
    "cross_entropy: the mean of no losses",
)
for who, call in (("train_step", {"optimizer": Adam()}), ("evaluate", {}), ("fit", {})):
    row(
        f"{who} of no images",
        lambda who=who, call=call: getattr(presets.exercise(), who)(
            x=ones(0, 28, 28, 1), labels=np.zeros(0, int), **call
        ),
        ValueError,
        f"Network.{who}: x must hold at least one image",
    )

# Numbers that are not finite.
BAD = ARRAYS.image * np.array([1, math.nan], F32).reshape(2, 1, 1, 1)
for who, call in (("predict", NETWORK_METHODS[1][1]), ("predict_proba", NETWORK_METHODS[2][1])):
    for value in (BAD, ARRAYS.image * [[[[1]]], [[[math.inf]]]]):
        row(
            f"{who} of {value.dtype} {value[1, 0, 0, 0]}",
            partial(call, x=value),
            ValueError,
            f"Network.{who}: x must be finite, got NaN or infinity in image 1",
        )


def diverged(method):
    """Call a method of a network whose weights are NaN."""
    net = presets.exercise()
    net.parameters()["0.weight"][...] = math.nan
    getattr(net, method)(ARRAYS.image)


for method in ("predict", "predict_proba"):
    row(
        f"{method} with weights that are NaN",
        partial(diverged, method),
        FloatingPointError,
        f"Network.{method}: the output is not finite; the weights have diverged",
    )
for who, arguments, place in (
    ("train_step", {"labels": ARRAYS.labels, "optimizer": Adam()}, ""),
    ("fit", {"labels": ARRAYS.labels}, " at epoch 1, step 1"),
):
    row(
        f"{who} on NaN",
        lambda who=who, arguments=arguments: getattr(presets.exercise(), who)(x=BAD, **arguments),
        FloatingPointError,
        f"Network.{who}: the loss is nan{place}; this step is not taken",
    )

# Kernel, stride and padding: (argument, value, error, text).
GEOMETRY = [
    *(
        (name, value, error, text)
        for name in ("kernel_size", "stride")
        for value, error, text in (
            (0, ValueError, "must be at least 1, got 0"),
            (-1, ValueError, "must be at least 1, got -1"),
            ((2, 0), ValueError, "[1] must be at least 1, got 0"),
            ((1, 2, 3), ValueError, "must be an integer or a pair (y, x), got (1, 2, 3)"),
            ((2,), ValueError, "must be an integer or a pair (y, x), got (2,)"),
            (True, TypeError, "must be an integer, got True"),
            (1.0, TypeError, "must be an integer, got 1.0"),
            ("1", TypeError, "must be an integer, got '1'"),
            (None, TypeError, "must be an integer, got None"),
            ((1, 1.5), TypeError, "[1] must be an integer, got 1.5"),
            ((True, 1), TypeError, "[0] must be an integer, got True"),
            (np.array([1, 1]), TypeError, "must be an integer, got array"),
            (np.float64(1), TypeError, "must be an integer, got"),
        )
    ),
    ("padding", -1, ValueError, "must be at least 0, got -1"),
    ("padding", (0, -1), ValueError, "[1] must be at least 0, got -1"),
    ("padding", ((0, 0), (0, -1)), ValueError, "[1][1] must be at least 0, got -1"),
    ("padding", ((-1, 0), (0, 0)), ValueError, "[0][0] must be at least 0, got -1"),
    ("padding", (1, 2, 3), ValueError, "must be an integer or a pair (y, x), got (1, 2, 3)"),
    ("padding", ((1, 1),), ValueError, "must be ((top, bottom), (left, right))"),
    ("padding", ((1, 1), (1, 1, 1)), ValueError, "[1] must be an integer or a pair"),
    ("padding", "full", ValueError, 'must be numbers, "valid" or "same", got \'full\''),
    ("padding", "SAME", ValueError, "got 'SAME'"),
    ("padding", True, TypeError, "must be an integer, got True"),
    ("padding", 0.5, TypeError, "must be an integer, got 0.5"),
    ("padding", None, TypeError, "must be an integer, got None"),
    ("padding", ((0, 0), (0, "1")), TypeError, "[1][1] must be an integer, got '1'"),
]
PLACES = {
    "im2col": FUNCTIONS[0][1],
    "naive.im2col": FUNCTIONS[4][1],
    "Conv2D": partial(Conv2D, out_channels=2, kernel_size=3),
    "Im2Col": partial(Im2Col, kernel_size=3),
    "col2im": FUNCTIONS[1][1],
    "conv2d": FUNCTIONS[2][1],
    "conv2d_backward": FUNCTIONS[3][1],
}
for who, call in PLACES.items():
    for name, value, error, text in GEOMETRY:
        if name != "kernel_size" or not who.startswith("conv2d"):
            row(
                f"{who} {name} {value!r}",
                partial(call, **{name: value}),
                error,
                f"{who}: {name}",
                text,
            )
for name, value, error in (
    ("kernel_size", 0, ValueError),
    ("kernel_size", (1, 3), TypeError),
    ("kernel_size", True, TypeError),
    ("stride", -2, ValueError),
    ("stride", (1, 1), TypeError),
    ("padding", -1, ValueError),
    ("padding", (1, 2, 3), ValueError),
    ("padding", ((1, 2), (3, 4)), TypeError),
    ("padding", "full", ValueError),
    ("out_channels", 0, ValueError),
):
    row(
        f"Conv1D {name} {value!r}",
        partial(Conv1D, **{"out_channels": 2, "kernel_size": 3, name: value}),
        error,
        f"Conv1D: {name}",
    )
for name in ("kernel_size", "stride"):
    row(
        f"Conv1D {name} is named as it was given",
        partial(Conv1D, **{"out_channels": 2, "kernel_size": 3, name: 0}),
        ValueError,
        f"Conv1D: {name} must be at least 1, got 0",
    )
for name, value, error in (
    ("size", 0, ValueError),
    ("size", 2.0, TypeError),
    ("kernel", 0, ValueError),
    ("kernel", True, TypeError),
    ("kernel", (3, 3), TypeError),
    ("stride", 0, ValueError),
    ("stride", "2", TypeError),
    ("padding", -1, ValueError),
    ("padding", (0, 0, 0), ValueError),
    ("padding", ((0, 0), (0, 0)), TypeError),
    ("padding", "full", ValueError),
):
    row(
        f"conv_output_size {name} {value!r}",
        partial(
            cyconv.conv_output_size,
            **{"size": 9, "kernel": 3, "stride": 1, "padding": 0, name: value},
        ),
        error,
        f"conv_output_size: {name}",
    )
for value, error in (
    (None, ValueError),
    (5, ValueError),
    ((2, 5, 6), ValueError),
    ((2, 5, 6, 3, 1), ValueError),
    ((2, 5, 6, 0), ValueError),
    ((-1, 5, 6, 3), ValueError),
    ((2, 5.0, 6, 3), TypeError),
    ((True, 5, 6, 3), TypeError),
):
    row(
        f"col2im input_shape {value!r}",
        partial(FUNCTIONS[1][1], input_shape=value),
        error,
        "col2im: input_shape",
    )

# Geometries without an output, or with a fraction of one.
for who, call, text in (
    ("im2col", partial(cyconv.im2col, ARRAYS.x, 6), "kernel 6 is larger than height 5"),
    ("im2col", partial(cyconv.im2col, ARRAYS.x, (5, 9), 1, 1), "kernel 9 is larger than width 6"),
    ("conv2d", partial(cyconv.conv2d, ARRAYS.x, ones(7, 1, 3, 1)), "use a kernel of at most 5"),
    ("im2col", partial(cyconv.im2col, ARRAYS.x, 2, 2), "leaves 2.5 output rows"),
    (
        "conv2d",
        partial(cyconv.conv2d, ARRAYS.x, ones(2, 2, 3, 1), None, (1, 3)),
        "leaves 2.33333 output columns",
    ),
    (
        "conv2d_backward",
        partial(cyconv.conv2d_backward, ARRAYS.dy, ARRAYS.x, ones(2, 2, 3, 4), 2),
        "kernel 2, stride 2, padding 0 on height 5 leaves 2.5 output rows",
    ),
    ("naive.conv2d", partial(naive.conv2d, ARRAYS.x, ones(2, 2, 3, 1), None, 2), "2.5 output rows"),
    ("col2im", partial(cyconv.col2im, ARRAYS.cols, (2, 5, 6, 3), 2, 2), "leaves 2.5 output rows"),
    ("Conv2D", lambda: Conv2D(2, 2, 2).forward(ARRAYS.x), "leaves 2.5 output rows"),
    (
        "Conv2D '1'",
        lambda: Network([Conv2D(1, 3), Conv2D(1, 3, 2), Softmax()], (6, 5, 1)),
        "kernel 3, stride 2, padding 0 on height 4 leaves 1.5 output rows",
    ),
    ("Conv1D '0'", lambda: Network([Conv1D(1, 3, 2)], (6, 1)), "width 6 leaves 2.5 output columns"),
    ("Im2Col '0'", lambda: Network([Im2Col(9)], (8, 8, 1)), "kernel 9 is larger than height 8"),
    ("conv_output_size", lambda: cyconv.conv_output_size(5, 6, 1, 0), "kernel 6 is larger"),
    ("conv_output_size", lambda: cyconv.conv_output_size(28, 3, 2, 1), "leaves 14.5 output"),
):
    row(f"{who} geometry {text}", call, ValueError, f"{who}: ", text)

# Sizes that no memory or no integer holds.
PIXEL = ones(1, 1, 1, 1)
TOO_LARGE = {
    "conv2d": lambda module, padding: module.conv2d(PIXEL, PIXEL, padding=padding),
    "im2col": lambda module, padding: module.im2col(PIXEL, 1, padding=padding),
    "col2im": lambda module, padding: module.col2im(
        PIXEL[0, 0], (1, padding, padding, 1), 1, padding, "same"
    ),
}
for prefix, module in (("", cyconv), ("naive.", naive)):
    for name, call in TOO_LARGE.items():
        row(
            f"{prefix}{name} of 10**13 bytes",
            partial(call, module, 2 * 10**6),
            MemoryError,
            f"{prefix}{name}: ",
        )
        row(
            f"{prefix}{name} of 2**66 bytes",
            partial(call, module, 2**32),
            OverflowError,
            f"{prefix}{name}: ",
        )
        row(
            f"{prefix}{name} over 2**63",
            partial(call, module, 10**30),
            OverflowError,
            f"{prefix}{name}: ",
        )
    row(
        f"{prefix}conv2d stride over 2**63",
        partial(module.conv2d, PIXEL, PIXEL, stride=10**30),
        OverflowError,
        f"{prefix}conv2d: ",
    )
    row(
        f"{prefix}im2col stride over 2**63",
        partial(module.im2col, PIXEL, 1, stride=10**30),
        OverflowError,
        f"{prefix}im2col: ",
    )
    row(
        f"{prefix}conv2d positions over 2**63",
        partial(module.conv2d, PIXEL, PIXEL, None, (2**62, 1), ((0, 2**64), (0, 0))),
        OverflowError,
        f"{prefix}conv2d: ",
    )
row(
    "conv_output_size over every float",
    lambda: cyconv.conv_output_size(10**400, 2, 3, 0),
    (OverflowError, ValueError),
    "conv_output_size: ",
)
row(
    "Linear wider than BLAS counts",
    lambda: Network([Linear(2**31)], (1,)),
    OverflowError,
    "Linear '0': out_features is 2,147,483,648",
    "BLAS",
)
row(
    "Conv2D with more taps than BLAS counts",
    lambda: Network([Conv2D(1, 2**16, padding=2**16)], (4, 4, 1)),
    OverflowError,
    "Conv2D '0': the number of taps KH*KW*C is 4,294,967,296",
)

# Labels.
LABELS = [
    ("float", [1.0, 2.0], ValueError, "must be integers, got float64", "astype(np.int64)"),
    ("float32", np.array([1, 2], F32), ValueError, "must be integers, got float32"),
    ("negative", [3, -1], ValueError, "from 0 to 9, got -1 at index 1"),
    ("too large", [10, 11], ValueError, "from 0 to 9, got 10 at index 0"),
    (
        "too large for an int64",
        np.array([0, 2**64 - 1], np.uint64),
        ValueError,
        f"got {2**64 - 1} at index 1",
    ),
    ("too large for any integer", [0, 10**30], (TypeError, ValueError), "labels"),
    ("too few", [1], ValueError, "must have shape (2,)", "got (1,)"),
    ("too many", [1, 2, 3], ValueError, "must have shape (2,)", "got (3,)"),
    ("one-hot", np.eye(10, dtype=int)[:2], ValueError, "must have shape (2,)", "got (2, 10)"),
    ("a column", [[1], [2]], ValueError, "must have shape (2,)", "got (2, 1)"),
    ("a number", 1, ValueError, "must have shape (2,)", "got ()"),
    ("None", None, TypeError, "must be an array of integers, got NoneType"),
    ("strings", ["1", "2"], TypeError, "must be an array of integers, got list"),
    ("bool", [True, False], TypeError, "must be an array of integers, got bool"),
    ("complex", [1j, 2j], TypeError, "must be an array of integers, got complex128"),
    ("masked", np.ma.masked_array([1, 2], False), TypeError, "masked array"),
    ("ragged", [[1], [2, 3]], (TypeError, ValueError), "labels"),
]
LABELLED = {
    "Network.train_step": network_call("train_step", ["optimizer"]),
    "Network.evaluate": network_call("evaluate"),
    "Network.fit": network_call("fit"),
    "cross_entropy": partial(cross_entropy, ARRAYS.logits),
}
for who, call in LABELLED.items():
    for name, value, error, *pieces in LABELS:
        row(f"{who} labels {name}", partial(call, labels=value), error, f"{who}: labels", *pieces)

# Networks and their layers.
for name, value, error, *pieces in (
    ("layers", [], ValueError, "at least one layer"),
    ("layers", None, TypeError, "got None"),
    ("layers", 5, TypeError, "got 5"),
    ("layers", Flatten(), TypeError, "Flatten()"),
    ("layers", [Flatten], TypeError, "layers[0] must be a Layer"),
    ("layers", [Flatten(), "Linear"], TypeError, "layers[1] must be a Layer, got 'Linear'"),
    ("input_shape", 28, TypeError, "got 28"),
    ("input_shape", (), TypeError, "got ()"),
    ("input_shape", "28", TypeError, "got '28'"),
    ("input_shape", (28, 0, 1), ValueError, "input_shape[1] must be at least 1, got 0"),
    ("input_shape", (28, -28, 1), ValueError, "input_shape[1] must be at least 1, got -28"),
    ("input_shape", (28, 28.0, 1), TypeError, "input_shape[1] must be an integer, got 28.0"),
    ("input_shape", (28, True), TypeError, "input_shape[1] must be an integer, got True"),
    ("seed", -1, ValueError, "at least 0, got -1"),
    ("seed", None, TypeError, "must be an integer, got None"),
    ("seed", 1.0, TypeError, "must be an integer, got 1.0"),
    ("seed", True, TypeError, "must be an integer, got True"),
    ("dtype", "float16", TypeError, "must be float32 or float64"),
    ("dtype", int, TypeError, "must be float32 or float64"),
    ("dtype", "float33", TypeError, "must be float32 or float64"),
    ("dtype", None, TypeError, "must be float32 or float64"),
):
    row(
        f"Network {name} {value!r}",
        lambda name=name, value=value: Network(**{"layers": [Flatten()], name: value}),
        error,
        f"Network: {name}",
        *pieces,
    )
for preset in ("exercise", "wide"):
    for seed, error in ((-1, ValueError), ("0", TypeError)):
        row(
            f"presets.{preset} seed {seed!r}",
            partial(getattr(presets, preset), seed),
            error,
            "Network: seed",
        )
for value, error in (
    (0, ValueError),
    (-3, ValueError),
    (True, TypeError),
    (2.0, TypeError),
    ("2", TypeError),
    (None, TypeError),
    ((2, 2), TypeError),
):
    row(f"Linear out_features {value!r}", partial(Linear, value), error, "Linear: out_features")
    row(f"Conv2D out_channels {value!r}", partial(Conv2D, value, 3), error, "Conv2D: out_channels")
for value, error in (
    (-0.1, ValueError),
    (math.nan, ValueError),
    (math.inf, ValueError),
    (True, TypeError),
    ("0.1", TypeError),
    (None, TypeError),
    (1j, TypeError),
):
    row(
        f"LeakyReLU negative_slope {value!r}",
        partial(LeakyReLU, value),
        error,
        "LeakyReLU: negative_slope",
    )
row(
    "Linear after an image",
    lambda: Network([Conv2D(4, 3), Linear(3)], (8, 8, 1)),
    ValueError,
    "Linear '1': x must have shape (N, features), got (N, 6, 6, 4)",
    "Flatten()",
)
row(
    "Conv2D after a vector",
    lambda: Network([Flatten(), Conv2D(4, 3)], (8, 8, 1)),
    ValueError,
    "Conv2D '1': x must have shape (N, H, W, C), got (N, 64)",
)
row(
    "Conv1D on an image",
    lambda: Network([Conv1D(4, 3)], (8, 8, 1)),
    ValueError,
    "Conv1D '0': x must have shape (N, W, C), got (N, 8, 8, 1)",
)
row(
    "the same layer twice",
    lambda: Network([layer := LeakyReLU(), layer], (3,)),
    ValueError,
    "LeakyReLU '0': this layer is part of a network already",
)


class Half(layers.Layer):
    """A user's layer that lacks its passes."""


for name in ("forward", "backward"):
    row(
        f"a layer without {name}",
        partial(getattr(Half(), name), ones(1, 1)),
        TypeError,
        f"Half: a layer must define {name}",
    )


class Same(layers.Layer):
    """A user's layer that checks nothing itself."""

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


for dy, error, text in (
    (ones(2, 9), ValueError, "must have shape (2, 10), got (2, 9)"),
    ([["a"] * 10] * 2, TypeError, "must be float32 or float64, got list"),
):
    row(
        f"Network.backward with a user's layer at its end: {text}",
        lambda dy=dy: [net := Network([Same()], (10,)), net.forward(ones(2, 10)), net.backward(dy)],
        error,
        f"Same '0': dy {text}",
    )
row(
    "a parameter declared outside build",
    lambda: Linear(2).declare("weight", (2,), zeros),
    RuntimeError,
    "Linear: parameters are declared in build(self, input_shape)",
)
for who, layer in (
    ("Linear", Linear(2)),
    ("Conv2D", Conv2D(2, 3)),
    ("LeakyReLU", LeakyReLU()),
    ("Flatten", Flatten()),
):
    row(
        f"{who}.backward before forward",
        partial(layer.backward, ones(2, 2)),
        RuntimeError,
        f"{who}: backward needs a forward before it, and only one each",
    )
OPEN = [Flatten, lambda: Linear(10)]  # no Softmax at the end
for who, arguments in (
    ("train_step", (ARRAYS.image, ARRAYS.labels, Adam())),
    ("evaluate", (ARRAYS.image, ARRAYS.labels)),
    ("predict_proba", (ARRAYS.image,)),
    ("fit", (ARRAYS.image, ARRAYS.labels)),
):
    row(
        f"{who} without Softmax",
        lambda who=who, arguments=arguments: getattr(Network([make() for make in OPEN]), who)(
            *arguments
        ),
        ValueError,
        f"Network.{who}: the network must end with Softmax()",
        "Linear(10)",
    )
    row(
        f"{who} with Softmax over an image",
        lambda who=who, arguments=arguments: getattr(Network([Softmax()]), who)(*arguments),
        ValueError,
        f"Network.{who}: the network must end with Softmax() on a flat output",
        "(28, 28, 1)",
    )

# Training.
for value in (None, "adam", Adam, 0.001):
    row(
        f"train_step optimizer {value!r:.20}",
        partial(network_call("train_step"), labels=ARRAYS.labels, optimizer=value),
        TypeError,
        "Network.train_step: optimizer",
    )
fit = partial(network_call("fit"), labels=ARRAYS.labels)
for name, value, error in (
    ("epochs", -1, ValueError),
    ("epochs", 1.0, TypeError),
    ("epochs", True, TypeError),
    ("epochs", None, TypeError),
    ("batch_size", 0, ValueError),
    ("batch_size", -64, ValueError),
    ("batch_size", 64.0, TypeError),
    ("batch_size", None, TypeError),
    ("seed", -1, ValueError),
    ("seed", "0", TypeError),
    ("optimizer", "adam", TypeError),
    ("optimizer", Adam, TypeError),
    ("validation_data", 0.1, TypeError),
    ("validation_data", (ARRAYS.image,), TypeError),
    ("validation_data", (ARRAYS.image, ARRAYS.labels, 0), TypeError),
    ("validation_data", (ARRAYS.image, [1]), ValueError),
    ("validation_data", (ARRAYS.image, [1, 10]), ValueError),
    ("validation_data", (ARRAYS.image[:, 1:], ARRAYS.labels), ValueError),
    ("validation_data", (None, ARRAYS.labels), TypeError),
    ("validation_data", (ARRAYS.image[:0], []), ValueError),
    ("callbacks", 5, TypeError),
    ("callbacks", print, TypeError),
    ("callbacks", [5], TypeError),
    ("schedule", 0.1, TypeError),
    ("schedule", None, TypeError),
    ("schedule", "linear", ValueError),
):
    row(f"fit {name} {value!r:.40}", partial(fit, **{name: value}), error, "Network.fit: ", name)

# Adam.
for name, value, error in (
    ("learning_rate", -1e-3, ValueError),
    ("learning_rate", math.nan, ValueError),
    ("learning_rate", math.inf, ValueError),
    ("learning_rate", "0.1", TypeError),
    ("learning_rate", None, TypeError),
    ("learning_rate", True, TypeError),
    ("betas", 0.9, ValueError),
    ("betas", (0.9,), ValueError),
    ("betas", (0.9, 0.99, 0.999), ValueError),
    ("betas", (0.9, 1.0), ValueError),
    ("betas", (-0.1, 0.9), ValueError),
    ("betas", (0.9, math.nan), ValueError),
    ("betas", ("0.9", 0.9), TypeError),
    ("betas", (0.9, None), TypeError),
    ("eps", 0, ValueError),
    ("eps", -1e-8, ValueError),
    ("eps", math.nan, ValueError),
    ("eps", "1e-8", TypeError),
):
    row(f"Adam {name} {value!r}", partial(Adam, **{name: value}), error, f"Adam: {name}")
for value, error in ((math.nan, ValueError), (-1, ValueError), ("1", TypeError)):
    row(
        f"a learning rate of {value!r} later",
        partial(setattr, Adam(), "learning_rate", value),
        error,
        "Adam: learning_rate must be",
    )
half, same, fixed = ones(3, dtype=np.float16), ones(4), ones(3)
fixed.flags.writeable = False
for what, parameters, gradients, error, text in (
    ("fewer gradients", ones(10), ones(3), ValueError, "gradients must be flat"),
    ("more gradients", ones(3), ones(10), ValueError, "gradients must be flat"),
    ("gradients of another type", ones(3), ones(3, dtype=np.float64), TypeError, "gradients must"),
    ("gradients in two dimensions", ones(3), ones(3, 1), ValueError, "gradients must be flat"),
    ("gradients in a list", ones(3), [1.0] * 3, TypeError, "gradients must be an array of float32"),
    ("gradients with gaps", ones(3), ones(6)[::2], ValueError, "gradients must be flat"),
    ("parameters in a list", [1.0] * 3, ones(3), TypeError, "parameters must be an array of float"),
    ("parameters with gaps", ones(6)[::2], ones(3), ValueError, "parameters must be flat"),
    ("two dimensions", ones(3, 1), ones(3, 1), ValueError, "parameters must be flat"),
    ("float16", half, half, TypeError, "parameters must be an array of float"),
    ("read-only parameters", fixed, ones(3), ValueError, "parameters must be writable"),
    ("overlapping arrays", same[1:], same[:3], ValueError, "gradients must not share memory"),
):
    row(
        f"Adam.step with {what}",
        lambda parameters=parameters, gradients=gradients: Adam().step(parameters, gradients),
        error,
        f"Adam.step: {text}",
    )
row(
    "Adam for a second network",
    lambda: [adam := Adam(), adam.step(ones(3), ones(3)), adam.step(ones(3), ones(3))],
    RuntimeError,
    "Adam: this optimizer belongs to another network",
)

# Threads.
for value in (0, -1, 10**5, True, "2", 1.5, [], 4 * (os.cpu_count() or 1) + 1):
    row(
        f"set_num_threads {value!r}",
        partial(cyconv.set_num_threads, value),
        ValueError,
        "set_num_threads: n must be",
        repr(value),
    )

# fmt: on


@pytest.mark.parametrize(("call", "error", "pieces"), ROWS)
def test_a_mistake_is_named(call, error, pieces):
    with pytest.raises(error) as raised:
        call()
    text = str(raised.value)
    assert [piece for piece in pieces if piece not in text] == [], text
    assert len(text) < 400, "an error is read by people"


def test_the_good_arguments_of_the_table_are_good(figure):
    figure("mistakes, each with its error and its text", len(ROWS))
    for _, call, names in (*FUNCTIONS, ENTRIES[-1]):
        call(**{name: getattr(ARRAYS, name) for name in names})
    for _, call, _ in NETWORK_METHODS:
        call()
        call(x=np.uint8(ARRAYS.image))
    for call in LABELLED.values():
        call(labels=ARRAYS.labels)
    fit()
