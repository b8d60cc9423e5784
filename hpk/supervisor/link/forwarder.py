"""The API server at 127.0.0.1: a pipe from a port of this node to wherever it is now.

A container's environment cannot change when the control plane moves, so it names this port.
endpoint.json is read for each connection. TLS goes through from end to end: nothing of what passes
is understood, kept or logged here, and the port leads to no more than the API server's own, which
asks for credentials. It serves the pod's user alone, a bounded number of connections with bounded
buffers, and ends with its process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from collections import deque
from typing import Optional

from hpk.durable import read_file
from hpk.model.errors import HpkError
from hpk.supervisor.base.job_log import log
from hpk.supervisor.link.connection import keep_alive
from hpk.supervisor.link.control_plane import ControlPlane

MAX_CONNECTIONS = 128
"""More wait in the listener's queue, up to _BACKLOG, until one ends."""
_BACKLOG = 64
_BUFFER_BYTES = 64 * 1024
_DIAL_S = 10.0
"""How long a client is kept waiting for an API server that does not answer."""
_AGAIN_S = 0.2
_PAUSE_S = 1.0
_REFUSED_LOG_S = 60.0
"""How often strangers are worth a line: the job's output lies in the user's home."""
_FAILURES = (OSError, HpkError, ValueError, OverflowError)  # a port may be any number in a file


def listen() -> socket.socket:
    """A listener on a free port of 127.0.0.1."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def port_of(listener: socket.socket) -> int:
    """Where a listener listens."""
    return int(listener.getsockname()[1])


class Forwarder:
    """Serves one listener, in a thread of its own."""

    def __init__(self, listener: socket.socket, control_plane: ControlPlane) -> None:
        self._listener = listener
        self._control_plane = control_plane
        self._selector = selectors.DefaultSelector()
        self._count = 0
        self._is_accepting = False
        self._dialled: deque[Optional[_Pipe]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._failure = ""
        self._refused_mono_s = -_REFUSED_LOG_S

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="forwarder", daemon=True).start()

    def _run(self) -> None:
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        while True:
            try:
                self._turn()
            except OSError as error:  # no more descriptors, for example
                log("forwarder: cannot go on", error=error)
                time.sleep(_PAUSE_S)

    def _turn(self) -> None:
        self._accept_or_not()
        for key, events in self._selector.select():
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Pipe):
                self._move(key.data, events)
            else:
                self._take_dialled()

    def _accept_or_not(self) -> None:
        may = self._count < MAX_CONNECTIONS
        if may and not self._is_accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._is_accepting and not may:
            self._selector.unregister(self._listener)
        self._is_accepting = may

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone already
        self._count += 1
        try:
            # Reading files and dialling may take their time, which others need not wait for.
            threading.Thread(target=self._dial, args=(client,), daemon=True).start()
        except RuntimeError as error:
            log("forwarder: cannot dial", error=error)
            client.close()
            self._count -= 1

    def _dial(self, client: socket.socket) -> None:
        pipe: Optional[_Pipe] = None
        try:
            if belongs_to(client, os.getuid()):
                pipe = _Pipe(client, self._connect())
                self._failure = ""
            else:
                self._log_refusal()
        except _FAILURES as error:
            text = str(error) or repr(error)
            if text != self._failure:
                log("forwarder: cannot reach the API server", error=text)
            self._failure = text
        if pipe is None:
            client.close()
        self._dialled.append(pipe)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"d")

    def _log_refusal(self) -> None:
        now = time.monotonic()
        if now - self._refused_mono_s >= _REFUSED_LOG_S:
            self._refused_mono_s = now
            log("forwarder: a connection of another user was refused")

    def _connect(self) -> socket.socket:
        """A connection to the API server, wherever endpoint.json says by the time it answers."""
        deadline = time.monotonic() + _DIAL_S
        while True:
            try:
                endpoint = self._control_plane.endpoint()
                left_s = max(_AGAIN_S, deadline - time.monotonic())
                address = (endpoint.address, endpoint.api_port)
                return socket.create_connection(address, timeout=left_s)
            except _FAILURES:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_S)

    def _take_dialled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._dialled:
            pipe = self._dialled.popleft()
            if pipe is None:
                self._count -= 1
            else:
                self._watch(pipe)

    def _move(self, pipe: _Pipe, events: int) -> None:
        if pipe.is_closed:  # by what came before in the same turn
            return
        try:
            pipe.move()
        except OSError:
            self._close(pipe)
            return
        if pipe.is_over:
            self._close(pipe)
        else:
            self._watch(pipe)

    def _watch(self, pipe: _Pipe) -> None:
        for sock in pipe.sockets:
            events = pipe.wanted(sock)
            is_watched = sock in pipe.watched
            if events and is_watched:
                self._selector.modify(sock, events, pipe)
            elif events:
                self._selector.register(sock, events, pipe)
                pipe.watched.add(sock)
            elif is_watched:
                self._selector.unregister(sock)
                pipe.watched.discard(sock)

    def _close(self, pipe: _Pipe) -> None:
        for sock in pipe.watched:
            self._selector.unregister(sock)
        pipe.close()
        self._count -= 1


class _Way:
    """Bytes from one socket to the other; at most one buffer of them waits here."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.waiting = b""
        self.is_over = False

    def move(self) -> None:
        """Move what can be moved without waiting. An end is passed on, too."""
        with contextlib.suppress(BlockingIOError):
            if not self.waiting and not self.is_over:
                self.waiting = self.source.recv(_BUFFER_BYTES)
                if not self.waiting:
                    self.is_over = True
                    self.sink.shutdown(socket.SHUT_WR)
            if self.waiting:
                sent = self.sink.send(self.waiting)
                self.waiting = self.waiting[sent:]


