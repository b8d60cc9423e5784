"""From a LogSource and a LogFilter to the bytes a client gets.

Finds where the tail begins, reads on until the log ends (or, without follow, until nothing more is
there) and renders. It holds no more of the log than one read returns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from hpk.model.frames import LOG_CHUNK_BYTES
from kubelet.server.backend import LogGoneError, LogSource
from kubelet.server.cri_log import LogFilter, LogRenderer

_BLOCK_BYTES = LOG_CHUNK_BYTES
"""As much as one read returns."""


async def stream_log(source: LogSource, wanted: LogFilter, *, follow: bool) -> AsyncIterator[bytes]:
    """Pieces of output, as they come.

    :raises LogUnavailableError: as the source does.
    """
    renderer = LogRenderer(wanted, follow=follow)
    offset = 0
    if wanted.tail_lines is not None:
        offset = await tail_offset(source, wanted.tail_lines)
    while not renderer.done:
        start, data, eof = await _read(source, offset, wait=follow)
        moved, offset = start > offset, start + len(data)
        if moved:
            renderer.skip()
        if output := renderer.feed(data):
            yield output
        if eof or not (data or moved or follow):
            break
    if output := renderer.finish():
        yield output


async def tail_offset(source: LogSource, lines: int) -> int:
    """Where the last ``lines`` whole lines begin; a last line without newline does not count."""
    right = await source.size()
    missing = lines
    while right > 0:
        left = max(0, right - _BLOCK_BYTES)
        block = await _read_range(source, left, right)
        base = right - len(block)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            # The newline before the first wanted line is one more than there are lines.
            if missing == 0:
                return base + at + 1
            missing -= 1
        if base > left:
            return base  # what came before was rotated away
        right = left
    return 0


async def _read(source: LogSource, offset: int, *, wait: bool) -> tuple[int, bytes, bool]:
    """Bytes from ``offset`` or, where those are gone, from the first there is; and from where."""
    try:
        data, eof = await source.read(offset, wait=wait)
    except LogGoneError as gone:
        # Only ever forwards: a source that pointed back would be read for ever.
        return max(offset, gone.offset), b"", False
    return offset, data, eof


async def _read_range(source: LogSource, left: int, right: int) -> bytes:
    parts: list[bytes] = []
    while left < right:
        start, data, eof = await _read(source, left, wait=False)
        parts.append(data[: max(0, right - start)])
        moved, left = start > left, start + len(data)
        if eof or not (data or moved):
            break
    return b"".join(parts)
