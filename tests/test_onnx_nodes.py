"""ONNX's own tests of its operators, computed by the layers: inputs and outputs come from there."""

import functools
import importlib
import warnings

import numpy as np
import pytest

from cyconv import Network, layers
from tests.reference import reach, same_pads

onnx = pytest.importorskip("onnx")

AXES = "the output has other axes than (N, features)"
CEIL = "sizes are rounded up"
DIMENSIONS = "not two-dimensional"
GAPS = "windows of a pooling with dilation"
PADDING = "the mean counts the padding"
RANDOM = "random bits"
UNBIASED = "the running variance is the biased one; here it is the unbiased one, as in PyTorch"

# The tests of what no layer does, and why.
NOT_SUPPORTED = {
    "test_averagepool_1d_default": DIMENSIONS,
    "test_averagepool_2d_ceil": CEIL,
    "test_averagepool_2d_ceil_last_window_starts_on_pad": CEIL,
    "test_averagepool_2d_dilations": GAPS,
    "test_averagepool_2d_pads_count_include_pad": PADDING,
    "test_averagepool_2d_precomputed_pads_count_include_pad": PADDING,
    "test_averagepool_3d_default": DIMENSIONS,
    "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False": DIMENSIONS,
    "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True": DIMENSIONS,
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False": DIMENSIONS,
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True": DIMENSIONS,
    "test_averagepool_3d_dilations_small": DIMENSIONS,
    "test_batchnorm_epsilon_training_mode": UNBIASED,
    "test_batchnorm_example_training_mode": UNBIASED,
    "test_flatten_axis0": AXES,
    "test_flatten_axis2": AXES,
    "test_flatten_axis3": AXES,
    "test_flatten_negative_axis1": AXES,
    "test_flatten_negative_axis2": AXES,
    "test_flatten_negative_axis4": AXES,
    "test_gemm_default_matrix_bias": "each image has a bias of its own",
    "test_maxpool_1d_default": DIMENSIONS,
    "test_maxpool_2d_ceil": CEIL,
    "test_maxpool_2d_ceil_output_size_reduce_by_one": CEIL,
    "test_maxpool_2d_dilations": GAPS,
    "test_maxpool_2d_uint8": "images of whole numbers are divided by 255",
    "test_maxpool_3d_default": DIMENSIONS,
    "test_maxpool_3d_dilations": DIMENSIONS,
    "test_maxpool_3d_dilations_use_ref_impl": DIMENSIONS,
    "test_maxpool_3d_dilations_use_ref_impl_large": DIMENSIONS,
    "test_softmax_axis_0": "the sum is over the batch",
    "test_training_dropout": RANDOM,
    "test_training_dropout_default": RANDOM,
    "test_training_dropout_default_mask": RANDOM,
    "test_training_dropout_mask": RANDOM,
}


def forward(layer, x, *arrays, training=False):
    """Return a layer's output for a batch, its parameters and then its state set to `arrays`."""
    net = Network([layer], x.shape[1:])
    for own, array in zip((*net.parameters().values(), *net.state().values()), arrays, strict=True):
        own[...] = array
    return net.forward(x, training)


def on_images(layer, x, *arrays):
    """Return the same for images (N, C, H, W)."""
    return np.moveaxis(forward(layer, np.moveaxis(x, 1, -1), *arrays), -1, 1)


def placing(attributes, extents, sizes):
    """Return the stride and padding of windows of such extents on images of such sizes."""
    strides = attributes.get("strides", [1, 1])
    same = [same_pads(*axis) for axis in zip(sizes, extents, strides, strict=True)]
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padding = {
        b"NOTSET": ((top, bottom), (left, right)),
        b"VALID": "valid",
        b"SAME_UPPER": "same",
        b"SAME_LOWER": tuple((after, before) for before, after in same),
    }[attributes.get("auto_pad", b"NOTSET")]
    return {"stride": tuple(strides), "padding": padding}


