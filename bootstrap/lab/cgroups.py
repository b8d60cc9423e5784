"""The lab's cgroups: every process of a host is in them, so that it can be found and killed.

On a machine with the old hierarchies mounted, Slurm limits memory through those, and each host has
its own directory in each of them; on a machine that is cgroup2 throughout there is one tree alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from bootstrap.lab.layout import Lab
from hpk.model.errors import PermanentError, TransientError

V1_CONTROLLERS = ("memory", "cpuset", "freezer", "devices", "cpuacct")
"""What Slurm's cgroup/v1 plugins use."""

_LEAF = "init"
_KILL_TIMEOUT_S = 20.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """The cgroup hierarchies of this machine.

    :param v2: mount point of the cgroup2 hierarchy.
    :param v1: controller → mount point; empty where cgroup2 has all controllers.
    """

    v2: Path
    v1: dict[str, Path]

    @property
    def unified(self) -> bool:
        """Whether everything, limits included, is in cgroup2."""
        return not self.v1

    def dirs(self, lab: Lab, host: str) -> tuple[Path, ...]:
        """The cgroups a process must be in to belong to the host."""
        # In cgroup2 a group that hands controllers to its children may hold no process itself.
        return (
            self.v2 / lab.name / host / _LEAF,
            *(root / lab.name / host for root in self.v1.values()),
        )

    def namespace_dirs(self, lab: Lab, host: str) -> tuple[Path, ...]:
        """The cgroups that are the root of the host's cgroup namespace."""
        return (self.v2 / lab.name / host, *self.dirs(lab, host)[1:])


def parse_mounts(text: str) -> Hierarchies:
    """The hierarchies in the text of /proc/self/mounts.

    :raises PermanentError: no cgroup2 is mounted, or only some of the old controllers are.
    """
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        _, target, kind, options = fields[:4]
        if kind == "cgroup2" and v2 is None:
            v2 = Path(target)
        elif kind == "cgroup":
            for controller in set(options.split(",")) & set(V1_CONTROLLERS):
                v1.setdefault(controller, Path(target))
    if v2 is None:
        raise PermanentError(
            "no cgroup2 file system is mounted", remedy="mount one: mount -t cgroup2 cgroup2 DIR"
        )
    if v1 and len(set(v1.values())) != len(V1_CONTROLLERS):
        missing = sorted(set(V1_CONTROLLERS) - set(v1)) or sorted(v1)
        raise PermanentError(
            f"cgroup controllers without a hierarchy of their own: {', '.join(missing)}",
            remedy="mount each alone, or boot with cgroup2 throughout",
        )
    return Hierarchies(v2=v2, v1={name: v1[name] for name in V1_CONTROLLERS if name in v1})


def detect() -> Hierarchies:
    """The hierarchies of this machine."""
    return parse_mounts(Path("/proc/self/mounts").read_text())


def create(hierarchies: Hierarchies, lab: Lab, host: str) -> None:
    """Make the host's cgroups; those that exist stay."""
    for root in (hierarchies.v2, *hierarchies.v1.values()):
        parent = root / lab.name
        for directory in (parent, parent / host):
            directory.mkdir(exist_ok=True)
            # A cpuset accepts processes only once it has CPUs and memory nodes.
            for name in ("cpuset.cpus", "cpuset.mems"):
                file = directory / name
                if root == hierarchies.v1.get("cpuset") and not file.read_text().strip():
                    file.write_text((directory.parent / name).read_text())
    leaf = hierarchies.v2 / lab.name / host / _LEAF
    leaf.mkdir(exist_ok=True)


def delegate(hierarchies: Hierarchies, lab: Lab, host: str) -> None:
    """On cgroup2 throughout, hand all controllers down to the host (whose own group is empty)."""
    if not hierarchies.unified:
        return
    for directory in (
        hierarchies.v2,
        hierarchies.v2 / lab.name,
        hierarchies.v2 / lab.name / host,
    ):
        for controller in (directory / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def processes(hierarchies: Hierarchies, lab: Lab, host: str = "") -> tuple[int, ...]:
    """The processes of one host (or, with "", of the whole lab), as this machine numbers them."""
    found: list[int] = []
    top = hierarchies.v2 / lab.name / host if host else hierarchies.v2 / lab.name
    for directory, _, _ in os.walk(top):
        with contextlib.suppress(OSError):
            text = (Path(directory) / "cgroup.procs").read_text()
            found += [int(word) for word in text.split()]
    return tuple(found)


async def kill(hierarchies: Hierarchies, lab: Lab, host: str = "") -> None:
    """Kill every process of one host, or of the whole lab, and wait until they are gone.

    :raises TransientError: some process cannot be killed.
    """
    top = hierarchies.v2 / lab.name / host if host else hierarchies.v2 / lab.name
    if not top.exists():
        return
    try:
        async with asyncio.timeout(_KILL_TIMEOUT_S):
            while processes(hierarchies, lab, host):
                (top / "cgroup.kill").write_text("1")
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        left = ", ".join(str(pid) for pid in processes(hierarchies, lab, host))
        raise TransientError(f"processes that do not die: {left}") from error


async def remove(hierarchies: Hierarchies, lab: Lab, host: str = "") -> None:
    """Remove the cgroups of one host, or of the whole lab; their processes must be gone.

    :raises TransientError: a cgroup cannot be removed.
    """
    for root in (hierarchies.v2, *hierarchies.v1.values()):
        top = root / lab.name / host if host else root / lab.name
        for directory, _, _ in os.walk(top, topdown=False):
            await _remove_one(Path(directory))


async def _remove_one(directory: Path) -> None:
    try:
        async with asyncio.timeout(_KILL_TIMEOUT_S):
            while True:
                try:
                    directory.rmdir()  # noqa: ASYNC240 - a cgroup: no disk to wait for
                except FileNotFoundError:
                    return
                except OSError as error:
                    # The old hierarchies let go of a process a little after cgroup2 does.
                    if error.errno != errno.EBUSY:
                        raise TransientError(f"{directory}: {error.strerror}") from error
                    await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise TransientError(f"{directory} stays busy") from error


def exists(hierarchies: Hierarchies, lab: Lab) -> bool:
    """Whether anything of this lab is left in the cgroups."""
    roots = (hierarchies.v2, *hierarchies.v1.values())
    return any((root / lab.name).exists() for root in roots)
