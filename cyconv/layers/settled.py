"""What a layer keeps by name, and nobody replaces."""

from __future__ import annotations

from typing import Any, NoReturn


class Settled(dict[str, Any]):
    """A dict whose entries stay: what they were is in other places too.

    An array in it can be written to, with ``[...] =`` or ``+=``. A copy is a dict like others.
    """

    def __setitem__(self, name: str, value: Any) -> None:
        if value is not self.get(name):  # as it is after +=
            self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "the entries of parameters, gradients, state and config cannot be replaced; write into "
            'an array, parameters["weight"][...] = values, or make a new layer'
        )

    __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self):
        return dict, (dict(self),)
