"""A line chart as SVG: a logarithmic axis of counts below, a linear one of costs on the left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Series = Mapping[str, Sequence[tuple[float, float]]]
_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 200, 34, 40
_COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b9770e", "#566573", "#148f77")


def chart(title: str, series: Series, *, x_name: str) -> str:
    """The picture; a point of one series is (count, cost)."""
    counts = sorted({x for points in series.values() for x, _ in points})
    most = max((y for points in series.values() for _, y in points), default=1.0) or 1.0
    step = _step(most)
    top = math.ceil(most / step) * step

    def place(x: float, y: float) -> tuple[float, float]:
        low, high = math.log10(counts[0]), math.log10(counts[-1])
        across = (math.log10(x) - low) / (high - low) if high > low else 0.5
        wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + across * wide, _HEIGHT - _BOTTOM - y / top * tall

    parts = [_text(_LEFT, 20, title, "start", bold=True)]
    for number in range(round(top / step) + 1):
        _, y = place(counts[0], number * step)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#dddddd"))
        parts.append(_text(_LEFT - 6, y + 4, f"{number * step:g}", "end"))
    for count in counts:
        x, y = place(count, 0)
        parts.append(_text(x, y + 16, f"{count:,.0f}", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_name, "middle"))
    for index, (name, points) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        places = [place(x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        y = _TOP + 18 * index
        parts.append(_line(_WIDTH - _RIGHT + 14, y - 4, _WIDTH - _RIGHT + 34, y - 4, colour))
        parts.append(_text(_WIDTH - _RIGHT + 40, y, name, "start"))
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12"'
    ground = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    body = "\n".join([ground, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def _step(most: float) -> float:
    """Between two lines: 1, 2 or 5 of some power of ten, so that there are about five of them."""
    power = math.pow(10, math.floor(math.log10(most / 5)))
    return next(power * nice for nice in (1, 2, 5, 10) if power * nice >= most / 5)


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="1.5"/>'
