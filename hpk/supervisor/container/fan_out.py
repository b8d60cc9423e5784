"""Those who read a container's output as it comes (`kubectl attach`), beside its log.

Each has a pipe for each stream and a bounded queue before it, which a thread of its own empties. A
reader who falls behind by more than that is cut off: the container and its log wait for nobody. But
whoever types into the container's program is who it runs for, and a slow line is no reason to throw
him out of it: for him the container waits in write(2), as it would for a real terminal, as long as
he reads anything at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Callable

MAX_QUEUED_BYTES = 4 * 1024 * 1024
_WAITED_BYTES = 1024 * 1024
"""From here on who is waited for is."""
_STALLED_S = 10.0
"""Who has read nothing for so long does not read."""


class Tap:
    """One stream of one reader.

    :param fd: where to write it; blocking, closed at the end.
    :raises RuntimeError: there can be no more threads.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: deque[bytes] = deque()
        self._is_ending = False
        self._condition = threading.Condition()
        self.queued_bytes = 0
        self.written_bytes = 0
        self.is_gone = False
        """The reader has closed his end."""
        threading.Thread(target=self._run, name="attach", daemon=True).start()

    def append(self, data: bytes) -> None:
        """Have this written."""
        with self._condition:
            if not self.is_gone and not self._is_ending:
                self._queue.append(data)
                self.queued_bytes += len(data)
                self._condition.notify_all()

    def end(self, *, at_once: bool = False) -> None:
        """Nothing follows.

        :param at_once: nor is what waits written.
        """
        with self._condition:
            self._is_ending = True
            if at_once:
                self._queue.clear()
                self.queued_bytes = 0
            self._condition.notify_all()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._condition:
                    while not self._queue and not self._is_ending:
                        self._condition.wait()
                    if not self._queue:
                        break
                    data = self._queue.popleft()
                self._write(data)
        with self._condition:
            self.is_gone = True
            self._queue.clear()
            self.queued_bytes = 0
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            view = view[count:]
            with self._condition:
                self.written_bytes += count
                self.queued_bytes = max(0, self.queued_bytes - count)


class Reader:
    """One who reads.

    :param taps: by the stream's name in the log.
    :param is_waited_for: see the module's docstring.
    :param on_end: called once, in the loop: the output has ended, or (True) he was cut off.
    """

    def __init__(
        self, taps: Mapping[str, Tap], *, is_waited_for: bool, on_end: Callable[[bool], None]
    ) -> None:
        self._taps = taps
        self._is_waited_for = is_waited_for
        self._on_end = on_end
        self._progress = 0
        self._progress_mono_s = time.monotonic()

    def feed(self, stream: str, data: bytes) -> None:
        """The container has written this."""
        tap = self._taps.get(stream)
        if tap is not None:
            tap.append(data)

    def end_of(self, stream: str) -> None:
        """It has closed this stream, or ended."""
        tap = self._taps.get(stream)
        if tap is not None:
            tap.end()

    def leave(self, *, is_cut_off: bool = False) -> None:
        """Nothing more is written for him."""
        for tap in self._taps.values():
            tap.end(at_once=is_cut_off)
        self._on_end(is_cut_off)

    @property
    def _queued_bytes(self) -> int:
        return sum(tap.queued_bytes for tap in self._taps.values())

    def must_wait(self) -> bool:
        """Whether the container is to wait for him."""
        return self._is_waited_for and self._queued_bytes >= _WAITED_BYTES

    def is_too_slow(self) -> bool:
        """Whether he is to be cut off."""
        progress, now = sum(tap.written_bytes for tap in self._taps.values()), time.monotonic()
        if progress != self._progress or not self._queued_bytes:
            self._progress, self._progress_mono_s = progress, now
        if self._queued_bytes < _WAITED_BYTES:
            return False
        if self._is_waited_for:
            return now - self._progress_mono_s > _STALLED_S
        return self._queued_bytes > MAX_QUEUED_BYTES


class FanOut:
    """The readers of one start of a container."""

    def __init__(self) -> None:
        self._readers: list[Reader] = []

    def add(self, reader: Reader) -> None:
        """From now on he gets what the container writes."""
        self._readers.append(reader)

    def remove(self, reader: Reader) -> None:
        """He has left by himself."""
        with contextlib.suppress(ValueError):
            self._readers.remove(reader)

    def feed(self, stream: str, data: bytes) -> None:
        """The container has written this."""
        for reader in tuple(self._readers):
            reader.feed(stream, data)
            self._look(reader)

    def must_wait(self) -> bool:
        """Whether the container is to wait for one of them."""
        for reader in tuple(self._readers):
            self._look(reader)
        return any(reader.must_wait() for reader in self._readers)

    def _look(self, reader: Reader) -> None:
        if reader.is_too_slow():
            self.remove(reader)
            reader.leave(is_cut_off=True)

    def end_of(self, stream: str) -> None:
        """The container has closed this stream, or ended."""
        for reader in self._readers:
            reader.end_of(stream)

    def end(self) -> None:
        """All has ended."""
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.leave()
