"""cyconv verify as a person runs it: on kernels that are right, and on wrong ones."""

import json

import numpy as np
import pytest

from cyconv import functional, measure, presets, timing
from cyconv.cli import main, verify
from cyconv.layers import Conv2D, Flatten, Linear, Softmax
from cyconv.network import Network

LAYER = ("verify", "--input", "7", "6", "2", "--kernel", "3", "2", "--filters", "3")
SMALL = (*LAYER, "--batch", "7")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Time one short turn, and let the naive loops have three images."""
    monkeypatch.setattr(timing, "PAUSE", 0)
    monkeypatch.setattr(measure, "SGEMM", 16)
    monkeypatch.setattr(measure, "PEAK_TIMES", 16)
    monkeypatch.setattr(measure, "seconds_each", lambda task, iterations: measure.NAIVE_SECONDS / 6)
    monkeypatch.setattr(verify, "TURNS", 1)
    monkeypatch.setattr(verify, "SECONDS", 1e-4)


def test_it_shows_each_pass_and_that_all_agree(capsys):
    assert main([*SMALL, "--stride", "2", "--padding", "1", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all results agree"
    assert "7x6x2, 3x2x3 stride 2 pad (1, 0) (naive: 3 of 7 images)" in lines
    rows = [line.split() for line in lines[-6:-2]]
    assert [row[:2] for row in rows] == [[name, "exact"] for name in verify.RESULTS]
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    assert [row[6:] == ["-", "-", "-"] for row in rows] == [True, True, False, False]
    assert max(map(len, lines)) <= 100


def test_it_says_that_the_factors_do_not_compare_equal_work(capsys):
    assert main([*SMALL, "--threads", "2"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "not equal work: the naive loops take the few images on one thread" in text
    assert "the whole batch on 2 threads" in text


def test_figures_follow_from_the_times(monkeypatch, capsys):
    def interleave(runs, turns, seconds):
        return np.array([[0.25, 0.5, *[0.3] * 4, *[0.7] * 4]])

    monkeypatch.setattr(verify, "interleave", interleave)
    assert main([*SMALL, "--threads", "2", "--json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    limits = dict(zip(("peak", "sgemm"), (0.25, 0.5), strict=True))
    for name, seconds in limits.items():
        limits[name] = measure.limits(2)[name].operations / seconds
        assert layer[f"{name}_gflops"] == pytest.approx(1e-9 * limits[name])
    forward = 2 * (5 * 5) * (3 * 2 * 2) * 3
    for each, operations in zip(layer["passes"], (None, None, forward, 2 * forward), strict=True):
        assert each["naive_us"] == pytest.approx(1e6 * 0.3 / 3)
        assert each["cyconv_us"] == pytest.approx(1e6 * 0.7 / 7)
        assert each["factor"] == pytest.approx(1)
        if operations:
            rate = operations * 7 / 0.7
            assert each["gflops"] == pytest.approx(1e-9 * rate)
            for name, limit in limits.items():
                assert each[f"of_{name}"] == pytest.approx(rate / limit)
        else:
            assert "gflops" not in each


def test_without_a_geometry_it_takes_all_layers_of_both_networks(monkeypatch, capsys):
    def small():
        return Network([Conv2D(2, 3), Flatten(), Linear(4), Softmax()], input_shape=(5, 5, 1))

    monkeypatch.setattr(presets, "exercise", small)
    monkeypatch.setattr(presets, "wide", small)
    assert main(["verify", "--batch", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["agree"] is True
    assert [layer["layer"] for layer in document["layers"]] == [
        f"{preset} {layer}"
        for preset in ("exercise", "wide")
        for layer in ("conv 0: 5x5x1, 3x3x2", "linear 2: 18 to 4")
    ]


def test_layers_inside_layers_of_any_preset(capsys):
    assert main(["verify", "--preset", "resnet8", "--batch", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [layer["layer"].split(":")[0] for layer in document["layers"]]
    assert names[3:6] == [f"resnet8 conv 5.{each}" for each in ("body.0", "body.3", "shortcut.0")]


def test_a_preset_does_not_go_with_a_geometry(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*LAYER, "--preset", "wide"])
    assert stopped.value.code == 2
    assert "--preset has its own layers" in capsys.readouterr().err


@pytest.mark.parametrize("change", ({"dilation": 2}, {"groups": 2}, {"rounding": "floor"}))
def test_every_kind_of_convolution(change, capsys, monkeypatch):
    layer = Conv2D(4, 3, stride=2, padding=1, **{"rounding": "floor", **change})
    net = Network([layer, Flatten(), Linear(2), Softmax()], input_shape=(8, 9, 2))
    monkeypatch.setattr(presets, "exercise", lambda: net)
    assert main(["verify", "--preset", "exercise", "--batch", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agree"] is True


@pytest.mark.parametrize(
    ("words", "padding"),
    [
        (["0"], 0),
        (["valid"], "valid"),
        (["same"], "same"),
        (["1", "2"], [1, 2]),
        (["1", "0", "2", "1"], [[1, 0], [2, 1]]),
    ],
)
def test_padding_in_all_its_forms(words, padding, capsys):
    assert main([*SMALL, "--json", "--padding", *words]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["padding"] == padding and layer["differences"] == []


def changed(array, index, value):
    """Return the array with another value at an index."""
    array[index] = value
    return array


LAST = (-1, 0, 0, 0)  # an image that is a repeated one
FAULTS = {
    "an element": ("conv2d", lambda y: changed(y, LAST, 1000), "y[6, 0, 0, 0] is 1000,"),
    "NaN": ("conv2d", lambda y: changed(y, LAST, np.nan), "y[6, 0, 0, 0] is nan,"),
    "a copy": ("im2col", lambda cols: changed(cols, (5, 1), 9), "cols[5, 1] is 9,"),
    "a sum": ("col2im", lambda x: x + (np.arange(7) == 4).reshape(7, 1, 1, 1), "x[4, 0, 0, 0] is"),
    "dx": ("conv2d_backward", lambda g: (g[0] + 1, *g[1:]), "dx[0, 0, 0, 0] is"),
    "dweight": ("conv2d_backward", lambda g: (g[0], g[1] + 1, g[2]), "dweight[0, 0, 0, 0] is"),
    "dbias": ("conv2d_backward", lambda g: (*g[:2], changed(g[2], 2, 0.5)), "dbias[2] is 0.5,"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ("integers", "reals"))
def test_a_wrong_kernel_is_found_and_where(fault, kind, monkeypatch, capsys):
    name, spoil, where = FAULTS[fault]
    kernel = getattr(functional, name)
    monkeypatch.setattr(functional, name, lambda *arguments: spoil(kernel(*arguments)))
    assert main(SMALL) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "some results differ"
    assert sum(f"on {kind}: {where}" in line for line in lines) == 1
    assert sum("DIFFERS" in line for line in lines) == 1


def test_an_error_of_rounding_shows_on_reals_only(monkeypatch, capsys):
    kernel = functional.conv2d
    monkeypatch.setattr(
        functional, "conv2d", lambda *arguments: kernel(*arguments) * np.float32(1 + 1e-5)
    )
    monkeypatch.setattr(measure, "integers", lambda rng, shape: np.zeros(shape, np.float32))
    assert main([*SMALL, "--json"]) == 1
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    forward = layer["passes"][2]
    assert forward["exact_on_integers"] and forward["error_over_bound"] > 1
    (line,) = layer["differences"]
    assert line.startswith("forward on reals: y[") and "the naive loops say" in line


def test_the_last_bit_counts_on_integers(monkeypatch, capsys):
    kernel = functional.conv2d
    monkeypatch.setattr(
        functional, "conv2d", lambda *arguments: np.nextafter(kernel(*arguments), 9)
    )
    assert main([*SMALL, "--json"]) == 1
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    forward = layer["passes"][2]
    assert not forward["exact_on_integers"] and forward["error_over_bound"] <= 1
    (line,) = layer["differences"]
    assert line.startswith("forward on integers: y[0, 0, 0, 0] is")


def test_gradients_of_a_batch_that_leaves_out_an_image(monkeypatch, capsys):
    backward = functional.conv2d_backward

    def careless(dy, x, *rest):
        dx, _, _ = backward(dy, x, *rest)
        return dx, *backward(dy[:-1], x[:-1], *rest)[1:]

    monkeypatch.setattr(functional, "conv2d_backward", careless)
    assert main(SMALL) == 1
    out = capsys.readouterr().out
    assert "backward on integers: dweight[" in out and "dbias[" in out and "dx[" not in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--stride", "3"], "kernel 3, stride 3, padding 0 on height 7 leaves 2.33333 output rows"),
        (["--kernel", "9"], "conv2d: kernel 9 is larger than height 7"),
        (["--kernel", "1", "2", "3"], "conv2d: kernel_size must be an integer or a pair (y, x)"),
        (["--stride", "1", "1", "1"], "conv2d: stride must be an integer or a pair (y, x)"),
        (["--padding", "1", "1", "1"], "conv2d: padding must be an integer or a pair (y, x)"),
        (["--padding", "same", "1"], "conv2d: padding[0] must be an integer, got 'same'"),
        (["--padding", "more"], "--padding: must be a whole number of at least 0, got 'more'"),
        (["--input", "7", "6"], "--input: expected 3 arguments"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1"),
    ],
)
def test_a_wrong_geometry_exits_with_2_and_the_library_s_words(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*LAYER, *arguments])
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_half_a_geometry_is_refused(capsys):
    for arguments in (["--stride", "2"], ["--input", "5", "5", "1"]):
        with pytest.raises(SystemExit) as stopped:
            main(["verify", *arguments])
        assert stopped.value.code == 2
        assert "a layer needs --input, --kernel and --filters" in capsys.readouterr().err


def test_a_batch_beyond_the_memory_is_one_line(capsys):
    assert main([*LAYER, "--batch", str(10**14)]) == 1
    err = capsys.readouterr().err
    assert "more than this machine's memory; use a smaller batch" in err and "Traceback" not in err
