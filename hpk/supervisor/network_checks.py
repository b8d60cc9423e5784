"""Asking a container over the network: tcpSocket and httpGet. Each blocks, for so long at most.

No library's HTTP client: a probe's time limit is for the whole of it, connection to last byte, and
the answer may be anything. Certificates are not looked at, as upstream does not either. Source:
kubernetes pkg/probe/tcp, pkg/probe/http.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from dataclasses import dataclass, replace
from typing import Optional
from urllib.parse import quote, urljoin, urlsplit

from hpk.model.handlers import HttpGetAction, TcpSocketAction
from hpk.supervisor.check_result import MAX_OUTPUT_BYTES, CheckResult, Outcome

_MAX_HEAD_BYTES = 256 * 1024
_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_LINGER = struct.pack("ii", 1, 1)  # no TIME_WAIT for each probe (pkg/probe/dialer_others.go)


class CheckError(Exception):
    """The container did not answer as it should; the message is for the Event."""


class TlsRefusedError(CheckError):
    """What answered speaks no TLS."""


def check_tcp(action: TcpSocketAction, pod_ip: str, timeout_s: float) -> CheckResult:
    """Whether a connection can be opened."""
    try:
        dial(action.host or pod_ip, action.port, time.monotonic() + timeout_s).close()
    except CheckError as error:
        return CheckResult(Outcome.FAILURE, str(error))
    return CheckResult(Outcome.SUCCESS)


def check_http(action: HttpGetAction, pod_ip: str, timeout_s: float, agent: str) -> CheckResult:
    """Whether a GET is answered with 200 to 399.

    :param agent: the ``User-Agent``, where the Pod gives none.
    """
    deadline = time.monotonic() + timeout_s
    request = _first_request(action, pod_ip)
    first_host, url = request.host, request.url
    try:
        for _ in range(_MAX_REDIRECTS):
            answer = _ask(request, agent, deadline)
            following = _redirected(request, answer)
            if following is None or following.host != first_host:
                return _judge(answer)
            request = following
    except CheckError as error:
        return CheckResult(Outcome.FAILURE, f'Get "{url}": {error}')
    return CheckResult(Outcome.FAILURE, f'Get "{request.url}": stopped after 10 redirects')


def dial(host: str, port: int, deadline: float) -> socket.socket:
    """A connection.

    :param deadline: monotonic.
    :raises CheckError: there is none.
    """
    place = f"dial tcp {_join(host, port)}"
    try:
        connection = socket.create_connection((host, port), _left(deadline))
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
        connection.settimeout(_left(deadline))
        return connection.recv(65536)
    except (TimeoutError, socket.timeout) as error:
        raise CheckError(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ) from error
    except OSError as error:
        raise CheckError(f"read: {_reason(error)}") from error


@dataclass(frozen=True)
class _Request:
    """One GET. ``host_header`` is "" where the URL says it."""

    scheme: str
    host: str
    port: int
    target: str
    headers: tuple[tuple[str, str], ...]
    host_header: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{_join(self.host, self.port)}{self.target}"

    def to_bytes(self, agent: str) -> bytes:
        names = {name.lower() for name, _ in self.headers}
        lines = [f"GET {self.target} HTTP/1.1"]
        lines.append(f"Host: {self.host_header or _join(self.host, self.port)}")
        if "user-agent" not in names:
            lines.append(f"User-Agent: {agent}")
        if "accept" not in names:
            lines.append("Accept: */*")
        lines += [f"{name}: {value}" for name, value in self.headers if _is_sent(name, value)]
        lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def _is_sent(name: str, value: str) -> bool:
    # An empty Accept or User-Agent is how a Pod asks for none.
    return name.lower() != "host" and bool(value or name.lower() not in ("accept", "user-agent"))


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


def _first_request(action: HttpGetAction, pod_ip: str) -> _Request:
    hosts = [value for name, value in action.headers if name.lower() == "host"]
    return _Request(
        scheme=action.scheme.lower(),
        host=action.host or pod_ip,
        port=action.port,
        target=_target(action.path),
        headers=action.headers,
        host_header=hosts[0] if hosts else "",
    )


def _target(path: str) -> str:
    """The path and query of a URL; what cannot stand in a request line is escaped."""
    try:
        parts = urlsplit(path)
        text = parts.path + (f"?{parts.query}" if parts.query else "")
    except ValueError:
        text = path
    text = quote(text, safe="%/:=&?~#+!$,;'@()*[]", errors="surrogateescape")
    return text if text.startswith("/") else f"/{text}"


def _redirected(request: _Request, answer: _Answer) -> Optional[_Request]:
    """Where the answer sends us, None where it does not or nobody could follow."""
    location = answer.header("location")
    if answer.status not in _REDIRECTS or not location:
        return None
    try:
        parts = urlsplit(urljoin(request.url, location))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        is_absolute = bool(urlsplit(location).netloc)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return replace(
        request,
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        target=_target(parts.path + (f"?{parts.query}" if parts.query else "")),
        host_header="" if is_absolute else request.host_header,
    )


def _judge(answer: _Answer) -> CheckResult:
    if 200 <= answer.status < 300:
        return CheckResult(Outcome.SUCCESS)
    if 300 <= answer.status < 400:
        body = answer.body.decode(errors="replace")
        text = f"Probe terminated redirects, Response body: {body}"
        return CheckResult(Outcome.WARNING, text)
    return CheckResult(
        Outcome.FAILURE, f"HTTP probe failed with statuscode: {answer.status}"
    )  # the body may hold a secret, and Events are read by many


def _ask(request: _Request, agent: str, deadline: float) -> _Answer:
    connection = dial(request.host, request.port, deadline)
    try:
        if request.scheme == "https":
            connection = _start_tls(connection, request.host, deadline)
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(request.to_bytes(agent))
        except (OSError, socket.timeout) as error:
            raise CheckError(f"write: {_reason(error)}") from error
        return _read_answer(connection, deadline)
    finally:
        connection.close()


def _start_tls(connection: socket.socket, host: str, deadline: float) -> socket.socket:
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


def _read_answer(connection: socket.socket, deadline: float) -> _Answer:
    data = b""
    while True:
        head, separator, data = data.partition(b"\r\n\r\n")
        if not separator:
            data = head
            if len(data) > _MAX_HEAD_BYTES:
                raise CheckError("the answer's headers are too long")
            more = receive(connection, deadline)
            if not more:
                raise CheckError("EOF" if not data else "unexpected EOF")
            data += more
            continue
        status, headers = _parse_head(head)
        if status >= 200:  # before it there may be a 100
            break
    answer = _Answer(status, headers, data)
    return replace(answer, body=_read_body(connection, answer, deadline))


def _parse_head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise CheckError(f"malformed HTTP response {first[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)


def _read_body(connection: socket.socket, answer: _Answer, deadline: float) -> bytes:
    """The body's first bytes, for a server that minds being hung up on; the status has decided."""
    body, length = answer.body, answer.header("content-length")
    wanted = min(int(length), MAX_OUTPUT_BYTES) if length.isdigit() else MAX_OUTPUT_BYTES
    chunked = "chunked" in answer.header("transfer-encoding").lower()
    try:
        while len(body) < wanted and not (chunked and body.endswith(b"0\r\n\r\n")):
            more = receive(connection, deadline)
            if not more:
                break
            body += more
    except CheckError:
        pass
    return body[:MAX_OUTPUT_BYTES]


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
