"""bench/: the sets of cases are those of the literature, and nothing is timed that differs."""

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import harness
import layers
import numpy as np
import peers
import predict
import pytest
import zoo

import cyconv
from cyconv import measure
from cyconv._core import LEVELS

BENCH = Path(harness.__file__).parent
PAIRED = {"stride": (2, 1), "padding": (0, 1), "rounding": "floor"}
ARRAYS = {
    "a strided convolution": ("conv", 2, (7, 9, 3), (3, 2, 3, 4), PAIRED),
    "groups": ("conv", 2, (6, 6, 4), (3, 3, 2, 6), {**PAIRED, "groups": 2}),
    "a linear layer": ("linear", 3, 17, 5),
}
NETWORKS = ("step", 4, "mnist_convnet"), ("predict", 4, "mnist_convnet"), ("step", 4, "separable")


def threads():
    """Return how many threads a peer gets here: fewer would be a limit of cyconv's as well."""
    return cyconv.get_num_threads()


class Here:
    """A worker without a process of its own."""

    def __init__(self, make, *args):
        self.served = make(*args)

    def call(self, method, *args):
        return getattr(self.served, method)(*args)


def products(convolutions):
    """Return the multiply-adds of convolutions on one image."""
    return sum(layers.work(each)[1] // 2 for each in convolutions)


def repeated(convolutions, times):
    return itertools.chain.from_iterable(map(itertools.repeat, convolutions, times))


def test_resnet50_has_the_products_that_its_paper_and_torchvision_count():
    times = 1, 1, 3, 4, 2, 1, 1, 1, 4, 3, 3, 1, 1, 1, 6, 5, 5, 1, 1, 1, 3, 2, 2
    assert len(layers.RESNET50) == len(times) == 23 and sum(times) == 53
    total = products(repeated(layers.RESNET50, times)) + 2048 * 1000  # its linear layer
    assert total == 4_089_184_256


def test_vgg16_has_the_products_that_torchvision_counts():
    linear = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert products(repeated(layers.VGG, (1, 1, 1, 1, 1, 2, 1, 2, 3))) + linear == 15_470_264_320


def test_the_depthwise_layers_have_their_share_of_mobilenet():
    total = products(repeated(layers.MOBILENET, (1, 1, 1, 1, 1, 1, 5, 1, 1)))
    assert round(total / 569e6, 4) == 0.0306  # Howard et al. 2017, table 2


def test_each_layer_of_deepbench_fits_the_one_after_it():
    def output(layer):
        geometry = measure.Convolution(layer[0], layer[1], **layer[2]).geometry
        return geometry.OH, geometry.OW, layer[1][3]

    speech, text = layers.DEEPBENCH[:2], layers.DEEPBENCH[2:]
    assert speech[1][0] == output(speech[0])
    for before, after in itertools.pairwise(text):  # with a pooling of 2x2 between
        H, W, F = output(before)
        assert after[0] == (H // 2, W // 2, F)


def test_the_course_has_the_layers_of_both_networks():
    nets = cyconv.presets.exercise(), cyconv.presets.wide()
    own = [each for net in nets for each in measure.convolutions(net) if "conv" in each.name]
    names = list(layers.cases("course"))
    assert names[: len(own)] == [f"512 of {each._replace(name='')}" for each in own]


def test_random_convolutions_are_many_and_strange_and_the_same_each_time():
    drawn = layers.drawn()
    assert drawn == layers.drawn() != layers.drawn(seed=1)
    assert len(layers.cases("random")) == len(drawn) == 200
    assert sum(image[2] <= 8 for image, _, _ in drawn) > 50
    assert sum(image[0] != image[1] for image, _, _ in drawn) > 20
    assert sum(window["stride"] not in (1, 2) for _, _, window in drawn) > 40
    assert sum("groups" in window for _, _, window in drawn) > 10
    work = np.array([layers.work(each) for each in drawn])
    assert (work <= (layers.MOST_VALUES, layers.MOST_OPERATIONS)).all() and (work > 0).all()


@pytest.mark.parametrize("name", layers.SETS)
def test_a_number_of_images_is_that_of_every_case(name):
    usual, three = layers.cases(name), layers.cases(name, 3, backward=True)
    assert {case[1] for case in three.values()} == {3}
    assert {case[0] for case in usual.values()} == {"linear" if name == "linear" else "conv"}
    assert all(case[-1] for case in three.values()) and not any(c[-1] for c in usual.values())


@pytest.mark.parametrize("case", [*ARRAYS.values(), *NETWORKS], ids=str)
def test_operations_are_counted_by_the_formula(case):
    side = peers.Cyconv(1)
    if case[0] in ("step", "predict"):
        net = side._preset(case[2])
        of = {"step": measure.step_operations, "predict": measure.forward_operations}[case[0]]
        assert side.operations(*case) == 4 * of(net)
        return
    (y,) = getattr(side, case[0])(*case[1:], False)
    taps = math.prod(case[3][:3]) if case[0] == "conv" else case[2]
    assert side.operations(*case, False) == 2 * y.size * taps
    assert side.operations(*case, True) == 6 * y.size * taps


def test_the_separable_network_has_the_layers_that_it_names():
    found = measure.convolutions(peers.separable(cyconv))
    pixels = 32**2, 32**2, 32**2, 16**2, 16**2, 16**2, 16**2, 8**2, 8**2
    taps = 27 * 32, 9 * 32, 32 * 64, 9 * 64, 64 * 128, 9 * 128, 128**2, 9 * 128, 128 * 256
    work = [2 * each * other for each, other in zip(pixels, taps, strict=True)]
    assert [each.operations for each in found] == [*work, 2 * 256 * 10]


@pytest.mark.parametrize("backward", (False, True))
@pytest.mark.parametrize("name", ARRAYS)
def test_a_result_that_differs_is_found(name, backward):
    pytest.importorskip("torch")
    kind, *args = *ARRAYS[name], backward
    ours, torch = Here(peers.Cyconv, threads()), peers.PyTorch(threads())
    for variant in torch.variants.get(kind, [()]):
        theirs = getattr(torch, kind)(variant, *args)
        peers.check((kind, *args), ours, theirs)
        for spoiled in range(len(theirs)):
            for fault in (theirs[spoiled] + np.float32(0.01), theirs[spoiled] * np.nan):
                others = [*theirs[:spoiled], fault, *theirs[spoiled + 1 :]]
                with pytest.raises(AssertionError, match="differ"):
                    peers.check((kind, *args), ours, others)


@pytest.mark.parametrize("case", NETWORKS, ids=str)
@pytest.mark.parametrize("side", (peers.PyTorch, peers.OnnxRuntime, peers.OpenVINO))
def test_every_side_computes_what_cyconv_does(side, case):
    kind, images, network = case
    pytest.importorskip(side.module)
    if not hasattr(side, kind):
        pytest.skip("it does not train")
    pytest.importorskip("onnx" if side.form == "onnx" else "torch")
    ours, peer = Here(peers.Cyconv, threads()), side(threads())
    for variant in side.variants.get(kind, [()]):
        theirs = getattr(peer, kind)(variant, images, ours.call(side.form, network))
        peers.check(case, ours, theirs)
        with pytest.raises(AssertionError):
            peers.check(case, ours, np.asarray(theirs) + 1)


class Fast(peers.Side):
    """A peer that takes a second."""

    name, module, form, seconds = "Fast", "sys", "network", 1.0

    def __init__(self, threads):
        pass

    def about(self):
        return f"{self.name} 7"

    def conv(self, variant, *args):
        return peers.Cyconv(1).conv(*args)

    def time(self, iterations):
        return self.seconds


class Slow(Fast):
    name, seconds = "Slow", 3.0


class Missing(Fast):
    name, module = "Missing", "no_such_module"


class Beside(Fast):
    name, seconds = "Beside", 0.25


@pytest.fixture
def measured(monkeypatch):
    """Let cyconv take half a second for everything, at a peak of 1,000 operations a second."""
    monkeypatch.setattr(peers, "Worker", Here)
    monkeypatch.setattr(peers.Cyconv, "about", lambda self: "this machine")
    monkeypatch.setattr(peers.Cyconv, "reached", lambda self, name: 1000.0)
    monkeypatch.setattr(peers.Cyconv, "time", lambda self, iterations: 0.5)
    monkeypatch.setattr(
        peers,
        "interleave",
        lambda runs, turns, seconds: np.array([[run(1) for run in runs]] * turns),
    )
    monkeypatch.setattr(sys, "argv", ["script", "--threads", "1", "--turns", "2"])
    return harness.begin(harness.parser("What?"))


def test_the_ratio_is_over_the_fastest_of_those_that_count(measured, capsys):
    cases = {"a layer": ("conv", 2, (4, 4, 1), (2, 2, 1, 3), {"stride": 1, "padding": 0}, False)}
    about, records = peers.compare(cases, measured, [Slow, Missing, Fast], [Beside])
    record = records["a layer"]
    assert record["ratio"] == record["low"] == record["high"] == 2
    assert record["against"] == "Fast" and record["images_per_second"] == 4
    assert record["share_of_peak"] == pytest.approx(2 * 2 * 9 * 4 * 3 / 0.5 / 1000)
    assert about == "this machine; Slow 7; Fast 7; Beside 7"
    first, missing, ratio, head, row, last = capsys.readouterr().out.splitlines()
    assert first == about and missing.startswith("Missing is not installed and is left out")
    assert "Slow or Fast" in ratio and "Beside" not in ratio
    assert [float(cell) for cell in row.split()[2:6]] == [3000, 1000, 250, 500]
    assert "Missing" not in head and "geometric mean 2.00; the worst 2.00, a layer" in last
    _, records = peers.compare(cases, measured, [Missing], [Beside])
    assert records["a layer"]["ratio"] == 0.5
    with pytest.raises(SystemExit, match=r"pip install"):
        peers.compare(cases, measured, [Missing])


class Ending:
    """What ends its process when it is told to."""

    def end(self):
        os._exit(3)

    def number(self):
        return 7


def test_a_worker_whose_process_ended_has_a_new_one():
    worker = harness.Worker(Ending)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="its process ended"):
            worker.call("end")
        assert worker.call("number") == 7
    worker.close()


def test_a_way_that_a_peer_cannot_go_does_not_count(measured, monkeypatch):
    def conv(self, variant, *args):
        if variant == ("bad",):
            raise RuntimeError("not in this layout")
        return peers.Cyconv(1).conv(*args)

    monkeypatch.setattr(Fast, "conv", conv)
    case = "conv", 1, (2, 2, 1), (2, 2, 1, 3), {"stride": 1, "padding": 0}, False
    monkeypatch.setattr(Fast, "variants", {"conv": [("bad",), ("good",)]})
    assert peers.compare({"x": case}, measured, [Fast])[1]["x"]["against"] == "Fast good"
    monkeypatch.setattr(Fast, "variants", {"conv": [("bad",), ("bad",)]})
    with pytest.raises(RuntimeError, match="not in this layout"):
        peers.compare({"x": case}, measured, [Fast])


def test_a_peer_that_cannot_be_held_to_a_lower_level_is_left_out(measured, capsys, monkeypatch):
    monkeypatch.setattr(Fast, "obeys_level", False)
    monkeypatch.setattr(peers.Cyconv, "most_level", lambda self: "v3")
    monkeypatch.setattr(Beside, "obeys_level", True)
    cases = {"a layer": ("conv", 1, (2, 2, 1), (2, 2, 1, 3), {"stride": 1, "padding": 0}, False)}
    for level, against in (("baseline", "Beside"), ("v3", "Fast"), (None, "Fast")):
        measured.level = level
        assert peers.compare(cases, measured, [Fast], [Beside])[1]["a layer"]["against"] == against
        text = "Fast cannot be held to baseline and is left out"
        assert (text in capsys.readouterr().out) == (level == "baseline")


def test_the_summary_is_of_all_ratios():
    records = {name: {"ratio": ratio} for name, ratio in (("a", 4.0), ("b", 0.5), ("c", 1.0))}
    text = "ratio: geometric mean 1.26; the worst 0.50, b; at or above 1: 2 of 3, 67%"
    assert harness.summary(records) == text


def test_a_level_holds_all_sides(monkeypatch):
    assert tuple(harness.LEVELS) == LEVELS
    for name in harness.VARIABLES:
        monkeypatch.setenv(name, "")
    for level in LEVELS:
        monkeypatch.setattr(sys, "argv", ["script", "--level", level])
        assert harness.begin(harness.parser("What?")).level == level
        assert tuple(map(os.environ.get, harness.VARIABLES)) == harness.LEVELS[level]
        assert os.environ["CYCONV_SIMD"] == level


def test_cases_are_chosen_by_their_names():
    assert list(harness.chosen(zoo.STEPS, ["resnet* 64"])) == [
        "step resnet8 64",
        "step resnet20 64",
    ]
    assert harness.chosen(predict.CASES, [""]) == predict.CASES


SCRIPTS = sorted(path.name for path in BENCH.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_which_question_it_answers(script):
    if script == "ladder.py" and not importlib.util.find_spec("matplotlib"):
        pytest.skip("needs the extra plot")
    help_text = subprocess.run(
        [sys.executable, BENCH / script, "--help"], capture_output=True, text=True, check=True
    ).stdout
    question = (BENCH / script).read_text().split("\n")[0].strip('"')
    assert question.endswith("?") and question in " ".join(help_text.split())
    if script in ("zoo.py", "layers.py", "predict.py"):
        for option in ("--threads", "--turns", "--seconds", "--level", "--cases", "--json"):
            assert option in help_text
