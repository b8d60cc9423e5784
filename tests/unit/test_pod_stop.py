"""How a pod is told to stop, on a home that takes no more files too: a real session's bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from hpk.durable import private_directory
from hpk.journal import Attempt
from hpk.model import codec
from hpk.model.frames import PROTOCOL_VERSION, Hello, Stop
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.placement import Placement
from hpk.statefs import HpkPaths
from kubelet.link.session import Session
from kubelet.pods import pod_stop
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.pod_stop import PodStop
from kubelet.pods.worker_services import WorkerServices
from kubelet.shared_files import SharedFiles

POD = PodRef("default", "web", PodUid("0a1b"))
ATTEMPT = Attempt(
    pod=POD, nonce=Nonce("0" * 16), intent_at_s=1.0, placement=Placement(SlurmJobId(7))
)


@dataclass
class Services:
    """As much of the workers' services as stopping needs."""

    paths: HpkPaths
    files: SharedFiles
    open_session: Session | None = None

    def session(self, attempt: Attempt) -> Session | None:
        assert attempt == ATTEMPT
        return self.open_session


@dataclass
class Reporter:
    stopped: int = field(default=0)

    def stopping(self, pod: dict[str, Any]) -> None:
        self.stopped += 1


@dataclass
class Stopping:
    services: Services
    reporter: Reporter
    stop: PodStop
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def connect(self) -> None:
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            uid=POD.uid,
            nonce=ATTEMPT.nonce,
            job_id=SlurmJobId(7),
            token="",
        )
        session = self.services.open_session = Session(hello, self.writer)
        self.tasks.append(asyncio.ensure_future(session.keep_sending()))

    @property
    def file(self) -> Path:
        return Path(self.services.paths.attempt(POD.uid, ATTEMPT.nonce).stop_request)

    async def heard(self) -> object:
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        return codec.parse_frame(await self.reader.readexactly(length))


@pytest.fixture
async def stopping(tmp_path: Path) -> AsyncIterator[Stopping]:
    ours, theirs = socket.socketpair()
    reader, their_writer = await asyncio.open_connection(sock=theirs)
    _, writer = await asyncio.open_connection(sock=ours)
    paths = HpkPaths(home=tmp_path / "home", cache=tmp_path / "cache")
    services = Services(paths, SharedFiles(tmp_path))
    reporter = Reporter()
    stop = PodStop(POD, cast(WorkerServices, services), cast(PodReporter, reporter))
    made = Stopping(services, reporter, stop, reader, writer)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    for each in (writer, their_writer):
        each.close()
        await each.wait_closed()


async def test_a_connected_supervisor_is_told_on_a_home_that_takes_no_files(
    stopping: Stopping,
) -> None:
    stopping.connect()
    assert await stopping.stop.stop({}, ATTEMPT, 30)  # the attempt's directory is not there
    assert await stopping.heard() == Stop(grace_period_s=30)


async def test_what_could_not_be_written_is_tried_again(stopping: Stopping) -> None:
    assert not await stopping.stop.stop({}, ATTEMPT, 30)
    private_directory(stopping.file.parent)
    assert await stopping.stop.stop({}, ATTEMPT, 30)
    assert codec.loads(Stop, stopping.file.read_bytes()) == Stop(grace_period_s=30)
    assert stopping.reporter.stopped == 1


async def test_a_supervisor_that_does_not_read_was_not_told(
    stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_stop, "_SEND_WITHIN_S", 0.05)
    stopping.connect()
    stopping.writer.write(bytes(1 << 24))  # more than the socket and its reader take
    try:
        async with asyncio.timeout(30):
            assert not await stopping.stop.stop({}, ATTEMPT, 30)
    finally:
        stopping.writer.transport.abort()


async def test_each_session_is_told_once(stopping: Stopping) -> None:
    for _ in range(2):
        stopping.connect()
        for _ in range(2):
            assert await stopping.stop.stop({}, ATTEMPT, 30)
        # A session's memory may be another's next: its number is not.
        stopping.services.open_session = None
    assert [await stopping.heard() for _ in range(2)] == [Stop(30)] * 2
    stopping.writer.close()
    assert await stopping.reader.read() == b""
