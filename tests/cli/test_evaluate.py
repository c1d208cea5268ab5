"""cyconv evaluate as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cyconv import Network, datasets, errors, get_num_threads, plots
from cyconv.cli import main
from cyconv.layers import Flatten, Linear, ReLU, Softmax

TEST = datasets.load_digits()[1]


def evaluate(model, *options):
    return main(["evaluate", str(model), "--dataset", "digits", *options])


def saved(path, input_shape=(28, 28, 1), classes=10):
    """Return the path of a new network of one linear layer."""
    network = Network([Flatten(), Linear(classes), Softmax()], input_shape)
    network.save(path / "model.safetensors")
    return path / "model.safetensors"


def test_it_prints_loss_accuracy_and_a_table(model, capsys):
    assert evaluate(model) == 0
    out, err = capsys.readouterr()
    first, _, _, heads, *rows, shares, _, last = out.splitlines()
    loss, accuracy = Network.load(model).evaluate(*TEST)
    assert first == f"{model} on the 297 test images of digits"
    wrong = round(297 * (1 - accuracy))
    assert last == f"loss {loss:.4f}   accuracy {accuracy:.4f}   mistakes {wrong}"
    assert heads.split() == ["truth", *"0123456789", "recall"]
    table = np.array([row.replace(" .", " 0").split() for row in rows], float)
    matrix, recall = table[:, 1:-1], table[:, -1]
    assert np.array_equal(table[:, 0], range(10)) and matrix.trace() == 297 - wrong
    assert np.array_equal(matrix.sum(axis=1), np.bincount(TEST[1]))
    np.testing.assert_allclose(matrix.diagonal() / matrix.sum(axis=1), recall, atol=5e-4)
    precision = np.array(shares.replace(" -", " nan").split()[1:], float)
    with np.errstate(invalid="ignore"):
        expected = matrix.diagonal() / matrix.sum(axis=0)
    np.testing.assert_allclose(precision, expected, atol=5e-4)
    assert all(len(line) <= 80 and line.isascii() for line in out.splitlines()[1:]) and not err


def test_json_is_the_same_and_nothing_else(model, capsys):
    assert evaluate(model, "--json", "--threads", "3") == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert get_num_threads() == 3
    assert [record["loss"], record["accuracy"]] == list(Network.load(model).evaluate(*TEST))
    assert np.sum(record["confusion"], axis=1).tolist() == np.bincount(TEST[1]).tolist()
    assert (record["dataset"], record["images"], err) == ("digits", 297, "")


def test_a_digit_that_is_never_guessed_has_no_precision(tmp_path, capsys):
    path = saved(tmp_path)
    network = Network.load(path)
    network.parameters()["1.weight"][...] = 0
    network.parameters()["1.bias"][3] = 1
    network.save(path)
    assert evaluate(path) == 0
    assert capsys.readouterr().out.splitlines()[-3].split()[1:] == [*"---", "0.101", *"------"]
    assert evaluate(path, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["precision"] == [None] * 3 + [30 / 297] + [None] * 6
    assert record["recall"] == [0] * 3 + [1] + [0] * 6


def test_plots_are_written_beside_the_json(model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    monkeypatch.setattr(plots, "DPI", 30)  # few pixels are quick
    folder = tmp_path / "new" / "pictures"
    assert evaluate(model, "--json", "--plots", str(folder)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) and f"wrote the pictures to {folder}" in err
    names = {"confusion.png", "mistakes.png", "filters.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert evaluate(saved(tmp_path), "--plots", str(tmp_path / "flat")) == 0
    assert "no filters.png: plots.filters: network must have" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "flat").iterdir()} == names - {"filters.png"}


def test_a_network_for_other_data_is_refused_in_one_line(tmp_path, capsys):
    for shape, classes, text in (
        ((32, 32, 3), 10, "it takes (32, 32, 3) to (10,)"),
        ((28, 28, 1), 4, "it takes (28, 28, 1) to (4,)"),
    ):
        path = saved(tmp_path, shape, classes)
        assert evaluate(path) == 1
        out, err = capsys.readouterr()
        assert err.startswith(f"cyconv evaluate: {path}: the network must take images (28, 28, 1) ")
        assert text in err and err.count("\n") == 1 and not out
    assert evaluate(saved(tmp_path, (28, 28))) == 0


@pytest.mark.parametrize(
    "layers", ([Flatten(), Linear(10)], [Flatten(), Linear(10), Softmax(), ReLU()])
)
def test_a_network_without_probabilities_is_refused_before_the_data(layers, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    Network(layers).save(path)
    for command in (
        ["evaluate", str(path), "--data", str(tmp_path / "none")],
        ["predict", str(path), str(tmp_path / "none.png")],
    ):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert err == (
            f"cyconv {command[0]}: {path}: the network must end with Softmax() on a flat output, "
            f"got {layers[-1]!r} with output shape (10,)\n"
        )
        assert not out


def test_the_network_is_looked_at_before_the_data(tmp_path, capsys):
    path = saved(tmp_path, (32, 32, 3))
    assert main(["evaluate", str(path), "--data", str(tmp_path / "none")]) == 1
    assert "the network must take images" in capsys.readouterr().err


def test_other_data_than_it_was_trained_on_are_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    folder, (x, labels) = str(tmp_path / "run"), datasets.load_digits()[0]
    assert main(["train", "--dataset", "digits", "--epochs", "1", "--out", folder]) == 0
    capsys.readouterr()
    path = f"{folder}/model.safetensors"
    assert evaluate(path, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["trained_on"] == "digits" and err == ""
    for dataset, which in (("mnist", "digits"), ("digits", "other files of digits")):
        other = datasets.Dataset(dataset, (x, (labels + 1) % 10), TEST)
        monkeypatch.setattr(datasets, "load", lambda *_, other=other: other)
        assert evaluate(path) == 0
        out, err = capsys.readouterr()
        assert err == f"note: {path} was trained on {which}, not on this {dataset}\n"
        assert "accuracy" in out


@pytest.mark.parametrize("history", (b"", b"\xff", b"[]", b"{}", b"[" * 100_000))
def test_a_history_that_is_none_says_nothing_of_the_data(history, tmp_path, capsys):
    path = saved(tmp_path)
    (tmp_path / "history.json").write_bytes(history)
    assert evaluate(path, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["trained_on"] is None and err == ""


@pytest.mark.skipif(os.name != "posix", reason="pipes and links are POSIX's")
@pytest.mark.parametrize("kind", ("pipe", "device", "hole"))
def test_a_history_without_an_end_is_none(kind, tmp_path):
    path, history = saved(tmp_path), tmp_path / "history.json"
    if kind == "pipe":
        os.mkfifo(history)
    elif kind == "device":
        history.symlink_to("/dev/zero")
    else:
        history.touch()
        os.truncate(history, 40 * 10**9)
    code = (
        "import resource, sys; from tests.cli.test_evaluate import evaluate\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))\n"
        "sys.exit(evaluate(sys.argv[1], '--json'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["trained_on"] is None and done.stderr == b""


@pytest.mark.parametrize("content", [None, b"", b"no network", "cut"])
def test_a_file_that_is_no_network_is_an_error_of_one_line(content, model, tmp_path, capsys):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(Path(model).read_bytes()[:-1] if content == "cut" else content)
    assert evaluate(path) == 1
    err = capsys.readouterr().err
    assert err.startswith("cyconv evaluate: ") and str(path) in err and err.count("\n") == 1


def test_offline_it_says_why_it_takes_the_digits(model, monkeypatch, capsys):
    def offline(directory=None):
        raise errors.DownloadError("no mirror has sent it")

    monkeypatch.setattr(datasets, "load_mnist", offline)
    assert main(["evaluate", model, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["dataset"] == "digits"
    assert "no mirror has sent it" in err and "using the digits bundled" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--data", "."], "--data is a folder of MNIST"),
        (["--threads", "0"], "--threads: must be a whole number of at least 1"),
        (["--dataset", "letters"], "--dataset: invalid choice"),
        (["other"], "unrecognized arguments: other"),
    ],
)
def test_wrong_arguments_exit_with_2(options, text, model, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate(model, *options)
    assert stopped.value.code == 2 and text in capsys.readouterr().err


def test_help_fits_a_screen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30 and "examples:" in lines
