"""A TLS server that keeps only so many strangers waiting.

asyncio's own tells of a connection only once its handshake is done: anybody on the network could
hold as many open before that as the process has descriptors. Here the oldest makes room for the
newest; a true peer's handshake takes milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_ACCEPT_AGAIN_S = 1.0
_BACKLOG = 256

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve_tls(
    connected: Connected,
    address: str,
    port: int,
    context: ssl.SSLContext,
    *,
    most_handshakes: int,
    handshake_timeout_s: float,
    limit: int,
) -> None:
    """Serve until cancelled.

    :param connected: called with every connection whose handshake is done.
    :param limit: of a connection's buffer, in bytes.
    """
    loop = asyncio.get_running_loop()

    def make_protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=limit), connected)

    async def shake_hands(connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(
                make_protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=handshake_timeout_s,
            )
        except OSError as error:
            log.debug("no TLS handshake: %s", error)

    handshakes: dict[asyncio.Task[None], None] = {}
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptor left, or the peer has gone already
                    log.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                    continue
                if len(handshakes) >= most_handshakes:
                    next(iter(handshakes)).cancel()
                task = tasks.create_task(shake_hands(connection))
                handshakes[task] = None
                task.add_done_callback(lambda done: handshakes.pop(done, None))
