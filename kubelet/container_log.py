"""Where a container's log is read from: its supervisor while it lives, the shared disk after."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hpk.model.errors import ParseError
from hpk.model.frames import LOG_CHUNK_BYTES
from hpk.model.log_files import LogFile, file_at, log_files
from hpk.model.record import ContainerPhase, ContainerRecord, SupervisorRecord
from kubelet.file_looks import FileLook, FileLooks
from kubelet.link.session import Session
from kubelet.server.backend import LogGoneError, LogUnavailableError
from kubelet.shared_files import SharedFiles, StalledError

_PAST_ANY_END = 2**62


class ContainerLog:
    """One run of one container; fulfils kubelet.server.backend.LogSource.

    The supervisor is asked while its channel is open, so that a follower sees a line at once and
    not when a network file system gets round to showing it. Offsets are the same on both ways, and
    a reader changes from one to the other between two reads.
    """

    def __init__(
        self,
        *,
        files: SharedFiles,
        looks: FileLooks,
        root: Path,
        log_path: str,
        container: str,
        session: Callable[[], Session | None],
        record: Callable[[], SupervisorRecord | None],
    ) -> None:
        self._files = files
        self._looks = looks
        self._look: FileLook = None
        self._file = root / log_path
        self._log_path = log_path
        self._container = container
        self._session = session
        self._record = record

    async def size(self) -> int:
        """Where the log ends: by the supervisor's count while it can be asked, else by the file."""
        session = self._session()
        if session is not None:
            try:
                # Asked for bytes past any end, it answers with where the end is.
                return (await session.read_log(self._log_path, _PAST_ANY_END, wait=False)).offset
            except (OSError, ParseError):
                await asyncio.sleep(0)
        try:
            return await self._files.do_bulk(self._end)
        except OSError:
            return 0

    async def read(self, offset: int, *, wait: bool) -> tuple[bytes, bool]:
        """See kubelet.server.backend.LogSource."""
        while True:
            session = self._session()
            if session is not None:
                try:
                    return await self._read_channel(session, offset, wait=wait)
                except (OSError, ParseError):
                    await asyncio.sleep(0)
            try:
                # Order matters: what was written before the end must be read after it was seen.
                ended = self._has_ended()
                data, is_last = await self._files.do_bulk(self._read_file, offset)
                eof = ended and is_last and len(data) < LOG_CHUNK_BYTES
                if data or eof or not wait:
                    return data, eof
                await self._wait_for_change()
            except StalledError as error:
                if not wait:
                    raise LogUnavailableError(f"{self._file}: {error}") from error
                # Who follows has time until the file system answers again.

    async def _wait_for_change(self) -> None:
        """Until the file is not as it was when it was last looked at, or another way is open."""
        while True:
            before, self._look = self._look, await self._looks.next(self._file)
            if self._look != before or self._session() is not None or self._has_ended():
                return

    async def _read_channel(
        self, session: Session, offset: int, *, wait: bool
    ) -> tuple[bytes, bool]:
        answer = await session.read_log(self._log_path, offset, wait=wait)
        if answer.offset > offset:
            raise LogGoneError(answer.offset)
        return answer.data, answer.eof

    def _read_file(self, offset: int) -> tuple[bytes, bool]:
        """Bytes from an offset, and whether no other file has what follows.

        :raises LogGoneError: they were rotated away.
        """
        try:
            while True:
                found = self._log_files()
                wanted = file_at(found, offset)
                if wanted.start > offset:
                    raise LogGoneError(wanted.start)
                data = self._read_at(wanted, offset)
                if self._log_files() == found:  # else it was rotated in between
                    return data, wanted == found[-1]
        except OSError as error:
            raise LogUnavailableError(f"{self._file}: {error.strerror}") from error

    def _read_at(self, wanted: LogFile, offset: int) -> bytes:
        try:
            with self._file.with_name(wanted.name).open("rb") as file:
                file.seek(offset - wanted.start)
                return file.read(LOG_CHUNK_BYTES)
        except FileNotFoundError:
            return b""

    def _log_files(self) -> tuple[LogFile, ...]:
        return log_files(self._file.name, self._rotated())

    def _rotated(self) -> Iterator[tuple[str, int]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self._file.parent) as entries:
            for entry in entries:
                if entry.name.startswith(f"{self._file.name}."):
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name, entry.stat(follow_symlinks=False).st_size

    def _end(self) -> int:
        last = self._log_files()[-1]
        try:
            return last.start + self._file.stat().st_size
        except FileNotFoundError:
            return last.start

    def _has_ended(self) -> bool:
        record = self._record()
        if record is None:
            return True
        for container in record.all_containers:
            if container.name == self._container:
                if container.log_path != self._log_path:
                    return True
                backs_off = container.container_id == container.last_container_id
                return container.state.phase is ContainerPhase.TERMINATED or backs_off
        return True


def log_path_of(container: ContainerRecord, *, previous: bool) -> str | None:
    """The log of the current run, or of the one before; None if there was none.

    A container that waits to start again has the run that ended for both, as upstream has it.
    """
    if not container.log_path:
        return None
    run = container.restart_count
    if container.state.phase is ContainerPhase.WAITING:
        if container.last_state is None:
            return None if previous else container.log_path
        # It counts as a restart once the next start is under way.
        run -= container.container_id != container.last_container_id
    elif previous:
        run -= 1
    return None if run < 0 else f"{container.log_path.rpartition('/')[0]}/{run}.log"
