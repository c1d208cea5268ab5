"""The pictures: what they say, that they are read on any ground, and never half written."""

import sys

import numpy as np
import pytest

from cyconv import Network, plots, presets
from cyconv.layers import Conv1D, Conv2D, Flatten, LeakyReLU, Linear, Softmax
from cyconv.training import History

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra plot")
image = pytest.importorskip("matplotlib.image")

HISTORY = History([0.5, 0.25], [0.75, 0.125], [0.5, 0.875], [1.0, 1.0])
MATRIX = np.array([[950, 0, 2], [0, 0, 7], [30, 0, 800]])
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 8)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
PROBABILITIES = np.array(
    [
        [0.9, 0.1, 0.0],
        [0.3, 0.2, 0.5],
        [0.4, 0.4, 0.2],
        [0.5, 0.3, 0.2],
        [0.0, 0.01, 0.99],
        [0.1, 0.2, 0.7],
    ]
)
PICTURES = {
    "history": lambda path: plots.history(HISTORY, path),
    "filters": lambda path: plots.filters(presets.exercise(), path),
    "confusion": lambda path: plots.confusion(MATRIX, path),
    "mistakes": lambda path: plots.mistakes(IMAGES, LABELS, PROBABILITIES, path),
}


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """Return f(call), which draws with ``call(path)`` and returns the figure that was written."""
    figures = []

    def show(call):
        call(tmp_path / "picture.png")
        return figures[-1]

    savefig = matplotlib.figure.Figure.savefig

    def spy(self, *arguments, **keywords):
        figures.append(self)
        return savefig(self, *arguments, **keywords)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", spy)
    monkeypatch.setattr(plots, "DPI", 30)  # few pixels are quick
    return show


def words(figure):
    """Return every text of a figure that is not empty."""
    texts = (text.get_text() for text in figure.findobj(matplotlib.text.Text))
    return [text for text in texts if text]


