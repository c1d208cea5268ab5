"""The command cyconv; each sub-command is a file of its own with ``add`` and ``run``."""

from __future__ import annotations

import argparse
import os
import sys

from cyconv import __version__
from cyconv.cli import bench, evaluate, export, info, predict, train, verify
from cyconv.threads import set_num_threads


def main(arguments=None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: it could not be done. 2: wrong arguments. 130: stopped by Ctrl-C. 141: nobody reads
    the output any more.
    """
    parser = argparse.ArgumentParser(
        prog="cyconv", description="Convolutional networks on the CPU.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"cyconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for module in (train, evaluate, predict, export, verify, bench, info):
        module.add(commands)
    args = parser.parse_args(arguments)
    try:
        if getattr(args, "threads", None):
            set_num_threads(args.threads)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is left of it must not fail at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, ImportError) as error:
        print(f"cyconv {args.command}: {error}", file=sys.stderr)
        return 1
