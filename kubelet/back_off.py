"""Pauses that double. No I/O."""

from __future__ import annotations

_MOST_DOUBLINGS = 64


def doubled_s(times: int, *, first_s: float, most_s: float) -> float:
    """A pause of ``first_s`` that was doubled so many times, ``most_s`` at most.

    What fails for weeks is counted in thousands, and two to the power of that is no float.
    """
    return min(first_s * 2.0 ** min(times, _MOST_DOUBLINGS), most_s)
