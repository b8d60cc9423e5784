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
_HEAD = re.compile(
    rb"(?P<seconds>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?"
    rb"(?P<zone>Z|[+-]\d\d:\d\d) (?P<stream>stdout|stderr) (?P<tag>[^ \n]*) "
)
_FIRST_STEP_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CriHead:
    """What stands before the text of a line.

    :param time_ns: Unix time in nanoseconds.
    :param timestamp: RFC 3339 with exactly nine digits after the point, as upstream prints it.
    :param size: in bytes, with the blank before the text.
    """

    time_ns: int
    timestamp: bytes
    stream: str
    partial: bool
    size: int


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


def parse_head(data: bytes, at: int = 0) -> CriHead:
    """The head of the line that begins there.

    :raises ParseError: it is no CRI log line. The message does not repeat the line: it may hold
        what only the pod's owner may read.
    """
    found = _HEAD.match(data, at)
    if found is None:
        raise ParseError("not a CRI log line")
    seconds, fraction, zone = found["seconds"], found["fraction"] or b"", found["zone"]
    try:
        epoch_s = _epoch_s(seconds, zone)
    except ValueError as error:
        raise ParseError(f"not a CRI log line: {error}") from error
    nanoseconds = fraction[:9].ljust(9, b"0")
    if zone in (b"+00:00", b"-00:00"):
        zone = b"Z"
    return CriHead(
        time_ns=epoch_s * 1_000_000_000 + int(nanoseconds),
        timestamp=seconds + b"." + nanoseconds + zone,
        stream=found["stream"].decode(),
        partial=found["tag"].split(b":", 1)[0] == b"P",
        size=found.end() - at,
    )


def likely_run_end(block: bytes, start: int, head: bytes) -> int:
    """Where the lines end that have the same head as the one at ``start``, if all such lines stand
    together; at least after that one. Looks at a few of them.

    :param block: whole lines.
    """
    last = start
    bound, step = block.index(b"\n", start) + 1, _FIRST_STEP_BYTES
    while bound < len(block):
        probe = block.index(b"\n", bound - 1) + 1
        if probe == len(block) or not block.startswith(head, probe):
            break
        last, bound, step = probe, min(len(block), probe + step), 2 * step
    # The last one begins between `last` and `bound`.
    while (middle := (last + bound) // 2) > last:
        probe = block.index(b"\n", middle - 1) + 1
        if probe < bound and block.startswith(head, probe):
            last = probe
        else:
            bound = middle
    return block.index(b"\n", last) + 1


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
        data = self._pending + data
        at, whole = 0, data.rfind(b"\n") + 1
        if self._skipping and whole:
            self._skipping = False
            at = data.index(b"\n") + 1
        self._render(data[at:whole], out)
        self._pending = data[whole:]
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
            self._render(self._pending + b"\n", out, is_cut=True)
        self._pending = b""
        self.done = True
        return b"".join(out)

    def _render(self, block: bytes, out: list[bytes], *, is_cut: bool = False) -> None:
        """
        :param block: whole lines.
        :param is_cut: the last newline is not the log's.
        """
        at = 0
        # What a container writes at once has one timestamp: thousands of lines, that need not be
        # looked at one by one.
        together = self._left_lines is None and not is_cut
        while at < len(block) and not self.done:
            try:
                head = parse_head(block, at)
            except ParseError:
                self._note_bad_line()
                at = block.index(b"\n", at) + 1
                continue
            if together and not head.partial and self._at_line_start:
                raw = block[at : at + head.size]
                end = likely_run_end(block, at, raw)
                if self._show_run(head, raw, block[at + head.size : end], out):
                    at = end
                    continue
                together = False
            end = block.index(b"\n", at) + 1
            self._show(head, block[at + head.size : end - (head.partial or is_cut)], out)
            at = end

    def _show_run(self, head: CriHead, raw_head: bytes, run: bytes, out: list[bytes]) -> bool:
        """Show lines of one head; False if not all of them have it.

        :param run: without the first head.
        """
        texts = run.split(b"\n" + raw_head)
        if run.count(b"\n") != len(texts):
            return False
        if self._is_wanted(head):
            shown_head = head.timestamp + b" " if self._wanted.timestamps else b""
            self._put(shown_head + (b"\n" + shown_head).join(texts), out)
        return True

    def _show(self, head: CriHead, text: bytes, out: list[bytes]) -> None:
        if self._is_wanted(head):
            stamped = self._wanted.timestamps and self._at_line_start
            self._put(head.timestamp + b" " + text if stamped else text, out)
        if self._left_lines is not None:
            self._left_lines -= 1
            self.done = self.done or self._left_lines <= 0
        self._at_line_start = text.endswith(b"\n") or not text

    def _is_wanted(self, head: CriHead) -> bool:
        since_ns = self._wanted.since_ns
        is_old = since_ns is not None and head.time_ns < since_ns
        return not is_old and head.stream in self._wanted.streams

    def _put(self, text: bytes, out: list[bytes]) -> None:
        if self._left_bytes is not None:
            text = text[: self._left_bytes]
            self._left_bytes -= len(text)
            self.done = self._left_bytes <= 0
        out.append(text)

    def _note_bad_line(self) -> None:
        self.bad_lines += 1
        if self.bad_lines == 1:
            log.warning("skip a line of a container log that is not in the CRI format")
