"""A container's output as CRI log lines, ``TIME STREAM F|P TEXT``."""

from __future__ import annotations

import time

MAX_LINE_BYTES = 16 * 1024


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
