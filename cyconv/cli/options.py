"""Command-line options, and types of options, that more than one sub-command has."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from cyconv import datasets, presets

IMAGE, CLASSES = (28, 28, 1), 10  # of every data set that the commands know
HISTORY = "history.json"  # in the folder of a training run, beside its network


def add_command(
    commands, name: str, run: Callable[..., int], line: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Return the parser of a sub-command that `run` carries out; `run` finds it in its arguments.

    `line` describes it in the list of commands, `description` and `examples` on its own page.
    """
    parser = commands.add_parser(
        name,
        help=line,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add MODEL."""
    parser.add_argument(
        "model",
        type=file_path,
        metavar="MODEL",
        help="a network that cyconv train or Network.save wrote",
    )


def add_preset_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --preset, the name of any network of `cyconv.presets`."""
    parser.add_argument(
        "--preset",
        choices=presets.NAMES,
        metavar="NAME",
        help=f"{text}: {', '.join(presets.NAMES)}",
    )


def whole_number(minimum: int, most: int | None = None):
    """Return an argparse type: an integer of at least `minimum`, and at most `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}, got {text!r}"
            )
        if most is not None and number > most:
            raise argparse.ArgumentTypeError(f"must be from {minimum} to {most}, got {text!r}")
        return number

    return parse


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def file_path(text: str) -> str:
    """Parse the name of a file, in which ~ is the user's home, as the shell has it in --out ~/run.

    It leaves that alone in --out=~/run.
    """
    if not text:
        raise argparse.ArgumentTypeError("must be a name, got ''")
    return os.path.expanduser(text)


def folder_path(text: str) -> Path:
    """Parse the name of a folder."""
    return Path(file_path(text))


def thread_count(text: str) -> int:
    """Parse a number of threads, from 1 to four times the cores."""
    return whole_number(1, 4 * (os.cpu_count() or 1))(text)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add --dataset and --data, which `load_data` reads."""
    parser.add_argument(
        "--dataset",
        choices=("auto", "mnist", "digits"),
        default="auto",
        metavar="NAME",
        help="mnist, digits (embedded), auto: the first available",
    )
    parser.add_argument(
        "--data",
        type=folder_path,
        metavar="DIR",
        help="of MNIST (default: $CYCONV_DATA, cache, download)",
    )


def load_data(args: argparse.Namespace) -> datasets.Dataset:
    """Load the data set that the arguments name; say so if it is not the one hoped for."""
    if args.data and args.dataset == "digits":
        args.parser.error("--data is a folder of MNIST: it does not go with --dataset digits")
    data = datasets.load(args.dataset, args.data)
    if data.note:
        text = "MNIST is not available; using the digits bundled with cyconv."
        print(f"{data.note}\n{text}\n", file=sys.stderr)
    return data


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def data_digest(x, labels) -> str:
    """Return the SHA-256 of training images and their labels."""
    digest = hashlib.sha256(x)
    digest.update(labels)
    return digest.hexdigest()


def add_thread_option(parser: argparse.ArgumentParser) -> None:
    """Add --threads, which `main` sets."""
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="default: the cores that may be used"
    )
