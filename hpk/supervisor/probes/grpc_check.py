"""Asking a container by grpc: one call of grpc.health.v1.Health/Check. Blocks, for so long at most.

The least of HTTP/2 that such a call needs. What the server's headers say is not read: an answer
holds a status or there is none, which is a failure whatever the reason. Sources: kubernetes
pkg/probe/grpc, RFC 9113, RFC 7541, grpc's PROTOCOL-HTTP2.md and health/v1/health.proto.
"""

from __future__ import annotations

import socket
import struct
import time

from hpk.model.handlers import GrpcAction
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.dialing import CheckError, dial, join, receive, send

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 0x1, 0x4, 0x1, 0x8
_STREAM = 1
_MAX_FRAME_BYTES = 16384
_MAX_FRAMES = 1000
_MAX_BODY_BYTES = 4096
"""Of an answer that holds one number."""
_SERVING = 1
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def check_grpc(
    action: GrpcAction, network: PodNetwork, timeout_s: float, agent: str
) -> CheckResult:
    """Whether the service says that it is serving.

    :param agent: the ``User-Agent``.
    """
    deadline = time.monotonic() + timeout_s
    host = network.addresses[0]
    address = join(host, action.port)
    try:
        connection = dial(network, host, action.port, deadline)
    except CheckError as error:
        text = f'error: failed to connect service at "{address}": {error}'
        return CheckResult(Outcome.FAILURE, text)
    with connection:
        try:
            send(connection, _request(action.service, address, agent), deadline)
            answer = _Answer(connection, deadline).read()
        except CheckError as error:
            if time.monotonic() >= deadline:
                text = f"timeout: health rpc did not complete within {timeout_s:g}s"
            else:
                text = f"error: health rpc probe failed: {error}"
            return CheckResult(Outcome.FAILURE, text)
    status = _serving_status(answer)
    if status == _SERVING:
        return CheckResult(Outcome.SUCCESS)
    name = _STATUSES[status] if status < len(_STATUSES) else str(status)
    return CheckResult(Outcome.FAILURE, f'service unhealthy (responded with "{name}")')


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _request(service: str, authority: str, agent: str) -> bytes:
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", agent),
        ("te", "trailers"),
    )
    # Each a literal that is not indexed, by its name (RFC 7541, 6.2.2).
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)
    name = service.encode("utf-8", "surrogateescape")
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    body = struct.pack(">BI", 0, len(message)) + message
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0)
        + _frame(_HEADERS, _END_HEADERS, _STREAM, block)
        + _frame(_DATA, _END_STREAM, _STREAM, body)
    )


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    return b"\x7f" + _varint(len(raw) - 127) + raw


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes((number & 127 | 128,))
        number >>= 7
    return out + bytes((number,))


class _Answer:
    """Reads frames until the call has ended."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._rest = b""
        self._body = b""

    def read(self) -> bytes:
        """The answer's message, as protobuf.

        :raises CheckError: there is none.
        """
        for _ in range(_MAX_FRAMES):
            if self._take_frame():
                break
        if len(self._body) < 5 or self._body[0] != 0:
            raise CheckError("the server gave no answer: it may not know the service")
        length = int.from_bytes(self._body[1:5], "big")
        return self._body[5 : 5 + length]

    def _take_frame(self) -> bool:
        """Whether it was the last."""
        head = self._exactly(9)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        if length > _MAX_FRAME_BYTES:
            raise CheckError("what answers speaks no HTTP/2")
        payload = self._exactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            send(self._connection, _frame(_SETTINGS, _ACK, 0), self._deadline)
        elif kind == _PING and not flags & _ACK:
            send(self._connection, _frame(_PING, _ACK, 0, payload), self._deadline)
        elif (kind == _RST_STREAM and stream & 0x7FFFFFFF == _STREAM) or (
            kind == _GOAWAY and not _goes_in_peace(payload)
        ):
            raise CheckError("the server has ended the call")
        elif kind == _DATA:
            if flags & _PADDED and payload:
                payload = payload[1 : len(payload) - payload[0]]
            self._body += payload
            if len(self._body) > _MAX_BODY_BYTES:
                raise CheckError("the server's answer is too long")
        return kind in (_DATA, _HEADERS) and bool(flags & _END_STREAM)

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            more = receive(self._connection, self._deadline)
            if not more:
                raise CheckError("the server hung up")
            self._rest += more
        data, self._rest = self._rest[:count], self._rest[count:]
        return data


def _goes_in_peace(payload: bytes) -> bool:
    """Whether a GOAWAY only refuses further calls, and ours is still answered."""
    if len(payload) < 8:
        return False
    last_stream, code = struct.unpack(">II", payload[:8])
    return bool(last_stream & 0x7FFFFFFF >= _STREAM and code == 0)


def _serving_status(message: bytes) -> int:
    """Field 1 of a HealthCheckResponse, an enumeration; 0 where it is left out."""
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0
