"""A container's log: files of lines, written to disk by a thread, and read while they are written.

Lines are formed where the output is read (hpk.supervisor.container.line_former), so that a slow
shared file system stalls neither the container nor the supervisor until much has piled up; a full
one costs log lines, never the pod. Rotation as upstream's: 10 MiB a file, 5 files; but what is just
being read stays, for a while and up to a limit, so that who follows a fast log misses nothing.
Source: kubernetes pkg/kubelet/logs/container_log_manager.go.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import Callable

from hpk.model.log_files import rotated_name
from hpk.supervisor.base.job_log import log
from hpk.supervisor.container.line_former import MAX_LINE_BYTES

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_FILES = 5
MAX_READ_FILES = 25
"""As many are kept where they are being read."""
READER_PATIENCE_S = 15.0
"""For so long is a reader expected to come back for what follows."""
_MANY_READERS = 1000
MAX_QUEUED_BYTES = 8 * 1024 * 1024


class LogWriter:
    """One log file, written by a thread of its own.

    Offsets given to readers count from the first byte ever written, through rotations.

    :param on_growth: called, from the thread, after bytes became readable.
    """

    def __init__(self, path: str, on_growth: Callable[[], None]) -> None:
        self.path = path
        self._on_growth = on_growth
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._dropped_bytes = 0
        self._closing = False
        self._condition = threading.Condition()
        self._fd = -1
        self._file_bytes = 0
        self._base = 0
        self._older: list[tuple[int, str]] = []  # start offset and path of rotated files
        self._readers: dict[int, tuple[int, float]] = {}  # where how many go on, seen last then
        self._is_rotating = False
        self.closed = False
        self._thread = threading.Thread(target=self._run, name=f"log {path}", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the disk that the container should wait too."""
        return self._queued_bytes >= MAX_QUEUED_BYTES

    def append(self, lines: bytes) -> None:
        """Queue lines; where the queue overflows they are dropped and counted."""
        if not lines:
            return
        with self._condition:
            if self._queued_bytes >= 2 * MAX_QUEUED_BYTES:
                self._dropped_bytes += len(lines)
                return
            self._queue.append(lines)
            self._queued_bytes += len(lines)
            self._condition.notify_all()

    def close(self) -> None:
        """Write what is queued, then end the thread; `closed` is set when it has."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()

    def remove(self) -> None:
        """Remove all its files; after its end."""
        with self._condition:
            paths = [*(path for _, path in self._older), self.path]
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread after close, at most so long."""
        self._thread.join(timeout_s)

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Bytes from ``offset`` and where they really start, which is later if older files are
        gone.

        :raises OSError: they cannot be read, or somebody else has removed them.
        """
        while True:
            with self._condition:
                self._condition.wait_for(lambda: not self._is_rotating)
                files = self._files()
                end = self._base + self._file_bytes
            start, path = files[0]
            for candidate in files:
                if candidate[0] <= offset:
                    start, path = candidate
            from_ = min(max(offset, start), max(end, start))
            data, error = b"", None
            try:
                if from_ < end:
                    with open(path, "rb") as file:
                        file.seek(from_ - start)
                        data = file.read(min(limit, end - from_))
            except FileNotFoundError as missing:
                error = missing
            with self._condition:
                if (start, path) in self._files() and not self._is_rotating:
                    if error is not None:
                        raise error
                    self._expect_reader(offset, from_ + len(data))
                    return from_, data

    def _expect_reader(self, was_at: int, at: int) -> None:
        """Somebody has read on; not before it was done, for what is being read must stay, too."""
        now_s = time.monotonic()
        count, seen_s = self._readers.pop(was_at, (0, now_s))
        if count > 1:
            self._readers[was_at] = count - 1, seen_s
        self._readers[at] = self._readers.get(at, (0, 0.0))[0] + 1, now_s
        if len(self._readers) > _MANY_READERS:
            self._forget_readers(now_s)

    def _forget_readers(self, now_s: float) -> None:
        since_s = now_s - READER_PATIENCE_S
        self._readers = {at: seen for at, seen in self._readers.items() if seen[1] > since_s}

    def _files(self) -> list[tuple[int, str]]:
        return [*self._older, (self._base, self.path)]

    @property
    def end(self) -> int:
        """Offset after the last byte that is readable."""
        with self._condition:
            return self._base + self._file_bytes

    def _run(self) -> None:
        self._open()
        while True:
            with self._condition:
                while not self._queue and not self._closing:
                    self._condition.wait()
                batch = b"".join(self._queue)
                self._queue.clear()
                done = self._closing and not batch
            if done:
                break
            self._write(batch)
            with self._condition:
                self._queued_bytes -= len(batch)
            self._on_growth()
        if self._fd >= 0:
            os.close(self._fd)
        self.closed = True
        self._on_growth()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self._fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            log("cannot open a container's log", path=self.path, error=error)

    def _write(self, batch: bytes) -> None:
        if self._fd < 0:
            self._open()
        if self._file_bytes >= MAX_FILE_BYTES:
            self._rotate()
        view = memoryview(batch)
        try:
            while view:
                count = os.write(self._fd, view)
                with self._condition:
                    self._file_bytes += count
                view = view[count:]
        except OSError as error:
            if not self._dropped_bytes:
                log("cannot write a container's log", path=self.path, error=error)
            self._dropped_bytes += len(view)
            self._mend()
            return
        if self._dropped_bytes:
            log("lost part of a container's log", path=self.path, bytes=self._dropped_bytes)
            self._dropped_bytes = 0

    def _mend(self) -> None:
        """Cut what half a write left of a line, so that the file stays lines."""
        with contextlib.suppress(OSError):
            with open(self.path, "rb") as file:
                keep = max(0, self._file_bytes - 2 * MAX_LINE_BYTES)
                file.seek(keep)
                tail = file.read(self._file_bytes - keep)
            whole = keep + tail.rfind(b"\n") + 1 if b"\n" in tail else keep
            os.ftruncate(self._fd, whole)
            with self._condition:
                self._file_bytes = whole

    def _rotate(self) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        rotated = rotated_name(self.path, stamp, self._base)
        with self._condition:
            self._is_rotating = True
        try:
            os.rename(self.path, rotated)
        except OSError as error:
            log("cannot rotate a container's log", path=self.path, error=error)
            gone = []
        else:
            gone = self._take_rotated(rotated)
        with self._condition:
            self._is_rotating = False
            self._condition.notify_all()
        for _, path in gone:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if self._fd < 0:
            self._open()

    def _take_rotated(self, rotated: str) -> list[tuple[int, str]]:
        """Files that are needed no more, now that the one being written has this path."""
        os.close(self._fd)
        self._fd = -1
        with self._condition:
            self._older.append((self._base, rotated))
            self._base += self._file_bytes
            self._file_bytes = 0
            kept = self._kept()
            gone = self._older[:-kept]
            del self._older[:-kept]
        return gone

    def _kept(self) -> int:
        """How many rotated files are needed."""
        self._forget_readers(time.monotonic())
        if not self._readers:
            return MAX_FILES - 1
        next_read = min(self._readers)
        read_at = sum(start <= next_read for start, _ in self._files()) - 1
        return min(MAX_READ_FILES - 1, max(MAX_FILES - 1, len(self._older) - read_at))
