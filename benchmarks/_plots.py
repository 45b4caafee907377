"""Which pictures are drawn, and from which numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from _results import Place
from _svg import Axis, Line, chart, even_steps, powers_of_ten

if TYPE_CHECKING:
    from _results import Document

MakeAxis: TypeAlias = Callable[[str, Sequence[float]], Axis]


@dataclass(frozen=True)
class Curve:
    """A line of a picture: its name, whose it is, where its rows stand, and the columns for across and up.

    *per* is how many of what is in column *x* make one of what the axis shows.
    """

    name: str
    whose: str
    place: Place
    x: str
    y: str
    per: float = 1.0

    def line(self, document: Document) -> Line:
        """Return the line; where nothing was measured, nothing is drawn."""
        cells = ((row.get(self.x), row.get(self.y)) for row in self.place.rows(document))
        numbers = ((x, y) for x, y in cells if isinstance(x, int | float) and isinstance(y, int | float))
        return Line(self.name, self.whose, [(x / self.per, float(y)) for x, y in numbers])


@dataclass(frozen=True)
class Plot:
    """A picture: the name of its file, its title, and its axes."""

    name: str
    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    x_axis: MakeAxis = powers_of_ten
    y_axis: MakeAxis = powers_of_ten

    def draw(self, document: Document) -> str | None:
        """Return the picture, or None if one of its lines was not measured."""
        lines = [curve.line(document) for curve in self.curves]
        if not all(line.points for line in lines):
            return None
        across = [point[0] for line in lines for point in line.points]
        up = [point[1] for line in lines for point in line.points]
        return chart(self.title, self.x_axis(self.x, across), self.y_axis(self.y, up), lines)


_BEARER = "azure bearer provider"
_STAMPEDE = Place("stampede", "requests made *", {"resources": 1})
_REFRESH = Place("refresh", "time line of the refresh, *")


def _fleet(rule: str) -> Place:
    return Place("fleet", "the day after a deploy, with tokens of 24 h", {"rule": rule})


PLOTS = (
    Plot(
        "stampede",
        "Requests for a first token, all callers at once",
        "callers",
        "requests",
        (
            Curve("aiomsi", "ours", _STAMPEDE, "callers", "aiomsi"),
            Curve("azure-identity: get_token", "rival", _STAMPEDE, "callers", "azure get_token"),
            Curve("azure-identity: bearer token provider", "other", _STAMPEDE, "callers", _BEARER),
        ),
    ),
    Plot(
        "refresh",
        "2,000 calls a second while a refresh takes 1 s",
        "seconds",
        "ms that the longest call took, of those that began within 50 ms",
        (
            Curve("aiomsi", "ours", _REFRESH, "ms", "aiomsi max ms", per=1_000),
            Curve("azure-identity: bearer token provider", "rival", _REFRESH, "ms", f"{_BEARER} max ms", per=1_000),
        ),
        x_axis=even_steps,
    ),
    Plot(
        "fleet",
        "The worst second of the day after a deploy, with tokens of 24 h",
        "processes that start at once",
        "requests in that second",
        (
            Curve("aiomsi", "ours", _fleet("aiomsi"), "processes", "worst second"),
            Curve("azure-identity", "rival", _fleet("azure-identity (Python)"), "processes", "worst second"),
            Curve("msal", "other", _fleet("msal (Python)"), "processes", "worst second"),
        ),
    ),
)


def drawn(document: Document) -> dict[str, str]:
    """Return all pictures for which the numbers are there, by the names of their files."""
    pictures = {plot.name: plot.draw(document) for plot in PLOTS}
    return {f"{name}.svg": picture for name, picture in pictures.items() if picture is not None}


def without_idle_lines(document: Document) -> Document:
    """Return *document* without time lines that no picture shows, since they are long, and for pictures only."""
    shown = [curve.place for plot in PLOTS for curve in plot.curves]
    benchmarks = document["benchmarks"].copy()
    for name, result in benchmarks.items():
        tables = {
            title: rows
            for title, rows in result["tables"].items()
            if not title.startswith("time line ") or any(place.has(name, title) for place in shown)
        }
        benchmarks[name] = {**result, "tables": tables}
    return {**document, "benchmarks": benchmarks}
