"""What is counted and timed: operations by hand, turns in order, wrong results refused."""

import numpy as np
import pytest

import cyconv
from cyconv import measure, presets, timing
from cyconv._core import LEVELS, cpu, of
from cyconv.measure import Convolution
from tests import reference
from tests.zoo import network

EXERCISE = [2 * 11 * 11 * 64 * 4, 2 * 6 * 6 * 144 * 8, 2 * 3 * 3 * 128 * 16, 2 * 144 * 10]
WIDE = [2 * 14 * 14 * 36 * 32, 2 * 7 * 7 * 1152 * 64, 2 * 3136 * 1024, 2 * 1024 * 10]


RESIDUAL = [
    *(2 * 9 * 9 * 9 * 2 * 4, 2 * 9 * 9 * 9 * 4 * 4, 2 * 9 * 9 * 4 * 4),
    *(2 * 5 * 5 * 9 * 4 * 8, 2 * 5 * 5 * 4 * 8, 2 * 8 * 5),
]
SEPARABLE = [
    *(2 * 10 * 9 * 9 * 2 * 8, 2 * 10 * 9 * 9 * 8, 2 * 10 * 9 * 8 * 16, 2 * 8 * 7 * 9 * 16),
    *(2 * 4 * 3 * 9 * 4 * 4, 2 * 48 * 3),
]
NETWORKS = {
    "exercise": EXERCISE,
    "wide": WIDE,
    "residual": RESIDUAL,
    "depthwise and separable": SEPARABLE,
    "one dimension": [2 * 15 * 5 * 2 * 6, 2 * 13 * 3 * 6 * 4, 2 * 52 * 5],
    "nothing but Softmax": [],
}


@pytest.mark.parametrize(("name", "work"), NETWORKS.items())
def test_operations_are_two_for_each_product(name, work):
    net = network(name)
    assert [each.operations for each in measure.convolutions(net)] == work
    assert measure.forward_operations(net) == sum(work)
    assert measure.step_operations(net) == 3 * sum(work) - sum(work[:1])


def test_layers_are_named_as_they_are_read():
    assert list(map(str, measure.convolutions(presets.wide()))) == [
        "conv 0: 28x28x1, 6x6x32 stride 2 pad 2",
        "conv 2: 14x14x32, 6x6x64 stride 2 pad 2",
        "linear 5: 3136 to 1024",
        "linear 7: 1024 to 10",
    ]
    assert str(Convolution((5, 6, 3), (3, 4, 3, 8), (1, 2), "same")) == (
        "5x6x3, 3x4x8 stride (1, 2) pad same"
    )
    assert list(map(str, measure.convolutions(network("depthwise and separable"))))[4] == (
        "conv 8: 8x7x16, 3x3x4 dilation 2 groups 4"
    )
    assert [each.name for each in measure.convolutions(presets.resnet8())][3:6] == [
        "conv 5.body.0",
        "conv 5.body.3",
        "conv 5.shortcut.0",
    ]


@pytest.mark.parametrize(
    "layer",
    [
        Convolution((9, 7, 3), (3, 4, 3, 5), (2, 1), ((1, 1), (0, 1))),
        Convolution((9, 7, 4), (3, 2, 2, 6), 2, 1, 2, groups=2, rounding="floor"),
    ],
    ids=str,
)
def test_data_fit_the_functions(layer):
    data = measure.draw(layer, 2, np.ones)
    tasks = measure.passes(cyconv, layer, *data)
    assert [each.shape for each in tasks["forward"]()] == [data[3].shape]
    shapes = [each.shape for each in tasks["backward"]()]
    assert shapes == [each.shape for each in data[:3]]


def test_the_bound_is_that_of_the_tests():
    K = np.arange(3000)
    np.testing.assert_array_equal(measure.relative_bound(K), reference.relative_bound(K))


