"""The optional libraries: imported where they are needed, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(module: str, extra: str, who: str) -> ModuleType:
    """Import a library that comes with an extra of the package.

    Raises
    ------
    ImportError
        If it is not installed; the text names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{who}: needs {module.partition('.')[0]} ({error}); install it with "
            f"python -m pip install 'cyconv[{extra}]'"
        ) from None
