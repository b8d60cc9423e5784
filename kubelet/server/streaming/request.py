"""Requests for exec, attach and port-forward: reading their heads, with nothing left to chance.

The API server in front of us and we must see the same request, so whatever two readers might take
differently (header lines folded or repeated, bodies, escaped slashes in names) is refused.

Source: pkg/kubelet/server/server.go, getExecRequestParams; k8s.io/cri-streaming, NewOptions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_to_bytes

from hpk.model.errors import HpkError
from kubelet.server.streams import Streams

EXEC, ATTACH, PORT_FORWARD = "exec", "attach", "portForward"
MAX_HEADER_LINES = 256
_MAX_QUERY_FIELDS = 4096
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1")
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_HEADER_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UID = re.compile(r"[0-9A-Za-z]([-0-9A-Za-z]{0,126}[0-9A-Za-z])?")
_ONCE = frozenset(
    {"host", "content-length", "upgrade", "sec-websocket-key", "sec-websocket-version"}
)


class RequestRefusedError(HpkError):
    """Answered with this status and the message, in HTTP.

    :param headers: of the answer.
    """

    def __init__(
        self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to upgrade.

    :param endpoint: EXEC, ATTACH or PORT_FORWARD.
    :param uid: of the Pod, "" where the path names none.
    :param container: "" for PORT_FORWARD.
    :param query: its fields, in order, decoded.
    :param headers: by names in lower case; several lines of one name joined by commas.
    """

    method: str
    endpoint: str
    namespace: str
    pod: str
    uid: str
    container: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """As the authorizer wants it: decoded, which for these names changes nothing."""
        return "/".join(
            ("", self.endpoint, self.namespace, self.pod, *filter(None, (self.uid, self.container)))
        )

    def values(self, name: str) -> tuple[str, ...]:
        """Of a field of the query."""
        return tuple(value for field, value in self.query if field == name)

    def tokens(self, header: str) -> tuple[str, ...]:
        """The elements of a header that is a list."""
        elements = self.headers.get(header, "").split(",")
        return tuple(element.strip() for element in elements if element.strip())


def parse_request(received: bytes) -> tuple[Request, bytes]:
    """The request whose head begins what was received, and what follows it.

    :raises RequestRefusedError: it is malformed, or of something else.
    """
    head, end, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(first)
    if found is None or not end:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "malformed request line")
    path, _, query = found[2].decode().partition("?")
    headers = _parse_headers(lines)
    if headers.get("transfer-encoding") or headers.get("content-length", "0") != "0":
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "a request to upgrade has no body")
    try:
        fields = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, f"malformed query: {error}") from error
    endpoint, namespace, pod, uid, container = _parse_path(path)
    request = Request(
        method=found[1].decode(),
        endpoint=endpoint,
        namespace=namespace,
        pod=pod,
        uid=uid,
        container=container,
        query=tuple(fields),
        headers=headers,
    )
    return request, rest


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADER_LINES:
        raise RequestRefusedError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {MAX_HEADER_LINES} headers"
        )
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not _HEADER_NAME.fullmatch(raw_name) or _NO_HEADER_VALUE.search(raw_value):
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "malformed header")
        name, value = raw_name.decode().lower(), raw_value.decode("latin-1").strip(" \t")
        if name in headers and name in _ONCE:
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, f"header {name} comes twice")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _parse_path(path: str) -> tuple[str, str, str, str, str]:
    """(endpoint, namespace, pod, uid, container)"""
    not_found = RequestRefusedError(HTTPStatus.NOT_FOUND, "404 page not found")
    endpoint, *raw = path.removeprefix("/").split("/")
    try:
        names = [unquote_to_bytes(segment).decode() for segment in raw]
    except UnicodeDecodeError:
        raise not_found from None
    has_container = endpoint in (EXEC, ATTACH)
    if not has_container and endpoint != PORT_FORWARD:
        raise not_found
    if len(names) - has_container not in (2, 3):
        raise not_found
    namespace, pod, *rest = names
    container = rest.pop() if has_container else ""
    uid = rest[0] if rest else ""
    for name in (namespace, pod, *((container,) if has_container else ())):
        if not _NAME.fullmatch(name):
            raise not_found
    if rest and not _UID.fullmatch(uid):
        raise not_found
    return endpoint, namespace, pod, uid, container


def wanted_streams(request: Request) -> Streams:
    """Which streams an exec or attach asks for.

    :raises RequestRefusedError: none.
    """
    asked = {
        name: request.values(name)[:1] == ("1",) for name in ("input", "output", "error", "tty")
    }
    # A terminal has one output; upstream leaves the other one out without a word.
    stderr = asked["error"] and not asked["tty"]
    if not (asked["input"] or asked["output"] or stderr):
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"
        )
    return Streams(stdin=asked["input"], stdout=asked["output"], stderr=stderr, tty=asked["tty"])