class _Pipe:
    """Two connections, each other's ends."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        self.watched: set[socket.socket] = set()
        self.is_closed = False
        self._ways = (_Way(client, server), _Way(server, client))
        keep_alive(server)
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_over(self) -> bool:
        """Whether both sides have said their last."""
        return all(way.is_over for way in self._ways)

    def wanted(self, sock: socket.socket) -> int:
        """The events of this socket that let something move."""
        events = 0
        for way in self._ways:
            if way.sink is sock and way.waiting:
                events |= selectors.EVENT_WRITE
            if way.source is sock and not way.waiting and not way.is_over:
                events |= selectors.EVENT_READ
        return events

    def move(self) -> None:
        """Move what can be moved, both ways."""
        for way in self._ways:
            way.move()

    def close(self) -> None:
        """End both connections."""
        self.is_closed = True
        for sock in self.sockets:
            sock.close()


def belongs_to(client: socket.socket, uid: int) -> bool:
    """Whether the other end of a connection over loopback is a socket of this user's.

    /proc/net/tcp shows each end with its owner; a client that speaks IPv6 to an IPv4 address is in
    tcp6. A line may be missed while others come and go, so it is looked for more than once.
    """
    theirs, ours = client.getpeername(), client.getsockname()
    pairs = [
        (_as_proc_has_it(theirs, prefix), _as_proc_has_it(ours, prefix))
        for prefix in (b"", bytes(10) + b"\xff\xff")
    ]
    for _ in range(3):
        for name, pair in zip(("tcp", "tcp6"), pairs):
            for fields in _table(f"/proc/self/net/{name}"):
                if (fields[1], fields[2]) == pair:
                    return fields[7] == str(uid)
    return False


def _as_proc_has_it(address: tuple[str, int], prefix: bytes) -> str:
    """``127.0.0.1``, 80 as ``0100007F:0050`` (words of the address in the host's byte order)."""
    raw = prefix + socket.inet_aton(address[0])
    words = (int.from_bytes(raw[n : n + 4], sys.byteorder) for n in range(0, len(raw), 4))
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


def _table(path: str) -> list[list[str]]:
    try:
        lines = read_file(path).decode("ascii", "replace").splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []
    return [fields for fields in (line.split() for line in lines[1:]) if len(fields) > 7]
