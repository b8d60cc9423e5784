"""A TLS server that keeps only so many strangers waiting.

asyncio's own tells of a connection only once its handshake is done: anybody on the network could
hold as many open before that as the process has descriptors. Here one that has waited for long
makes room for the newest, for a true peer's handshake takes milliseconds; where none has, the
newest is sent away. When ten thousand come at once, the other order throws away what is half done.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)

_ACCEPT_AGAIN_S = 1.0
_BACKLOG = 256
_PATIENCE_S = 2.0
"""How long one may wait before it has to make room for others."""
_TLS_BUFFER_BYTES = 16 * 1024

# asyncio keeps a buffer of 256 KiB for each TLS connection, 2.5 GiB for ten thousand pods. A record
# of TLS is no longer than 16 KiB.
sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES


class Waiters:
    """So many that wait, in the order they came, and who of them has to make room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Hashable, tuple[float, Callable[[], object]]] = {}

    def has_room(self) -> bool:
        """Whether one more may wait; the oldest goes for it if it has waited for long."""
        if len(self._waiting) < self._most:
            return True
        oldest, (since_s, dismiss) = next(iter(self._waiting.items()))
        if time.monotonic() - since_s < _PATIENCE_S:
            return False
        # Not left to whatever its end calls: until that runs it would be the oldest again.
        del self._waiting[oldest]
        dismiss()
        return True

    def enter(self, who: Hashable, dismiss: Callable[[], object]) -> bool:
        """Let one more wait; False where there is no room.

        :param dismiss: ends its waiting.
        """
        if not self.has_room():
            return False
        self._waiting[who] = time.monotonic(), dismiss
        return True

    def leave(self, who: Hashable) -> None:
        """It waits no more."""
        self._waiting.pop(who, None)


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

    handshakes = Waiters(most_handshakes)
    with listener:
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptor left, or the peer has gone already
                    log.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                    continue
                if not handshakes.has_room():
                    connection.close()
                    # Those that shake hands must come to do so.
                    await asyncio.sleep(0)
                    continue
                task = tasks.create_task(shake_hands(connection))
                handshakes.enter(task, task.cancel)
                task.add_done_callback(handshakes.leave)
                # Accepting does not yield while connections queue up: those that were cancelled
                # must come to close theirs, and this task to its first step. One cancelled before
                # that would never own its socket.
                await asyncio.sleep(0)
