"""What `hpk explain` tells of a Pod: data, filled by `explain` and shown by `explain_text`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the Pod would not run, as its status would say."""

    reason: str
    field: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionLine:
    """One ``#SBATCH`` line and what asked for it."""

    line: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What would run. ``env`` values that only the cluster knows are given as ``<…>``."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    user: str
    mounts: tuple[str, ...]
    mpi: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One Pod, explained; ``refusal`` or all the rest."""

    origin: str
    pod: str
    notes: tuple[str, ...]
    partition: str = ""
    runtime: str = ""
    refusal: Refusal | None = None
    script: str = ""
    options: tuple[OptionLine, ...] = ()
    containers: tuple[Container, ...] = ()
    volumes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
