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
from asyncio import sslproto
from collections.abc import Callable

log = logging.getLogger(__name__)

_ACCEPT_AGAIN_S = 1.0
_BACKLOG = 256
_TLS_BUFFER_BYTES = 16 * 1024

# asyncio keeps a buffer of 256 KiB for each TLS connection, 2.5 GiB for ten thousand pods. A record
# of TLS is no longer than 16 KiB.
sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES


def listen(address: str, port: int) -> socket.socket:
    """A socket that takes connections, for `serve_tls`.

    :raises OSError: the address is not this host's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


async def serve_tls(
    make_protocol: Callable[[], asyncio.BaseProtocol],
    listener: socket.socket,
    context: ssl.SSLContext,
    *,
    most_handshakes: int,
    handshake_timeout_s: float,
) -> None:
    """Serve until cancelled; then the listener is closed, connections with a handshake are not.

    :param make_protocol: for each connection; told of it once its handshake is done.
    :param most_handshakes: unfinished ones at a time.
    """
    loop = asyncio.get_running_loop()

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
        except Exception:
            log.exception("a TLS handshake failed")
            connection.close()

    handshakes: dict[asyncio.Task[None], None] = {}
    with listener:
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptor left, or the peer has gone already
                    log.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                    continue
                if len(handshakes) >= most_handshakes:
                    oldest = next(iter(handshakes))
                    # Not left to its callback: until that runs it would be the oldest again.
                    del handshakes[oldest]
                    oldest.cancel()
                task = tasks.create_task(shake_hands(connection))
                handshakes[task] = None
                task.add_done_callback(lambda done: handshakes.pop(done, None))
                # Accepting does not yield while connections queue up: those that were cancelled
                # must come to close theirs, and this task to its first step. One cancelled before
                # that would never own its socket.
                await asyncio.sleep(0)
