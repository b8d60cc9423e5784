"""The few bytes of DNS that readiness needs."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.readiness import parse_answer
from hpk.model.errors import ParseError

QUESTION = b"\x0akubernetes\x07default\x00" + struct.pack("!HH", 1, 1)


def _answer(kind: int, data: bytes) -> bytes:
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 30, len(data)) + data


def _message(*answers: bytes, identifier: int = 7, flags: int = 0x8180) -> bytes:
    head = struct.pack("!HHHHHH", identifier, flags, 1, len(answers), 0, 0)
    return head + QUESTION + b"".join(answers)


def test_addresses_are_found_among_other_records() -> None:
    message = _message(_answer(5, b"\x01a\x00"), _answer(1, bytes((100, 73, 0, 1))))
    assert parse_answer(message, 7) == ("100.73.0.1",)
    assert parse_answer(_message(), 7) == ()


@pytest.mark.parametrize(
    "message",
    [
        _message(identifier=8),
        _message(flags=0x0100),
        _message(flags=0x8183),
        _message(_answer(1, b"abc")),
        b"",
    ],
)
def test_what_is_no_answer_is_refused(message: bytes) -> None:
    with pytest.raises(ParseError):
        parse_answer(message, 7)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_refused(tail: bytes) -> None:
    message = struct.pack("!HHHHHH", 7, 0x8180, 1, 3, 0, 0) + tail
    try:
        addresses = parse_answer(message, 7)
    except ParseError:
        return
    assert all(address.count(".") == 3 for address in addresses)
