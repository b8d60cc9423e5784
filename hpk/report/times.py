"""Moments and spans as tables show them."""

from __future__ import annotations

import time


def moment(at_s: float) -> str:
    """Unix seconds as local time."""
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at_s))


def span(span_s: int | None) -> str:
    """Seconds as Slurm writes them: ``1-02:03:04``; nothing for None."""
    if span_s is None:
        return ""
    days, rest = divmod(span_s, 86400)
    text = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text
