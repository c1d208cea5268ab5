"""cyconv predict: tell which digit a picture shows."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np

from cyconv import checks
from cyconv.cli.options import add_command, add_model_argument, file_path
from cyconv.errors import DataFormatError
from cyconv.network import Network

DESCRIPTION = """\
Tell which digit a picture shows: the three most probable, with probabilities.

Drawings, scans and photographs will do, on dark or light backgrounds. The digit
is framed like those of MNIST; a terminal shows what the network then sees. It
says so where a picture seems to show more than one digit.
"""

EXAMPLE = """\
examples:
  cyconv train --preset wide --epochs 3 --out run    makes run/model.safetensors
  cyconv predict run/model.safetensors three.png     your own digit
  cyconv predict run/model.safetensors *.jpg --json  many, for a program
"""


def add(commands) -> None:
    parser = add_command(
        commands,
        "predict",
        run,
        "tell which digit a picture shows",
        DESCRIPTION,
        EXAMPLE,
    )
    add_model_argument(parser)
    parser.add_argument(
        "images",
        type=file_path,
        metavar="IMAGE",
        nargs="+",
        help="PNG, JPEG, BMP or PGM file of one digit (extra image)",
    )
    parser.add_argument("--json", action="store_true", help="print all probabilities as JSON")


def run(args) -> int:
    """Print what the network sees in each picture that can be read."""
    from cyconv.images import read_drawing  # SciPy's ndimage would delay all other commands

    network = Network.load(args.model)
    if network.input_shape not in ((28, 28, 1), (28, 28)):
        raise ValueError(
            f"{args.model}: the model must take images of 28x28x1, it takes "
            f"{checks.shape_text(network.input_shape)}; cyconv train --out run makes one that does"
        )
    network._needs_softmax(args.model)
    kind = "digit" if network.classes == 10 else "class"
    draws = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf")
    records, failed = [], False
    for path in args.images:
        try:
            with warnings.catch_warnings():  # what Pillow warns of is read, or an error below
                warnings.simplefilter("ignore")
                image, several = read_drawing(path)
        except (OSError, DataFormatError) as error:
            print(f"cyconv predict: {error}", file=sys.stderr)
            failed = True
            continue
        probabilities = network.predict_proba(image[np.newaxis])[0]
        best = probabilities.argsort()[::-1]
        if args.json:
            found = {kind: int(best[0]), "probabilities": probabilities.tolist()}
            records.append({"path": path, **found, "several": several})
            continue
        if draws:
            print(f"\n{_drawing(image)}\n")
        print(f"{path}: {kind} " + ", ".join(f"{k} ({probabilities[k]:.3f})" for k in best[:3]))
        if several:
            print(f"cyconv predict: {path}: more than one digit? crop it to one", file=sys.stderr)
    if args.json:
        print(json.dumps(records, indent=2))
    return int(failed)


def _drawing(image: np.ndarray) -> str:
    """Return an image in characters of two pixels each, without the empty lines around it."""
    ink = (image > 100).astype(int)
    lines = ["".join(" ▄▀█"[i] for i in row).rstrip() for row in 2 * ink[::2] + ink[1::2]]
    return "\n".join(lines).strip("\n")