def test_integers_are_whole_and_small():
    drawn = measure.integers(np.random.default_rng(0), (1000,))
    assert drawn.dtype == np.float32 and set(drawn) == set(range(-4, 5))


def test_the_naive_loops_get_as_many_images_as_they_have_time_for(monkeypatch):
    layer = Convolution((8, 8, 1), (3, 3, 1, 2))
    monkeypatch.setattr(measure, "seconds_each", lambda task, iterations: 0.001)
    assert measure.naive_images(layer, 512) == measure.NAIVE_SECONDS / 0.002
    assert measure.naive_images(layer, 3) == 3
    monkeypatch.setattr(measure, "seconds_each", lambda task, iterations: 9.0)
    assert measure.naive_images(layer, 512) == 1


@pytest.mark.parametrize("name", ("exercise", "residual", "dropout", "batch normalisation"))
@pytest.mark.parametrize("task_of", [measure.step_task, measure.predict_task])
def test_a_task_is_checked_before_it_is_timed(task_of, name, monkeypatch):
    net = network(name)
    task_of(net, 5)()
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda x, **mode: np.roll(forward(x, **mode), 1, axis=1))
    with pytest.raises(ArithmeticError, match="by layers"):
        task_of(net, 5)


def test_timed_steps_hardly_learn():
    net = presets.exercise()
    task = measure.step_task(net, 8)
    first = task()
    for _ in range(50):
        last = task()
    assert first != last and abs(first - last) < 1e-3


def test_a_large_sgemm_is_one_product_on_each_thread(monkeypatch):
    monkeypatch.setattr(measure, "SGEMM", 8)
    assert np.array_equal(measure.sgemm_task(3)(), np.full((3, 8, 8), 8))


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_the_loop_of_the_peak_multiplies_and_adds(dtype):
    kernel = of(dtype).peak
    x = np.random.default_rng(0).integers(-9, 9, (3, kernel.ROW)).astype(dtype)
    expected = ((x * 3 - 2) * 3 - 2) * 3 - 2
    kernel.multiply_adds(x, 3, -2, 3, 2)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("level", LEVELS[: LEVELS.index(cpu.LEVEL) + 1])
def test_each_level_has_a_peak_of_a_plausible_size(level, python):
    code = """
        from cyconv import measure
        limit = measure.limits(1)["peak"]
        print(limit.operations / limit.run(3) / 1e9)
    """
    assert 0.01 < float(python(code, CYCONV_SIMD=level)) < 1000  # GFLOP/s of one core


def test_limits_count_two_operations_a_multiply_add_on_every_thread(monkeypatch):
    monkeypatch.setattr(measure, "PEAK_TIMES", 7)
    for threads in (1, 3):
        limits = measure.limits(threads)
        assert limits["peak"].operations == threads * of("float32").peak.ROW * 7 * 2
        assert limits["sgemm"].operations == threads * measure.SGEMM**3 * 2


def test_a_run_sets_its_threads_and_calls_once_more_than_it_counts():
    seen = []
    for threads in (1, 2):
        measure.on_threads(threads, lambda: seen.append(cyconv.get_num_threads()))(3)
    assert seen == [1] * 4 + [2] * 4


def test_sides_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    calls = []

    def side(name, seconds):
        def run(iterations):
            calls.append((name, iterations))
            return seconds

        return run

    times = timing.interleave([side("a", 0.5), side("b", 0.001)], 3, 0.1)
    assert calls[-6:] == [("a", 1), ("b", 100)] * 3
    np.testing.assert_array_equal(times, [[0.5, 0.001]] * 3)


def test_the_turns_of_bench_do_not_import_the_package(python):
    code = """
        import sys
        sys.path.insert(0, "bench")
        import harness
        print(harness.interleave([lambda iterations: 0.5], 2, 0.1).tolist())
        print("cyconv" in sys.modules)
    """
    assert python(code) == "[[0.5], [0.5]]\nFalse\n"
