"""What is not an array of floats, or not one of the right floats, for each argument."""

import numpy as np
import pytest

from cyconv import presets
from tests.errors.mistakes import (
    ARRAY_CALLS,
    FUNCTION_CALLS,
    FUNCTIONS,
    LAYER_CALLS,
    ROWS,
    ones,
    raises,
)


class Unwilling:
    """An array that cannot become one of NumPy's, as a tensor of torch that has a gradient."""

    def __init__(self, error):
        self._error = error

    def __array__(self, *_, **__):
        raise self._error("detach it first")


NOT_FLOATS = {  # a value, and what the text must say
    "None": (None, "NoneType"),
    "strings": ([["a", "b"]], "got str"),
    "bytes": (np.array([b"a"]), "got bytes"),
    "a string": ("a", "got str"),
    "object": (object(), "got object"),
    "objects": (np.array([1.0, None]), "got object (", "of different sizes?)"),
    "ragged": ([[1.0], [1.0, 2.0]], "array"),
    "complex": (ones(2, 3, dtype=np.complex64), "complex64"),
    "masked": (np.ma.masked_array(ones(2, 3), False), "masked array"),
    "a list with a masked one": ([np.ma.masked_array(ones(3), False), ones(3)], "masked array"),
    "a tensor": (Unwilling(RuntimeError), "array", "detach it first"),
    "a closed file": (Unwilling(OSError), "array", "detach it first"),
    "float16": (ones(2, 3, dtype=np.float16), "float16", ".astype(np.float32)"),
    "int64": (ones(2, 3, dtype=np.int64), "int64", ".astype(np."),
    "big-endian": (ones(2, 3, dtype=">f4"), ">f4", ".astype(np.float32)"),
    "bool": (ones(2, 3, dtype=bool), "bool", ".astype(np.float32)"),
    "dates": (np.zeros((2, 3), "datetime64[s]"), "datetime64"),
}


@pytest.mark.parametrize(
    ("who", "argument", "kind"),
    [
        (who, argument, kind)
        for who, argument in ARRAY_CALLS
        for kind in NOT_FLOATS
        if (argument, kind) != ("bias", "None")  # a convolution may do without
    ],
)
def test_what_is_not_an_array_of_floats(who, argument, kind):
    value, *pieces = NOT_FLOATS[kind]
    with raises(TypeError, f"{who}: {argument} ", *pieces):
        ARRAY_CALLS[who, argument](**{argument: value})


def test_that_memory_does_not_suffice_is_not_called_a_wrong_kind():
    who, argument = next(iter(ARRAY_CALLS))
    with pytest.raises(MemoryError, match="detach it first"):
        ARRAY_CALLS[who, argument](**{argument: Unwilling(MemoryError)})


@pytest.mark.parametrize(("who", "argument"), [*FUNCTION_CALLS, *LAYER_CALLS])
@pytest.mark.parametrize("dtype", (np.int64, np.uint16))
def test_integers_are_cast_to_floats_where_there_are_no_pixels(who, argument, dtype):
    with raises(TypeError, f"{who}: {argument} ", f"; use {argument}.astype(np.float32)"):
        ARRAY_CALLS[who, argument](**{argument: ones(2, 3, dtype=dtype)})


@pytest.mark.parametrize("dtype", (np.int64, np.uint16))
def test_integers_are_taken_for_pixels_where_images_are_asked_for(dtype):
    x = np.ones((2, 28, 28), dtype)
    text = f"got {np.dtype(dtype)}; use x.astype(np.uint8) for pixels from 0 to 255"
    with raises(TypeError, "Network.predict: x must be float32", text):
        presets.exercise().predict(x)
    ragged = np.array([x[0], x[1, :20]], object)
    with raises(TypeError, "Network.predict: x", "got object (images of different sizes?)"):
        presets.exercise().predict(ragged)


@pytest.mark.parametrize(("who", "argument"), [*FUNCTION_CALLS, *LAYER_CALLS])
def test_only_networks_take_bytes(who, argument):
    with raises(TypeError, f"{who}: {argument} ", "uint8", f"{argument}.astype(np.float32)"):
        ARRAY_CALLS[who, argument](**{argument: ones(2, 3, dtype=np.uint8)})


@pytest.mark.parametrize("prefix", ("", "naive."))
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("conv2d", "weight"),
        ("conv2d", "bias"),
        ("conv2d_backward", "dy"),
        ("conv2d_backward", "weight"),
    ],
)
def test_the_arrays_of_a_function_are_of_one_precision(prefix, name, argument):
    call = FUNCTIONS[f"{prefix}{name}"]
    double = call.keywords[argument].astype(np.float64)
    text = f"{prefix}{name}: {argument} must be float32"
    with raises(TypeError, text, "float64", f"{argument}.astype("):
        call(**{argument: double})


@pytest.mark.parametrize("who", ROWS)
def test_a_gradient_is_of_the_precision_of_its_layer(who):
    y = ROWS[who].make().forward(ones(2, *ROWS[who].input_shape))
    with raises(TypeError, f"{who}: dy must be float32", "float64"):
        LAYER_CALLS[who, "dy"](y.astype(np.float64))
