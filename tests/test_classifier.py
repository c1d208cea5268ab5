"""CNNClassifier: what scikit-learn asks of a classifier, and images of any shape."""

import copy
import pickle
import sys

import numpy as np
import pytest

import cyconv
from cyconv import presets
from cyconv.layers import Conv1D, Conv2D, LeakyReLU, Linear, Softmax

sklearn = pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone  # noqa: E402 - only if there is scikit-learn
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from cyconv import CNNClassifier  # noqa: E402

# The checks have rows of 1 to 10 numbers, which are no images: signals, then.
SIGNALS = CNNClassifier([Conv1D(8, 3, padding="same"), LeakyReLU()], input_shape=(-1, 1))


@parametrize_with_checks([SIGNALS])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Return digits of 8x8 pixels from 0 to 16 as rows, and their labels."""
    return load_digits(return_X_y=True)


def quick(**parameters):
    return CNNClassifier(**{"epochs": 1, "random_state": 0, **parameters})


def bits(classifier):
    """Return the weights of a fitted classifier."""
    return classifier.network_._parameters.tobytes()


# Inside scikit-learn.


def test_cross_validation_of_a_pipeline(digits):
    pipeline = make_pipeline(MinMaxScaler(), CNNClassifier(random_state=0))
    scores = cross_val_score(pipeline, *digits, cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.85


def test_a_grid_search_over_layers_and_numbers(digits):
    layers = [None, [Conv2D(4, 3), LeakyReLU()]]
    grid = {"layers": layers, "learning_rate": [1e-9, 3e-3]}
    search = GridSearchCV(quick(epochs=3), grid, cv=2).fit(*digits)
    scores = search.cv_results_["mean_test_score"].reshape(2, 2)
    assert (scores[:, 1] > scores[:, 0] + 0.3).all()
    assert search.best_params_["learning_rate"] == 3e-3
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(digits[0]), search.predict(digits[0]))


def test_the_defaults_learn_the_digits_of_the_package():
    train, test = cyconv.datasets.load_digits()
    assert CNNClassifier(random_state=0).fit(*train).score(*test) > 0.85


def test_the_defaults_learn_mnist(mnist):
    (x, labels), test = mnist
    classifier = quick().fit(x.reshape(len(x), -1), labels)
    assert classifier.score(test[0].reshape(-1, 784), test[1]) > 0.95


# Parameters.


def test_parameters_stay_as_they_were_given(digits):
    layers = [Conv2D(2, 3), LeakyReLU()]
    classifier = quick(layers=layers, input_shape=[8, 8, 1])
    given = classifier.get_params()
    classifier.fit(*digits)
    assert all(classifier.get_params()[name] is value for name, value in given.items())
    assert [layer.name for layer in layers] == [None, None]
    assert repr(clone(classifier)) == repr(classifier)
    assert classifier.network_.layers[0].out_channels == 2
    assert classifier.history_.loss


def test_an_integer_for_random_state_gives_the_same_bits(digits):
    classifier = quick(layers=[Conv2D(4, 3), LeakyReLU()])
    first = bits(classifier.fit(*digits))
    assert bits(classifier.fit(*digits)) == first
    assert bits(clone(classifier).fit(*digits)) == first
    assert bits(quick(layers=classifier.layers, random_state=1).fit(*digits)) != first
    untrained = [quick(epochs=0, random_state=seed).fit(*digits) for seed in (0, 1)]
    assert bits(untrained[0]) != bits(untrained[1])
    state = np.random.RandomState(0)
    classifier.set_params(random_state=state)
    assert bits(classifier.fit(*digits)) == first
    assert bits(classifier.fit(*digits)) != first
    classifier.set_params(random_state=None)
    assert bits(classifier.fit(*digits)) != bits(classifier.fit(*digits))


def test_no_layers_are_layers_too(digits):
    assert len(quick(layers=[]).fit(*digits).network_.layers) == 3


@pytest.mark.parametrize("again", (copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))))
def test_copies_of_a_fitted_classifier_predict_the_same(again, digits):
    classifier = quick().fit(*digits)
    np.testing.assert_array_equal(
        again(classifier).predict_proba(digits[0]), classifier.predict_proba(digits[0])
    )


# Labels.


@pytest.mark.parametrize(
    "names",
    (np.array(list("jihgfedcba")), np.arange(10) * 7 - 20, np.arange(10) > 4, np.arange(10.0)),
    ids=("strings", "integers with gaps", "booleans", "whole floats"),
)
def test_labels_of_any_kind(names, digits):
    x, labels = digits
    classifier = quick(epochs=5).fit(x, names[labels])
    np.testing.assert_array_equal(classifier.classes_, np.unique(names))
    predicted, probabilities = classifier.predict(x), classifier.predict_proba(x)
    assert predicted.dtype == names.dtype
    assert probabilities.shape == (len(x), len(classifier.classes_))
    np.testing.assert_array_equal(predicted, classifier.classes_[probabilities.argmax(axis=1)])
    assert classifier.score(x, names[labels]) > 0.85


# Images.


def test_rows_and_images_are_the_same(digits):
    x, labels = digits
    expected = quick().fit(x, labels)
    shapes = (x, x.reshape(-1, 8, 8), x.reshape(-1, 8, 8, 1))
    for images in shapes:
        classifier = quick().fit(images, labels)
        assert bits(classifier) == bits(expected)
        assert classifier.n_features_in_ == 64
        assert classifier.network_.input_shape == (8, 8, 1)
        for others in shapes:
            np.testing.assert_array_equal(classifier.predict(others), expected.predict(x))


def test_rows_of_colour_images_need_a_shape():
    x = np.random.default_rng(0).random((30, 6, 5, 3), np.float32)
    labels = np.arange(30) % 2
    expected = quick().fit(x, labels)
    assert expected.network_.input_shape == (6, 5, 3)
    rows = x.reshape(30, -1)
    for shape in ((6, 5, 3), (-1, 5, 3)):
        assert bits(quick(input_shape=shape).fit(rows, labels)) == bits(expected)
    with pytest.raises(ValueError, match=r"90 numbers, .* not square images; set input_shape="):
        quick().fit(rows, labels)


def test_uint8_is_divided_by_255_and_other_numbers_are_taken_as_they_are():
    (x, labels), _ = cyconv.datasets.load_digits()
    expected = quick().fit(x, labels)
    assert bits(quick().fit(x / np.float32(255), labels)) == bits(expected)
    assert bits(quick().fit(x / 255, labels)) == bits(expected)
    assert bits(quick().fit(x.astype(int), labels)) != bits(expected)
    np.testing.assert_array_equal(
        expected.predict_proba(x), expected.predict_proba(x / np.float32(255))
    )


def test_nested_lists_are_images_as_arrays_are(digits):
    x, labels = digits
    images = x[:40].reshape(-1, 8, 8, 1)
    expected = quick().fit(images, labels[:40])
    for each in (images[..., 0], images, list(images), [row.tolist() for row in images[..., 0]]):
        nested = each.tolist() if isinstance(each, np.ndarray) else each
        classifier = quick().fit(nested, labels[:40].tolist())
        assert bits(classifier) == bits(expected)
        assert classifier.network_.input_shape == (8, 8, 1)
        np.testing.assert_array_equal(classifier.predict(nested), expected.predict(images))
    rows = quick().fit(x[:40].tolist(), labels[:40])
    assert bits(rows) == bits(expected)


# Refusals.


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("nested", (False, True))
def test_channels_that_come_first_are_refused_with_advice(channels, nested):
    x, labels = np.random.default_rng(0).random((20, channels, 8, 9)), np.arange(20) % 2
    with pytest.raises(ValueError, match=rf"\({channels}, 8, 9\), whose .* X.transpose\(0, 2, 3,"):
        quick().fit(x.tolist() if nested else x, labels)
    assert quick().fit(x.transpose(0, 2, 3, 1), labels).network_.input_shape == (8, 9, channels)
    last = quick(input_shape=(channels, 8, 9)).fit(x, labels)
    assert last.network_.input_shape == (channels, 8, 9)
    for shape in ((channels, 20, 4), (channels, 4, 20), (2, 8, 9)):
        assert quick().fit(np.ones((20, *shape)), labels).network_.input_shape == shape
    grey = quick().fit(np.ones((20, channels, 9)), labels)
    assert grey.network_.input_shape == (channels, 9, 1)


@pytest.mark.parametrize("wrong", ("epochs", "labels", "images", "shape"))
def test_a_fit_that_fails_leaves_the_one_before_it(wrong, digits):
    x, labels = digits
    classifier = quick().fit(x, labels)
    before, expected = {**vars(classifier)}, classifier.predict_proba(x)
    more, more_labels = np.ones((20, 7, 7)), np.arange(20) % 3
    if wrong == "epochs":
        classifier.epochs = -1
    elif wrong == "shape":
        classifier.input_shape = (3, 3, 1)
    elif wrong == "labels":
        more_labels = np.linspace(0, 1, 20)
    else:
        more[3] = np.nan
    with pytest.raises(ValueError):
        classifier.fit(more, more_labels)
    classifier.set_params(epochs=1, input_shape=None)
    assert vars(classifier) == before
    np.testing.assert_array_equal(classifier.predict_proba(x), expected)


@pytest.mark.parametrize(
    ("parameters", "error", "text"),
    [
        ({"layers": "exercise"}, TypeError, "layers must be a list of Layer, got 'exercise'"),
        (
            {"layers": [Linear(9), Softmax()]},
            ValueError,
            r"leave out .* got Softmax\(\) at the end",
        ),
        ({"layers": [4]}, TypeError, r"layers\[0\] must be a Layer, got 4"),
        ({"layers": presets.exercise().layers[:2]}, ValueError, "part of a network already"),
        ({"input_shape": (8, 9, 1)}, ValueError, r"product of 64, as X has, got \(8, 9, 1\)"),
        ({"input_shape": 64}, ValueError, "must be a tuple of sizes .* got 64"),
        ({"input_shape": (8, 8)}, ValueError, r"must have shape \(N, H, W, C\)"),
        ({"epochs": -1}, ValueError, "epochs must be at least 0, got -1"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer, got 1.5"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number, got 'fast'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_fit(parameters, error, text, digits):
    classifier = quick(**parameters)
    with pytest.raises(error, match=text):
        classifier.fit(*digits)
    with pytest.raises(NotFittedError):
        classifier.predict(digits[0])


def test_images_of_another_shape_are_refused(digits):
    classifier = quick().fit(*digits)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 8, 8, 1\), got \(9, 4, 16\)"):
        classifier.predict(np.zeros((9, 4, 16)))
    for x in (np.zeros((9, 63)), np.zeros((9, 7, 7))):
        with pytest.raises(ValueError, match="expecting 64 features"):
            classifier.predict_proba(x)


def test_masked_arrays_are_refused_as_a_network_does(digits):
    x, y = digits
    fitted, masked = quick().fit(x, y), np.ma.masked_array
    for rows in (masked(x, x == 0), masked(x.reshape(-1, 8, 8), False), [masked(x[0], True)] * 9):
        for call in (lambda rows: quick().fit(rows, y[: len(rows)]), fitted.predict):
            with pytest.raises(TypeError, match=r"CNNClassifier: X .*masked array"):
                call(rows)
    with pytest.raises(TypeError, match=r"CNNClassifier: y .*masked array"):
        quick().fit(x, masked(y, y == 3))


def test_predict_before_fit_is_refused(digits):
    with pytest.raises(NotFittedError):
        quick().predict(digits[0])


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"CNNClassifier: needs sklearn .* 'cyconv\[sklearn\]'"):
        _ = cyconv.CNNClassifier
    with pytest.raises(AttributeError, match="has no attribute 'Classifier'"):
        _ = cyconv.Classifier
