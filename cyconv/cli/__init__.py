"""The command cyconv; each sub-command is a file of its own with ``add`` and ``run``."""

from __future__ import annotations

import argparse
import errno
import sys
from contextlib import redirect_stderr, redirect_stdout

from cyconv import __version__
from cyconv.cli import bench, evaluate, export, info, predict, train, verify
from cyconv.cli.streams import Errors, Output, OutputError, open_closed
from cyconv.threads import set_num_threads

FAILURES = OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, ImportError


def main(arguments=None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: it could not be done. 2: wrong arguments. 130: stopped by Ctrl-C. 141: nobody reads
    the output any more.
    """
    parser = argparse.ArgumentParser(
        prog="cyconv", description="Convolutional networks on the CPU.", allow_abbrev=False
    )
    vars(parser)["color"] = False  # Python 3.14's, which the streams below would show as escapes
    parser.add_argument("--version", action="version", version=f"cyconv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for module in (train, evaluate, predict, export, verify, bench, info):
        module.add(commands)
    open_closed()
    who = parser.prog
    with redirect_stdout(Output(sys.stdout)), redirect_stderr(Errors(sys.stderr)):
        try:
            try:
                args = parser.parse_args(arguments)
                if not args.command:
                    parser.print_help()
                    return 0
                who = f"{who} {args.command}"
                if getattr(args, "threads", None):
                    set_num_threads(args.threads)
                return args.run(args)
            finally:
                sys.stdout.flush()
        except OutputError as error:
            # A reader that has seen enough is not an error, unless it stopped a run that was saved.
            reader_left = error.errno == errno.EPIPE
            if not reader_left or error.filename:
                print(f"{who}: {error}", file=sys.stderr)
            return 141 if reader_left else 1
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            return 130
        except FAILURES as error:
            print(f"{who}: {str(error) or _kind(error)}", file=sys.stderr)
            return 1


def _kind(error: Exception) -> str:
    """Return what can be said of an error that has no text."""
    return "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
