"""cyconv evaluate: how well a trained network reads the test images, digit by digit."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from cyconv import __version__, plots
from cyconv.checks import shape_text
from cyconv.cli.options import (
    CLASSES,
    HISTORY,
    IMAGE,
    add_command,
    add_data_options,
    add_model_argument,
    add_thread_option,
    data_digest,
    folder_path,
    load_data,
)
from cyconv.datasets import Dataset
from cyconv.files import make_folder, opened
from cyconv.metrics import confusion_matrix, precision_and_recall
from cyconv.network import Network

MOST_HISTORY = 2**24  # bytes of a history; that of a run of 10,000 epochs has one million
EXAMPLE = """\
examples:
  cyconv train --out run
  cyconv evaluate run/model.safetensors
  cyconv evaluate run/model.safetensors --plots pictures
"""


def add(commands) -> None:
    parser = add_command(
        commands,
        "evaluate",
        run,
        "tell how well a trained network reads the test images",
        "Tell how well a trained network reads the test images, digit by digit.",
        EXAMPLE,
    )
    option = parser.add_argument
    add_model_argument(parser)
    add_data_options(parser)
    add_thread_option(parser)
    option(
        "--plots",
        metavar="DIR",
        type=folder_path,
        help="folder for confusion.png, mistakes.png and filters.png (extra plot)",
    )
    option("--json", action="store_true", help="print the results as JSON")


def run(args) -> int:
    """Print loss, accuracy, and the confusion matrix with precision and recall of each class."""
    network = Network.load(args.model)
    _check_fit(args.model, network)
    data = load_data(args)
    trained_on = _tell_other_data(Path(args.model), data)
    x, labels = data.test
    loss, accuracy = network.evaluate(x, labels)
    matrix = confusion_matrix(labels, network.predict(x), CLASSES)
    precision, recall = precision_and_recall(matrix)
    if args.json:
        record = {
            "cyconv": __version__,
            "model": args.model,
            "dataset": data.name,
            "trained_on": trained_on,
            "images": len(x),
            "loss": loss,
            "accuracy": accuracy,
            # JSON has no NaN: null is the precision of a class that was never guessed.
            "precision": [None if math.isnan(share) else share for share in precision],
            "recall": recall.tolist(),
            "confusion": matrix.tolist(),
        }
        print(json.dumps(record, indent=2))
    else:
        print(f"{args.model} on the {len(x):,} test images of {data.name}\n")
        print(_table(matrix, precision, recall))
        mistakes = len(x) - matrix.trace()
        print(f"\nloss {loss:.4f}   accuracy {accuracy:.4f}   mistakes {mistakes:,}")
    if args.plots:
        _draw(args.plots, network, x, labels, matrix)
    return 0


def _check_fit(model: str, network: Network) -> None:
    """Raise ValueError unless the network takes the images of the data sets to their classes."""
    taken, given = network.input_shape, network.output_shape
    if taken not in (IMAGE, IMAGE[:2]) or given != (CLASSES,):
        raise ValueError(
            f"{model}: the network must take images {shape_text(IMAGE)} to {CLASSES} classes, it "
            f"takes {shape_text(taken)} to {shape_text(given)}"
        )
    network._needs_softmax(model)


def _tell_other_data(model: Path, data: Dataset) -> str | None:
    """Return the data set that the history beside a network names; say so if it is another one."""
    try:
        with opened(model.with_name(HISTORY), ValueError) as file:
            record = json.loads(file.read(MOST_HISTORY))
        name, digest = f"{record['dataset']:.60}", record["data_sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    if digest != data_digest(*data.train):
        which = name if name != data.name else f"other files of {name}"
        print(f"note: {model} was trained on {which}, not on this {data.name}", file=sys.stderr)
    return name


def _table(matrix, precision, recall) -> str:
    """Return the confusion matrix as text of at most 80 columns for ten classes."""
    rows = [("truth", *range(len(matrix)), "recall")]
    rows += [
        (truth, *(count or "." for count in counts), _share(recall[truth]))
        for truth, counts in enumerate(matrix.tolist())
    ]
    rows.append(("precision", *map(_share, precision), ""))
    lines = [
        (f"{first:>9}" + "".join(f"{each:>6}" for each in middle) + f"{last:>8}").rstrip()
        for first, *middle, last in rows
    ]
    return "\n".join([f"{'guess':>{9 + 3 * len(matrix)}}", *lines])


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _draw(folder: Path, network: Network, x, labels, matrix) -> None:
    """Write the pictures; what is written goes to stderr, as stdout may be JSON."""
    make_folder(folder)
    plots.confusion(matrix, folder / "confusion.png")
    plots.mistakes(x, labels, network.predict_proba(x), folder / "mistakes.png")
    try:
        plots.filters(network, folder / "filters.png")
    except ValueError as error:
        print(f"no filters.png: {error}", file=sys.stderr)
    print(f"wrote the pictures to {folder}", file=sys.stderr)