def network(*layers, input_shape):
    return Network([*layers, Flatten(), Linear(2), Softmax()], input_shape)


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_opaque_and_white_whatever_the_users_style(draw, tmp_path):
    draw(tmp_path / "plain.png")
    with matplotlib.style.context(["dark_background", {"savefig.transparent": True}]):
        draw(tmp_path / "dark.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "dark.png").read_bytes()
    pixels = image.imread(tmp_path / "plain.png")
    assert (pixels[..., 3] == 1).all() and (pixels[[0, -1]] == 1).all()
    assert 600 <= pixels.shape[1] <= 1600


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("picture.svg", b"<?xml"),
        ("picture.PDF", b"%PDF"),
        ("picture.v2.jpg", b"\xff\xd8"),
        ("picture", b"\x89PNG"),
        (".picture", b"\x89PNG"),
    ],
)
@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_what_its_ending_says(draw, name, start, tmp_path):
    draw(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_an_ending_that_nobody_can_write_is_refused(draw, tmp_path):
    with pytest.raises(ValueError, match=r"^plots\.\w+: path must end with .*\.png.*got .*b\.doc"):
        draw(tmp_path / "b.doc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_never_half_written(draw, tmp_path, monkeypatch):
    def full(self, file, **keywords):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", full)
    path = tmp_path / "picture.png"
    path.write_bytes(b"the old one")
    with pytest.raises(OSError, match="no space"):
        draw(path)
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_without_matplotlib_the_error_says_what_to_install(draw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(ImportError, match=r"plots\.\w+: needs matplotlib .*'cyconv\[plot\]'"):
        draw(tmp_path / "picture.png")


def test_no_window_system_is_asked_for(python, tmp_path):
    code = f"""
        import sys
        from cyconv import plots, training
        plots.history(training.History([1.0]), {str(tmp_path / "picture.png")!r})
        print("matplotlib.pyplot" in sys.modules)
    """
    assert python(code).strip() == "False"


def test_history_shows_each_epoch_and_names_the_last(figure):
    loss, accuracy = figure(PICTURES["history"]).axes
    curves = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert curves == {"training": HISTORY.loss, "validation": HISTORY.val_loss}
    assert list(accuracy.lines[0].get_ydata()) == HISTORY.val_accuracy
    assert loss.get_title() == "loss: training 0.25, validation 0.125"
    assert accuracy.get_title() == "validation accuracy: 0.8750"


def test_history_of_one_epoch_without_validation_is_one_point_at_epoch_1(figure):
    (loss,) = figure(lambda path: plots.history(History([0.5]), path)).axes
    first, last = loss.get_xlim()
    assert [tick for tick in loss.get_xticks() if first <= tick <= last] == [1]
    assert loss.lines[0].get_xydata().tolist() == [[1, 0.5]]


def test_a_loss_of_zero_stays_on_the_picture(figure):
    (loss,) = figure(lambda path: plots.history(History([0.5, 0.0]), path)).axes
    assert loss.get_ylim()[0] < loss.lines[0].get_ydata()[1] <= 1e-6


def test_filters_are_the_weights_on_one_scale_about_zero(figure):
    net = presets.exercise()
    axis, bar = figure(lambda path: plots.filters(net, path)).axes
    for f, drawn in enumerate(axis.images):
        assert np.array_equal(drawn.get_array(), net.parameters()["0.weight"][:, :, 0, f])
    largest = abs(net.parameters()["0.weight"]).max()
    assert len(axis.images) == 4
    assert {drawn.get_clim() for drawn in axis.images} == {(-largest, largest)}
    assert bar.get_ylabel() == "weight"


def test_filters_of_several_channels_and_of_a_late_convolution(figure):
    net = network(LeakyReLU(), Conv2D(2, (3, 2)), input_shape=(5, 5, 3))
    drawn = figure(lambda path: plots.filters(net, path))
    images, weight = drawn.axes[0].images, net.parameters()["1.weight"]
    assert np.array_equal(images[4].get_array(), weight[:, :, 1, 1])
    assert "1, channel 1" in words(drawn) and len(images) == 6
    net = network(Conv1D(3, 4), input_shape=(9, 1))
    assert figure(lambda path: plots.filters(net, path)).axes[0].images[2].get_array().size == 4


def test_of_many_filters_the_first_are_drawn(figure):
    net = network(Conv2D(33, 3), input_shape=(5, 5, 2))
    drawn = figure(lambda path: plots.filters(net, path))
    assert len(drawn.axes[0].images) == 64
    assert any("the first 64 of 66 images" in text for text in words(drawn))


def test_filters_that_are_all_zero_are_drawn(figure):
    net = presets.exercise()
    net.parameters()["0.weight"][...] = 0
    assert figure(lambda path: plots.filters(net, path)).axes[0].images[0].get_clim() == (-1, 1)


def test_confusion_has_each_count_at_its_place_and_the_shares_beside_it(figure):
    drawn = figure(PICTURES["confusion"])
    axis, *shares = drawn.axes[0], *drawn.axes[0].child_axes
    counts = {text.get_position()[::-1]: text.get_text() for text in axis.texts}
    assert counts == {(t, g): f"{n}" for (t, g), n in np.ndenumerate(MATRIX) if n or t == g}
    mistakes = axis.collections[1]
    assert np.array_equal(mistakes.get_array().filled(0), [[0, 0, 2], [0, 0, 7], [30, 0, 0]])
    assert mistakes.get_clim() == (0, 30)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("guess", "truth")
    assert axis.yaxis_inverted() and axis.get_title() == "1,750 of 1,789 images right"
    precision, recall = (
        [text.get_text() for text in labels]
        for labels in (shares[0].get_xticklabels(), shares[1].get_yticklabels())
    )
    assert precision == ["0.969", "–", "0.989"] and recall == ["0.998", "0.000", "0.964"]


def test_mistakes_are_in_the_order_of_the_truths_probability(figure):
    drawn = figure(PICTURES["mistakes"])
    axis = drawn.axes[0]
    assert [text.get_text() for text in axis.texts] == [
        "1 → 2   0.99",
        "1 → 2   0.50",
        "2 → 0   0.40",
    ]
    for index, tile in zip((4, 1, 2), axis.images, strict=True):
        assert np.array_equal(tile.get_array(), IMAGES[index])
    assert "3 of 6 images misread: truth → guess and its probability" in words(drawn)


def test_of_many_mistakes_the_worst_forty_are_drawn(figure):
    truth = np.linspace(0.4, 0.0, 50)
    given = np.stack([1 - truth, truth], axis=1)
    images, labels = np.zeros((50, 4, 4, 1), np.float32), np.ones(50, int)
    drawn = figure(lambda path: plots.mistakes(images, labels, given, path))
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert len(texts) == 40 and texts[0] == "1 → 0   1.00"
    assert any(text.startswith("50 of 50 images misread, the 40 worst") for text in words(drawn))


def test_without_a_mistake_the_nearest_are_drawn(figure):
    right = [0, 3, 5]
    arguments = IMAGES[right], LABELS[right], PROBABILITIES[right]
    drawn = figure(lambda path: plots.mistakes(*arguments, path))
    assert drawn.axes[0].texts[0].get_text() == "0 → 0   0.50"
    assert any(text.startswith("none of 3 images misread, the 3 nearest") for text in words(drawn))


@pytest.mark.parametrize(
    ("draw", "error", "text"),
    [
        (lambda path: plots.history(History(), path), ValueError, "history: history must hold"),
        (
            lambda path: plots.filters(network(input_shape=(4,)), path),
            ValueError,
            "filters: network must have a convolution, got Network([Flatten(), Linear(2)",
        ),
        (
            lambda path: plots.confusion(MATRIX[:2], path),
            ValueError,
            "confusion: matrix must have shape (2, 2), got (2, 3)",
        ),
        (
            lambda path: plots.mistakes(IMAGES[..., :0], LABELS, PROBABILITIES, path),
            ValueError,
            "mistakes: x must hold at least one image",
        ),
        (
            lambda path: plots.mistakes(IMAGES[0], LABELS, PROBABILITIES, path),
            ValueError,
            "mistakes: x must have shape (N, H, W), got (9, 8)",
        ),
        (
            lambda path: plots.mistakes(IMAGES, LABELS + 1, PROBABILITIES, path),
            ValueError,
            "mistakes: labels must be from 0 to 2, got 3 at index 2",
        ),
        (
            lambda path: plots.mistakes(IMAGES, LABELS, PROBABILITIES[:3], path),
            ValueError,
            "mistakes: probabilities must have shape (6, classes), got (3, 3)",
        ),
        (
            lambda path: plots.mistakes(IMAGES.astype(int), LABELS, PROBABILITIES, path),
            TypeError,
            "mistakes: x must be float32 or float64 or uint8, got int64",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named_and_nothing_is_written(draw, error, text, tmp_path):
    with pytest.raises(error) as raised:
        draw(tmp_path / "picture.png")
    assert f"plots.{text}" in str(raised.value) and not list(tmp_path.iterdir())


def spoilt(array, value):
    """Return an array of floats whose last number is another."""
    array = np.array(array, np.float64)
    array.flat[-1] = value
    return array


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_drawn(value, tmp_path):
    net, path = presets.exercise(), tmp_path / "picture.png"
    net.parameters()["0.weight"].flat[-1] = value
    for text, draw in {
        r"history: history\.loss\[1\] must be": lambda: plots.history(
            History([0.5, value], [], [], [1.0, 1.0]), path
        ),
        r"history: history\.val_loss\[0\] must be": lambda: plots.history(
            History([0.5], [value], [0.5], [1.0]), path
        ),
        r"history: history\.val_accuracy\[0\] must be": lambda: plots.history(
            History([0.5], [0.5], [value], [1.0]), path
        ),
        "filters: the weight must be finite": lambda: plots.filters(net, path),
        "mistakes: probabilities must be finite.*image 5": lambda: plots.mistakes(
            IMAGES, LABELS, spoilt(PROBABILITIES, value), path
        ),
        "mistakes: x must be finite.*image 5": lambda: plots.mistakes(
            spoilt(IMAGES, value), LABELS, PROBABILITIES, path
        ),
    }.items():
        with pytest.raises(ValueError, match=rf"plots\.{text}"):
            draw()
    assert not path.exists()
