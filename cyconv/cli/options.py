"""Types of command-line options that more than one sub-command has."""

from __future__ import annotations

import argparse
import math
import os


def whole_number(minimum: int):
    """Return an argparse type: an integer of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}, got {text!r}"
            )
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


def thread_count(text: str) -> int:
    """Parse a number of threads, from 1 to four times the cores."""
    number, most = whole_number(1)(text), 4 * (os.cpu_count() or 1)
    if number > most:
        raise argparse.ArgumentTypeError(f"must be from 1 to {most}, got {text!r}")
    return number
