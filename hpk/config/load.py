"""Reads the layers of ``config.toml``: each wins over those before it, key by key.

1. the defaults (hpk.config.schema);
2. the site's: ``$HPK_SITE_CONFIG``, or else ``/etc/hpk/config.toml`` and then
   ``<sys.prefix>/etc/hpk/config.toml``, that of a shared installation;
3. the user's: ``$HPK_HOME/config.toml``.

Tables are merged, everything else is replaced whole. For each value it is known which file it
comes from, so that an error names the file and `hpk config show` can tell.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hpk.config.schema import Config, SubmitConfig
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

DEFAULT = "default"
"""The origin of a value that no file sets."""

SITE_VARIABLE = "HPK_SITE_CONFIG"
_MAX_BYTES = 1 << 20

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file that may be there."""

    path: Path
    must_exist: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """The configuration in force, and where it comes from.

    :param origins: the file of each key that a file sets, by its path in the TOML document.
    :param files: those that were read, the one that wins last.
    """

    config: Config
    origins: Mapping[Key, Path]
    files: tuple[Path, ...]

    def origin(self, *key: str) -> str:
        """The file that sets the key, or ``default``."""
        found = self.origins.get(key)
        return DEFAULT if found is None else str(found)


def layers(paths: HpkPaths, environment: Mapping[str, str] | None = None) -> tuple[Layer, ...]:
    """The files to read, the one that wins last."""
    env = os.environ if environment is None else environment
    user = Layer(path=paths.config)
    named = env.get(SITE_VARIABLE)
    if named:
        return (Layer(path=Path(named).absolute(), must_exist=True), user)
    machine = Layer(path=Path("/etc/hpk/config.toml"))
    return (machine, Layer(path=Path(sys.prefix) / "etc/hpk/config.toml"), user)


def load_config(paths: HpkPaths, *, site: Path | None = None) -> Config:
    """The configuration in force; see `load`."""
    return load(paths, site=site).config


def load(paths: HpkPaths, *, site: Path | None = None) -> LoadedConfig:
    """The configuration in force and its origins.

    :param site: one file in the place of the site's.
    :raises PermanentError: a file is not TOML or a setting is wrong; names the file and the key.
    """
    files = layers(paths) if site is None else (Layer(path=site), Layer(path=paths.config))
    tables: dict[str, Any] = {}
    origins: dict[Key, Path] = {}
    read = []
    for layer in files:
        found = _read(layer)
        if found is not None:
            read.append(layer.path)
            _merge(tables, found, layer.path, origins, ())
    try:
        config = Config.model_validate(tables, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _invalid(error, origins) from error
    return LoadedConfig(config=config, origins=origins, files=tuple(read))


def _read(layer: Layer) -> dict[str, Any] | None:
    try:
        with layer.path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        if not layer.must_exist:
            return None
        raise PermanentError(
            f"{layer.path}: there is no such file", remedy=f"correct {SITE_VARIABLE}, or unset it"
        ) from error
    except OSError as error:
        raise PermanentError(f"{layer.path}: {error.strerror}", remedy="correct it") from error
    if len(data) > _MAX_BYTES:
        raise PermanentError(f"{layer.path}: is longer than 1 MiB", remedy="correct the file")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise PermanentError(f"{layer.path}: {error}", remedy="correct the file") from error


def _merge(
    into: dict[str, Any], found: Mapping[str, Any], path: Path, origins: dict[Key, Path], at: Key
) -> None:
    for name, value in found.items():
        key = (*at, name)
        old = into.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value, path, origins, key)
            continue
        for stale in [known for known in origins if known[: len(key)] == key]:
            del origins[stale]
        if isinstance(value, dict):
            into[name] = {}
            origins[key] = path
            _merge(into[name], value, path, origins, key)
        else:
            into[name] = value
            origins[key] = path


def _invalid(error: ValidationError, origins: Mapping[Key, Path]) -> PermanentError:
    """All that is wrong in one message: each with its file and key."""
    said, remedy = [], "docs/configuration.md lists the settings"
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        location = [str(part) for part in one["loc"] if part != "[key]"]
        key = tuple(location)
        known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in origins), None)
        where = f"{origins[known]}: " if known is not None else ""
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            message = "there is no such setting"
            near = difflib.get_close_matches(key[-1], _names(key[:-1]), n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]}?" if near else remedy
        elif one["type"] == "string_pattern_mismatch":
            message = "has a form that this setting cannot have"
        said.append(f"{where}{'.'.join(key)}: {message}")
    return PermanentError("; ".join(said), remedy=remedy)


def _names(table: Sequence[str]) -> list[str]:
    """The keys that a table may have."""
    if table and table[0] == "namespaces":
        return _aliases(SubmitConfig) if len(table) > 1 else []
    field = next((f for f in Config.model_fields.values() if table and f.alias == table[0]), None)
    kind = field.annotation if field is not None else Config
    return _aliases(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
