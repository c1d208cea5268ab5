"""Workers in processes of their own, and the turns they take.

A worker imports this file and its script, and must be free to import the cyconv of another commit,
or none beside PyTorch: cyconv/timing.py and tests/torch_twins.py are run here without their
packages.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from runpy import run_path

_REPOSITORY = Path(__file__).parents[1]
_TIMING = run_path(str(_REPOSITORY / "cyconv" / "timing.py"))
_TWINS = run_path(str(_REPOSITORY / "tests" / "torch_twins.py"))
interleave, print_row, seconds_each = (
    _TIMING[name] for name in ("interleave", "print_row", "seconds_each")
)
describe, give, twin, without_dropout = (
    _TWINS[name] for name in ("describe", "give", "twin", "without_dropout")
)


class Worker:
    """An object in a process of its own: the process makes it and calls its methods.

    Parameters
    ----------
    make : callable
        Called in the process with `args`; importable, like a class of the script.
    """

    def __init__(self, make, *args):
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, make, args), daemon=True)
        self._process.start()
        far.close()

    def call(self, method: str, *args):
        """Return what the method returns, or raise what it raises."""
        self._pipe.send((method, args))
        result = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe, make, args):
    served = make(*args)
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(served, method)(*args))
        except Exception as error:
            pipe.send(error)
