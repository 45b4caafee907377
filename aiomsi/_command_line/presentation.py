"""How the demo looks: a table that fills before one's eyes, or plain lines where nobody watches."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from aiomsi._command_line.callers import CALLS_PER_SECOND
from aiomsi._command_line.demo_endpoint import LIFETIME, REFRESH_IN
from aiomsi._command_line.measurement import counted, percentile, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from aiomsi._command_line.measurement import Phase, Record

__all__ = ["duration", "show"]

_COLUMNS = ("calls", "requests", "p50", "p99", "longest", "waited for\na refresh", "errors")
_FOOTNOTE = (
    "Requests are those in the endpoint's own record. A call waited if it had to give way to the event loop,"
    " instead of returning at once."
)
_WIDTH = 7  # Of a cell, so that the table does not shift while it fills.
_FRAMES_PER_SECOND = 8
_MILLISECOND = 0.001


@contextmanager
def show(record: Record, console: Console | None = None) -> Iterator[Callable[[Phase], object]]:
    """Show *record* while it fills, and at the end what it says; yields what is to be called after each phase."""
    console = console or Console(highlight=False)
    console.print(_introduction(record), soft_wrap=True)
    if console.is_terminal:
        spinner = Spinner("dots")
        with Live(
            console=console,
            refresh_per_second=_FRAMES_PER_SECOND,
            get_renderable=lambda: _moving_picture(record, spinner),
        ):
            yield lambda _: None
    else:
        yield lambda phase: console.print(_line(phase), soft_wrap=True)
        console.print(_table(record))
    console.print(_conclusion(record), soft_wrap=True)


def _introduction(record: Record) -> str:
    return (
        f"{record.callers:,} callers at once, then {CALLS_PER_SECOND:,} calls a second. Real time, but scaled down:\n"
        f"tokens live {LIFETIME:g} s instead of 24 h, and are refreshed after {REFRESH_IN:g} s."
    )


def _moving_picture(record: Record, spinner: Spinner) -> RenderableType:
    if record.finished or not record.phases:
        return _table(record)
    phase = record.phases[-1]
    token = f"token {record.state}, valid for {record.remaining:.1f} s" if record.remaining else "no token yet"
    spinner.update(text=f"{phase.name}: {phase.situation}; {token}")
    return Group(_table(record), Padding(spinner, (0, 1)))


def _table(record: Record) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_footer=record.finished,
        caption=_FOOTNOTE if record.finished else None,
        caption_justify="left",
    )
    table.add_column(min_width=len("first token"), footer="total")
    # Sums over all calls take a while, which a table that moves has not.
    sums = _cells(total(record.phases)) if record.finished else [""] * len(_COLUMNS)
    for name, value in zip(_COLUMNS, sums, strict=True):
        table.add_column(name, footer=value, justify="right", min_width=_WIDTH)
    for phase in record.phases:
        table.add_row(phase.name, *_cells(phase))
    return table


def _cells(phase: Phase) -> list[str]:
    waits = sorted(phase.waits)
    return [
        f"{phase.calls:,}",
        f"{phase.requests}",
        *(duration(percentile(waits, percent)) for percent in (50, 99, 100)),
        f"{phase.suspended}",
        f"{phase.errors}",
    ]


def duration(seconds: float) -> str:
    """Return *seconds* in the unit that suits them; those of no call at all are a dash."""
    if math.isnan(seconds):
        return "-"
    if seconds < _MILLISECOND:
        return f"{seconds * 1_000_000:.1f} us"
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _line(phase: Phase) -> str:
    requests = counted(phase.requests, "request")
    return f"{phase.name} ({phase.situation}): {counted(phase.calls, 'call')}, {requests}"


def _conclusion(record: Record) -> Text:
    text = "; ".join(claim.text for claim in record.claims)
    errors = total(record.phases).errors
    if errors:
        text += f"; {counted(errors, 'error')}"
    return Text(f"\n{text}", style="bold green" if record.kept else "bold red")
