"""POST /exec/{namespace}/{pod}/{container}: a signal to the container's main process, so far.

Argo's controller stops a step by running ``argoexec kill SIGNAL 1`` in its containers, and people
run ``kill -TERM 1``: process 1 of a container is its main process. These commands are understood
and the supervisor signals the main process itself, for there may be no shell in the image; of an
MPI run every rank, which are nobody's process 1. Any other command is refused.

Source: pkg/kubelet/server/server.go, getExec; k8s.io/streaming; argo-workflows, workflow/signal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hpk.model.errors import HpkError, ParseError
from kubelet.server.authorization import Authorizer, question_for
from kubelet.server.backend import ContainerNotFoundError, KubeletBackend
from kubelet.server.front_door import Upgrade, answer
from kubelet.server.spdy import Connection

log = logging.getLogger(__name__)

_PROTOCOL = "v4.channel.k8s.io"
_STREAM_TYPES = frozenset({"error", "stdin", "stdout", "stderr", "resize"})
_STREAMS_TIMEOUT_S = 30.0  # upstream's streamCreationTimeout
_CLOSE_TIMEOUT_S = 10.0
_KILL = re.compile(r"kill +-(?:s +)?(\w+) +1")
_ARGO_KILL = ("/var/run/argo/argoexec", "kill")
_ARGO_WAIT = "wait"
_ARGO_START_S = 20
"""Argo's controller sends the container that waits for a step's outputs SIGTERM as soon as the step
has ended. It dies of one that comes before its handlers are there (seconds on a busy node), and the
step's outputs are lost; where the command is really run, its own start takes as long. A container
that has what it waits for has ended by then."""
_NOT_SERVED = (
    "exec serves only `kill -SIGNAL 1`, which signals the container's main process;"
    " other commands, attach and port-forward are not served yet"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An exec as the API server asks for it.

    :param uid: of the Pod, "" where the path names none.
    """

    method: str
    path: str
    pod: tuple[str, str]
    uid: str
    container: str
    command: tuple[str, ...]
    streams: int
    headers: Mapping[str, str]


def signal_of(command: tuple[str, ...]) -> int | None:
    """The signal a command sends to process 1 and does nothing else; None for other commands."""
    if command[:2] == _ARGO_KILL and len(command) == 4 and command[3] == "1":
        return _number(command[2])
    if len(command) == 3 and command[0] in ("sh", "/bin/sh") and command[1] == "-c":
        found = _KILL.fullmatch(command[2].strip())
    else:
        found = _KILL.fullmatch(" ".join((command[0].removeprefix("/bin/"), *command[1:])))
    return _number(found[1]) if found else None


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit():
        return int(text) if 0 < int(text) < signal.NSIG else None
    known = {item.name.removeprefix("SIG"): int(item) for item in signal.Signals}
    return known.get(text.upper().removeprefix("SIG"))


