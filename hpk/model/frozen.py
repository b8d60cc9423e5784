"""Frozen dataclasses that cost a job little to define.

The standard decorator writes and compiles six methods for each class, half a millisecond each time
and 40 ms for all of the supervisor's: a tenth of what a short pod costs on its node. Here only
``__init__`` is made so; the others are the same functions for every class. To a type checker it is
the standard one, and ``fields``, ``replace`` and ``is_dataclass`` know no difference.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: Any = None, *, frozen: bool = False) -> Any:
        """As the standard library's, for what the rooms of the job use of it."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen)
        if not frozen:
            return dataclasses.dataclass(cls)
        made = dataclasses.dataclass(cls, repr=False, eq=False)
        made._field_names = tuple(field.name for field in dataclasses.fields(made))
        for name in _METHODS:
            if name not in cls.__dict__:
                setattr(made, name, _Frozen.__dict__[name])
        return made


_METHODS = ("__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__")


class _Frozen:
    """What every frozen dataclass has in common."""

    _field_names: tuple[str, ...]

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._field_names)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._field_names)
        return f"{type(self).__qualname__}({pairs})"

    def __eq__(self, other: object) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return _Frozen._values(self) == _Frozen._values(other)

    def __hash__(self) -> int:
        return hash(_Frozen._values(self))

    def __setattr__(self, name: str, value: object) -> None:
        # __init__ sets each field once; whatever comes after that is a mistake.
        if name in self.__dict__ or name not in self._field_names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
