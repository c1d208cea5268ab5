"""A network as scikit-learn has its classifiers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from cyconv import checks
from cyconv.layers import Conv2D, Flatten, Layer, LeakyReLU, Linear, Softmax
from cyconv.network import Network
from cyconv.optimizers import Adam

_DTYPES = (np.float32, np.uint8)  # all others are converted to the first


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network for pipelines, grid searches and cross-validation.

    Parameters
    ----------
    layers : list of Layer, optional
        What comes before ``Flatten(), Linear(number of classes), Softmax()``; left out, two
        convolutions of 5x5 with stride 2. `fit` trains copies: the layers given stay unused.
    input_shape : tuple of int, optional
        Shape of one sample, (H, W, C) for images; one extent may be -1, as in `numpy.reshape`.
        Left out, it is that of X's images; rows are taken as square grey images.
    epochs, batch_size : int
        As in `Network.fit`.
    learning_rate : float
        Adam's.
    random_state : int, RandomState or None
        Decides the initial weights and the order of the images; an int gives the same bits in
        every call of `fit`.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels, sorted.
    network_ : Network
    history_ : History
        What `Network.fit` measured.
    n_features_in_ : int
        Numbers in a sample.
    feature_names_in_ : ndarray of str
        Only if X had names for all of them.

    Examples
    --------
    >>> model = make_pipeline(MinMaxScaler(), CNNClassifier(random_state=0))
    >>> cross_val_score(model, *sklearn.datasets.load_digits(return_X_y=True))
    """

    def __init__(
        self,
        layers: Sequence[Layer] | None = None,
        input_shape: Sequence[int] | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.layers = layers
        self.input_shape = input_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> CNNClassifier:
        """Train a new network on images and their labels.

        Parameters
        ----------
        X : array_like of shape (N, features), (N, H, W) or (N, H, W, C)
            An array or nested lists. uint8 are divided by 255; numbers in any range are taken as
            float32.
        y : array_like of shape (N,)
            Integers, strings or anything else that scikit-learn takes as labels.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If X, y or a parameter does not fit.
        FloatingPointError
            If the loss is NaN or infinite.
        """
        checks.not_masked(y, "CNNClassifier", "y")
        X = _as_array(X)
        fitted = copy.copy(self)  # if this fit fails, the one before it stays
        rows, y = validate_data(fitted, _as_rows(X), y, dtype=_DTYPES)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        layers = [*self._hidden(), Flatten(), Linear(len(classes)), Softmax()]
        network = Network(layers, self._sample_shape(X, rows), seed)
        history = network.fit(
            _images(X, rows, network),
            labels,
            self.epochs,
            self.batch_size,
            Adam(self.learning_rate),
            seed=seed,
        )
        fitted.classes_, fitted.network_, fitted.history_ = classes, network, history
        self.__dict__ = fitted.__dict__
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the most probable label of each image; X is as in `fit`."""
        images = self._checked(X)
        return self.classes_[self.network_.predict(images)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probability of each of `classes_` for each image, of shape (N, classes)."""
        images = self._checked(X)
        return self.network_.predict_proba(images)

    def _hidden(self) -> list[Layer]:
        """Return layers of the new network's own."""
        if self.layers is None:
            return [
                Conv2D(8, 5, stride=2, padding="same"),
                LeakyReLU(),
                Conv2D(16, 5, stride=2, padding="same"),
                LeakyReLU(),
            ]
        if not isinstance(self.layers, (list, tuple)):
            raise TypeError(f"CNNClassifier: layers must be a list of Layer, got {self.layers!r}")
        if self.layers and isinstance(self.layers[-1], Softmax):
            raise ValueError(
                "CNNClassifier: layers must leave out the last, Linear(classes) and Softmax(), "
                f"which are added when the classes are known; got {self.layers[-1]!r} at the end"
            )
        return copy.deepcopy(list(self.layers))

    def _sample_shape(self, X, rows) -> tuple[int, ...]:
        """Return the shape of one sample: as given, as that of X's images, or square."""
        features = rows.shape[1]
        if self.input_shape is not None:
            try:
                return rows[:1].reshape(1, *self.input_shape).shape[1:]
            except (TypeError, ValueError):
                raise ValueError(
                    "CNNClassifier: input_shape must be a tuple of sizes with a product of "
                    f"{features}, as X has, got {self.input_shape!r}"
                ) from None
        if shape := _image_shape(X):
            if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 4:
                raise ValueError(
                    f"CNNClassifier: X has images of shape {shape}, whose channels seem to come "
                    "first; use X.transpose(0, 2, 3, 1), or, if the channels are last, "
                    f"input_shape={shape}"
                )
            return shape if len(shape) > 2 else (*shape, 1)
        side = math.isqrt(features)
        if side * side != features:
            raise ValueError(
                f"CNNClassifier: X has rows of {features} numbers, which are not square images; "
                "set input_shape=(H, W, C)"
            )
        return side, side, 1

    def _checked(self, X) -> np.ndarray:
        check_is_fitted(self, "network_")
        X = _as_array(X)
        rows = validate_data(self, _as_rows(X), dtype=_DTYPES, reset=False)
        return _images(X, rows, self.network_)


def _as_array(X):
    """Return a sequence of images as an array, and all else as it is: scikit-learn takes it.

    But for masked arrays, which it takes without their masks.
    """
    checks.not_masked(X, "CNNClassifier", "X")
    if not isinstance(X, (list, tuple)):
        return X
    try:
        images = np.asarray(X)
    except ValueError:  # of different sizes
        return X
    return images if images.ndim > 2 else X


def _image_shape(X) -> tuple[int, ...]:
    """Return the shape of X's images, or nothing if X has rows."""
    return tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else ()


def _as_rows(X):
    """Return images as rows, which scikit-learn can check, and all else as it is."""
    shape = _image_shape(X)
    return np.reshape(X, (len(X), math.prod(shape))) if shape else X


def _images(X, rows, network) -> np.ndarray:
    """Return the checked rows in the shape of X's images, or of the network's if X has rows."""
    return rows.reshape(len(rows), *(_image_shape(X) or network.input_shape))
