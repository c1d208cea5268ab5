"""One table of layers, one list of laws."""

import inspect

import numpy as np
import pytest

import cyconv
from cyconv import Network
from cyconv.layers import Conv1D, Conv2D, Flatten, Im2Col, LeakyReLU, Softmax
from tests import reference, zoo
from tests.gradcheck import check_gradient, sides_of_kinks
from tests.zoo import LAYERS

N = 3


@pytest.fixture(params=LAYERS)
def row(request):
    """Return each row of the table in turn."""
    return LAYERS[request.param]


def away_from_zero(rng, shape):
    """Return numbers of both signs that no small step takes over the kink of a LeakyReLU."""
    return rng.uniform(0.2, 1, shape) * rng.choice([-1, 1], shape)


def made(row, dtype=np.float64, draw=away_from_zero, images=N):
    """Return (layer, x, dy), the parameters too being drawn."""
    rng = np.random.default_rng(11)
    layer = row.make()
    layer.setup(row.input_shape)
    sizes = layer.size, layer.size, layer.state_size
    layer.bind(*(np.zeros(size, dtype) for size in sizes))
    for parameter in layer.parameters.values():
        parameter[...] = draw(rng, parameter.shape)
    for name, state in layer.state.items():
        state[...] = rng.uniform(0.5, 2, state.shape) if "var" in name else draw(rng, state.shape)
    x = draw(rng, (images, *layer.input_shape)).astype(dtype)
    return layer, x, draw(rng, (images, *layer.output_shape)).astype(dtype)


def both_ways(layer, x, dy, **mode):
    """Return y, dx and the parameters' gradients by name."""
    results = {"y": layer.forward(x, **mode), "dx": layer.backward(dy)}
    return results | {name: array.copy() for name, array in layer.gradients.items()}


@pytest.mark.parametrize("training", (False, True))
def test_gradients_are_the_differences_of_the_output(row, training, count):
    layer, x, dy = made(row)
    mode = {"training": training} if takes_mode(layer) else {}
    results, most = both_ways(layer, x, dy, **mode), count(20, 100, 300)

    def loss():
        return (layer.forward(x, **mode) * dy).sum(), sides_of_kinks(layer, x, **mode)[1]

    check_gradient(loss, x, results["dx"], "x", most=most)
    for name, parameter in layer.parameters.items():
        check_gradient(loss, parameter, results[name], name, most=most)


def takes_mode(layer):
    """Tell whether a layer's forward takes `training`."""
    return "training" in inspect.signature(layer.forward).parameters


def test_output_shape_is_the_shape_of_the_output(row):
    layer, x, dy = made(row)
    results = both_ways(layer, x, dy)
    assert results["y"].shape == (N, *layer.output_shape)
    assert results["dx"].shape == x.shape
    assert {n: p.shape for n, p in layer.parameters.items()} == {
        name: array.shape for name, array in results.items() if name not in ("y", "dx")
    }
    assert layer.size == sum(parameter.size for parameter in layer.parameters.values())


@pytest.mark.parametrize("threads", (1, 3))
def test_a_batch_is_its_images_one_at_a_time(row, threads):
    cyconv.set_num_threads(threads)
    # In integers sums are exact in any order.
    layer, x, dy = made(row, np.float32, reference.integers, images=20)
    whole = both_ways(layer, x, dy)
    single = [both_ways(layer, x[n : n + 1], dy[n : n + 1]) for n in range(len(x))]
    for name, result in whole.items():
        parts = [each[name] for each in single]
        expected = np.concatenate(parts) if name in ("y", "dx") else np.sum(parts, axis=0)
        if row.roundings:  # not integers any more
            largest = np.abs(expected).max()
            np.testing.assert_allclose(result, expected, 0, 1e-6 * largest, err_msg=name)
        else:
            np.testing.assert_array_equal(result, expected, name)


