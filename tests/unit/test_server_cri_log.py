"""CRI log lines: parsing, rendering, and tails."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import ParseError
from kubelet.server.backend import LogGoneError
from kubelet.server.cri_log import (
    MAX_LINE_BYTES,
    STREAMS,
    LogFilter,
    LogRenderer,
    likely_run_end,
    parse_head,
)
from kubelet.server.log_stream import stream_log, tail_offset

LOG = (
    b"2026-01-02T03:04:05.000000001Z stdout F one\n"
    b"2026-01-02T03:04:06.000000001Z stdout P tw\n"
    b"2026-01-02T03:04:06.000000002Z stdout F o\n"
    b"2026-01-02T03:04:07.5Z stderr F three\n"
)


class Pieces:
    """A log that is all there, given out in pieces of ``piece`` bytes."""

    def __init__(self, data: bytes, piece: int = 7) -> None:
        self.data, self.piece = data, piece

    async def read(self, offset: int, *, wait: bool) -> tuple[bytes, bool]:
        end = offset + self.piece
        return self.data[offset:end], end >= len(self.data)

    async def size(self) -> int:
        return len(self.data)


def render(data: bytes, wanted: LogFilter, *, follow: bool = False) -> bytes:
    renderer = LogRenderer(wanted, follow=follow)
    return renderer.feed(data) + renderer.finish()


def test_a_line() -> None:
    line = b"2026-01-02T03:04:05.123456789Z stdout F text\n"
    head = parse_head(line)
    assert head.stream == "stdout"
    assert not head.partial
    assert line[head.size :] == b"text\n"
    expected_s = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert head.time_ns == expected_s * 10**9 + 123456789


def test_a_zone_and_a_short_fraction() -> None:
    line = b"2026-01-02T05:04:05.5+02:00 stderr P:x a b \n"
    head = parse_head(line)
    assert head.timestamp == b"2026-01-02T05:04:05.500000000+02:00"
    assert head.time_ns == parse_head(b"2026-01-02T03:04:05.5Z stderr P a\n").time_ns
    assert head.partial
    assert line[head.size :] == b"a b \n"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"hello",
        b"2026-01-02T03:04:05Z stdout\n",
        b"2026-01-02T03:04:05Z stdout F\n",
        b"2026-13-02T03:04:05Z stdout F x\n",
        b"2026-01-02T03:04:05Z stdin F x\n",
        b"2026-01-02 03:04:05Z stdout F x\n",
        b"\xd9\xa2026-01-02T03:04:05Z stdout F x\n",
    ],
)
def test_not_a_line(line: bytes) -> None:
    with pytest.raises(ParseError) as error:
        parse_head(line)
    assert "hello" not in str(error.value)


def test_all() -> None:
    assert render(LOG, LogFilter()) == b"one\ntwo\nthree\n"


def test_timestamps_are_not_put_inside_a_line() -> None:
    assert render(LOG, LogFilter(timestamps=True)) == (
        b"2026-01-02T03:04:05.000000001Z one\n"
        b"2026-01-02T03:04:06.000000001Z two\n"
        b"2026-01-02T03:04:07.500000000Z three\n"
    )


def test_one_stream_does_not_count_the_other() -> None:
    wanted = LogFilter(streams=frozenset({"stderr"}), limit_bytes=4)
    assert render(LOG, wanted) == b"thre"


def test_since() -> None:
    since = parse_head(b"2026-01-02T03:04:06.000000002Z stdout F o\n").time_ns
    assert render(LOG, LogFilter(since_ns=since)) == b"o\nthree\n"


@pytest.mark.parametrize("limit", range(1, 20))
def test_limit(limit: int) -> None:
    assert render(LOG, LogFilter(limit_bytes=limit)) == b"one\ntwo\nthree\n"[:limit]


def test_limit_counts_timestamps() -> None:
    assert render(LOG, LogFilter(limit_bytes=12, timestamps=True)) == b"2026-01-02T0"


def test_bad_lines_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    assert render(b"secret nonsense\n\x00\xff\n" + LOG, LogFilter()) == b"one\ntwo\nthree\n"
    assert "not in the CRI format" in caplog.text
    assert "secret" not in caplog.text


def test_a_last_line_without_newline() -> None:
    assert render(LOG[:-1], LogFilter(), follow=True) == b"one\ntwo\nthree"


def test_an_endless_line_is_dropped_and_the_next_one_shown() -> None:
    renderer = LogRenderer(LogFilter(), follow=False)
    block = b"x" * 65536
    for _ in range(2 * MAX_LINE_BYTES // len(block)):
        assert renderer.feed(block) == b""
    assert renderer.feed(b"tail\n" + LOG) == b"one\ntwo\nthree\n"
    assert renderer.bad_lines == 1


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    try:
        head = parse_head(data)
    except ParseError:
        return
    assert head.stream in ("stdout", "stderr")
    assert 0 < head.size <= len(data)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            st.booleans(),
            st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
        ),
        max_size=20,
    ),
    st.integers(min_value=1, max_value=50),
)
def test_pieces_of_any_size_render_alike(lines: list[tuple[str, bool, bytes]], piece: int) -> None:
    data = b"".join(
        b"2026-01-02T03:04:05.000000000Z %s %s %s\n"
        % (stream.encode(), b"P" if partial else b"F", content)
        for stream, partial, content in lines
    )
    expected = b"".join(c if partial else c + b"\n" for _, partial, c in lines)
    renderer = LogRenderer(LogFilter(), follow=False)
    out = [renderer.feed(data[i : i + piece]) for i in range(0, len(data), piece)]
    assert b"".join(out) + renderer.finish() == expected
    assert renderer.bad_lines == 0


HEADS = [
    b"2026-01-02T03:04:05.000000001Z stdout F ",
    b"2026-01-02T03:04:05.000000001Z stderr F ",
    b"2026-01-02T03:04:05.000000002Z stdout F ",
    b"2026-01-02T03:04:05.000000001Z stdout P ",
    b"2026-01-02T03:04:05.000000001Z ",
]


def one_by_one(lines: list[tuple[bytes, bytes]], wanted: LogFilter) -> bytes:
    """What is to be seen of lines, each looked at by itself: head and text."""
    out, at_start = b"", True
    for line in map(b"".join, lines):
        try:
            found = parse_head(line)
        except ParseError:
            continue
        text = line[found.size :] + (b"" if found.partial else b"\n")
        if found.stream in wanted.streams and found.time_ns >= (wanted.since_ns or 0):
            out += (found.timestamp + b" " if wanted.timestamps and at_start else b"") + text
        at_start = not text or text.endswith(b"\n")
    return out if wanted.limit_bytes is None else out[: wanted.limit_bytes]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(HEADS),
            st.sampled_from([b"", b"x", b"x" * 5000, *HEADS]),
            st.integers(min_value=1, max_value=40),
        ),
        max_size=20,
    ),
    st.integers(min_value=100, max_value=300_000),
    st.builds(
        LogFilter,
        streams=st.sampled_from([STREAMS, frozenset({"stderr"})]),
        since_ns=st.sampled_from([None, parse_head(HEADS[2]).time_ns]),
        limit_bytes=st.sampled_from([None, 30, 3000]),
        timestamps=st.booleans(),
    ),
)
def test_lines_shown_together_are_shown_as_one_by_one(
    runs: list[tuple[bytes, bytes, int]], piece: int, wanted: LogFilter
) -> None:
    lines = [(head, text) for head, text, count in runs for _ in range(count)]
    data = b"".join(head + text + b"\n" for head, text in lines)
    renderer = LogRenderer(wanted, follow=False)
    out = [renderer.feed(data[i : i + piece]) for i in range(0, len(data), piece)]
    assert b"".join(out) + renderer.finish() == one_by_one(lines, wanted)


def test_lines_of_one_time_are_taken_together() -> None:
    same = (HEADS[0] + b"x\n") * 10_000
    for after in (b"", HEADS[1] + b"y\n", 5 * (HEADS[1] + b"y" * 5000 + b"\n")):
        assert likely_run_end(same + after, 0, HEADS[0]) == len(same)
        assert likely_run_end(HEADS[0] + b"x\n" + after, 0, HEADS[0]) == len(HEADS[0]) + 2


@given(st.text(alphabet="ab\n", max_size=60), st.integers(min_value=0, max_value=12))
async def test_the_tail_is_found_as_it_is_defined(text: str, n: int) -> None:
    data = text.encode()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    starts = [0, *ends]
    expected = starts[-n - 1] if n < len(starts) else 0
    assert await tail_offset(Pieces(data), n) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, b""),
        (1, b"three\n"),
        (2, b"o\nthree\n"),
        (4, b"one\ntwo\nthree\n"),
        (9, b"one\ntwo\nthree\n"),
    ],
)
async def test_tail(lines: int, expected: bytes) -> None:
    wanted = LogFilter(tail_lines=lines)
    out = [piece async for piece in stream_log(Pieces(LOG), wanted, follow=False)]
    assert b"".join(out) == expected


async def test_an_immense_tail_is_the_whole() -> None:
    assert await tail_offset(Pieces(LOG), 2**63 - 1) == 0


class Rotated(Pieces):
    """A log whose first bytes are gone, by rotation at a line's end."""

    def __init__(self, data: bytes, piece: int = 7) -> None:
        super().__init__(data, piece)
        self.begins = data.index(b"\n") + 1

    async def read(self, offset: int, *, wait: bool) -> tuple[bytes, bool]:
        if offset < self.begins:
            raise LogGoneError(self.begins)
        return await super().read(offset, wait=wait)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [(None, b"two\nthree\n"), (1, b"three\n"), (3, b"two\nthree\n"), (9, b"two\nthree\n")],
)
async def test_a_log_whose_beginning_was_rotated_away(
    piece: int, follow: bool, lines: int | None, expected: bytes
) -> None:
    wanted = LogFilter(tail_lines=lines)
    source = Rotated(LOG, piece)
    out = [piece async for piece in stream_log(source, wanted, follow=follow)]
    assert b"".join(out) == expected


async def test_a_rotation_under_a_readers_feet_loses_only_what_is_gone() -> None:
    class Rotating(Pieces):
        async def read(self, offset: int, *, wait: bool) -> tuple[bytes, bool]:
            second = LOG.index(b"\n") + 1
            if 0 < offset < second:
                raise LogGoneError(second)
            return await super().read(offset, wait=wait)

    out = [piece async for piece in stream_log(Rotating(LOG), LogFilter(), follow=True)]
    assert b"".join(out) == b"two\nthree\n"
