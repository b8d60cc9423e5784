"""A container's output as CRI log lines, ``TIME STREAM F|P TEXT``.

Lines are formed where the output is read and written to disk by a thread, so that a slow shared
file system stalls neither the container nor the supervisor until much has piled up; a full one
costs log lines, never the pod. Rotation as upstream's: 10 MiB a file, 5 files.
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

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_FILES = 5
MAX_LINE_BYTES = 16 * 1024
MAX_QUEUED_BYTES = 8 * 1024 * 1024


def timestamp(time_ns: int) -> str:
    """RFC3339Nano in UTC."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


class LineFormer:
    """Bytes of one stream to CRI lines. A line is cut, marked P, where it is too long or where the
    stream ends without a newline."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._rest = b""

    def feed(self, data: bytes, time_ns: int) -> bytes:
        """The lines that ``data`` completes; what is left waits for more."""
        head = timestamp(time_ns).encode() + b" " + self.stream.encode()
        data = self._rest + data
        whole = data.rfind(b"\n") + 1
        lines, self._rest = data[:whole], data[whole:]
        if _has_long_line(lines):
            out = [self._cut(line, head, b"F") for line in lines[:-1].split(b"\n")]
        else:
            # All at once: a container that writes much must not wait for the making of lines.
            full = head + b" F "
            out = [full + lines[:-1].replace(b"\n", b"\n" + full) + b"\n"] if lines else []
        while len(self._rest) >= MAX_LINE_BYTES:
            part, self._rest = self._rest[:MAX_LINE_BYTES], self._rest[MAX_LINE_BYTES:]
            out.append(head + b" P " + part + b"\n")
        return b"".join(out)

    def finish(self, time_ns: int) -> bytes:
        """What is left at the stream's end."""
        rest, self._rest = self._rest, b""
        head = timestamp(time_ns).encode() + b" " + self.stream.encode()
        return self._cut(rest, head, b"P") if rest else b""

    @staticmethod
    def _cut(line: bytes, head: bytes, tag: bytes) -> bytes:
        out = []
        while len(line) > MAX_LINE_BYTES:
            out.append(head + b" P " + line[:MAX_LINE_BYTES] + b"\n")
            line = line[MAX_LINE_BYTES:]
        out.append(head + b" " + tag + b" " + line + b"\n")
        return b"".join(out)


def _has_long_line(lines: bytes) -> bool:
    """Whether one is longer than MAX_LINE_BYTES, without its newline."""
    at = 0
    while len(lines) - at > MAX_LINE_BYTES:
        newline = lines.rfind(b"\n", at, at + MAX_LINE_BYTES + 1)
        if newline < 0:
            return True
        at = newline + 1
    return False


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
        gone."""
        with self._condition:
            files = [*self._older, (self._base, self.path)]
            end = self._base + self._file_bytes
        start, path = files[0]
        for candidate in files:
            if candidate[0] <= offset:
                start, path = candidate
        offset = min(max(offset, start), max(end, start))
        try:
            with open(path, "rb") as file:
                file.seek(offset - start)
                data = file.read(limit)
        except FileNotFoundError:
            return offset, b""
        return offset, data[: max(0, end - offset)]

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
        try:
            os.rename(self.path, rotated)
        except OSError as error:
            log("cannot rotate a container's log", path=self.path, error=error)
            return
        os.close(self._fd)
        self._fd = -1
        with self._condition:
            self._older.append((self._base, rotated))
            self._base += self._file_bytes
            self._file_bytes = 0
            gone = self._older[: 1 - MAX_FILES]
            del self._older[: 1 - MAX_FILES]
        for _, path in gone:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._open()
