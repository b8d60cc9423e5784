"""Our frozen dataclasses are what the standard library's would be."""

from __future__ import annotations

import copy
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


@pytest.mark.parametrize("decorator", [frozen.dataclass, dataclasses.dataclass])
def test_what_is_not_frozen_changes_and_has_no_hash(decorator: Any) -> None:
    class Thing:
        count: int = 0

    kind: Any = decorator(Thing)
    thing = kind()
    thing.count = 2
    assert thing == kind(2)
    assert dataclasses.replace(thing, count=3) == kind(3)
    with pytest.raises(TypeError):
        hash(thing)


def test_a_replaced_one_has_what_was_not_named() -> None:
    assert frozen.replace(OURS("a", 2), name="b") == OURS("b", 2)


@pytest.mark.parametrize("kind", [OURS, THEIRS])
def test_it_is_copied_and_matched(kind: Any) -> None:
    thing = kind("a", 2)
    assert copy.deepcopy(thing) == thing
    match thing:
        case kind(name, count):
            assert (name, count) == ("a", 2)


def test_fields_are_told_of_both_kinds() -> None:
    for kind in (OURS, THEIRS):
        assert frozen.is_dataclass(kind)
        assert frozen.field_names(kind) == ("name", "count")
        assert frozen.optional_names(kind) == {"count"}
    assert not frozen.is_dataclass(dict)


@pytest.mark.parametrize("calls", [1, 100])
def test_it_is_made_of_its_fields_and_of_nothing_else(calls: int) -> None:
    for kind in (make(frozen.dataclass), make(dataclasses.dataclass)):
        for _ in range(calls):
            assert kind(count=2, name="a") == kind("a", 2)
            assert kind("a").count == 1
            for args, named in (
                ((), {}),
                (("a", 2, 3), {}),
                (("a",), {"name": "b"}),
                (("a",), {"other": 1}),
                ((), {"other": 1}),
            ):
                with pytest.raises(TypeError):
                    kind(*args, **named)
