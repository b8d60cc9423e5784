"""Connections to a pod's ports: the kubelet's server, a real supervisor, this node's loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpk.model.frames import DialOpen
from hpk.model.ids import PodRef, PodUid
from hpk.model.stream_frames import STDOUT
from hpk.supervisor.link.host_network import HostNetwork
from hpk.supervisor.pod.port_forward import dial_localhost
from kubelet.link.session import Session
from kubelet.link.stream_errors import StreamLostError, StreamRefusedError
from kubelet.link.streams import Stream
from tests.kubelet_settings import free_port
from tests.stream_world import NONCE, kubelet_end
from tests.supervisor_bench import Bench, userns_works

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)


class Echo:
    """Answers each connection with what it said, reversed, once it has said all."""

    def __init__(self, address: str, family: socket.AddressFamily) -> None:
        self._listener = socket.create_server((address, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as reader:
                said = reader.read()
                connection.sendall(said[::-1])
            if said == b"end":
                return

    def close(self) -> None:
        with socket.create_connection(self._listener.getsockname()[:2]) as last:
            last.sendall(b"end")
            last.shutdown(socket.SHUT_WR)
            self._thread.join(60)
        self._listener.close()


@pytest.fixture
async def session(bench: Bench, tmp_path: Path) -> AsyncIterator[Session]:
    """Of a pod that runs."""
    kubelets = tmp_path / "kubelet"
    kubelets.mkdir()
    async with kubelet_end(kubelets) as (server, handler, _, ca):
        layout = bench.attempt(
            "sleep",
            "600",
            endpoint_path=str(kubelets / "endpoint.json"),
            channel_ca_path=str(ca),
        )
        bench.start(layout)
        await handler.connected.wait()
        found = server.session(NONCE)
        assert found is not None
        yield found
        bench.processes[-1].kill()
        await handler.gone.wait()


async def dial(session: Session, port: int) -> Stream:
    return await session.open_stream(lambda number: DialOpen(id=number, port=port))


async def ask(session: Session, port: int, text: bytes) -> bytes:
    """What a server says once it has all of a text."""
    stream = await dial(session, port)
    await stream.write(text)
    await stream.write_end()
    answer = b""
    while data := await stream.read(STDOUT):
        answer += data
    assert (await stream.closed()).message == ""
    return answer


@pytest.mark.parametrize(
    ("address", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
async def test_many_connections_at_once(
    session: Session, address: str, family: socket.AddressFamily
) -> None:
    echo = Echo(address, family)
    try:
        texts = [b"%d, and " % number * 1000 for number in range(50)]
        answers = await asyncio.gather(*(ask(session, echo.port, text) for text in texts))
        assert answers == [text[::-1] for text in texts]
    finally:
        await asyncio.to_thread(echo.close)


async def test_where_nobody_listens_the_message_is_containerds(session: Session) -> None:
    port = free_port()
    with pytest.raises(StreamRefusedError) as caught:
        await dial(session, port)
    assert str(caught.value) == (
        f'failed to connect to localhost:{port} inside namespace "0a-uid",'
        f" IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused"
        f" IPv6 dial tcp6 [::1]:{port}: connect: connection refused"
    )


async def test_a_connection_ends_with_its_pod(session: Session, bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await dial(session, listener.getsockname()[1])
        ours, _ = await asyncio.to_thread(listener.accept)
        with ours:
            bench.processes[-1].kill()
            with pytest.raises(StreamLostError):
                await stream.read(STDOUT)
            assert await asyncio.to_thread(ours.recv, 1) == b""


@pytest.mark.parametrize("port", [-1, 0, 1 << 16])
def test_a_port_that_is_none_is_refused_in_words(port: int) -> None:
    network = HostNetwork(lambda: "127.0.0.1")
    answer = dial_localhost(network, port, PodRef("default", "p", PodUid("0a-uid")))
    assert isinstance(answer, str)
    assert answer.startswith(f"failed to connect to localhost:{port} ")
