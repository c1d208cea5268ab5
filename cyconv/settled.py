"""What an object keeps, and nobody replaces: what it was is in other places too."""

from __future__ import annotations

from typing import Any, NoReturn


class Settled(dict[str, Any]):
    """A dict whose entries stay.

    An array in it can be written to, with ``[...] =`` or ``+=``. A copy is a dict like others.
    """

    def __setitem__(self, name: str, value: Any) -> None:
        if value is not self.get(name):  # as it is after +=
            self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "the entries of parameters, gradients, state, slices and config cannot be replaced; "
            'write into an array, parameters["weight"][...] = values, or make a new layer'
        )

    __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self):
        return dict, (dict(self),)


class Keeper:
    """An object some of whose attributes stay."""

    def _refusal(self, name: str) -> str:
        """Return what an error says if an attribute cannot be changed, else nothing."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if text := self._refusal(name):
            raise AttributeError(text)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if text := self._refusal(name):
            raise AttributeError(text)
        super().__delattr__(name)
