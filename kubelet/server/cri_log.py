"""CRI log lines: parsing them and choosing what a client sees of them.

A line is ``2026-01-02T03:04:05.123456789Z stdout F text``; the tag ``P`` marks a piece of a line
that goes on in the next one. The behaviour is that of upstream's kubelet (cri-client, pkg/logs),
with two differences: a line that does not parse never ends the log, and a last line without its
newline is shown when following too. Pure: bytes in, bytes out; nothing here waits or reads.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from hpk.model.errors import ParseError

log = logging.getLogger(__name__)

STREAMS = frozenset({"stdout", "stderr"})
MAX_LINE_BYTES = 1024 * 1024
_LINE = re.compile(
    rb"(?P<seconds>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?"
    rb"(?P<zone>Z|[+-]\d\d:\d\d) (?P<stream>stdout|stderr) (?P<tag>[^ \n]*) (?P<content>.*\n?)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriLine:
    """One line of a CRI log.

    :param time_ns: Unix time in nanoseconds.
    :param timestamp: RFC 3339 with exactly nine digits after the point, as upstream prints it.
    :param content: what the container wrote; ends with a newline unless the line is partial (or
        the log was cut short).
    """

    time_ns: int
    timestamp: bytes
    stream: str
    partial: bool
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """What of a log is wanted; see v1.PodLogOptions.

    :param since_ns: skip what is older, Unix time in nanoseconds.
    :param limit_bytes: end after so many bytes of output, timestamps included.
    :param tail_lines: at most so many lines of the file (a partial line counts as one).
    """

    streams: frozenset[str] = STREAMS
    since_ns: int | None = None
    limit_bytes: int | None = None
    tail_lines: int | None = None
    timestamps: bool = False


@lru_cache(maxsize=4096)
def _epoch_s(seconds: bytes, zone: bytes) -> int:
    offset = "+00:00" if zone == b"Z" else zone.decode()
    return int(datetime.fromisoformat(seconds.decode() + offset).timestamp())


def parse_line(line: bytes) -> CriLine:
    """One line, with or without its newline.

    :raises ParseError: it is no CRI log line. The message does not repeat the line: it may hold
        what only the pod's owner may read.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise ParseError(f"not a CRI log line ({len(line)} bytes)")
    seconds, fraction, zone = found["seconds"], found["fraction"] or b"", found["zone"]
    try:
        epoch_s = _epoch_s(seconds, zone)
    except ValueError as error:
        raise ParseError(f"not a CRI log line: {error}") from error
    nanoseconds = fraction[:9].ljust(9, b"0")
    if zone in (b"+00:00", b"-00:00"):
        zone = b"Z"
    partial = found["tag"].split(b":", 1)[0] == b"P"
    content = found["content"]
    return CriLine(
        time_ns=epoch_s * 1_000_000_000 + int(nanoseconds),
        timestamp=seconds + b"." + nanoseconds + zone,
        stream=found["stream"].decode(),
        partial=partial,
        content=content.removesuffix(b"\n") if partial else content,
    )


class LogRenderer:
    """Turns the bytes of a CRI log, in pieces of any size, into what the client sees.

    ``done`` becomes True when a limit was reached and nothing further will be shown.
    """

    def __init__(self, wanted: LogFilter, *, follow: bool) -> None:
        self.done = False
        self.bad_lines = 0
        self._wanted = wanted
        self._left_bytes = wanted.limit_bytes
        # A follower has seen its tail when it begins; what comes later is not counted.
        self._left_lines = None if follow else wanted.tail_lines
        self._pending = b""
        self._skipping = False
        self._at_line_start = True
        if self._left_lines == 0 or self._left_bytes == 0:
            self.done = True

    def feed(self, data: bytes) -> bytes:
        """The output for these further bytes of the log."""
        out: list[bytes] = []
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()
        for line in lines:
            if self.done:
                break
            if self._skipping:
                self._skipping = False
                continue
            self._render(line + b"\n", out)
        if len(self._pending) > MAX_LINE_BYTES:
            self._pending = b""
            if not self._skipping:
                self._note_bad_line()
            self._skipping = True
        return b"".join(out)

    def skip(self) -> None:
        """What follows does not join on to what came: forget the line under way."""
        self._pending = b""
        self._skipping = False

    def finish(self) -> bytes:
        """The output for a last line that lacks its newline; call it once, at the log's end."""
        out: list[bytes] = []
        if self._pending and not self.done and not self._skipping:
            self._render(self._pending, out)
        self._pending = b""
        self.done = True
        return b"".join(out)

    def _render(self, raw: bytes, out: list[bytes]) -> None:
        try:
            line = parse_line(raw)
        except ParseError:
            self._note_bad_line()
            return
        self._show(line, out)
        if self._left_lines is not None:
            self._left_lines -= 1
            self.done = self.done or self._left_lines <= 0
        self._at_line_start = line.content.endswith(b"\n") or not line.content

    def _show(self, line: CriLine, out: list[bytes]) -> None:
        wanted = self._wanted
        if wanted.since_ns is not None and line.time_ns < wanted.since_ns:
            return
        if line.stream not in wanted.streams:
            return
        text = line.content
        if wanted.timestamps and self._at_line_start:
            text = line.timestamp + b" " + text
        if self._left_bytes is not None:
            text = text[: self._left_bytes]
            self._left_bytes -= len(text)
            self.done = self._left_bytes <= 0
        out.append(text)

    def _note_bad_line(self) -> None:
        self.bad_lines += 1
        if self.bad_lines == 1:
            log.warning("skip a line of a container log that is not in the CRI format")
