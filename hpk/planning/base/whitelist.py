"""What a table of known fields is made of: a check for each field, and the walk that uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.planning.base.fields import INVALID, UNSUPPORTED, is_absent

Check = Callable[[Any, str], None]


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
    raise AdmissionError(UNSUPPORTED, path, "is not supported yet", remedy="remove it")


def anything(value: Any, path: str) -> None:
    """Handled elsewhere, or the business of the API server and the scheduler."""


def only(*allowed: Any) -> Check:
    """A check for one of these values."""

    def check(value: Any, path: str) -> None:
        if not any(value is item or value == item for item in allowed):
            wanted = " or ".join(repr(item) for item in allowed)
            raise AdmissionError(UNSUPPORTED, path, f"only {wanted} is supported yet")

    return check


def one_object(known: Mapping[str, Check]) -> Check:
    """A check for an object of these fields."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise AdmissionError(INVALID, path, "must be an object")
        walk(value, path, known)

    return check


def objects(known: Mapping[str, Check]) -> Check:
    """A check for a list of such objects."""
    each = one_object(known)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise AdmissionError(INVALID, path, "must be a list")
        for index, item in enumerate(value):
            each(item, f"{path}[{index}]")

    return check
