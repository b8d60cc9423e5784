"""exec over the kubelet API: a signal to a running container, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import zlib

import pytest

from kubelet.server import spdy
from kubelet.server.exec_signal import signal_of
from tests.kubelet_api import Running, get, raw


async def test_an_upgrade_is_refused_clearly(running: Running) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    context = running.context(running.clients.issue("api-server"))
    answer = await raw(
        running,
        context,
        b"POST /exec/default/web/main?command=id HTTP/1.1\r\nHost: x\r\n"
        b"connection:keep-alive,  Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert b"exec" in answer


def exec_head(query: str, container: str = "web/main") -> bytes:
    return (
        f"POST /exec/default/{container}?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v5.channel.k8s.io\r\n"
        "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
        "X-Stream-Protocol-Version: channel.k8s.io\r\n\r\n"
    ).encode()


def stream_frames(*kinds: str) -> list[bytes]:
    """What a client sends to open streams, one after the other."""
    packer = zlib.compressobj(zdict=spdy.dictionary())
    frames = []
    for number, kind in enumerate(kinds):
        pairs = struct.pack(">II", 1, 10) + b"streamtype" + struct.pack(">I", len(kind))
        block = packer.compress(pairs + kind.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack(">IIH", 2 * number + 1, 0, 0) + block
        frames.append(struct.pack(">HHI", 0x8003, spdy.SYN_STREAM, len(body)) + body)
    return frames


async def read_ends(reader: asyncio.StreamReader, count: int) -> tuple[list[int], dict[int, bytes]]:
    """The streams that were answered, and the last data of each."""
    replies: list[int] = []
    ends: dict[int, bytes] = {}
    while len(ends) < count:
        first, second = struct.unpack(">II", await reader.readexactly(8))
        payload = await reader.readexactly(second & 0xFFFFFF)
        if first >> 31:
            assert first & 0xFFFF == spdy.SYN_REPLY
            replies.append(struct.unpack_from(">I", payload)[0])
        else:
            assert second >> 24 == spdy.FIN
            ends[first] = payload
    return replies, ends


@pytest.mark.parametrize("lost", [False, True])
async def test_an_exec_of_kill_signals_the_containers_main_process(
    running: Running, lost: bool
) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    running.backend.lost = lost
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    query = "command=/var/run/argo/argoexec&command=kill&command=15&command=1&output=1&error=1"
    writer.write(exec_head(query))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    for frame in stream_frames("error", "stdout", "stderr"):
        writer.write(frame)
    replies, ends = await read_ends(reader, 3)
    assert replies == [1, 3, 5]
    assert (ends[3], ends[5]) == (b"", b"")
    assert json.loads(ends[1])["status"] == ("Failure" if lost else "Success")
    assert running.backend.signals == ([] if lost else [("uid-of-web", "main", 15)])
    writer.close()


async def test_what_comes_while_an_exec_is_authorized_waits_and_starts_no_other(
    running: Running,
) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    running.backend.may_create.clear()
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    frames = stream_frames("error", "stdout", "stderr")
    head = exec_head("command=kill&command=-15&command=1&output=1&error=1")
    for piece in (head + frames[0], frames[1], frames[2]):
        writer.write(piece)
        await get(running, "/healthz")  # by when this piece has arrived
    running.backend.may_create.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    replies, ends = await read_ends(reader, 3)
    assert (replies, json.loads(ends[1])["status"]) == ([1, 3, 5], "Success")
    assert len([r for r in running.backend.reviews if r.verb == "create"]) == 1
    assert running.backend.signals == [("uid-of-web", "main", 15)]
    writer.close()


@pytest.mark.parametrize("with_eof", [False, True])
async def test_an_exec_that_is_refused_ends_whatever_was_sent_meanwhile(
    running: Running, with_eof: bool
) -> None:
    running.backend.may_create.clear()
    context = running.context(running.clients.issue("somebody"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    writer.write(exec_head("command=kill&command=-9&command=1"))
    await get(running, "/healthz")
    writer.write(b"x" * 100_000)
    if with_eof:
        writer.close()
    await get(running, "/healthz")
    running.backend.may_create.set()
    with contextlib.suppress(ConnectionError):
        assert with_eof or (await reader.read()).startswith(b"HTTP/1.1 403 ")
    while running.server._upgrades:
        await asyncio.sleep(0)
    assert running.backend.signals == []
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()


async def test_a_signal_needs_the_right_to_the_node(running: Running) -> None:
    context = running.context(running.clients.issue("somebody"))
    answer = await raw(running, context, exec_head("command=kill&command=-9&command=1"))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert running.backend.signals == []


@pytest.mark.parametrize(
    ("container", "status", "message"),
    [
        ("web/absent", 500, b'container not found ("absent")'),
        ("web/uid-of-its-predecessor/main", 500, b'container not found ("main")'),
        ("queued/main", 500, b'container not found ("main")'),
        ("absent/main", 404, b"pod does not exist"),
        ("web/uid-of-web/main", 101, b""),
    ],
)
async def test_only_a_running_container_of_this_very_pod_can_be_signalled(
    running: Running, container: str, status: int, message: bytes
) -> None:
    running.backend.rights |= {("api-server", "create", "proxy", n) for n in ("main", "debug")}
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    writer.write(exec_head("command=kill&command=-15&command=1", container))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d " % status)
    if status != 101:
        assert await reader.read() == message
    writer.close()
    assert running.backend.signals == []


@pytest.mark.parametrize("kinds", [("error", "error", "stdout"), ("error", "other")])
async def test_streams_that_no_exec_has_end_it(running: Running, kinds: tuple[str, ...]) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    context = running.context(running.clients.issue("api-server"))
    head = exec_head("command=kill&command=-15&command=1&output=1")
    answer = await raw(running, context, head + b"".join(stream_frames(*kinds)))
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert running.backend.signals == []


async def test_a_client_that_only_sends_pings_does_not_make_us_keep_the_answers() -> None:
    ours, silent = socket.socketpair()
    ping = struct.pack(">HHI", 0x8003, spdy.PING, 100_000) + bytes(100_000)
    with silent:
        _, writer = await asyncio.open_connection(sock=ours)
        reader = asyncio.StreamReader()
        reader.feed_data(ping * 100)
        reader.feed_eof()
        task = asyncio.ensure_future(spdy.Connection(reader, writer).accept_stream())
        await asyncio.sleep(0)  # nothing but a full connection makes the task wait
        assert not task.done()
        assert writer.transport.get_write_buffer_size() < 2 * len(ping)
        writer.transport.abort()
        with pytest.raises(ConnectionError):
            await task


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("kill", "-²", "1"), None),
        (("kill", "-٩", "1"), None),
        (("/var/run/argo/argoexec", "kill", "15", "1"), 15),
        (("/bin/sh", "-c", "kill -9 1"), 9),
        (("sh", "-c", "kill -s TERM 1"), 15),
        (("kill", "-SIGUSR1", "1"), 10),
        (("/bin/kill", "1"), None),
        (("kill", "-9", "-1"), None),
        (("kill", "-9", "12"), None),
        (("kill", "-99", "1"), None),
        (("sh", "-c", "kill -9 1; reboot"), None),
        (("/var/run/argo/argoexec", "kill", "15", "2"), None),
        (("echo", "kill -9 1"), None),
    ],
)
def test_which_commands_are_a_signal(command: tuple[str, ...], expected: int | None) -> None:
    assert signal_of(command) == expected
