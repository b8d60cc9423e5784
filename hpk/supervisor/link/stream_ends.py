"""A stream's ends in the job: descriptors whose bytes go into the channel, or come out of it.

Of the channel's thread. Descriptors are non-blocking and watched edge by edge: each counts as ready
until the kernel has said otherwise, so that a busy one costs no call but its reads and writes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from typing import Optional, Union

from hpk.model.credits import Receipt, WideWindows
from hpk.model.stream_frames import (
    FIRST_CREDIT_BYTES,
    MAX_DATA_BYTES,
    StreamData,
    StreamEnd,
    stream_frame_bytes,
)

WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


class Output:
    """A descriptor whose bytes go to the kubelet: read when they may be sent, and no earlier."""

    def __init__(self, stream: int, channel: int, fd: int) -> None:
        self.fd = fd
        self.is_over = False
        self.has_failed = False
        """The other end broke off: what is written there goes nowhere either."""
        self.is_in_turn = False
        self._is_cut = False
        self._stream = stream
        self._channel = channel
        self._position = 0
        self._limit = FIRST_CREDIT_BYTES
        self._is_readable = True

    @property
    def has_turn(self) -> bool:
        """Whether there may be something to read, and leave to send it."""
        return not self.is_over and self._is_readable and self._position < self._limit

    def allow(self, position: int) -> None:
        """The kubelet takes bytes up to here."""
        self._limit = max(self._limit, position)

    def cut(self) -> None:
        """Let it end where there is nothing to be read."""
        self._is_cut = self._is_readable = True

    def ready(self, events: int) -> None:
        """The kernel has something to tell."""
        self._is_readable = self._is_readable or bool(events & _READABLE)

    def next_frame(self) -> bytes:
        """What there is to say now, as it goes on the wire; b"" where there is nothing."""
        if not self.has_turn:
            return b""
        try:
            data = os.read(self.fd, min(MAX_DATA_BYTES, self._limit - self._position))
        except BlockingIOError:
            self._is_readable = False
            if not self._is_cut:
                return b""
            data = b""
        except OSError:  # a terminal that nobody has open any more (EIO), a connection reset
            data, self.has_failed = b"", True
        position = self._position
        self._position += len(data)
        if data:
            return stream_frame_bytes(StreamData(self._stream, self._channel, position, data))
        self.is_over = True
        return stream_frame_bytes(StreamEnd(self._stream, self._channel, position))


class Input:
    """A descriptor that the kubelet's bytes are written to. Those that nobody will read count as
    read, so that who sends them need not wait for ever.

    :param fd: None where the program has no such input.
    """

    def __init__(self, fd: Optional[int], wide: WideWindows) -> None:
        self.fd = fd
        self.receipt = Receipt(wide)
        self.is_over = fd is None
        self._is_broken = False
        self._waiting = bytearray()
        self._is_writable = True

    def take(self, frame: Union[StreamData, StreamEnd]) -> None:
        """Bytes of the kubelet's, or their end.

        :raises ParseError: not those that were its turn to send.
        """
        self.receipt.take(frame)
        if isinstance(frame, StreamEnd):
            self.is_over = self.is_over or not self._waiting
        elif self.is_over:
            self.receipt.read(len(frame.data))
        else:
            self._waiting += frame.data
            self._write()

    def ready(self, events: int) -> None:
        """The kernel has something to tell."""
        if events & _WRITABLE:
            self._is_writable = True
            self._write()

    def break_off(self) -> None:
        """Nobody reads what is written there."""
        self._is_broken = True
        self.receipt.read(len(self._waiting))
        self._waiting.clear()
        self.is_over = True

    @property
    def is_all_written(self) -> bool:
        """Whether it has ended with all its bytes written."""
        return self.receipt.has_ended and self.is_over and not self._is_broken

    def _write(self) -> None:
        while self._waiting and self._is_writable and self.fd is not None:
            try:
                with memoryview(self._waiting) as waiting:
                    written = os.write(self.fd, waiting[:MAX_DATA_BYTES])
            except BlockingIOError:
                self._is_writable = False
            except OSError:
                self.break_off()
            else:
                del self._waiting[:written]
                self.receipt.read(written)
        if self.receipt.has_ended and not self._waiting:
            self.is_over = True


class Descriptors:
    """Those of one stream: watched from the first, each closed when nothing is left for it to do.

    :raises OSError: one of them cannot be watched; then all are the caller's.
    """

    def __init__(self, poller: select.epoll, read: set[int], written: set[int]) -> None:
        self._poller = poller
        self._fds: set[int] = set()
        self._open_for_writing = set(written)
        fds = read | written
        try:
            for fd in fds:
                os.set_blocking(fd, False)
                poller.register(fd, WATCHED)
                self._fds.add(fd)
        except OSError:
            for fd in self._fds:
                poller.unregister(fd)
            raise

    def settle(self, read: set[int], written: set[int]) -> None:
        """Close what nobody reads or writes any more; what is only read from now on is shut down
        for writing, where it is a connection."""
        for fd in self._fds - read - written:
            self._close(fd)
        for fd in self._fds & self._open_for_writing - written:
            self._open_for_writing.discard(fd)
            if is_socket(fd):
                shut_down_writing(fd)

    def close(self) -> None:
        """Close all of them."""
        for fd in set(self._fds):
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._fds.discard(fd)
        # By itself epoll forgets it only with the last copy, and a program's process has one.
        with contextlib.suppress(OSError):
            self._poller.unregister(fd)
        os.close(fd)


def close_all(fds: set[int]) -> None:
    """Close descriptors that nobody watches."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def is_socket(fd: int) -> bool:
    """Whether it is one end of a connection."""
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def shut_down_writing(fd: int) -> None:
    """Say that nothing more comes; one whose other end has gone is no error."""
    connection = socket.socket(fileno=fd)
    try:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
    finally:
        connection.detach()
