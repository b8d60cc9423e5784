"""Our frozen dataclasses are what the standard library's would be."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hpk.model import frozen


def make(decorator: Any) -> Any:
    class Thing:
        """A thing."""

        name: str
        count: int = 1

    return decorator(frozen=True)(Thing)


OURS: Any
THEIRS: Any
OURS, THEIRS = make(frozen.dataclass), make(dataclasses.dataclass)


@pytest.mark.parametrize("kind", [OURS, THEIRS])
def test_it_is_compared_shown_and_replaced_by_its_fields(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind()
    thing = kind("a", count=2)
    assert thing == kind("a", 2)
    assert thing != kind("a", 3)
    assert thing != ("a", 2)
    assert hash(thing) == hash(("a", 2))
    assert repr(thing) == "make.<locals>.Thing(name='a', count=2)"
    assert dataclasses.replace(thing, name="b") == kind("b", 2)
    assert dataclasses.is_dataclass(kind)
    assert [field.name for field in dataclasses.fields(kind)] == ["name", "count"]
    assert dataclasses.asdict(thing) == {"name": "a", "count": 2}


@pytest.mark.parametrize("kind", [OURS, THEIRS])
def test_it_never_changes(kind: Any) -> None:
    thing = kind("a")
    for change in (
        lambda: setattr(thing, "name", "b"),
        lambda: setattr(thing, "other", "b"),
        lambda: delattr(thing, "name"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()  # type: ignore[no-untyped-call]
    assert thing == kind("a")


def test_what_is_not_frozen_is_the_standard_librarys() -> None:
    @frozen.dataclass
    class Thing:
        count: int = 0

    thing = Thing()
    thing.count = 2
    assert thing == Thing(2)