def parse_request(head: bytes) -> Request | None:
    """The exec of a request's head; None for a request of something else.

    :raises ParseError: it is malformed.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise ParseError(f"not a request: {first!r}")
    url = urlsplit(words[1])
    segments = [unquote(part) for part in url.path.strip("/").split("/")]
    if segments[0] != "exec" or len(segments) not in (4, 5):
        return None
    query = parse_qsl(url.query)
    command = tuple(value for name, value in query if name == "command")
    if not command:
        raise ParseError("an exec without command")
    asked = {name for name, value in query if value == "1"}
    headers: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        # A header may come several times, as the stream protocols do.
        before = headers.get(name.strip().lower())
        headers[name.strip().lower()] = ",".join(filter(None, (before, value.strip())))
    return Request(
        method=words[0],
        path=unquote(url.path),
        pod=(segments[1], segments[2]),
        uid=segments[3] if len(segments) == 5 else "",
        container=segments[-1],
        command=command,
        streams=1 + len(asked & {"input", "output", "error"}),
        headers=headers,
    )


async def serve_exec(upgrade: Upgrade, backend: KubeletBackend, authorizer: Authorizer) -> None:
    """Serve one request to upgrade, to the end of its connection."""
    transport = upgrade.transport
    head, _, rest = upgrade.received.partition(b"\r\n\r\n")
    try:
        request = parse_request(head)
        if request is None:
            answer(transport, "501 Not Implemented", _NOT_SERVED)
            return
        question = question_for(
            request.method, request.path, backend.find_pod, backend.node_names()
        )
        if not await authorizer.allowed(upgrade.peer, question):
            answer(transport, "403 Forbidden", f"Forbidden (user={upgrade.peer.user})")
            return
    except ParseError as error:
        answer(transport, "400 Bad Request", str(error))
        return
    except HpkError as error:
        answer(transport, "500 Internal Server Error", f"Authorization error: {error}")
        return
    number = signal_of(request.command)
    pod = backend.find_pod(*request.pod)
    refusal = _refusal(request, number, pod, backend)
    if refusal is not None or number is None or pod is None:
        answer(transport, *(refusal or ("501 Not Implemented", _NOT_SERVED)))
        return
    await _serve_streams(upgrade, rest, request, (pod["metadata"]["uid"], number), backend)


def _refusal(
    request: Request, number: int | None, pod: dict[str, Any] | None, backend: KubeletBackend
) -> tuple[str, str] | None:
    if pod is None:
        return "404 Not Found", "pod does not exist"
    if number is None:
        return "501 Not Implemented", _NOT_SERVED
    if request.headers.get("upgrade", "").lower() != "spdy/3.1":
        return "400 Bad Request", "exec is served by SPDY/3.1"
    if _PROTOCOL not in request.headers.get("x-stream-protocol-version", ""):
        return "403 Forbidden", f"unable to upgrade: the stream protocol served is {_PROTOCOL}"
    uid = pod["metadata"]["uid"]
    if request.uid not in ("", uid) or not backend.is_running(uid, request.container):
        return "500 Internal Server Error", str(ContainerNotFoundError(request.container))
    return None


async def _serve_streams(
    upgrade: Upgrade,
    rest: bytes,
    request: Request,
    target: tuple[str, int],
    backend: KubeletBackend,
) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    upgrade.transport.set_protocol(protocol)
    protocol.connection_made(upgrade.transport)
    upgrade.transport.resume_reading()  # before the reader has a reason to pause it
    writer = asyncio.StreamWriter(upgrade.transport, protocol, reader, loop)
    try:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: " + _PROTOCOL.encode() + b"\r\n\r\n"
        )
        reader.feed_data(rest)
        connection = Connection(reader, writer)
        streams: dict[str, int] = {}
        async with asyncio.timeout(_STREAMS_TIMEOUT_S):
            while len(streams) < request.streams:
                stream, headers = await connection.accept_stream()
                kind = headers.get("streamtype", "")
                if kind not in _STREAM_TYPES or kind in streams:
                    raise ParseError(f"a stream too many or of no known type: {kind!r}")
                streams[kind] = stream
        status = await _signal(request, target, backend)
        for kind, stream in streams.items():
            connection.finish_stream(stream, status if kind == "error" else b"")
        await writer.drain()
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await connection.wait_closed_by_client()
    except (HpkError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        log.info("exec ended early: %s", error, extra={"pod": "/".join(request.pod)})
    finally:
        writer.close()


def _not_before_s(request: Request) -> int:
    is_argos = request.command[:2] == _ARGO_KILL and request.container == _ARGO_WAIT
    return _ARGO_START_S if is_argos else 0


async def _signal(request: Request, target: tuple[str, int], backend: KubeletBackend) -> bytes:
    """A metav1.Status.

    :param target: the Pod's UID and the signal's number.
    """
    uid, number = target
    status = {"metadata": {}, "status": "Success"}
    try:
        await backend.signal_container(
            uid, request.container, number, not_before_s=_not_before_s(request)
        )
        log.info(
            "signal a container",
            extra={"pod": "/".join(request.pod), "container": request.container, "signal": number},
        )
    except (HpkError, OSError) as error:
        status |= {"status": "Failure", "reason": "InternalError", "message": str(error)}
    return json.dumps(status).encode()
