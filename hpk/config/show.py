"""Each setting in force with the place it comes from, for `hpk config show`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpk.config.load import Key, LoadedConfig

_USERINFO = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting.

    :param key: its path, ``slurm.account``.
    :param value: as JSON has it; passwords within URLs are hidden.
    :param origin: the file that sets it, or ``default``.
    """

    key: str
    value: Any
    origin: str


def settings(loaded: LoadedConfig) -> tuple[Setting, ...]:
    """Every setting, in the order of the schema."""
    tables = loaded.config.model_dump(mode="json", by_alias=True)
    return tuple(
        Setting(key=".".join(key), value=_hidden(value), origin=loaded.origin(*key))
        for key, value in _leaves(tables, ())
    )


def _leaves(table: Mapping[str, Any], at: Key) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        key = (*at, name)
        if isinstance(value, dict):
            yield from _leaves(value, key)
        else:
            yield key, sorted(value) if isinstance(value, set | frozenset) else value


def _hidden(value: Any) -> Any:
    return _USERINFO.sub("***@", value) if isinstance(value, str) else value
