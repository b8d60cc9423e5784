"""Port-forward: connections to the pod's own ports, made in threads, carried by the table."""

from __future__ import annotations

import socket
from collections import deque
from functools import partial
from typing import Union

from hpk.model import frames
from hpk.model.ids import PodRef
from hpk.model.stream_frames import STDIN, STDOUT
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.base.streams import StreamTable

_DIAL_S = 30.0
"""For a port whose listener accepts nobody; where there is no listener the answer comes at once."""
_MAX_DIALS = 16
"""At once, each in a thread; others wait for their turn."""
_LOCALHOSTS = (("IPv4:", "tcp4", "127.0.0.1"), ("IPv6", "tcp6", "::1"))


class PortForward:
    """Answers DialOpen. Of the loop's thread."""

    def __init__(self, loop: Loop, table: StreamTable, pod: PodRef) -> None:
        self._loop = loop
        self._table = table
        self._pod = pod
        self._waiting: deque[frames.DialOpen] = deque()
        self._dials = 0

    def open(self, frame: frames.DialOpen) -> None:
        """Connect, and carry the connection."""
        self._waiting.append(frame)
        self._begin_next()

    def _begin_next(self) -> None:
        while self._waiting and self._dials < _MAX_DIALS:
            frame = self._waiting.popleft()
            dial = partial(dial_localhost, self._loop.network, frame.port, self._pod)
            self._dials += 1
            try:
                self._loop.in_thread(dial, partial(self._dialled, frame.id))
            except RuntimeError as error:
                self._dials -= 1
                self._fail(frame.id, f"cannot dial: {error}")

    def _dialled(self, stream: int, result: Union[socket.socket, str]) -> None:
        self._dials -= 1
        if isinstance(result, str):
            self._fail(stream, result)
        else:
            fd = result.detach()
            self._table.carry(stream, outputs={STDOUT: fd}, inputs={STDIN: fd})
            self._table.finish(frames.StreamClosed(stream))
        self._begin_next()

    def _fail(self, stream: int, message: str) -> None:
        error = frames.StreamError.NOT_STARTED
        self._table.finish(frames.StreamClosed(stream, error=error, message=message))


def dial_localhost(network: PodNetwork, port: int, pod: PodRef) -> Union[socket.socket, str]:
    """A connection to a port of the pod's own, or why there is none.

    The message is containerd's (internal/cri/server/sandbox_portforward_linux.go), whose namespace
    is a path.
    """
    failures = []
    for family, kind, host in _LOCALHOSTS:
        try:
            connection = network.dial(host, port, _DIAL_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, OverflowError) as error:
            place = f"[{host}]" if ":" in host else host
            failures.append(f"{family} dial {kind} {place}:{port}: {_reason(error)}")
        else:
            return connection
    where = f"failed to connect to localhost:{port} inside namespace {_quoted(pod.uid)}"
    return f"{where}, {' '.join(failures)}"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _reason(error: Exception) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "i/o timeout"
    if isinstance(error, OSError) and error.strerror:
        return f"connect: {error.strerror.lower()}"
    return str(error)
