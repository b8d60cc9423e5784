"""Reads the image definitions of the lab: ``singularity/NAME.toml`` and the files they name."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bootstrap.components import SAMPLES
from hpk.model.errors import PermanentError

DIRECTORY = Path(__file__).resolve().parents[2] / "singularity"
_BUILDER_VERSION = 1
"""Part of every image's key: raise it when bootstrap.lab.images makes something else of them."""

AbsolutePath = Annotated[str, Field(pattern=r"^/.*[^/]$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file of the checkout that goes into the image.

    :param source: relative to the definitions' directory.
    """

    source: str
    target: AbsolutePath
    mode: int = 0o644


class CProgram(_Strict):
    """A C program compiled on this machine, which runs the same Debian as the image."""

    source: str
    target: AbsolutePath
    compiler: str = "cc"


class Upstream(_Strict):
    """An upstream program of bootstrap.components that goes into the image."""

    program: str
    target: AbsolutePath


class Content(_Strict):
    """What the image's file system holds.

    :param busybox: static busybox alone; otherwise Debian with these packages.
    :param empty: nothing but a user database and what is named below.
    :param exclude: dpkg path patterns that are not unpacked.
    :param before: a script that is run on the essential packages' root directory, before the others
        are installed.
    """

    busybox: bool = False
    empty: bool = False
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    before: str = ""
    files: tuple[File, ...] = ()
    programs: tuple[CProgram, ...] = ()
    upstream: tuple[Upstream, ...] = ()


class Configuration(_Strict):
    """The OCI configuration."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[AbsolutePath, ...] = ()
    ports: tuple[str, ...] = ()
    stop_signal: str = ""


class Definition(_Strict):
    """One image.

    :param key: changes with anything the image is made from.
    :param tag: in the registry.
    """

    name: str
    key: str
    tag: str = "latest"
    content: Content
    config: Configuration


def load_all() -> tuple[Definition, ...]:
    """All definitions, by name.

    :raises PermanentError: one is malformed; names file and key.
    """
    return tuple(_load(path) for path in sorted(DIRECTORY.glob("*.toml")))


def _load(path: Path) -> Definition:
    text = path.read_bytes()
    try:
        data = tomllib.loads(text.decode())
        loose = Definition.model_validate({"name": path.stem, "key": "", **data})
        parts = [str(_BUILDER_VERSION).encode(), text]
        sources = [file.source for file in loose.content.files]
        sources += [program.source for program in loose.content.programs]
        sources += [loose.content.before] if loose.content.before else []
        parts += [(DIRECTORY / source).read_bytes() for source in sources]
        parts += [_version(item.program) for item in loose.content.upstream]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PermanentError(f"{path}: {where}: {first['msg']}", remedy="correct it") from error
    except (OSError, ValueError) as error:
        raise PermanentError(f"{path}: {error}", remedy="correct it") from error
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    return loose.model_copy(update={"key": key[:16]})


def _version(program: str) -> bytes:
    if program not in SAMPLES:
        raise ValueError(f"content.upstream: no program {program!r} (known: {', '.join(SAMPLES)})")
    return SAMPLES[program].version.encode()
