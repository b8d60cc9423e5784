"""Slurm's times: minutes, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``, and no limit."""

from __future__ import annotations

import re
from typing import Optional

from hpk.model.errors import ParseError

UNLIMITED = ("UNLIMITED", "INFINITE", "NONE", "-1", "")
_DURATION = re.compile(
    r"(?:(?P<d>[0-9]{1,7})-)?(?P<a>[0-9]{1,9})(?::(?P<b>[0-9]{1,2}))?(?::(?P<c>[0-9]{1,2}))?",
    re.ASCII,
)


def parse_duration(text: str, line: str = "") -> Optional[int]:
    """Seconds; None for no limit.

    :param line: where it was read, for the message.
    :raises ParseError: it is none of these forms.
    """
    if text in UNLIMITED:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ParseError(f"no duration of Slurm: {text!r} in {line!r}")
    days, a, b, c = (None if found[key] is None else int(found[key]) for key in "dabc")
    if days is not None:
        hours, minutes, seconds = a or 0, b or 0, c or 0
    elif c is not None:
        hours, minutes, seconds = a or 0, b or 0, c
    else:
        hours, minutes, seconds = 0, a or 0, b or 0
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def format_duration(time_s: int) -> str:
    """``D-HH:MM:SS``, rounded up to the minutes in which Slurm counts."""
    minutes = -(-time_s // 60)
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02}:{rest % 60:02}:00"
