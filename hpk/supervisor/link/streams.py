"""The streams of the connection there is: exec, attach and port-forward, through the channel.

Two threads meet here. The loop's opens, finishes and is told of clients that have gone; the
channel's moves all bytes, as far as credits and the connection's room allow, one frame of each
stream in turn. A stream is of one connection: with it all end, and those of the next one are
others, so the loop knows each by a number of its own, which no other has or had.
"""

from __future__ import annotations

import itertools
import select
import threading
from collections import deque
from collections.abc import Mapping
from typing import Callable, Optional, Union

from hpk.model import codec, frames
from hpk.model.credits import WideWindows
from hpk.model.errors import ParseError
from hpk.model.frozen import replace
from hpk.model.stream_frames import (
    MAX_STREAMS,
    STDIN,
    StreamCredit,
    StreamFrame,
    stream_frame_bytes,
)
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.streams import HangUp
from hpk.supervisor.link.stream import Carry, Finish, Stream
from hpk.supervisor.link.stream_ends import Descriptors, Input, Output, close_all, is_socket

Open = Union[frames.ExecOpen, frames.AttachOpen, frames.DialOpen]


_Order = Union[Carry, Finish]


class Streams:
    """Fulfils hpk.supervisor.base.streams.StreamTable.

    :param wake: has the channel's thread look here; from any thread.
    :param post: has something done in the loop; from any thread.
    :param on_hang_up: called in the loop.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        post: Callable[[Callable[[], None]], None],
        on_hang_up: HangUp,
    ) -> None:
        self._wake = wake
        self._post = post
        self._on_hang_up = on_hang_up
        self._lock = threading.Lock()
        self._orders: deque[_Order] = deque()
        self._numbers = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        """By the loop's number; changed by the channel's thread alone, with the lock held."""
        self._by_id: dict[int, Stream] = {}
        """By the kubelet's number."""
        self._highest_id = 0
        self._wide = WideWindows()
        self._by_fd: dict[int, Stream] = {}
        self._control: deque[bytes] = deque()
        self._turns: deque[tuple[Stream, Output]] = deque()
        self._poller: Optional[select.epoll] = None

    # What follows is called by the loop's thread.

    def carry(
        self,
        stream: int,
        *,
        outputs: Mapping[int, int],
        inputs: Mapping[int, int],
        on_input_end: Optional[Callable[[], None]] = None,
    ) -> None:
        """See StreamTable.carry."""
        order = Carry(stream, dict(outputs), dict(inputs), on_input_end)
        if not self._order(order):
            self._refuse(order)

    def finish(self, closed: frames.StreamClosed, *, cut: bool = False) -> None:
        """See StreamTable.finish."""
        self._order(Finish(closed, cut))

    def finish_all(self, message: str) -> None:
        """The last word on whatever had none: it was lost."""
        with self._lock:
            numbers = list(self._streams)
        for number in numbers:
            self.finish(frames.StreamClosed(number, error=frames.StreamError.LOST, message=message))

    def _order(self, order: _Order) -> bool:
        with self._lock:
            if order.stream not in self._streams:
                return False
            self._orders.append(order)
        self._wake()
        return True

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing more to be said of any stream; from any thread."""
        return not self._streams

    # What follows is called by the channel's thread.

    def begin(self, poller: select.epoll) -> None:
        """There is a connection, and no stream of it yet."""
        self._poller = poller
        self._highest_id = 0

    def end(self) -> None:
        """The connection is gone, and with it all of its streams."""
        with self._lock:
            gone, self._streams = list(self._streams.values()), {}
            orders, self._orders = self._orders, deque()
        for order in orders:
            self._refuse(order)
        for stream in gone:
            self._let_go(stream)
        self._poller = None
        self._control.clear()
        self._turns.clear()

    def open(self, frame: Open) -> Optional[Open]:
        """The kubelet opens a stream; the frame as the loop is to see it, None where it is not.

        :raises ParseError: its id is not a new one.
        """
        if not self._highest_id < frame.id < 1 << 32:
            raise ParseError(f"stream {frame.id} comes after stream {self._highest_id}")
        self._highest_id = frame.id
        if len(self._streams) >= MAX_STREAMS:
            self._say(
                frames.StreamClosed(
                    frame.id,
                    error=frames.StreamError.REFUSED,
                    message=f"too many streams of this pod are open: {MAX_STREAMS}",
                )
            )
            return None
        stream = Stream(frame.id, next(self._numbers), self._wide)
        self._by_id[stream.id] = stream
        with self._lock:
            self._streams[stream.number] = stream
        return replace(frame, id=stream.number)

    def resize(self, frame: frames.StreamResize) -> Optional[frames.StreamResize]:
        """The frame as the loop is to see it; None where the stream has ended meanwhile."""
        stream = self._find(frame.id)
        return None if stream is None else replace(frame, id=stream.number)

    def hang_up(self, frame: frames.StreamClose) -> None:
        """The client of a stream has gone."""
        stream = self._find(frame.id)
        if stream is not None:
            self._remove(stream)
            self._say(frames.StreamClosed(frame.id))
            self._let_go(stream)

    def take(self, frame: StreamFrame) -> None:
        """A binary frame of the kubelet's.

        :raises ParseError: it is not one that may come now.
        """
        stream = self._find(frame.stream)
        if stream is None:
            return  # it crossed our last word
        if isinstance(frame, StreamCredit):
            output = stream.outputs.get(frame.channel)
            if output is not None:
                output.allow(frame.position)
                self._give_turn(stream, output)
            return
        if frame.channel != STDIN or not stream.is_carried:
            raise ParseError(f"stream {frame.stream}: bytes for channel {frame.channel}")
        stream.stdin.take(frame)
        self._tend(stream)

    def ready(self, fd: int, events: int) -> None:
        """A descriptor has something to tell."""
        stream = self._by_fd.get(fd)
        if stream is None:
            return  # what came before it in the same turn has closed it
        if stream.stdin.fd == fd:
            stream.stdin.ready(events)
        for output in stream.outputs.values():
            if output.fd == fd:
                output.ready(events)
                self._give_turn(stream, output)
        self._tend(stream)

    def take_control(self) -> list[bytes]:
        """Frames that wait to be sent, ahead of all data."""
        with self._lock:
            orders, self._orders = self._orders, deque()
        for order in orders:
            stream = self._streams.get(order.stream)
            if stream is None:
                self._refuse(order)
            elif isinstance(order, Carry):
                self._carry(stream, order)
            else:
                self._finish(stream, order)
        waiting = list(self._control)
        self._control.clear()
        return waiting

    def next_data(self) -> bytes:
        """A frame of the stream whose turn it is; b"" where none has anything to say."""
        while self._turns:
            stream, output = self._turns.popleft()
            frame = output.next_frame()
            output.is_in_turn = False
            self._give_turn(stream, output)
            if output.is_over:
                if output.has_failed and stream.stdin.fd == output.fd:
                    stream.stdin.break_off()
                self._tend(stream)
            if frame:
                return frame
        return b""

    def _carry(self, stream: Stream, order: Carry) -> None:
        read, written = set(order.outputs.values()), set(order.inputs.values())
        if self._poller is None or stream.is_carried or set(order.inputs) - {STDIN}:
            self._cannot_carry(stream, order, "a stream is carried once, and has one input")
            return
        try:
            stream.descriptors = Descriptors(self._poller, read, written)
        except OSError as error:
            self._cannot_carry(stream, order, str(error))
            return
        stream.outputs = {
            channel: Output(stream.id, channel, fd) for channel, fd in order.outputs.items()
        }
        stream.stdin = Input(order.inputs.get(STDIN), self._wide)
        stream.on_input_end = order.on_input_end
        stream.is_two_way = any(is_socket(fd) for fd in read & written)
        self._by_fd.update(dict.fromkeys(order.fds, stream))
        self._say(frames.StreamOpened(stream.id))
        for output in stream.outputs.values():
            self._give_turn(stream, output)

    def _cannot_carry(self, stream: Stream, order: Carry, why: str) -> None:
        log("cannot carry a stream", why=why)
        close_all(order.fds)
        self._remove(stream)
        self._say(frames.StreamClosed(stream.id, error=frames.StreamError.LOST, message=why))
        self._close(stream)
        self._hang_up(stream.number)

    def _finish(self, stream: Stream, order: Finish) -> None:
        stream.last_word = stream.last_word or order.closed
        for output in stream.outputs.values() if order.cut else ():
            output.cut()
            self._give_turn(stream, output)
        self._tend(stream)

    def _refuse(self, order: _Order) -> None:
        """What is ordered of a stream that is not there any more."""
        if isinstance(order, Carry):
            close_all(order.fds)
            self._hang_up(order.stream)

    def _find(self, stream_id: int) -> Optional[Stream]:
        if not 0 < stream_id <= self._highest_id:
            raise ParseError(f"stream {stream_id} was never opened")
        return self._by_id.get(stream_id)

    def _give_turn(self, stream: Stream, output: Output) -> None:
        if output.has_turn and not output.is_in_turn:
            output.is_in_turn = True
            self._turns.append((stream, output))

    def _tend(self, stream: Stream) -> None:
        """What follows from a change: credits, descriptors to close, the last word."""
        if stream.stdin.receipt.is_credit_due:
            position = stream.stdin.receipt.grant()
            self._control.append(stream_frame_bytes(StreamCredit(stream.id, STDIN, position)))
        if stream.on_input_end is not None and stream.stdin.is_all_written:
            self._post(stream.on_input_end)
            stream.on_input_end = None
        if stream.last_word is not None and stream.is_silent:
            self._remove(stream)
            self._say(replace(stream.last_word, id=stream.id))
            self._close(stream)
        elif stream.descriptors is not None:
            read, written = stream.read_fds, stream.written_fds
            stream.descriptors.settle(read, written)
            self._forget(stream, stream.all_fds - read - written)

    def _hang_up(self, number: int) -> None:
        self._post(lambda: self._on_hang_up(number))

    def _remove(self, stream: Stream) -> None:
        with self._lock:
            self._streams.pop(stream.number, None)

    def _let_go(self, stream: Stream) -> None:
        """The client or the connection has gone."""
        self._close(stream)
        if stream.is_carried and stream.last_word is None:
            self._hang_up(stream.number)

    def _close(self, stream: Stream) -> None:
        self._by_id.pop(stream.id, None)
        self._forget(stream, stream.all_fds)
        stream.stdin.receipt.close()
        for output in stream.outputs.values():
            output.is_over = True
        if stream.descriptors is not None:
            stream.descriptors.close()

    def _forget(self, stream: Stream, fds: set[int]) -> None:
        for fd in fds:
            if self._by_fd.get(fd) is stream:  # and not another's, that has the number by now
                del self._by_fd[fd]

    def _say(self, frame: Union[frames.StreamOpened, frames.StreamClosed]) -> None:
        self._control.append(codec.frame_bytes(frame))
