"""Count the requests of a fleet, by the second, in the day after a deploy and after an outage: a simulation.

aiomsi is its own scheduling code, not a copy of it; the others are their published rules (see `_rules.py`). Every
process calls without a pause, so that what a rule says is done at once; an answer takes no time, and is a new token
with all of its life before it. The same draws come in every run.
"""

from __future__ import annotations

import math
import random
import sys
from itertools import accumulate
from typing import TYPE_CHECKING

from _rules import COLD_RETRIES, OURS, POLICY, RULES
from _support import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _rules import Rule, Waits
    from _support import Cell

_HOUR = 3_600
_DAY = 24 * _HOUR
_DEPLOY = 1.0  # Seconds within which all processes start.
_OUTAGE = 600
_SEED = 1
_PLOTTED = 1_000
_WIDTH = POLICY.spread * 12 * _HOUR  # Seconds from which aiomsi draws the refresh of a token of 24 h.


def main() -> int:
    """Simulate, print, and return the exit code."""
    report = Report.from_command_line("The requests of a fleet whose processes have all started within a second")
    sizes = (64, 1_000) if report.quick else (64, 1_000, 100_000)
    for hours in (24, 1):
        _days(report, hours, sizes)
    _warm_returns(report, sizes)
    _cold_returns(report, sizes)
    return report.finish()


def _days(report: Report, hours: int, sizes: Sequence[int]) -> None:
    rows = []
    lines: dict[str, list[int]] = {}
    for processes in sizes:
        for name, rule in RULES.items():
            counts = _day(rule, processes, hours * _HOUR)
            if processes == _PLOTTED:
                lines[name] = counts
            rows.append(_row(name, processes, counts))
            if name == OURS:
                _expect_spread(report, counts, hours, processes)
    report.table(f"the day after a deploy, with tokens of {hours} h", rows)
    report.keep(f"time line of that day, with tokens of {hours} h and {_PLOTTED:,} processes", _line(lines))


def _day(rule: Rule, processes: int, life: float) -> list[int]:
    """Return the requests in every second of a day, but for those of the start itself."""
    random.seed(_SEED)
    counts, draw = [0] * _DAY, rule.draw
    for _ in range(processes):
        at = random.random() * _DEPLOY + draw(life)  # noqa: S311
        while at < _DAY:
            counts[int(at)] += 1
            at += draw(life)
    return counts


def _row(name: str, processes: int, counts: Sequence[int]) -> dict[str, Cell]:
    return {
        "% in the worst second": 100 * max(counts) / processes,
        "rule": name,
        "processes": processes,
        "worst second": max(counts),
        "worst minute": _worst_minute(counts),
        "requests": sum(counts),
    }


def _worst_minute(counts: Sequence[int]) -> int:
    """Return the most requests in any 60 s, wherever they begin."""
    before = [0, *accumulate(counts)]
    return max(before[end] - before[max(end - 60, 0)] for end in range(1, len(before)))


def _expect_spread(report: Report, counts: Sequence[int], hours: int, processes: int) -> None:
    """Hold aiomsi to the last tenth of the wait, from which its refreshes are drawn: nowhere are they any denser."""
    width = _WIDTH if hours == 24 else POLICY.spread * (_HOUR - POLICY.margin)
    for what, seconds, counted in (("second", 1, max(counts)), ("minute", 60, _worst_minute(counts))):
        most = _most(processes * seconds / width)
        report.expect(f"worst {what} of {processes:,} aiomsi processes, {hours} h", counted, least=1, most=most)


def _most(mean: float) -> int:
    """Return what no Poisson count of that *mean* is above, in a day."""
    return math.ceil(mean + 6 * math.sqrt(mean) + 4)


def _line(lines: Mapping[str, Sequence[int]]) -> list[dict[str, Cell]]:
    """Return for every minute the most requests that one of its seconds has."""
    return [
        {"minute": second // 60, **{name: max(counts[second : second + 60]) for name, counts in lines.items()}}
        for second in range(0, _DAY, 60)
    ]


def _warm_returns(report: Report, sizes: Sequence[int]) -> None:
    rows = []
    for processes in sizes:
        for name, rule in RULES.items():
            if rule.waits is None:
                continue
            random.seed(_SEED)
            dues = sorted(random.random() * _DEPLOY + rule.draw(_DAY) for _ in range(processes))  # noqa: S311
            start = _worst_start(dues)
            met = [due - start for due in dues if start <= due < start + _OUTAGE]
            rows.append(_return_row(name, processes, met, rule.waits))
            if name == OURS:
                what = f"processes of {processes:,} that met the outage"
                report.expect(what, len(met), least=1, most=_most(processes * _OUTAGE / _WIDTH))
    title = f"the return from an outage of {_OUTAGE // 60} minutes at the day's worst moment, with tokens of 24 h held"
    report.table(title, rows)


def _worst_start(dues: Sequence[float]) -> float:
    """Return when an outage has to begin in order to meet as many refreshes as can be."""
    first, worst = 0, (0, dues[0])
    for number, due in enumerate(dues):
        while due - dues[first] >= _OUTAGE:
            first += 1
        worst = max(worst, (number - first + 1, dues[first]))
    return worst[1]


def _cold_returns(report: Report, sizes: Sequence[int]) -> None:
    rows = []
    for processes in sizes:
        for name, waits in COLD_RETRIES.items():
            random.seed(_SEED)
            starts = [random.random() * _DEPLOY for _ in range(processes)]  # noqa: S311
            rows.append(_return_row(name, processes, starts, waits))
            if name == OURS:
                report.expect("seconds until the last is back", int(rows[-1]["last after s"] or 0), least=0, most=38)
    report.table(f"the return from an outage of {_OUTAGE // 60} minutes that a deploy met, with no token held", rows)


def _return_row(name: str, processes: int, starts: Sequence[float], waits: Waits) -> dict[str, Cell]:
    """Tell of the requests after an outage, each of which brings a token; *starts* are the first ones, all in vain."""
    counts = [0] * _HOUR
    for start in starts:
        at = start
        for wait in waits():
            at += wait
            if at >= _OUTAGE:
                break
        counts[int(at - _OUTAGE)] += 1
    last = max(second for second, number in enumerate(counts) if number)
    return _row(name, processes, counts) | {"last after s": last}


if __name__ == "__main__":
    sys.exit(main())
