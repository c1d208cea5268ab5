"""The optional libraries: imported where they are needed, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(module: str, extra: str, who: str) -> ModuleType:
    """Import a library that comes with an extra of the package.

    Raises
    ------
    ImportError
        If it is not installed, where the text names the command that installs it, or if its import
        fails for whatever reason.
    """
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{who}: needs {library} ({error}); install it with "
            f"python -m pip install 'cyconv[{extra}]'"
        ) from None
    except Exception as error:  # as of a setting in the environment that the library refuses
        raise ImportError(
            f"{who}: {library} cannot be imported ({type(error).__name__}: {error})"
        ) from error
