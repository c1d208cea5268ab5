"""What an object keeps, and nobody replaces, or not by what is out of range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")


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
            'write into an array, parameters["weight"][...] = values, or make a new layer, whose '
            '__init__ sets a whole config: self.config = {**self.config, "name": value}'
        )

    __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self):
        return dict, (dict(self),)


class Listed(tuple[Any, ...]):
    """What a list holds, and does not gain or lose."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(list(self))


def settled(value: Any) -> Any:
    """Return dicts, lists and tuples, with those inside, as what cannot be changed."""
    if isinstance(value, dict):
        return Settled((name, settled(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return (Listed if isinstance(value, (list, Listed)) else tuple)(map(settled, value))
    return value


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


class Setting(Generic[T]):
    """An attribute that is what `check(owner, value)` returns of what it is set to."""

    def __init__(self, check: Callable[[Any, Any], T]) -> None:
        self._check, self._name, self.__doc__ = check, f"_{check.__name__}", check.__doc__

    def __get__(self, of: Any, kind: Any = None) -> T:
        found: Any = self if of is None else getattr(of, self._name)
        return found

    def __set__(self, of: Any, value: Any) -> None:
        setattr(of, self._name, self._check(of, value))
