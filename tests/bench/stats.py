"""How figures are summed up: robustly, for a machine that others use too."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

HEAD = ["| | min | median | middle half | max |", "|---|---|---|---|---|"]
"""Of a table of `row`."""


def row(name: str, values: Sequence[float]) -> str:
    """One line: seconds."""
    low, middle, high = min(values), statistics.median(values), max(values)
    quarter, _, three = quartiles(values)
    return f"| {name} | {low:.3f} | {middle:.3f} | {quarter:.3f}–{three:.3f} | {high:.3f} |"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """25 %, 50 % and 75 %."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    first, second, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, second, third


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Ratio of the medians, and of the minima."""
    medians = statistics.median(over) / statistics.median(under)
    return f"{medians:.2f} (medians), {min(over) / min(under):.2f} (minima)"


def extra(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the differences of runs that were made one right after the other, in seconds."""
    return statistics.median(a - b for a, b in zip(over, under, strict=True))
