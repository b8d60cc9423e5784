"""From a LogSource and a LogFilter to the bytes a client gets.

Finds where the tail begins, reads on until the log ends (or, without follow, until nothing more is
there) and renders. It holds no more of the log than one read returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from kubelet.cri_log import LogFilter, LogRenderer
from kubelet.server.backend import LogSource, SizedLogSource

_BLOCK_BYTES = 64 * 1024


async def stream_log(source: LogSource, wanted: LogFilter, *, follow: bool) -> AsyncIterator[bytes]:
    """Pieces of output, as they come.

    :raises LogUnavailableError: as the source does.
    """
    renderer = LogRenderer(wanted, follow=follow)
    offset = 0
    if wanted.tail_lines is not None:
        offset = await tail_offset(source, wanted.tail_lines)
    while not renderer.done:
        data, eof = await source.read(offset, wait=follow)
        offset += len(data)
        if output := renderer.feed(data):
            yield output
        if eof or not (data or follow):
            break
    if output := renderer.finish():
        yield output


async def tail_offset(source: LogSource, lines: int) -> int:
    """Where the last ``lines`` whole lines begin; a last line without newline does not count."""
    if isinstance(source, SizedLogSource):
        return await _tail_backwards(source, lines)
    return await _tail_forwards(source, lines)


async def _tail_backwards(source: SizedLogSource, lines: int) -> int:
    right = await source.size()
    missing = lines
    while right > 0:
        left = max(0, right - _BLOCK_BYTES)
        block = await _read_range(source, left, right)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            # The newline before the first wanted line is one more than there are lines.
            if missing == 0:
                return left + at + 1
            missing -= 1
        right = left
    return 0


async def _read_range(source: LogSource, left: int, right: int) -> bytes:
    parts: list[bytes] = []
    while left < right:
        data, eof = await source.read(left, wait=False)
        parts.append(data[: right - left])
        left += len(data)
        if eof or not data:
            break
    return b"".join(parts)


async def _tail_forwards(source: LogSource, lines: int) -> int:
    starts: deque[int] = deque([0], maxlen=min(lines, 1 << 62) + 1)
    offset = 0
    while True:
        data, eof = await source.read(offset, wait=False)
        at = -1
        while (at := data.find(b"\n", at + 1)) >= 0:
            starts.append(offset + at + 1)
        offset += len(data)
        if eof or not data:
            return starts[0]