def test_float32_is_within_the_bound_of_float64(row):
    layer, x, dy = made(row, images=20)
    for array in (x, dy, *layer.parameters.values()):
        array[...] = np.float32(array)  # the same numbers in both
    parameters = {name: array.copy() for name, array in layer.parameters.items()}
    expected = both_ways(layer, x, dy)
    small = made(row, np.float32, images=20)[0]
    for name, array in parameters.items():
        small.parameters[name][...] = array
    for name, array in small.state.items():
        layer.state[name][...] = array  # which was rounded
    expected = both_ways(layer, x, dy)
    results = both_ways(small, np.float32(x), np.float32(dy))
    if isinstance(layer, Softmax):
        y = reference.softmax(x)
        classes = x.shape[-1]
        counts = {"y": 1, "dx": classes}
        total = (y * np.abs(dy)).sum(axis=-1, keepdims=True)
        magnitudes = {"y": y, "dx": y * (np.abs(dy) + total)}
    elif row.roundings:
        counts = dict.fromkeys(results, row.roundings)
        magnitudes = {name: np.abs(array).max() for name, array in expected.items()}
    else:
        # Sums of products of ones count the products, of absolute values they are the bound's sum.
        for array in layer.parameters.values():
            array[...] = 1
        counts = both_ways(layer, np.ones_like(x), np.ones_like(dy))
        for name, array in parameters.items():
            layer.parameters[name][...] = np.abs(array)
        magnitudes = both_ways(layer, np.abs(x), np.abs(dy))
    for name, result in results.items():
        assert result.dtype == np.float32
        reference.assert_within(result, expected[name], counts[name], magnitudes[name], name)


def test_backward_before_forward_or_twice_is_an_error(row):
    net = Network([row.make()], row.input_shape, dtype=np.float64)
    _, x, dy = made(row)
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        net.backward(dy)
    net.forward(x)
    net.backward(dy)
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        net.backward(dy)
    net.forward(x)
    net.backward(dy)


def test_inputs_may_be_read_only_and_stay_as_they_are(row):
    layer, x, dy = made(row)
    copies = x.copy(), dy.copy(), {name: p.copy() for name, p in layer.parameters.items()}
    x.flags.writeable = dy.flags.writeable = False
    both_ways(layer, x, dy)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(dy, copies[1])
    for name, parameter in layer.parameters.items():
        np.testing.assert_array_equal(parameter, copies[2][name])


def test_layouts_in_memory_give_the_same(row):
    layer, x, dy = made(row)
    expected = both_ways(layer, x, dy)
    for results in (
        both_ways(layer, np.asfortranarray(x), np.asfortranarray(dy)),
        both_ways(layer, np.flip(np.flip(x).copy()), np.flip(np.flip(dy).copy())),
    ):
        for name, result in results.items():
            np.testing.assert_allclose(result, expected[name], 1e-14, 1e-14, err_msg=name)


def test_outputs_are_complete_when_buffers_start_as_nan(row, nan_buffers):
    layer, x, dy = made(row)
    for gradient in layer.gradients.values():
        gradient.fill(np.nan)
    assert all(np.isfinite(result).all() for result in both_ways(layer, x, dy).values())


def test_the_same_bits_for_any_number_of_threads(row):
    layer, x, dy = made(row, np.float32, images=50)
    bits = set()
    for threads in (1, 2, 3):
        cyconv.set_num_threads(threads)
        bits.add(b"".join(array.tobytes() for array in both_ways(layer, x, dy).values()))
    assert len(bits) == 1


def test_gradients_are_overwritten_not_added_up(row):
    layer, x, dy = made(row)
    first = both_ways(layer, x, dy)
    for name, result in both_ways(layer, x, dy).items():
        np.testing.assert_array_equal(result, first[name], name)


def test_a_batch_of_none_gives_zero_gradients(row):
    layer, x, dy = made(row)
    results = both_ways(layer, x, dy)
    results = both_ways(layer, x[:0], dy[:0])
    assert results.pop("y").shape == (0, *layer.output_shape)
    assert results.pop("dx").shape == (0, *layer.input_shape)
    for name, gradient in results.items():
        assert not gradient.any(), name


@pytest.mark.parametrize(
    "row", [row for row in LAYERS.values() if type(row.make()).__module__.startswith("cyconv.")]
)
def test_a_layer_outside_a_network_is_built_by_its_first_batch(row):
    _, x, dy = made(row)
    layer = row.make()
    assert both_ways(layer, x, dy)["y"].shape == (N, *layer.output_shape)
    assert layer.input_shape == row.input_shape


def test_a_layer_belongs_to_one_network(row):
    layer = row.make()
    Network([layer], row.input_shape)
    with pytest.raises(ValueError, match="part of a network already"):
        Network([layer], row.input_shape)


def test_the_table_says_which_layers_have_an_onnx_node(row):
    assert all(layer.is_exportable for layer in row.make().walk()) == row.exportable


def test_repr_makes_the_layer_again(row):
    layer = row.make()
    names = vars(cyconv.layers) | vars(zoo)
    again = eval(repr(layer), names)
    assert type(again) is type(layer)
    assert repr(again.config) == repr(layer.config)


# What each layer computes, by its definition.


def parts(layer):
    return layer.parameters["weight"], layer.parameters["bias"]


