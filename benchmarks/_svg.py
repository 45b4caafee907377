"""A line chart as SVG, by hand: no script, nothing from elsewhere, readable on light and on dark pages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Point: TypeAlias = tuple[float, float]

_WIDTH, _HEIGHT = 760, 424
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 722, 104, 364  # The edges of what is drawn on.
_MARKED = 12  # Points, each of which is shown.

# Lines differ in their dashes too, for whom colours look alike.
_STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif }
.page { fill: #ffffff; stroke: #d0d7de }
text { fill: #57606a }
.title { fill: #1f2328; font-size: 16px; font-weight: 600 }
.grid { stroke: #e4e8ec }
.ours { stroke: #0969da; fill: #0969da }
.rival { stroke: #c2410c; fill: #c2410c }
.other { stroke: #6e7781; fill: #6e7781 }
path.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round }
.line.rival { stroke-dasharray: 9 5 }
.line.other { stroke-dasharray: 2 5 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; stroke: #30363d }
text { fill: #9198a1 }
.title { fill: #f0f6fc }
.grid { stroke: #262c36 }
.ours { stroke: #58a6ff; fill: #58a6ff }
.rival { stroke: #fb923c; fill: #fb923c }
.other { stroke: #9198a1; fill: #9198a1 }
}
"""


@dataclass(frozen=True)
class Line:
    """A line, its name, and whose it is: "ours", "rival" or "other"."""

    name: str
    whose: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Axis:
    """A scale: from *low* to *high*, where *ticks* are written."""

    name: str
    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return how far *value* is along the axis, from 0 to 1; beyond an end is at it."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


def powers_of_ten(name: str, values: Sequence[float]) -> Axis:
    """Make an axis from the power of ten below all *values* to the one above; what is 0 is at its lower end."""
    positive = [value for value in values if value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    high = max(math.ceil(math.log10(max(positive))), low + 1)
    ticks = [float(f"1e{exponent}") for exponent in range(low, high + 1)]
    return Axis(name, ticks[0], ticks[-1], ticks, logarithmic=True)


def even_steps(name: str, values: Sequence[float]) -> Axis:
    """Make an axis from 0 to beyond all *values*, in about five steps of 1, 2 or 5."""
    most = max(values, default=0.0) or 1.0
    power = float(f"1e{math.floor(math.log10(most / 5))}")
    step = next(step * power for step in (1, 2, 5, 10) if step * power * 5.5 >= most)
    count = math.ceil(round(most / step, 6))
    return Axis(name, 0.0, count * step, [round(number * step, 9) for number in range(count + 1)])


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Draw *lines*, and write their names above."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="8"/>',
        _text(_LEFT, 32, title, "start", "title"),
        *_names(lines),
        *_vertical(x),
        *_horizontal(y),
        *(part for line in lines for part in _drawn(line, x, y)),  # Dashes are over the first one, which shows through.
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _names(lines: Sequence[Line]) -> Iterator[str]:
    left = float(_LEFT)
    for line in lines:
        yield f'<path class="line {line.whose}" d="M{left:g} 56h34"/>'
        yield _text(left + 42, 60, line.name)
        left += 42 + 7 * len(line.name) + 24  # A letter takes 7 at most, on the average.


def _vertical(axis: Axis) -> Iterator[str]:
    for tick in axis.ticks:
        left = _across(axis, tick)
        yield f'<path class="grid" d="M{left:g} {_TOP}V{_BOTTOM}"/>'
        yield _text(left, _BOTTOM + 20, _number(tick), "middle")
    yield _text((_LEFT + _RIGHT) / 2, _BOTTOM + 44, axis.name, "middle")


def _horizontal(axis: Axis) -> Iterator[str]:
    for tick in axis.ticks:
        top = _down(axis, tick)
        yield f'<path class="grid" d="M{_LEFT} {top:g}H{_RIGHT}"/>'
        yield _text(_LEFT - 10, top + 4, _number(tick), "end")
    yield _text(_LEFT, _TOP - 12, axis.name)


def _drawn(line: Line, x: Axis, y: Axis) -> Iterator[str]:
    points = [(_across(x, across), _down(y, down)) for across, down in line.points]
    yield f'<path class="line {line.whose}" d="M{"L".join(f"{left:g} {top:g}" for left, top in points)}"/>'
    if len(points) <= _MARKED:
        yield from (f'<circle class="{line.whose}" cx="{left:g}" cy="{top:g}" r="3.5"/>' for left, top in points)


def _across(axis: Axis, value: float) -> float:
    return round(_LEFT + axis.share(value) * (_RIGHT - _LEFT), 1)


def _down(axis: Axis, value: float) -> float:
    return round(_BOTTOM - axis.share(value) * (_BOTTOM - _TOP), 1)


def _text(left: float, top: float, text: str, anchor: str = "start", style: str = "") -> str:
    styled = f' class="{style}"' if style else ""
    return f'<text{styled} x="{left:g}" y="{top:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:g}"
