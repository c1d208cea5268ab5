"""cyconv predict as a person runs it."""

import json
import re
import sys

import numpy as np
import pytest

from cyconv import Network
from cyconv.cli import main
from cyconv.images import read_digit
from cyconv.layers import Conv1D, Flatten, Linear, Softmax

pytest.importorskip("PIL", reason="needs the extra image")
from PIL import Image, ImageDraw


@pytest.fixture
def seven(tmp_path):
    """Return the path of a picture of a seven, dark on light."""
    picture = Image.new("RGB", (100, 120), "ivory")
    ImageDraw.Draw(picture).line([(20, 20), (80, 20), (45, 100)], "navy", 9)
    picture.save(tmp_path / "seven.png")
    return str(tmp_path / "seven.png")


def saved(path, layers, input_shape=(28, 28, 1)):
    """Return the path of a new network."""
    Network(layers, input_shape).save(path / "model.safetensors")
    return str(path / "model.safetensors")


def test_it_prints_the_three_most_probable_digits(model, seven, capsys):
    assert main(["predict", model, seven]) == 0
    out, err = capsys.readouterr()
    probabilities = Network.load(model).predict_proba(read_digit(seven)[np.newaxis])[0]
    first, second, third = np.argsort(-probabilities)[:3]
    assert out == (
        f"{seven}: digit {first} ({probabilities[first]:.3f}), "
        f"{second} ({probabilities[second]:.3f}), {third} ({probabilities[third]:.3f})\n"
    )
    assert not err


def test_a_terminal_shows_what_the_network_sees(model, seven, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["predict", model, seven]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "" and last.startswith(f"{seven}: digit ")
    lines = lines[1:-1]
    assert 10 <= len(lines) <= 12 and max(map(len, lines)) <= 28 and all(lines)
    assert set("".join(lines)) == set(" ▄▀█")
    pixels = [[code in "▀█" for code in line.ljust(28)] for line in lines]
    seen = (read_digit(seven) > 100)[::2]  # a line shows two rows: this is the upper one of each
    assert np.array_equal(np.argwhere(pixels)[:, 1], np.argwhere(seen)[:, 1])


def test_a_terminal_that_has_no_blocks_shows_only_the_text(model, seven, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(type(sys.stdout), "encoding", "iso8859-1")
    assert main(["predict", model, seven]) == 0
    assert capsys.readouterr().out.startswith(f"{seven}: digit ")


@pytest.mark.filterwarnings("error")
def test_bad_pictures_are_told_and_the_good_ones_read(model, seven, tmp_path, capsys):
    blank = tmp_path / "blank.bmp"
    Image.new("L", (50, 50), 200).save(blank)
    missing = tmp_path / "missing.png"
    huge = tmp_path / "huge.pgm"
    huge.write_bytes(b"P5 10000 10000 255\n")
    bad = [str(tmp_path), str(blank), str(missing), model, str(huge)]
    assert main(["predict", model, bad[0], seven, *bad[1:], seven]) == 1
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [seven, seven]
    assert len(err.splitlines()) == len(bad)
    for line, path, text in zip(
        err.splitlines(),
        bad,
        (
            "is a folder",
            "nothing is drawn",
            "No such file",
            "not a complete PNG",
            "50,000,000 pixels",
        ),
        strict=True,
    ):
        assert line.startswith("cyconv predict: ") and path in line and text in line


def test_json_is_one_document(model, seven, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["predict", model, "--json", seven, str(tmp_path), seven]) == 1
    out, err = capsys.readouterr()
    first, second = json.loads(out)
    assert first == second and list(first) == ["path", "digit", "probabilities", "several"]
    probabilities = Network.load(model).predict_proba(read_digit(seven)[np.newaxis])[0]
    assert first["path"] == seven and first["digit"] == probabilities.argmax()
    np.testing.assert_array_equal(np.float32(first["probabilities"]), probabilities)
    assert len(err.splitlines()) == 1


def test_more_than_one_digit_is_asked_after(model, seven, tmp_path, capsys):
    two = str(tmp_path / "two.png")
    picture = Image.open(seven)
    row = Image.new("RGB", (200, 120), "ivory")
    row.paste(picture, (0, 0))
    row.paste(picture, (100, 0))
    row.save(two)
    assert main(["predict", model, two, seven]) == 0
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [two, seven]
    assert err == f"cyconv predict: {two}: more than one digit? crop it to one\n"
    assert main(["predict", model, two, seven, "--json"]) == 0
    out, err = capsys.readouterr()
    assert [record["several"] for record in json.loads(out)] == [True, False] and not err


def test_other_classes_have_numbers(seven, tmp_path, capsys):
    model = saved(tmp_path, [Flatten(), Linear(2), Softmax()])
    assert main(["predict", model, seven]) == 0
    assert re.fullmatch(r".*: class \d \(\d\.\d{3}\), \d \(\d\.\d{3}\)\n", capsys.readouterr().out)
    assert main(["predict", model, seven, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)[0]) == [
        "path",
        "class",
        "probabilities",
        "several",
    ]


def test_a_network_on_rows_of_an_image_is_welcome(seven, tmp_path, capsys):
    model = saved(tmp_path, [Conv1D(4, 3), Flatten(), Linear(10), Softmax()], (28, 28))
    assert main(["predict", model, seven]) == 0
    assert ": digit " in capsys.readouterr().out


def test_a_model_that_cannot_be_used_is_one_line(seven, tmp_path, capsys):
    small = saved(tmp_path, [Flatten(), Linear(10), Softmax()], (8, 8, 1))
    models = {
        "No such file": str(tmp_path / "none"),
        "not a complete safetensors file": seven,
        "28x28x1, it takes (8, 8, 1)": small,
    }
    for text, model in models.items():
        assert main(["predict", model, seven]) == 1
        out, err = capsys.readouterr()
        assert not out and err.startswith("cyconv predict: ") and len(err.splitlines()) == 1
        assert text in err and model in err
    assert main(["predict", saved(tmp_path, [Flatten(), Linear(10)]), seven]) == 1
    assert "must end with Softmax()" in capsys.readouterr().err


def test_without_pillow_it_says_how_to_install_it(model, seven, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert main(["predict", model, seven]) == 1
    out, err = capsys.readouterr()
    assert not out and "'cyconv[image]'" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: MODEL, IMAGE"),
        (["model"], "required: IMAGE"),
        (["model", "image", "--top", "5"], "unrecognized arguments: --top"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *arguments])
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err


def test_help_fits_a_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert any("cyconv predict run/model.safetensors" in line for line in lines)
