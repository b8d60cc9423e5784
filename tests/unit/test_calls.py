"""Where no connection leads from a node to the kubelet: the kubelet dials, all else is as ever."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpk.model import codec
from hpk.model.frames import DialOpen
from hpk.model.layout import AttemptLayout
from hpk.model.record import PodPhase, SupervisorRecord
from hpk.model.settings import Endpoint
from hpk.model.stream_frames import STDOUT
from kubelet.link import calls as calls_module
from kubelet.link.calls import Calls
from kubelet.link.channel import ChannelServer
from tests.certificates import make_certificates
from tests.kubelet_settings import free_port
from tests.stream_world import NONCE, Handler, kubelet_end, until
from tests.supervisor_bench import Bench, userns_works
from tests.supervisor_peer import read_record

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)


@dataclass
class Apart:
    """A kubelet, and a pod that runs and cannot reach it."""

    server: ChannelServer
    handler: Handler
    layout: AttemptLayout
    calls: Calls
    told: list[SupervisorRecord]

    @property
    def record(self) -> SupervisorRecord:
        return dataclasses.replace(read_record(self.layout), host_ip="127.0.0.1")


@pytest.fixture
async def apart(bench: Bench, tmp_path: Path) -> AsyncIterator[Apart]:
    kubelets = tmp_path / "kubelet"
    kubelets.mkdir()
    async with kubelet_end(kubelets) as (server, handler, _, ca):
        endpoint = codec.loads(Endpoint, (kubelets / "endpoint.json").read_text())
        closed = dataclasses.replace(endpoint, channel_port=free_port())
        (kubelets / "closed.json").write_text(codec.dumps(closed))
        layout = bench.attempt(
            "sleep",
            "600",
            endpoint_path=str(kubelets / "closed.json"),
            channel_ca_path=str(ca),
        )
        process = bench.start(layout)
        told: list[SupervisorRecord] = []
        calls = Calls(server, told.append)
        calling = asyncio.ensure_future(calls.run())
        await until(lambda: Path(layout.record).exists() and read_record(layout).channel_port > 0)
        yield Apart(server, handler, layout, calls, told)
        process.kill()
        if server.session(NONCE) is not None:
            await handler.gone.wait()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def talk(server: ChannelServer) -> None:
    """A stream through the session there is."""
    session = server.session(NONCE)
    assert session is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stream = await session.open_stream(lambda number: DialOpen(id=number, port=port))
        ours, _ = await asyncio.to_thread(listener.accept)
        with ours:
            ours.sendall(b"hello")
            assert await stream.read(STDOUT) == b"hello"
            stream.close()
            await until(lambda: not session.streams._streams)


async def test_the_kubelet_dials_and_dials_again(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "_AGAIN_S", 0.1)
    while not apart.told:
        apart.calls.want(apart.record)
        await asyncio.sleep(0.05)
    assert apart.told[0].host_ip == "127.0.0.1"
    await talk(apart.server)
    session = apart.server.session(NONCE)
    assert session is not None
    apart.handler.connected.clear()
    session.close()
    await apart.handler.gone.wait()
    apart.handler.gone.clear()
    # As the next kubelet does, which knows the record alone.
    again = Calls(apart.server, apart.told.append)
    calling = asyncio.ensure_future(again.run())
    again.want(apart.record)
    await apart.handler.connected.wait()
    await talk(apart.server)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)


async def test_strangers_learn_nothing_and_do_not_keep_the_kubelet_away(
    apart: Apart, tmp_path: Path
) -> None:
    port = apart.record.channel_port
    with socket.create_connection(("127.0.0.1", port)) as silent:
        assert await asyncio.to_thread(silent.recv, 3) == b"\x16\x03\x01"  # a client's first word
    others = tmp_path / "another authority"
    others.mkdir()
    _, cert, key = make_certificates(others)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def pretend() -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    return connection.recv(65536)
            except OSError:
                return b""

    assert await asyncio.to_thread(pretend) == b""
    apart.calls.want(apart.record)
    await apart.handler.connected.wait()


@pytest.mark.parametrize(
    "changes",
    [
        {"channel_port": 0},
        {"channel_port": -1},
        {"channel_port": 1 << 16},
        {"phase": PodPhase.FINISHED},
        {"host_ip": "localhost"},
        {"host_ip": ""},
        {"channel_port": free_port()},
    ],
)
async def test_an_address_that_is_none_is_not_dialled(
    apart: Apart, changes: dict[str, object]
) -> None:
    apart.calls.want(dataclasses.replace(apart.record, **changes))  # type: ignore[arg-type]
    # Dialled after it: what comes of the first is known once the second is there.
    with contextlib.suppress(OSError):
        await apart.server.call("127.0.0.1", apart.record.channel_port)
    await apart.handler.connected.wait()
    await talk(apart.server)


async def test_one_that_can_dial_again_does_and_is_not_dialled_any_more(
    apart: Apart, tmp_path: Path
) -> None:
    kubelets = tmp_path / "kubelet"
    (kubelets / "new.json").write_text((kubelets / "endpoint.json").read_text())
    (kubelets / "new.json").replace(kubelets / "closed.json")
    await apart.handler.connected.wait()
    await until(lambda: apart.record.channel_port == 0)
    await talk(apart.server)
