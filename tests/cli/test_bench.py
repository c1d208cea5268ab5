"""cyconv bench as a person runs it; no figure here depends on the speed of the machine."""

import json

import numpy as np
import pytest

from cyconv import functional, measure, presets
from cyconv.cli import bench, main


@pytest.fixture(autouse=True)
def instant(monkeypatch):
    """Let every call take a second; the naive loops have time for four images of eight."""
    monkeypatch.setattr(measure, "PEAK_TIMES", 2**26)  # more operations than a step of a second has
    monkeypatch.setattr(bench, "interleave", lambda runs, *_: np.ones((1, len(runs))))
    monkeypatch.setattr(measure, "seconds_each", lambda task, iterations: measure.NAIVE_SECONDS / 8)
    monkeypatch.setattr(bench, "LAYER_BATCH", 8)


def networks(capsys, *arguments):
    """Return what --json says of each network."""
    assert main(["bench", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)["networks"]


def test_both_networks_fit_the_screen(capsys):
    assert main(["bench", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for preset, parameters in (("exercise", "4,934"), ("wide", "3,297,514")):
        assert f"{preset} network, {parameters} parameters" in lines
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows if row].count("peak") == 2
    for task in [*bench.TASKS, "large sgemm"]:
        assert [row[:2] for row in rows].count(task.split()) == 2
    assert sum(line.startswith("conv ") for line in lines) == 4 + 2
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("preset", "layers"), [("mnist_convnet", 2), ("vgg_small", 6), ("resnet8", 9)]
)
def test_any_preset_can_be_measured(preset, layers, monkeypatch, capsys):
    tasks = {"train 4": (measure.step_task, measure.step_operations, 4)}
    monkeypatch.setattr(bench, "TASKS", tasks)
    (network,) = networks(capsys, "--preset", preset, "--threads", "1")
    assert len(network["times_as_fast_as_naive"]) == layers


def test_one_thread_has_one_column(capsys):
    assert main(["bench", "--threads", "1", "--preset", "exercise"]) == 0
    out = capsys.readouterr().out
    assert "1: images/s" in out and "speed-up" not in out and "wide" not in out


def test_figures_follow_from_times_of_a_second(capsys):
    (network,) = networks(capsys, "--preset", "exercise", "--threads", "2")
    net = presets.exercise()
    for task in network["tasks"]:
        name, batch = task["task"].split()
        operations = {"train": measure.step_operations, "predict": measure.forward_operations}
        work = 1e-9 * operations[name](net) * int(batch)
        assert task["speed_up"] == 1
        for threads, speed in task["threads"].items():
            shares = []
            for name, limit in measure.limits(int(threads)).items():
                assert network[f"{name}_gflops"][threads] == pytest.approx(1e-9 * limit.operations)
                shares.append(1e9 * work / limit.operations)
            assert list(speed.values()) == pytest.approx([int(batch), work, *shares])
    for layer in network["times_as_fast_as_naive"]:
        assert layer["forward"] == layer["backward"] == 8 / 4


def test_ratios_are_those_of_different_times(monkeypatch, capsys):
    monkeypatch.setattr(bench, "interleave", lambda runs, *_: 1.0 + np.arange(len(runs))[None])
    (network,) = networks(capsys, "--preset", "exercise", "--threads", "2")
    for task in network["tasks"]:
        one, two = task["threads"].values()
        assert task["speed_up"] == pytest.approx(
            two["images_per_second"] / one["images_per_second"]
        )
        for name in ("peak", "sgemm"):
            for speed, limit in zip((one, two), network[f"{name}_gflops"].values(), strict=True):
                assert speed[f"share_of_{name}"] == pytest.approx(speed["gflops"] / limit)
    for layer in network["times_as_fast_as_naive"]:
        assert layer["forward"] < 2 > layer["backward"]  # the naive passes have their turn before


def test_each_task_runs_on_its_threads_for_the_seconds_asked(monkeypatch, capsys):
    asked = []

    def interleave(runs, turns, seconds):
        asked.append((turns, seconds))
        for run in runs:
            run(1)
        return np.ones((turns, len(runs)))

    monkeypatch.setattr(measure, "SGEMM", 16)
    monkeypatch.setattr(measure, "PEAK_TIMES", 16)
    monkeypatch.setattr(bench, "interleave", interleave)
    (network,) = networks(capsys, "--preset", "exercise", "--threads", "2", "--seconds", "0.01")
    assert asked == [(bench.TURNS, 0.01)]
    assert list(network["sgemm_gflops"]) == ["1", "2"]


def test_a_wrong_kernel_is_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(functional, "conv2d_backward", lambda dy, x, weight, *_: (x, weight, dy))
    assert main(["bench", "--preset", "exercise"]) == 1
    err = capsys.readouterr().err
    assert "conv 0: 28x28x1, 8x8x4 stride 2: backward is not what the naive loops say" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seconds", "0"], "--seconds: must be a number above 0"),
        (["--threads", "0"], "--threads: must be a whole number of at least 1"),
        (["--preset", "deep"], "--preset: invalid choice: 'deep'"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_line_that_helps(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *arguments])
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err
