"""The TLS listener as a crowd of strangers meets it: real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from kubelet.link import tls_listener
from kubelet.link.tls_listener import listen, serve_tls
from tests.certificates import make_certificates


@pytest.mark.parametrize("patience_s", [0.0, 600.0])
async def test_of_connections_that_queued_up_only_so_many_may_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(tls_listener, "_PATIENCE_S", patience_s)
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
        # Those that have waited for long make room; where nobody has, the newest are sent away.
        kept, sent_away = silent[90:], silent[:90]
        if patience_s:
            kept, sent_away = silent[:10], silent[10:]
        async with asyncio.timeout(30):
            for connection in sent_away:
                assert await loop.sock_recv(connection, 1) == b""
        for connection in kept:
            with pytest.raises(BlockingIOError):
                connection.recv(1)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for connection in kept:
            assert await loop.sock_recv(connection, 1) == b""
