"""One GET and its answer, in the bytes of HTTP/1.1. Opens no connection.

No library's HTTP client: a probe's time limit is for the whole of it, and the answer may be
anything. What cannot stand in a request line is escaped; header names and values are checked where
the Pod is planned.
"""

from __future__ import annotations

from typing import Optional
from urllib.parse import quote, urljoin, urlsplit

from hpk.model.frozen import dataclass, replace
from hpk.model.handlers import HttpGetAction
from hpk.supervisor.probes.dialing import CheckError, join

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Request:
    """One GET. ``host_header`` is "" where the URL says it."""

    scheme: str
    host: str
    port: int
    target: str
    headers: tuple[tuple[str, str], ...]
    host_header: str

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.scheme}://{join(self.host, self.port)}{self.target}"

    def to_bytes(self, agent: str) -> bytes:
        """As it is sent."""
        names = {name.lower() for name, _ in self.headers}
        lines = [f"GET {self.target} HTTP/1.1"]
        lines.append(f"Host: {self.host_header or join(self.host, self.port)}")
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
class Answer:
    """What came back; names of headers in lower case, the body's first bytes."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """The first of this name, "" where there is none."""
        return next((value for key, value in self.headers if key == name), "")


def first_request(action: HttpGetAction, pod_ip: str) -> Request:
    """What an action asks, before any redirection."""
    hosts = [value for name, value in action.headers if name.lower() == "host"]
    return Request(
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


def redirected(request: Request, answer: Answer) -> Optional[Request]:
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


def parse_head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Status and headers of an answer.

    :raises CheckError: it is no HTTP.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not _is_status(words[1]):
        raise CheckError(f"malformed HTTP response {first[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)


def _is_status(text: str) -> bool:
    # "\u00b2" is a digit, too, but no number.
    return len(text) == 3 and text.isascii() and text.isdigit()
