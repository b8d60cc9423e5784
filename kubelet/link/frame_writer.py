"""One connection's way out: whatever is small and urgent before bytes of streams, those by turns.

Nothing here waits for one supervisor but those who write to it: a connection that takes nothing
holds a bounded number of bytes, and they wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

_TRANSPORT_BYTES = 64 * 1024
"""What may lie in front of an urgent frame, besides what the kernel holds."""
_MAX_CONTROL_BYTES = 256 * 1024
_BREATH_BYTES = 256 * 1024
"""After so many others have their turn in the loop."""


class Source(Protocol):
    """A stream with bytes to send."""

    def next_frame(self) -> bytes:
        """As it goes on the wire; b"" where there is nothing more that may be sent now."""


class FrameWriter:
    """Of one connection; see the module's docstring."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._control: deque[Callable[[], bytes]] = deque()
        self._control_bytes = 0
        self._awaited: list[asyncio.Future[None]] = []
        self._turns: dict[Source, None] = {}
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closed = False

    async def room(self) -> None:
        """Wait for room for a frame; what is put without waiting any more has it.

        :raises ConnectionError: the connection is broken.
        """
        while not self._has_room.is_set() and not self._is_closed:
            await self._has_room.wait()
        if self._is_closed or self._writer.is_closing():
            raise ConnectionResetError("the supervisor hung up")

    def put(self, frame: bytes) -> None:
        """Put a frame before all bytes of streams. Without `room`: what comes seldom."""
        self._control_bytes += len(frame)
        if self._control_bytes >= _MAX_CONTROL_BYTES:
            self._has_room.clear()
        self.put_later(lambda: frame)

    async def send(self, frame: bytes) -> None:
        """Put a frame, and wait until the connection has taken it.

        :raises ConnectionError: the connection is broken.
        """
        await self.room()
        self.put(frame)
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append(taken)
        await taken

    def put_later(self, make: Callable[[], bytes]) -> None:
        """A frame that is made when it is its turn; who calls sees to it that only one waits."""
        if not self._is_closed:
            self._control.append(make)
            self._has_work.set()

    def ready(self, source: Source) -> None:
        """This one has bytes to send, and its turn after all others."""
        self._turns.setdefault(source)
        self._has_work.set()

    async def run(self) -> None:
        """Send until cancelled.

        :raises ConnectionError: the connection broke.
        """
        self._writer.transport.set_write_buffer_limits(high=_TRANSPORT_BYTES)
        breath = 0
        while True:
            awaited, self._awaited = self._awaited, []
            try:
                block = self._next_block()
                if not block:
                    self._has_work.clear()
                    await self._has_work.wait()
                    continue
                self._writer.write(block)
                await self._writer.drain()
            except BaseException:
                _tell(awaited, ConnectionResetError("the supervisor hung up"))
                raise
            _tell(awaited, None)
            breath += len(block)
            if breath >= _BREATH_BYTES:
                breath = 0
                await asyncio.sleep(0)

    def close(self) -> None:
        """Hang up; what waits is not sent."""
        self._is_closed = True
        self._control.clear()
        self._turns.clear()
        awaited, self._awaited = self._awaited, []
        _tell(awaited, ConnectionResetError("the supervisor hung up"))
        self._has_room.set()
        self._writer.close()

    def _next_block(self) -> bytes:
        if self._control:
            block = b"".join(make() for make in self._control)
            self._control.clear()
            self._control_bytes = 0
            self._has_room.set()
            return block
        while self._turns:
            source = next(iter(self._turns))
            del self._turns[source]
            frame = source.next_frame()
            if frame:
                self._turns[source] = None
                return frame
        return b""


def _tell(awaited: list[asyncio.Future[None]], error: Exception | None) -> None:
    for taken in awaited:
        if taken.done():
            continue
        if error is None:
            taken.set_result(None)
        else:
            taken.set_exception(error)
