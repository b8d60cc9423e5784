"""Reading a Pod's JSON: typed access that names the field when it is not what it must be.

The API server has validated what comes from it; this is for what a newer API server, or somebody
writing to etcd, may send.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from hpk.model.errors import AdmissionError

JsonObject = Mapping[str, Any]

UNSUPPORTED = "UnsupportedField"
INVALID = "InvalidField"


def is_absent(value: Any) -> bool:
    """Whether a value says nothing: null, false, "", [] or {}; zero does say something."""
    return value is None or value is False or value in ("", [], {})


def get_object(parent: JsonObject, name: str, path: str) -> JsonObject:
    """An object; empty where there is none."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AdmissionError(INVALID, f"{path}.{name}", "must be an object")
    return value


def get_list(parent: JsonObject, name: str, path: str) -> list[Any]:
    """A list; empty where there is none."""
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise AdmissionError(INVALID, f"{path}.{name}", "must be a list")
    return value


def get_objects(parent: JsonObject, name: str, path: str) -> Iterator[tuple[str, JsonObject]]:
    """Each object of a list, with its path ``path.name[i]``."""
    for index, item in enumerate(get_list(parent, name, path)):
        if not isinstance(item, dict):
            raise AdmissionError(INVALID, f"{path}.{name}[{index}]", "must be an object")
        yield f"{path}.{name}[{index}]", item


def get_text(parent: JsonObject, name: str, path: str) -> str:
    """A string that can cross execve; "" where there is none."""
    value = parent.get(name)
    return "" if value is None else check_text(value, f"{path}.{name}")


def get_texts(parent: JsonObject, name: str, path: str) -> tuple[str, ...]:
    """A list of strings that can cross execve."""
    return tuple(
        check_text(item, f"{path}.{name}[{index}]")
        for index, item in enumerate(get_list(parent, name, path))
    )


def get_integer(parent: JsonObject, name: str, path: str, default: int | None) -> int | None:
    """A whole number that is not negative; ``default`` where there is none."""
    value = parent.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise AdmissionError(INVALID, f"{path}.{name}", "must be a whole number, 0 or more")
    return value


def check_text(value: Any, path: str) -> str:
    """The value, if it is a string without NUL.

    A NUL ends a string for the operating system, so what follows it could never arrive.
    """
    if not isinstance(value, str):
        raise AdmissionError(INVALID, path, "must be a string")
    if "\0" in value:
        raise AdmissionError(
            INVALID,
            path,
            "contains a NUL byte, which no program can be given",
            remedy="remove it",
        )
    return value


def get_relative_path(parent: JsonObject, name: str, path: str) -> str:
    """A path that cannot lead out of where it begins, without "." and empty parts."""
    value = get_text(parent, name, path)
    if not value or value.startswith("/") or ".." in value.split("/"):
        raise AdmissionError(
            INVALID, f"{path}.{name}", f"{value!r} must be a relative path without '..'"
        )
    return posixpath.normpath(value)


def get_mode(parent: JsonObject, name: str, path: str) -> int | None:
    """Permission bits; None where there are none."""
    mode = get_integer(parent, name, path, None)
    if mode is not None and mode > 0o777:
        raise AdmissionError(INVALID, f"{path}.{name}", "must be between 0 and 0777")
    return mode
