"""One control plane per home, on whatever host: a lock with a heartbeat and a fence.

``$HPK_HOME/lock/`` holds one file per generation, ``N.json``, made by link(2), which is atomic on
NFS too. The highest generation is the one in force. Whoever finds it released or dead makes the
next one; of several who try, one succeeds. A holder that sees a higher generation than its own has
been fenced off and must stop at once.

Dead is: the process is gone, where we can see it (same host, boot and pid namespace); elsewhere,
the heartbeat file did not change while *we* watched for longer than a holder goes on without
writing it. Clocks of different hosts are never compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bootstrap.host import Identity
from bootstrap.processes import ProcessId
from hpk.durable import claim, private_directory, write_atomically
from hpk.model.errors import ParseError, PermanentError
from hpk.statefs import HpkPaths

BEAT_S = 3.0
"""Pause between two heartbeats."""
SELF_FENCE_S = 20.0
"""A holder that could not write its heartbeat for so long stops its components by itself."""
STALE_S = 40.0
"""A heartbeat that was seen not to change for so long belongs to nobody."""

_HELD, _RELEASED = b'"released": false', b'"released": true '
_LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds, or held, one generation of the lock.

    :param job_id: the Slurm job the holder runs in, None outside.
    :param released: it has stopped in good order.
    """

    generation: int
    identity: Identity
    process: ProcessId
    job_id: int | None
    started_at_s: float
    released: bool = False

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def loads(cls, text: str) -> Holder:
        """From JSON.

        :raises ParseError: it is not what `dumps` writes.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            return cls(
                generation=int(data["generation"]),
                identity=Identity(**data["identity"]),
                process=ProcessId(**data["process"]),
                job_id=None if data["job_id"] is None else int(data["job_id"]),
                started_at_s=float(data["started_at_s"]),
                released=bool(data["released"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ParseError(f"not a lock: {text[:200]!r}") from error

    def is_same_process(self, other: Holder) -> bool:
        """Whether the other generation is held by the process that holds this one."""
        return (self.identity, self.process) == (other.identity, other.process)

    @property
    def where(self) -> str:
        """For people: the host, and the job if it runs in one."""
        job = f" in Slurm job {self.job_id}" if self.job_id is not None else ""
        return f"host {self.identity.host}{job} (process {self.process.pid})"


def read_holder(paths: HpkPaths) -> Holder | None:
    """The generation in force, None where there never was one."""
    generations = _generations(paths.lock)
    if not generations:
        return None
    path = _file(paths, max(generations))
    try:
        return Holder.loads(path.read_text())
    except FileNotFoundError:
        return read_holder(paths)
    except ParseError as error:
        raise PermanentError(
            f"{path}: {error}", remedy="make sure that no control plane runs, then remove it"
        ) from error


def _generations(directory: Path) -> list[int]:
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]


def _file(paths: HpkPaths, generation: int) -> Path:
    return paths.lock / f"{generation}.json"


async def is_alive(
    paths: HpkPaths,
    holder: Holder,
    *,
    waiting: Callable[[float], None] | None = None,
    window_s: float | None = None,
) -> bool:
    """Whether the holder still runs. Takes up to window_s where only the heartbeat can tell.

    :param window_s: how long to watch, STALE_S by default; a shorter look gives an opinion, it
        does not justify taking the lock.
    :param waiting: called with the seconds left while that takes time.
    """
    if holder.released:
        return False
    if holder.identity == Identity.here():
        return holder.process.is_alive()
    first = _read_heartbeat(paths)
    deadline = time.monotonic() + (STALE_S if window_s is None else window_s)
    while (left_s := deadline - time.monotonic()) > 0:
        if waiting is not None:
            waiting(left_s)
        await asyncio.sleep(min(1.0, left_s))
        if await asyncio.to_thread(_read_heartbeat, paths) != first:
            return True
        current = await asyncio.to_thread(read_holder, paths)
        if current is None or current != holder:
            return current is not None and not current.released
    return False


async def acquire(
    paths: HpkPaths,
    *,
    job_id: int | None,
    waiting: Callable[[float], None] | None = None,
) -> Holder:
    """Take the lock for this process.

    :raises PermanentError: somebody alive holds it; says who and where.
    """
    private_directory(paths.home)
    private_directory(paths.lock)
    while True:
        before = read_holder(paths)
        if before is not None and await is_alive(paths, before, waiting=waiting):
            raise PermanentError(
                f"the control plane of {paths.home} is up on {before.where}",
                remedy="use it (hpk status) or stop it (hpk down)",
            )
        generation = 1 if before is None else before.generation + 1
        ours = Holder(
            generation=generation,
            identity=Identity.here(),
            process=ProcessId.of(os.getpid()),
            job_id=job_id,
            started_at_s=time.time(),
        )
        if _claim(paths, ours):
            return ours


def retake(paths: HpkPaths, ours: Holder) -> Holder | None:
    """The next generation for a holder whose heartbeat stayed out, by the rule for everybody.

    :returns: None if somebody else took it meanwhile, or wrote that ours has ended.
    :raises OSError: the file system still does not answer as it should.
    """
    current = read_holder(paths)
    following = replace(ours, generation=ours.generation + 1, started_at_s=time.time())
    if current is not None and current.generation == following.generation:
        # A try before this one may have made it and not heard so.
        return current if current.is_same_process(ours) and not current.released else None
    if current != ours:
        return None
    return following if _claim(paths, following) else None


def _claim(paths: HpkPaths, ours: Holder) -> bool:
    if not claim(_file(paths, ours.generation), ours.dumps()):
        return False
    with contextlib.suppress(OSError):  # the claim stands; the heartbeat is tried again
        for old in _generations(paths.lock):
            if old < ours.generation:
                _file(paths, old).unlink(missing_ok=True)
        beat(paths, ours, 0)
    return True


def beat(paths: HpkPaths, ours: Holder, sequence: int) -> bool:
    """Write the heartbeat, unless a later generation is in force.

    :returns: False if we have been fenced off.
    """
    if max(_generations(paths.lock), default=0) != ours.generation:
        return False
    fd = os.open(paths.heartbeat, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(fd, f"{ours.generation:20d} {sequence:20d}\n".encode(), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def is_superseded(paths: HpkPaths, generation: int) -> bool:
    """Whether a later generation is in force: then the home's files are not this one's to write.

    Ask right before a write. What froze or stalled meanwhile has not heard of it from its heart.
    """
    return max(_generations(paths.lock), default=0) > generation


def _read_heartbeat(paths: HpkPaths) -> str:
    try:
        return paths.heartbeat.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def release(paths: HpkPaths, holder: Holder) -> None:
    """Say that this generation has ended in good order (or was seen dead)."""
    path = _file(paths, holder.generation)
    if not path.exists():
        return
    try:
        write_atomically(path, replace(holder, released=True).dumps())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _release_in_place(path)


def _release_in_place(path: Path) -> None:
    """Turn the one word over where there is no room for a new file. Too short to be seen half."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        data = os.pread(fd, _LONGEST, 0)
        offset = data.rfind(_HELD)
        if offset >= 0:
            os.pwrite(fd, _RELEASED, offset)
            os.fsync(fd)
    finally:
        os.close(fd)
