"""cyconv export as a person runs it."""

import sys

import numpy as np
import pytest

from cyconv import presets
from cyconv.cli import main


@pytest.fixture
def model(tmp_path):
    """Return the path of a checkpoint."""
    path = tmp_path / "model.safetensors"
    presets.exercise().save(path)
    return path


def test_it_writes_a_file_that_onnxruntime_reads_and_says_how(model, tmp_path, capsys):
    pytest.importorskip("onnx")
    file = tmp_path / "digits.onnx"
    assert main(["export", str(model), str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {file}",
        "input: float32 (N, 28, 28, 1), 8-bit pixels divided by 255; "
        "probabilities: float32 (N, 10)",
    ]
    onnxruntime = pytest.importorskip("onnxruntime")
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"input": images.astype("float32") / 255})
    np.testing.assert_allclose(probabilities, presets.exercise().predict_proba(images), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: MODEL, FILE.onnx"),
        (["model.safetensors"], "required: FILE.onnx"),
        (["digits.onnx", "model.safetensors"], "must end with .onnx, got 'model.safetensors'"),
        (["model.safetensors", "a.onnx", "b.onnx"], "unrecognized arguments: b.onnx"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_line_that_helps(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export", *arguments])
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("content", (None, b"", b"\x08\x07\x12\x06cyconv"))
def test_a_model_that_is_missing_or_damaged_is_named(content, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["export", str(path), str(tmp_path / "digits.onnx")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cyconv export: ") and str(path) in line
    assert not (tmp_path / "digits.onnx").exists()


def test_a_float64_network_is_refused_in_one_line(tmp_path, capsys):
    pytest.importorskip("onnx")
    presets.exercise(dtype="float64").save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "digits.onnx")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be float32" in line


def test_without_onnx_it_says_how_to_install_it(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(model), str(tmp_path / "digits.onnx")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("install it with python -m pip install 'cyconv[onnx]'")


def test_help_fits_a_screen_and_has_an_example(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0
    assert "  cyconv export run/model.safetensors digits.onnx" in lines
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
