"""Connections for probes and hooks: opened and read with one deadline for all of it."""

from __future__ import annotations

import socket
import struct
import time

from hpk.model.handlers import TcpSocketAction
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.probes.check_result import CheckResult, Outcome

_LINGER = struct.pack("ii", 1, 1)  # no TIME_WAIT for each probe (pkg/probe/dialer_others.go)


class CheckError(Exception):
    """The container did not answer as it should; the message is for the Event."""


class TlsRefusedError(CheckError):
    """What answered speaks no TLS."""


def check_tcp(action: TcpSocketAction, network: PodNetwork, timeout_s: float) -> CheckResult:
    """Whether a connection can be opened."""
    try:
        host = action.host or network.addresses[0]
        dial(network, host, action.port, time.monotonic() + timeout_s).close()
    except CheckError as error:
        return CheckResult(Outcome.FAILURE, str(error))
    return CheckResult(Outcome.SUCCESS)


def dial(network: PodNetwork, host: str, port: int, deadline: float) -> socket.socket:
    """A connection.

    :param deadline: monotonic.
    :raises CheckError: there is none.
    """
    place = f"dial tcp {join(host, port)}"
    try:
        connection = network.dial(host, port, _left(deadline))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    except (TimeoutError, socket.timeout) as error:
        raise CheckError(f"{place}: i/o timeout") from error
    except socket.gaierror as error:
        raise CheckError(f"dial tcp: lookup {host}: {error.strerror}") from error
    except (OSError, UnicodeError) as error:
        raise CheckError(f"{place}: connect: {_reason(error)}") from error
    return connection


def receive(connection: socket.socket, deadline: float) -> bytes:
    """The next bytes, b"" at the end.

    :raises CheckError: there was none in time, or the connection broke.
    """
    try:
        _arm(connection, deadline)
        return connection.recv(65536)
    except (TimeoutError, socket.timeout) as error:
        raise CheckError(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ) from error
    except OSError as error:
        raise CheckError(f"read: {_reason(error)}") from error


def send(connection: socket.socket, data: bytes, deadline: float) -> None:
    """Send all of it.

    :raises CheckError: that failed.
    """
    try:
        _arm(connection, deadline)
        connection.sendall(data)
    except (OSError, socket.timeout) as error:
        raise CheckError(f"write: {_reason(error)}") from error


def start_tls(connection: socket.socket, host: str, deadline: float) -> socket.socket:
    """The same connection with TLS, whoever the other is.

    :raises CheckError: it cannot be had.
    """
    import ssl  # here, for the sake of pods that need none

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        connection.settimeout(_left(deadline))
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            raise TlsRefusedError("http: server gave HTTP response to HTTPS client") from error
        raise CheckError(f"tls: {error.reason or error}") from error
    except (TimeoutError, socket.timeout) as error:
        raise CheckError("net/http: TLS handshake timeout") from error
    except (OSError, ValueError) as error:
        raise CheckError(f"tls: {_reason(error)}") from error


def _arm(connection: socket.socket, deadline: float) -> None:
    """Who is always ready to send or to take a little must not keep us beyond the deadline."""
    if time.monotonic() >= deadline:
        raise socket.timeout("i/o timeout")
    connection.settimeout(_left(deadline))


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def join(host: str, port: int) -> str:
    """Host and port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
