"""What a table of known fields is made of: a check for each field, and the walk that uses it.

Checks are data: hpk.planning.pod_policy makes a policy of the API server's from the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.planning.base.fields import INVALID, UNSUPPORTED, is_absent

Check = Callable[[Any, str], None]
UNKNOWN = "is not supported yet"
UNKNOWN_REMEDY = "remove it"


def walk(value: Mapping[str, Any], path: str, known: Mapping[str, Check]) -> None:
    """Check each field that says something; refuse those without a check."""
    for name, item in value.items():
        if is_absent(item):
            continue
        check = known.get(name, unsupported)
        check(item, f"{path}.{name}")


def unsupported(value: Any, path: str) -> None:
    """What no field may hold that HPK does not know.

    :raises AdmissionError: always.
    """
    raise AdmissionError(UNSUPPORTED, path, UNKNOWN, remedy=UNKNOWN_REMEDY)


def anything(value: Any, path: str) -> None:
    """Handled elsewhere, or the business of the API server and the scheduler."""


@dataclass(frozen=True, slots=True)
class Only:
    """A check for one of these values, all strings or all booleans."""

    allowed: tuple[Any, ...]

    @property
    def message(self) -> str:
        """What is said of any other value."""
        return f"only {' or '.join(repr(item) for item in self.allowed)} is supported yet"

    def __call__(self, value: Any, path: str) -> None:
        """Check a value."""
        if not any(value is item or value == item for item in self.allowed):
            raise AdmissionError(UNSUPPORTED, path, self.message)


@dataclass(frozen=True, slots=True)
class Same:
    """That a number is that of another field beside it, if it is given and not 0."""

    as_field: str
    message: str


@dataclass(frozen=True, slots=True)
class OneObject:
    """A check for an object of these fields.

    :param same: fields that must agree with another one of the object.
    """

    known: Mapping[str, Check]
    same: Mapping[str, Same] = field(default_factory=dict)

    def __call__(self, value: Any, path: str) -> None:
        """Check a value."""
        if not isinstance(value, dict):
            raise AdmissionError(INVALID, path, "must be an object")
        walk(value, path, self.known)
        for name, same in self.same.items():
            if value.get(name) not in (None, 0, value.get(same.as_field)):
                raise AdmissionError(INVALID, f"{path}.{name}", same.message)


@dataclass(frozen=True, slots=True)
class Objects:
    """A check for a list of such objects."""

    each: OneObject

    def __call__(self, value: Any, path: str) -> None:
        """Check a value."""
        if not isinstance(value, list):
            raise AdmissionError(INVALID, path, "must be a list")
        for index, item in enumerate(value):
            self.each(item, f"{path}[{index}]")


def only(*allowed: Any) -> Only:
    """A check for one of these values."""
    return Only(allowed)


def one_object(known: Mapping[str, Check]) -> OneObject:
    """A check for an object of these fields."""
    return OneObject(known)


def objects(known: Mapping[str, Check], *, same: Mapping[str, Same] | None = None) -> Objects:
    """A check for a list of such objects."""
    return Objects(OneObject(known, same or {}))
