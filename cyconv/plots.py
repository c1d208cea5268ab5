"""Pictures of a training run and of what came of it, with the extra `plot`.

The ending of a file's name says what it becomes: .png, .svg, .pdf or another that matplotlib
writes; without one it is PNG.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cyconv import checks, extras
from cyconv.files import FilePath, replacement
from cyconv.metrics import check_matrix, precision_and_recall
from cyconv.network import Network
from cyconv.training import History

WIDTH, DPI = 10, 150  # inches, dots per inch: sharp where a page shows it 1000 pixels wide
COLUMNS, ROWS = 8, 5  # of small images
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.markersize": 4,
}
BLUE, ORANGE = "#0072b2", "#d55e00"  # which every kind of eye tells apart (Okabe and Ito)
FRAME_X, FRAME_Y = np.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]])
LEAST_LOSS = 1e-7  # that is drawn: a loss of 0 has no place on a logarithmic axis


def history(history: History, path: FilePath) -> None:
    """Draw loss and validation accuracy over the epochs.

    Parameters
    ----------
    history : History
        Of at least one epoch; without validation data only the training loss is drawn.
    path : str, bytes or path-like

    Raises
    ------
    ValueError
        If there is no epoch, a number is not finite, or matplotlib does not write files of this
        ending.
    ImportError, OSError
        If matplotlib is missing, or the file cannot be written; so in every function here.
    """
    who = "plots.history"
    if not history.loss:
        raise ValueError(f"{who}: history must hold at least one epoch, got none")
    for name in ("loss", "val_loss", "val_accuracy"):
        for index, number in enumerate(getattr(history, name)):
            checks.number(number, who, f"history.{name}[{index}]")
    epochs = range(1, len(history.loss) + 1)
    curves = {"training": history.loss, "validation": history.val_loss}
    curves = {name: losses for name, losses in curves.items() if losses}
    last = ", ".join(f"{name} {losses[-1]:.3g}" for name, losses in curves.items())
    with _picture(path, (WIDTH, 4), who) as figure:
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for (name, losses), color in zip(curves.items(), (BLUE, ORANGE), strict=False):
            axes[0].plot(epochs, np.maximum(losses, LEAST_LOSS), "o-", color=color, label=name)
        low, high = axes[0].dataLim.intervaly
        axes[0].set(title=f"loss: {last}", yscale="log", ylim=(low / 1.4, high * 1.4))
        axes[0].yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter("")
        axes[0].legend()
        if history.val_accuracy:
            axes[1].plot(epochs, history.val_accuracy, "o-", color=ORANGE, clip_on=False)
            axes[1].set_title(f"validation accuracy: {history.val_accuracy[-1]:.4f}")
            axes[1].set_ylim(top=min(1, axes[1].get_ylim()[1]))
        for axis in axes:
            axis.set(xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axis.grid(alpha=0.3)


def filters(network: Network, path: FilePath) -> None:
    """Draw the filters of the first convolution, each channel an image of its own.

    Parameters
    ----------
    network : Network
        Of many filters and channels, the first 64 images are drawn.
    path : str, bytes or path-like

    Raises
    ------
    ValueError
        If the network has no convolution, or its weights are not finite.
    """
    who = "plots.filters"
    convolutions = (each for each in network.layers if np.ndim(each.parameters.get("weight")) == 4)
    layer = next(convolutions, None)
    if layer is None:
        raise ValueError(f"{who}: network must have a convolution, got {network!r}")
    weight = layer.parameters["weight"]
    KH, KW, C, F = weight.shape
    images = weight.transpose(3, 2, 0, 1).reshape(F * C, KH, KW)[: COLUMNS**2]
    checks.finite(images, who, "the weight")
    texts = (f"{f}" if C == 1 else f"{f}, channel {c}" for f, c in np.ndindex(F, C))
    title = f"filters of {layer!r}"
    if len(images) < F * C:
        title += f", the first {len(images)} of {F * C:,} images"
    limit = abs(images).max() or 1
    columns = COLUMNS // C * C or COLUMNS
    colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    _gallery(path, who, title, images, texts, columns, "weight", **colours)


def confusion(matrix: ArrayLike, path: FilePath) -> None:
    """Draw a confusion matrix: mistakes in shades of their own, recall and precision beside it.

    Parameters
    ----------
    matrix : ndarray of shape (classes, classes), int64
        As `cyconv.metrics.confusion_matrix` returns it.
    path : str, bytes or path-like

    Raises
    ------
    TypeError, ValueError
        If the matrix is not a square table of counts.
    """
    who = "plots.confusion"
    counts = check_matrix(matrix, who)
    classes = range(len(counts))
    right = np.eye(len(counts), dtype=np.int64)
    wrong = counts * (1 - right)
    most = max(wrong.max(), 1)
    shares = [
        [f"{share:.3f}".replace("nan", "–") for share in each]
        for each in precision_and_recall(counts)
    ]
    side = min(max(0.6 * len(counts) + 1, 4), 2 * WIDTH)
    with _picture(path, (side, side), who) as figure:
        axis = figure.subplots(subplot_kw={"aspect": "equal", "facecolor": "0.97"})
        cells = partial(axis.pcolormesh, classes, classes, vmin=0, edgecolors="w")
        cells(np.ma.masked_equal(right, 0), cmap="Blues", vmax=4)
        cells(np.ma.masked_equal(wrong, 0), cmap="Oranges", vmax=most)
        for (truth, guess), number in np.ndenumerate(counts):
            if number or truth == guess:
                color = "white" if wrong[truth, guess] > 0.7 * most else "black"
                axis.text(guess, truth, f"{number}", color=color, ha="center", va="center")
        axis.set(xlabel="guess", ylabel="truth", xticks=classes, yticks=classes)
        axis.set_title(f"{counts.trace():,} of {counts.sum():,} images right", pad=12)
        axis.xaxis.tick_top()
        axis.xaxis.set_label_position("top")
        axis.invert_yaxis()
        below, beside = axis.secondary_xaxis("bottom"), axis.secondary_yaxis("right")
        below.set_xlabel("precision")
        below.set_xticks(classes, shares[0])
        beside.set_ylabel("recall")
        beside.set_yticks(classes, shares[1])
        for each in (axis, below, beside):
            each.tick_params(length=0)
            each.spines[:].set_visible(False)


def mistakes(x: ArrayLike, labels: ArrayLike, probabilities: ArrayLike, path: FilePath) -> None:
    """Draw the misread images whose truth was given the least probability.

    If none is misread, they are the images that came nearest to it.

    Parameters
    ----------
    x : ndarray of shape (N, H, W) or (N, H, W, 1), float or uint8
    labels : ndarray of shape (N,), integers from 0 to classes - 1
    probabilities : ndarray of shape (N, classes)
        As `Network.predict_proba` returns them.
    path : str, bytes or path-like

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit the others or is not finite, or there is no image.
    """
    who = "plots.mistakes"
    dtypes = (*checks.FLOATS, np.dtype(np.uint8))
    images = checks.array(x, who, "x", dtypes=dtypes)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    images = checks.array(images, who, "x", ("N", "H", "W"), dtypes)
    if not images.size:
        raise ValueError(f"{who}: x must hold at least one image, got none")
    given = checks.array(probabilities, who, "probabilities", (len(images), "classes"))
    checks.finite(images, who)
    checks.finite(given, who, "probabilities")
    truth = checks.labels(labels, len(images), given.shape[1], who)
    guess = given.argmax(axis=1)
    wrong = np.flatnonzero(guess != truth)
    pool = wrong if wrong.size else np.arange(len(images))
    worst = pool[given[pool, truth[pool]].argsort(kind="stable")[: COLUMNS * ROWS]]
    texts = [f"{truth[i]} → {guess[i]}   {given[i, guess[i]]:.2f}" for i in worst]
    if not wrong.size:
        title = f"none of {len(images):,} images misread, the {len(worst)} nearest to it"
    elif len(worst) < len(wrong):
        title = f"{len(wrong):,} of {len(images):,} images misread, the {len(worst)} worst"
    else:
        title = f"{len(wrong):,} of {len(images):,} images misread"
    title += ": truth → guess and its probability"
    _gallery(path, who, title, images[worst], texts, COLUMNS, cmap="gray_r")


@contextmanager
def _picture(path, size: tuple[float, float], who: str) -> Iterator[Any]:
    """Yield a white figure that becomes the file `path` when it is drawn."""
    style = extras.load("matplotlib.style", "plot", who)
    figure = extras.load("matplotlib.figure", "plot", who)
    with style.context(["default", STYLE]):  # whatever the user's own style is
        picture = figure.Figure(size, layout="constrained")
        ending = os.path.splitext(os.fsdecode(path))[1][1:].lower() or "png"
        endings = picture.canvas.get_supported_filetypes()
        if ending not in endings:
            raise ValueError(f"{who}: path must end with .{', .'.join(endings)}, got {path!r}")
        yield picture
        with replacement(path) as file:
            picture.savefig(file, format=ending, dpi=DPI, bbox_inches="tight")


def _gallery(path, who: str, title: str, images, texts, columns: int, scale="", **colours) -> None:
    """Draw images in rows, each under its text, and the scale of their colours if it has a name.

    All share one pair of axes: with a pair for each, forty images take ten times as long.
    """
    rows = -(-len(images) // columns)
    width, height = max(min(len(images), columns), 4), images.shape[1] / images.shape[2]
    inch = 1.1 * width / (WIDTH - bool(scale))  # in units of an image's width, as all lengths here
    pitch = height + 0.3 * inch
    size = WIDTH, min(rows * pitch / inch + 0.5, 2 * WIDTH)
    with _picture(path, size, who) as figure:
        axis = figure.subplots(subplot_kw={"aspect": "equal"})
        axis.set_axis_off()
        for index, (image, text) in enumerate(zip(images, texts, strict=False)):
            top, left = index // columns * pitch, index % columns * 1.1
            drawn = axis.imshow(image, extent=(left, left + 1, top + height, top), **colours)
            axis.text(left + 0.5, top - 0.05 * inch, text, ha="center", va="bottom", fontsize=10)
            axis.plot(left + FRAME_X, top + height * FRAME_Y, color="0.8", linewidth=0.8)
        axis.set(xlim=(-0.01, 1.1 * width - 0.09), ylim=(rows * pitch - 0.29 * inch, -0.3 * inch))
        figure.suptitle(title)
        if scale:
            figure.colorbar(drawn, ax=axis, label=scale, aspect=15 + 5 * rows)
