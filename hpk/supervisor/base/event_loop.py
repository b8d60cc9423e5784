"""One thread that waits for everything: descriptors, what other threads post, and the clock."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import threading
from collections import deque
from typing import Callable

from hpk.supervisor.base.loop import T


class EventLoop:
    """Calls back on the thread that calls `turn`; `post` and what `in_thread` runs are others'."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._events: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)

    def turn(self, timeout_s: float) -> None:
        """Wait for something, for so long at most, and do all that is to be done."""
        for key, _ in self._selector.select(timeout_s):
            # One called before this may have closed it, and its number may be another's now.
            if self._selector.get_map().get(key.fileobj) is key:
                key.data()
        while self._events:
            self._events.popleft()()

    def pause(self, timeout_s: float) -> None:
        """Wait until something is posted, and do nothing about it.

        Whatever is watched may be readable all the while, and nobody reads it here.
        """
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.poll(timeout_s * 1000)
        self._on_wake()

    def post(self, event: Callable[[], None]) -> None:
        """Have this done soon; from any thread, and from signal handlers."""
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Have `turn` or `pause` return soon; from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"e")

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """See hpk.supervisor.base.loop.Loop.in_thread."""

        def do() -> None:
            result = work()
            self.post(lambda: then(result))

        threading.Thread(target=do, name="check", daemon=True).start()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """See hpk.supervisor.base.loop.Watcher."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """See hpk.supervisor.base.loop.Watcher."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
