"""The TLS listener as a crowd of strangers meets it: real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from kubelet.link.tls_listener import listen, serve_tls
from tests.certificates import make_certificates


async def test_of_connections_that_queued_up_only_the_newest_may_wait(tmp_path: Path) -> None:
    _, certificate, key = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = listen("127.0.0.1", 0)
    with contextlib.ExitStack() as stack:
        silent = []
        for _ in range(100):
            silent.append(stack.enter_context(socket.create_connection(listener.getsockname())))
            silent[-1].setblocking(False)
        serving = asyncio.ensure_future(
            serve_tls(
                asyncio.Protocol, listener, context, most_handshakes=10, handshake_timeout_s=60
            )
        )
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            for connection in silent[:90]:
                assert await loop.sock_recv(connection, 1) == b""
        for connection in silent[90:]:
            with pytest.raises(BlockingIOError):
                connection.recv(1)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for connection in silent[90:]:
            assert await loop.sock_recv(connection, 1) == b""
