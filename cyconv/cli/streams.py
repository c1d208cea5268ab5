"""Standard streams that are closed, cannot encode a name, or cannot be written."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import suppress
from typing import Any

# What a terminal takes as an order: control characters, except the ends of lines, tabs and the
# returns of a progress bar, and marks that turn the direction of a text.
ORDERS = re.compile("[\0-\b\v\f\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
NOTHING = io.TextIOBase()  # for what a stream lacks: it does nothing, and has no number


class OutputError(OSError):
    """Standard output cannot be written; `filename` is what holds the work done so far, if any."""

    def __str__(self) -> str:
        return f"standard output: {self.strerror}"


def open_closed() -> None:
    """Open os.devnull in place of each standard stream that is closed.

    Otherwise a file that is opened later gets the stream's number, and with it whatever a C library
    writes to the stream.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end


class Errors:
    """Standard error: what cannot be written is dropped, as there is nowhere else to say so.

    What a file, or its name, would order the terminal to do is shown with backslashes instead.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream if hasattr(self._stream, name) else NOTHING, name)

    def write(self, text: str) -> int:
        self._do("write", ORDERS.sub(_shown, text))
        return len(text)

    def flush(self) -> None:
        self._do("flush")

    def _do(self, name: str, *arguments) -> None:
        try:
            self.__getattr__(name)(*arguments)
        except OSError as error:
            with suppress(OSError):  # what is still in the buffer must not fail at the exit
                own = self.fileno()
                number = os.open(os.devnull, os.O_WRONLY)
                os.dup2(number, own)
                os.close(number)
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        pass


def _shown(order: re.Match[str]) -> str:
    return order[0].encode("unicode_escape").decode()


class Output(Errors):
    """Standard output: what cannot be written is an OutputError, then and ever after.

    One that a library has caught, as argparse does, is thus found by the next flush.
    """

    _error: OutputError | None = None

    def _do(self, name: str, *arguments) -> None:
        if self._error:
            raise self._error
        super()._do(name, *arguments)

    def _failed(self, error: OSError) -> None:
        self._error = OutputError(error.errno, error.strerror)
        raise self._error from None
