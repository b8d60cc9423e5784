"""How far the sender of a channel may go."""

from __future__ import annotations

import pytest

from hpk.model.credits import WIDE_BYTES, WIDE_CHANNELS, Receipt, WideWindows
from hpk.model.errors import ParseError
from hpk.model.stream_frames import FIRST_CREDIT_BYTES, MAX_DATA_BYTES, StreamData, StreamEnd


def carry(receipt: Receipt, position: int, size: int) -> int:
    """Bytes come, each read at once; how far the sender may go then."""
    limit = 0
    for at in range(position, position + size, MAX_DATA_BYTES):
        receipt.take(StreamData(1, 1, at, bytes(MAX_DATA_BYTES)))
        receipt.read(MAX_DATA_BYTES)
        if receipt.is_credit_due:
            limit = receipt.grant()
    return limit


def test_what_is_not_read_is_not_allowed_again() -> None:
    receipt = Receipt(WideWindows())
    for at in range(0, FIRST_CREDIT_BYTES, MAX_DATA_BYTES):
        receipt.take(StreamData(1, 1, at, bytes(MAX_DATA_BYTES)))
        assert not receipt.is_credit_due
    with pytest.raises(ParseError):
        receipt.take(StreamData(1, 1, FIRST_CREDIT_BYTES, b"x"))


def test_credit_comes_in_steps() -> None:
    receipt = Receipt(WideWindows())
    assert carry(receipt, 0, MAX_DATA_BYTES) == 0
    read = 2 * MAX_DATA_BYTES
    assert carry(receipt, MAX_DATA_BYTES, MAX_DATA_BYTES) == read + FIRST_CREDIT_BYTES


def test_few_channels_at_a_time_are_wide() -> None:
    wide = WideWindows()
    receipts = [Receipt(wide) for _ in range(WIDE_CHANNELS + 1)]
    much = 4 * WIDE_BYTES
    *first, last = [carry(receipt, 0, much) - much for receipt in receipts]
    # Each is told again once a quarter of its window, or half of the first one, was read.
    assert all(left > WIDE_BYTES - WIDE_BYTES // 4 for left in first)
    assert last <= FIRST_CREDIT_BYTES
    receipts[0].take(StreamEnd(1, 1, much))
    receipts[0].close()
    assert carry(receipts[-1], much, much) - 2 * much > FIRST_CREDIT_BYTES
    assert not wide.take()
