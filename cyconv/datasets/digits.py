"""The small digits that come with the package, for a first run without a network.

digits.npz holds the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and
C. Kaynak, 1998, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licence
CC BY 4.0: `images` of shape (1797, 8, 8) with values 0 to 16, and `labels` of shape (1797,).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cyconv.datasets.mnist import Split

_TRAIN = 1500


def load_digits() -> tuple[Split, Split]:
    """Load 1,797 handwritten digits of 8 x 8 pixels, scaled to look like those of MNIST.

    As in MNIST, each digit fills the 20 x 20 pixels in the middle of 28 x 28. The scaling is
    bilinear and in integers: it has the same bits everywhere.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray, uint8
        The first 1,500 and the last 297 images, of shape (N, 28, 28), white on black, and
        their labels of shape (N,).
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        small, labels = file["images"], file["labels"]
    images = np.zeros((len(small), 28, 28), np.uint8)
    weights = _bilinear_weights()
    images[:, 4:24, 4:24] = (weights @ small @ weights.T * 255 + 800) // 1600
    return (images[:_TRAIN], labels[:_TRAIN]), (images[_TRAIN:], labels[_TRAIN:])


def _bilinear_weights() -> npt.NDArray[np.int32]:
    """Return the weight of each of 8 pixels in each of 20, in tenths: shape (20, 8), int32.

    Pixel i of 20 has its centre at (i + 1/2) * 8/20 - 1/2 = (4 i - 3) / 10 among the 8.
    """
    centre = np.clip(4 * np.arange(20, dtype=np.int32) - 3, 0, 70)
    return (10 - abs(centre[:, None] - 10 * np.arange(8, dtype=np.int32))).clip(min=0)
