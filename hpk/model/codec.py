"""Frozen dataclasses to JSON and back, strictly.

``decode`` trusts nothing: a missing field, a wrong type or an unknown enum value is a ParseError
that names the path. Unknown fields are skipped, so that a newer writer can be read.
"""

from __future__ import annotations

import builtins
import json
import sys
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hpk.model.errors import ParseError
from hpk.model.frames import FRAME_TYPES, MAX_FRAME_BYTES
from hpk.model.frozen import field_names, is_dataclass, optional_names

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A dataclass, tuple or scalar as what json.dumps takes."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if is_dataclass(type(value)):
        return {name: encode(getattr(value, name)) for name in field_names(value)}
    return value


def dumps(value: Any) -> str:
    """A dataclass as one line of JSON."""
    return json.dumps(encode(value), separators=(",", ":"))


def loads(cls: type[T], text: Union[str, bytes]) -> T:
    """The dataclass that `dumps` wrote; ParseError otherwise."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"not JSON: {error}") from error
    value: T = decode(cls, data)
    return value


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """What get_type_hints finds, at a third of its cost for our own classes: it was 5 ms a pod."""
    if not hasattr(cls, "_field_names"):
        return get_type_hints(cls)
    names = {**vars(builtins), **vars(sys.modules[cls.__module__])}
    found: dict[str, Any] = {}
    for name, text in cls.__annotations__.items():
        found[name] = names[text] if text in names else eval(text, names)  # noqa: S307 - our own
    return found


def decode(cls: Any, data: Any, path: str = "$") -> Any:
    """``data`` (from json.loads) as ``cls``: a dataclass, Enum, tuple, Optional or scalar."""
    origin = get_origin(cls)
    if origin is Union:
        return _decode_optional(cls, data, path)
    if origin is tuple:
        return _decode_tuple(cls, data, path)
    if hasattr(cls, "__supertype__"):
        return decode(cls.__supertype__, data, path)
    if is_dataclass(cls):
        return _decode_dataclass(cls, data, path)
    if isinstance(cls, type) and issubclass(cls, Enum):
        try:
            return cls(data)
        except ValueError as error:
            raise ParseError(f"{path}: {data!r} is not one of {cls.__name__}") from error
    return _decode_scalar(cls, data, path)


def _decode_optional(cls: Any, data: Any, path: str) -> Any:
    if data is None:
        return None
    (inner,) = (arg for arg in get_args(cls) if arg is not type(None))
    return decode(inner, data, path)


def _decode_tuple(cls: Any, data: Any, path: str) -> Any:
    if not isinstance(data, list):
        raise ParseError(f"{path}: expected a list, got {type(data).__name__}")
    args = get_args(cls)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(decode(args[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if len(args) != len(data):
        raise ParseError(f"{path}: expected {len(args)} items, got {len(data)}")
    return tuple(decode(arg, data[i], f"{path}[{i}]") for i, arg in enumerate(args))


def _decode_dataclass(cls: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ParseError(f"{path}: expected an object, got {type(data).__name__}")
    hints = _hints(cls)
    values = {}
    optional = optional_names(cls)
    for name in field_names(cls):
        if name in data:
            values[name] = decode(hints[name], data[name], f"{path}.{name}")
        elif name not in optional:
            raise ParseError(f"{path}.{name}: missing")
    return cls(**values)


def _decode_scalar(cls: Any, data: Any, path: str) -> Any:
    if cls is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if cls in (str, float, bool, int) and type(data) is cls:
        return data
    raise ParseError(f"{path}: expected {getattr(cls, '__name__', cls)}, got {type(data).__name__}")


def frame_bytes(frame: Any) -> bytes:
    """A frame of hpk.model.frames as it goes on the wire, length first."""
    body = json.dumps({"type": type(frame).__name__, **encode(frame)}, separators=(",", ":"))
    payload = body.encode()
    if len(payload) > MAX_FRAME_BYTES:
        raise ParseError(f"frame {type(frame).__name__} is {len(payload)} bytes long")
    return len(payload).to_bytes(4, "big") + payload


def parse_frame(payload: bytes) -> Any:
    """The frame in a payload (without its length); None for a type this side does not know."""
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"frame is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ParseError("frame without a type")
    cls = FRAME_TYPES.get(data["type"])
    return None if cls is None else decode(cls, data, data["type"])
