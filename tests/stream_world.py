"""Both ends of the channel for tests of streams: the kubelet's server and a supervisor's channel,
over real TLS, with the test in the place of the supervisor's loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpk.model import codec, frames
from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError
from hpk.model.frames import DialOpen, Hello, Reject
from hpk.model.ids import Nonce, PodUid, SlurmJobId
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.model.settings import Endpoint
from hpk.supervisor.base.shared_files import SharedFiles
from hpk.supervisor.link.channel import Channel, ChannelConfig
from hpk.supervisor.link.control_plane import ControlPlane
from kubelet.link.channel import ChannelServer
from kubelet.link.session import Session
from kubelet.link.streams import Stream
from tests.certificates import make_certificates
from tests.kubelet_settings import free_port, kubelet_settings
from tests.supervisor_peer import container, write_attempt

UID, NONCE = PodUid("0a-uid"), Nonce("0123456789abcdef")


@dataclass
class Handler:
    """The kubelet behind the server: everybody is welcome."""

    connected: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def refusal(self, hello: Hello) -> Reject | None:
        return None

    def not_understood(self, uid: PodUid, why: str) -> None:
        raise AssertionError(why)

    def record_arrived(self, record: Any) -> None:
        pass

    def session_changed(self, uid: PodUid, nonce: Nonce, *, is_connected: bool) -> None:
        (self.connected if is_connected else self.gone).set()

    async def build_bundle(self, uid: PodUid, nonce: Nonce, *, protocol: int) -> Any:
        return Bundle((), ()), None


class PodEnd:
    """The supervisor's channel, and what its loop is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.frames: queue.Queue[Any] = queue.Queue()
        self.hung_up: queue.Queue[int] = queue.Queue()
        layout = AttemptLayout(str(directory / "attempt"))
        files = SharedFiles(lambda work: work())

        def no_log(path: str, offset: int, limit: int) -> tuple[int, bytes, bool]:
            raise ParseError(f"{path!r} is no log of this pod")

        self.channel = Channel(
            ChannelConfig(
                spec=codec.loads(JobSpec, Path(layout.spec).read_text()),
                job_id=SlurmJobId(7),
                token_path=layout.token,
                control_plane=ControlPlane(str(directory / "endpoint.json"), files),
                files=files,
                log_end=lambda path: 0,
                read_log=no_log,
                on_frame=self.frames.put,
                post=lambda work: work(),
                on_hang_up=self.hung_up.put,
                on_port=lambda: None,
            )
        )

    async def take(self) -> Any:
        """The next frame."""
        return await asyncio.to_thread(self.frames.get, timeout=60)

    async def take_hang_up(self) -> int:
        """The next stream whose client has gone."""
        return await asyncio.to_thread(self.hung_up.get, timeout=60)


@dataclass
class World:
    """Kubelet and supervisor, connected."""

    server: ChannelServer
    handler: Handler
    pod: PodEnd
    directory: Path
    port: int
    ca: Path

    @property
    def session(self) -> Session:
        session = self.server.session(NONCE)
        assert session is not None
        return session

    async def open(self, **carried: dict[int, int]) -> tuple[Stream, int]:
        """A stream that the pod carries with these descriptors, and its number there."""
        opening = asyncio.ensure_future(
            self.session.open_stream(lambda number: DialOpen(id=number, port=80))
        )
        frame = await self.pod.take()
        assert isinstance(frame, DialOpen)
        self.pod.channel.streams.carry(
            frame.id, outputs=carried.get("outputs", {}), inputs=carried.get("inputs", {})
        )
        return await opening, frame.id

    async def connect(self) -> None:
        """Wait for a session, and the supervisor's knowledge of it."""
        await self.handler.connected.wait()
        assert isinstance(await self.pod.take(), frames.Welcome)


def kubelet_files(directory: Path) -> tuple[Path, Path, Path, int]:
    """What a kubelet needs and publishes: certificate, key, CA and port."""
    ca, cert, key = make_certificates(directory)
    endpoint = Endpoint(
        generation=1,
        host="here",
        address="127.0.0.1",
        pid=1,
        job_id=None,
        api_port=1,
        channel_port=free_port(),
        started_at_s=time.time(),
    )
    (directory / "endpoint.json").write_text(codec.dumps(endpoint))
    return cert, key, ca, endpoint.channel_port


@contextlib.asynccontextmanager
async def kubelet_end(directory: Path) -> AsyncIterator[tuple[ChannelServer, Handler, int, Path]]:
    """A channel server that knows the attempt."""
    cert, key, ca, port = kubelet_files(directory)
    settings = kubelet_settings(
        channel_port=port, channel_cert=str(cert), channel_key=str(key), channel_ca=str(ca)
    )
    handler = Handler()
    server = ChannelServer(settings=settings, handler=handler)
    task = asyncio.ensure_future(server.run())
    try:
        yield server, handler, port, ca
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def write_pod(directory: Path, ca: Path) -> None:
    """The attempt that PodEnd reads."""
    write_attempt(
        directory / "attempt",
        None,
        container((), ""),
        endpoint_path=str(directory / "endpoint.json"),
        channel_ca_path=str(ca),
    )


@contextlib.asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[World]:
    """Both ends, connected; in the end all is closed."""
    async with kubelet_end(directory) as (server, handler, port, ca):
        write_pod(directory, ca)
        pod = PodEnd(directory)
        pod.channel.start()
        world = World(server, handler, pod, directory, port, ca)
        try:
            await world.connect()
            yield world
        finally:
            await asyncio.to_thread(pod.channel.close, 60.0)
            session = server.session(NONCE)
            if session is not None:
                await handler.gone.wait()


def open_fds() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what threads do; a test's own time limit ends what never comes."""
    while not condition():
        await asyncio.sleep(0.01)
