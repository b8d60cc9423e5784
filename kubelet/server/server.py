"""The kubelet API server: start, serve, stop.

Config → startup → shutdown: `start` binds and returns once the port answers, `stop` ends every
connection. What is served lies in the endpoint modules; who may connect, in `front_door`. It
installs no signal handlers: the process is the kubelet's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Coroutine

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from hpk.model.errors import PermanentError, TransientError
from hpk.model.settings import KubeletSettings
from kubelet.link.tls_listener import listen, serve_tls
from kubelet.server.app import PEER_STATE, make_app
from kubelet.server.authorization import Authorizer
from kubelet.server.backend import KubeletBackend
from kubelet.server.front_door import MAX_HEAD_BYTES, FrontDoor, Upgrade
from kubelet.server.peer import Peer
from kubelet.server.streaming.serve import Kubelet, serve_upgrade
from kubelet.server.streams import StreamBackend

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT_S = 10.0
_MOST_HANDSHAKES = 256
_KEEP_ALIVE_S = 90  # upstream's IdleTimeout
_DRAIN_S = 2.0


def tls_context(settings: KubeletSettings) -> ssl.SSLContext:
    """TLS for the listener: our certificate, and clients of ``client_ca`` alone.

    :raises PermanentError: a file is missing or is no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cafile=settings.client_ca)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        files = f"{settings.tls_cert}, {settings.tls_key}, {settings.client_ca}"
        raise PermanentError(
            f"cannot use the kubelet API's certificates ({files}): {error}",
            remedy="run hpk down and hpk up, which writes them anew",
        ) from error
    return context


async def _log_failure(serving: Coroutine[None, None, None]) -> None:
    try:
        await serving
    except Exception:
        log.exception("the kubelet API no longer takes connections")
        raise


async def _guarded(upgrade: Upgrade, serving: Coroutine[None, None, None]) -> None:
    """One connection's failure is its own."""
    try:
        await serving
    except Exception:
        log.exception("an upgraded connection failed")
    finally:
        if not upgrade.transport.is_closing():
            upgrade.transport.abort()


def _refuse_every_address(address: str) -> None:
    try:
        unspecified = not address or ipaddress.ip_address(address).is_unspecified
    except ValueError:
        unspecified = False
    if unspecified:
        raise PermanentError(
            f"the kubelet API would listen on every interface ({address!r})",
            remedy="name one address of this host",
        )


class KubeletServer:
    """One HTTPS listener for all virtual nodes."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._state = ServerState()
        self._unread: set[asyncio.Transport] = set()
        self._upgrades: set[asyncio.Task[None]] = set()

    async def start(
        self,
        settings: KubeletSettings,
        backend: KubeletBackend,
        streams: StreamBackend | None = None,
    ) -> None:
        """Listen on ``settings.address:settings.port``.

        :param streams: serves exec, attach and port-forward.
        :raises PermanentError: a certificate or key cannot be read, or the address is none.
        :raises TransientError: the port is taken.
        """
        if self._listener is not None:
            raise PermanentError("the kubelet API server was started twice")
        _refuse_every_address(settings.address)
        context = tls_context(settings)
        # One for all ways in: what was decided, and a right that was taken back, holds on each.
        authorizer = Authorizer(backend.review_access)
        kubelet = Kubelet(backend=backend, streams=streams, authorizer=authorizer)
        config = Config(
            make_app(backend, authorizer),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        config.load()

        def make_http(peer: Peer) -> asyncio.Protocol:
            return H11Protocol(config, self._state, {PEER_STATE: peer})

        def on_upgrade(upgrade: Upgrade) -> None:
            task = asyncio.create_task(_guarded(upgrade, serve_upgrade(upgrade, kubelet)))
            self._upgrades.add(task)
            task.add_done_callback(self._upgrades.discard)

        def front_door() -> asyncio.Protocol:
            return FrontDoor(
                open_connections=self._unread, make_http=make_http, on_upgrade=on_upgrade
            )

        try:
            self._listener = listen(settings.address, settings.port)
        except OSError as error:
            raise TransientError(
                f"cannot listen on {settings.address}:{settings.port}: {error}",
                remedy="see what else uses the port",
            ) from error
        self._serving = asyncio.create_task(
            _log_failure(
                serve_tls(
                    front_door,
                    self._listener,
                    context,
                    most_handshakes=_MOST_HANDSHAKES,
                    handshake_timeout_s=_HANDSHAKE_TIMEOUT_S,
                )
            )
        )
        log.info("serve the kubelet API", extra={"port": settings.port})

    async def stop(self) -> None:
        """Stop listening and end every connection; harmless when not started."""
        if self._listener is None or self._serving is None:
            return
        serving, self._serving = self._serving, None
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        self._listener.close()  # not yet done where serving had not begun
        self._listener = None
        for transport in tuple(self._unread):
            transport.abort()
        for task in (upgrades := tuple(self._upgrades)):
            task.cancel()
        await asyncio.gather(*upgrades, return_exceptions=True)
        for connection in tuple(self._state.connections):
            connection.shutdown()
        tasks = tuple(self._state.tasks)
        if tasks:
            # Short answers may finish; a followed log would go on for ever.
            await asyncio.wait(tasks, timeout=_DRAIN_S)
        for connection in tuple(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        # A lost connection ends its request by itself; cancelling is for one that does not.
        if remaining := tuple(self._state.tasks):
            await asyncio.wait(remaining, timeout=_DRAIN_S)
        for task in tuple(self._state.tasks):
            task.cancel()
        log.info("stopped the kubelet API")