def conv(attributes, x, weight, *bias):
    F, _, *kernel = weight.shape
    dilation = tuple(attributes.get("dilations", [1, 1]))
    arguments = placing(attributes, reach(kernel, dilation), x.shape[2:])
    arguments |= {"dilation": dilation, "groups": attributes.get("group", 1), "bias": bool(bias)}
    layer = layers.Conv2D(F, tuple(kernel), **arguments, rounding="floor")
    weight = weight.transpose(2, 3, 1, 0)
    return on_images(layer, x, weight, *bias)


def pool(make, attributes, x):
    kernel = attributes["kernel_shape"]
    arguments = placing(attributes, kernel, x.shape[2:])
    return on_images(make(tuple(kernel), **arguments, rounding="floor"), x)


def global_average_pool(attributes, x):
    y = forward(layers.GlobalAvgPool2D(), np.moveaxis(x, 1, -1))
    return y[..., np.newaxis, np.newaxis]


def batch_normalization(attributes, x, *arrays):
    return on_images(layers.BatchNorm(eps=attributes.get("epsilon", 1e-5)), x, *arrays)


def element_by_element(layer, x, **keywords):
    return forward(layer, np.atleast_2d(x), **keywords).reshape(x.shape)


def dropout(attributes, x, ratio=0.5, training=False):
    layer = layers.Dropout(float(attributes.get("ratio", ratio)))
    return element_by_element(layer, x, training=bool(training))


def softmax(attributes, x):
    axis = attributes.get("axis", -1)
    return np.moveaxis(forward(layers.Softmax(), np.moveaxis(x, axis, -1)), -1, axis)


def gemm(attributes, x, weight, *bias):
    x = x.T if attributes.get("transA") else x
    weight = weight.T if attributes.get("transB") else weight
    arrays = [attributes.get("alpha", 1) * weight, *(attributes.get("beta", 1) * b for b in bias)]
    return forward(layers.Linear(weight.shape[1], bias=bool(bias)), x, *arrays)


# By operator: the module of onnx that has its tests, and f(attributes, *inputs) -> first output.
OPERATORS = {
    "AveragePool": ("averagepool", functools.partial(pool, layers.AvgPool2D)),
    "BatchNormalization": ("batch_normalization", batch_normalization),
    "Conv": ("conv", conv),
    "Dropout": ("dropout", dropout),
    "Flatten": ("flatten", lambda attributes, x: forward(layers.Flatten(), x)),
    "Gemm": ("gemm", gemm),
    "GlobalAveragePool": ("globalaveragepool", global_average_pool),
    "LeakyRelu": (
        "leakyrelu",
        lambda attributes, x: element_by_element(
            layers.LeakyReLU(attributes.get("alpha", 0.01)), x
        ),
    ),
    "MaxPool": ("maxpool", functools.partial(pool, layers.MaxPool2D)),
    "Relu": ("relu", lambda attributes, x: element_by_element(layers.ReLU(), x)),
    "Softmax": ("softmax", softmax),
    "Tanh": ("tanh", lambda attributes, x: element_by_element(layers.Tanh(), x)),
}


@functools.cache
def cases(operator):
    """Return ONNX's tests of an operator; importing a module of them registers them in a list."""
    node = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings(action="ignore"):
        importlib.import_module(f"{node.__name__}.{OPERATORS[operator][0]}")
    # One whose name goes on with "_expanded" is the same test of a function in its place.
    return [
        case
        for case in node._NodeTestCases
        if case.model.graph.node[0].op_type == operator and "_expanded" not in case.name
    ]


@pytest.mark.parametrize("operator", OPERATORS)
def test_layers_do_what_onnx_says(operator):
    assert cases(operator)
    for case in cases(operator):
        if case.name in NOT_SUPPORTED:
            continue
        (node,) = case.model.graph.node
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        for inputs, (expected, *_) in case.data_sets:  # indices and masks are not compared
            y = OPERATORS[operator][1](attributes, *inputs)
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6, err_msg=case.name)


def test_what_is_not_supported_is_listed_by_name(figure):
    names = {case.name for operator in OPERATORS for case in cases(operator)}
    skipped = names & set(NOT_SUPPORTED)
    figure("ONNX's node tests that layers pass", len(names - skipped))
    figure("ONNX's node tests that are not supported", len(skipped))