def placing(case):
    """Return how a case places its window, as a layer's arguments."""
    names = "stride", "padding", "dilation", "rounding"
    return {name: getattr(case, name) for name in names}


def test_convolutions_are_the_definition():
    rng = np.random.default_rng(2)
    for case in reference.random_cases(200, seed=2, varied=True):
        layer = Conv2D(case.F, case.kernel, groups=case.groups, **placing(case))
        x = reference.integers(rng, case.x_shape)
        layer.forward(x)
        weight, bias = parts(layer)
        weight[...] = reference.integers(rng, weight.shape)
        bias[...] = reference.integers(rng, bias.shape)
        y = layer.forward(x)
        np.testing.assert_array_equal(y, reference.conv2d(x, weight, bias, case), str(case))
        dy = reference.integers(rng, y.shape)
        expected = reference.conv2d_backward(dy, x, weight, case)
        results = layer.backward(dy), layer.gradients["weight"], layer.gradients["bias"]
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted, str(case))


@pytest.mark.parametrize("padding", (0, 2, (0, 1), "valid", "same"))
def test_one_dimension_is_np_convolve(padding):
    rng = np.random.default_rng(0)
    x = reference.integers(rng, (1, 11, 1))
    layer = Conv1D(1, 4, padding=padding)
    layer.forward(x)
    weight = layer.parameters["weight"]
    weight[...] = reference.integers(rng, weight.shape)
    pads = {0: (0, 0), 2: (2, 2), (0, 1): (0, 1), "valid": (0, 0), "same": (1, 2)}[padding]
    expected = np.convolve(np.pad(x[0, :, 0], pads), weight.ravel()[::-1], "valid")
    np.testing.assert_array_equal(layer.forward(x)[0, :, 0], expected)


def test_im2col_and_one_by_one_equal_a_convolution():
    rng = np.random.default_rng(3)
    for case in reference.random_cases(100, seed=3):
        whole = Network([Conv2D(case.F, case.kernel, **placing(case))], case.x_shape[1:])
        halves = [Im2Col(case.kernel, **placing(case)), Conv2D(case.F, 1)]
        halves = Network(halves, case.x_shape[1:])
        for name, array in whole.parameters().items():
            array[...] = reference.integers(rng, array.shape)
            halves.parameters()[name.replace("0.", "1.")].reshape(-1)[...] = array.ravel()
        x = reference.integers(rng, case.x_shape, np.float32)
        y = whole.forward(x)
        np.testing.assert_array_equal(halves.forward(x), y, str(case))
        dy = reference.integers(rng, y.shape, np.float32)
        np.testing.assert_array_equal(halves.backward(dy), whole.backward(dy), str(case))
        for name, array in whole.gradients().items():
            other = halves.gradients()[name.replace("0.", "1.")]
            np.testing.assert_array_equal(other.ravel(), array.ravel(), str(case))


def test_linear_is_a_matrix_product():
    layer, x, dy = made(LAYERS["Linear wide"], np.float32, reference.integers)
    weight, bias = parts(layer)
    results = both_ways(layer, x, dy)
    np.testing.assert_array_equal(results["y"], x @ weight + bias)
    np.testing.assert_array_equal(results["dx"], dy @ weight.T)
    np.testing.assert_array_equal(results["weight"], x.T @ dy)
    np.testing.assert_array_equal(results["bias"], dy.sum(axis=0))


@pytest.mark.parametrize("slope", (0, 0.1, 0.5, 1, 2))
def test_leaky_relu_is_the_identity_above_zero_and_a_slope_below(slope):
    x = np.array([[-3.0, -1e-300, -0.0, 0.0, 1e-300, 2.0, np.inf, -np.inf, np.nan]])
    y = LeakyReLU(slope).forward(x)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(y, np.where(x > 0, x, slope * x))
    layer = LeakyReLU(slope)
    layer.forward(x)
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), np.where(x > 0, 1, slope))


def test_leaky_relu_has_slope_one_tenth_unless_it_is_told():
    np.testing.assert_allclose(LeakyReLU().forward(np.array([[-1.0]])), -0.1, 1e-15)


def test_softmax_is_stable_and_sums_to_one():
    x = np.array([[0, 0, 0], [1e4, 0, -1e4], [3e38, -3e38, 0], [1, 2, -np.inf]], np.float32)
    y = Softmax().forward(x)
    reference.assert_within(y, reference.softmax(x), 1, reference.softmax(x))
    np.testing.assert_allclose(y.sum(axis=1), 1, 1e-6)


def test_flatten_keeps_the_order_of_memory():
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(Flatten().forward(x), x.reshape(2, 12))
