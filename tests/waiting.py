"""To wait for what happens elsewhere: the one way in which tests do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
_PAUSE_S = 0.1
_PAUSE_PER_LOOK = 1.5


def eventually(
    look: Callable[[], T],
    *,
    until: Callable[[T], bool] = bool,
    timeout_s: float = 120,
    what: str = "",
) -> T:
    """The first true answer of ``look``; where there is none in time, fails and shows the last.

    :param until: what else is awaited of an answer, e.g. ``operator.not_`` for an empty list.
    :param timeout_s: ends a test that fails, and is no statement about speed: be generous.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        answer = look()
        if until(answer):
            return answer
        now = time.monotonic()
        if now > deadline:
            pytest.fail(f"not in {timeout_s:g} s: {what or look}; last answer: {answer!r}")
        # Who waits is not who should be busy: on a machine that is, looking takes long.
        time.sleep(max(_PAUSE_S, _PAUSE_PER_LOOK * (now - began)))
