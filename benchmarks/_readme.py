"""The parts of the README that a run writes. All of this is pure."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from _plots import PLOTS, drawn
from _readme_rows import NOT_MEASURED, ROWS
from _results import setting

if TYPE_CHECKING:
    from _results import Document

_PART = re.compile(r"(<!-- benchmarks: begin (\w+) -->\n).*?(<!-- benchmarks: end -->)", re.DOTALL)
_WIDTH = 120


def rewritten(readme: str, document: Document) -> str:
    """Return *readme* with the parts between its marks as *document* has them."""
    parts = {"measured": measured(document), "table": table(document), "plots": plots(document)}
    found = [name for _, name, _ in _PART.findall(readme)]
    if sorted(found) != sorted(parts):
        raise ValueError(f"the README has marks for {found}, and not once for each of {sorted(parts)}")
    return _PART.sub(lambda mark: f"{mark[1]}{parts[mark[2]]}\n{mark[3]}", readme)


def missing(document: Document) -> list[str]:
    """Name what the README was to show, and was not measured."""
    rows = [name for name, *cells in ROWS if any(NOT_MEASURED in cell.text(document) for cell in cells)]
    pictures = drawn(document)
    return [*rows, *(f"the picture {plot.name}" for plot in PLOTS if f"{plot.name}.svg" not in pictures)]


def measured(document: Document) -> str:
    """Say when all of it was measured, with what, and where."""
    dates = sorted({result["date"] for result in document["benchmarks"].values()})
    when = " to ".join(dates if len(dates) < 2 else (dates[0], dates[-1]))
    return textwrap.fill(
        f"Measured {when} with {setting(document)}, everything on loopback; times are medians of interleaved repeats, "
        "outages and fleets are simulated. In brackets: azure-identity's bearer token provider.",
        _WIDTH,
        break_on_hyphens=False,
    )


def table(document: Document) -> str:
    """Return the table, with columns as wide as their contents."""
    rows = [("", "aiomsi", "azure-identity (aio)")]
    rows += [(name, ours.text(document), theirs.text(document)) for name, ours, theirs in ROWS]
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"| {name:<{first}} | {ours:>{second}} | {theirs:<{third}} |" for name, ours, theirs in rows]
    rule = f"|{'-' * (first + 2)}|{'-' * (second + 1)}:|{'-' * (third + 2)}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def plots(document: Document) -> str:
    """Return the links to the pictures that there are."""
    pictures = drawn(document)
    return "\n\n".join(f"![{plot.title}](.images/{plot.name}.svg)" for plot in PLOTS if f"{plot.name}.svg" in pictures)
