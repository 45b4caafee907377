"""Measure what a caller who waits costs, and what becomes of the others when some are cancelled."""

from __future__ import annotations

import sys
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from _rivals import AIOMSI, BEARER, CONTROL, FLOOR, Rival, rivals
from _support import Endpoint, Report, at_most, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _support import Cell

    Found: TypeAlias = Mapping[str, list[dict[str, Any]]]

_FOR_EVER = 600.0
_CROWDS = (AIOMSI, CONTROL, BEARER)
_WAITERS = (FLOOR, *_CROWDS)
_SEED = 20_260_101


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("Callers who wait for a first token, and callers who are cancelled meanwhile")
    with Endpoint() as endpoint, rivals(_WAITERS) as company:
        _at_random(report, endpoint, company, *((1_000, 0.1, 2) if report.quick else (10_000, 1.0, 5)))
        endpoint.latency(_FOR_EVER)
        _cancellations(report, company, *((2_000, 3) if report.quick else (20_000, 5)))
        _memory(report, company, 2_000 if report.quick else 20_000)
    return report.finish()


def _at_random(
    report: Report, endpoint: Endpoint, company: Mapping[str, Rival], callers: int, latency: float, repeats: int
) -> None:
    alone = {name: company[name].order("race", callers=1, resources=["https://warm.example"]) for name in _CROWDS}
    endpoint.latency(latency)
    endpoint.count()
    found: Found = defaultdict(list)
    for _ in range(repeats):
        for name in _CROWDS:
            thinned = company[name].order("thin", callers=callers, latency=latency, seed=_SEED)
            found[name].append(thinned | {"requests": sum(endpoint.count().values())})
    for thinned in found[AIOMSI]:
        left = callers - thinned["cancelled"]
        report.expect("requests by aiomsi while callers are cancelled", thinned["requests"], least=1, most=1)
        report.expect("tokens for who was not cancelled", thinned["tokens"], least=left, most=callers)
        report.expect("errors seen by callers of aiomsi", thinned["errors"], least=0, most=0)
    title = "callers cancelled at random while they wait, the one who came first among them"
    report.table(f"{title} (the most in any repeat)", [_count_row(name, callers, found[name]) for name in _CROWDS])
    rest = {name: raced["peak"] for name, raced in alone.items()}
    rows = [_cost_row(name, found, rest[name]) for name in _CROWDS]
    report.table(f"the same: CPU time, memory, and when the last had a token (medians of {repeats})", rows)


def _count_row(name: str, callers: int, found: list[dict[str, Any]]) -> dict[str, Cell]:
    return {
        "who": name,
        "callers": callers,
        "cancelled": found[0]["cancelled"],
        # Some are cancelled too late, and have their token.
        "without a token": max(0, *(callers - each["cancelled"] - each["tokens"] for each in found)),
        "errors": max(thinned["errors"] for thinned in found),
        "requests": max(thinned["requests"] for thinned in found),
        "expected": 1,
    }


def _cost_row(name: str, found: Found, rest: float | None) -> dict[str, Cell]:
    work = [thinned["cpu"] for thinned in found[name]]
    control = [thinned["cpu"] for thinned in found[CONTROL]]
    return {
        "x control": median(mine / other for mine, other in zip(work, control, strict=True)),
        "who": name,
        "CPU ms": median(work) * 1e3,
        "spread %": spread(work),
        "MB beyond one caller": None if rest is None else median(each["peak"] for each in found[name]) - rest,
        "last token after ms": median(each["seconds"] for each in found[name]) * 1e3,
    }


def _cancellations(report: Report, company: Mapping[str, Rival], waiters: int, repeats: int) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, rival in company.items():
            times[name].append(rival.order("cancel", callers=waiters))
    middle = {name: median(values) for name, values in times.items()}
    target = 0.5 * waiters / 20_000
    rows: list[dict[str, Cell]] = [
        {
            "x bare future": seconds / middle[FLOOR],
            "who": name,
            "seconds": seconds,
            "spread %": spread(times[name]),
            "target": at_most(seconds, target, " s") if name == AIOMSI else None,
        }
        for name, seconds in middle.items()
    ]
    report.table(f"cancelling {waiters:,} callers who wait (medians of {repeats})", rows)


def _memory(report: Report, company: Mapping[str, Rival], waiters: int) -> None:
    sizes: dict[str, list[float]] = defaultdict(list)
    for _ in range(3):
        for name, rival in company.items():
            sizes[name].append(rival.order("weigh", callers=waiters))
    middle = {name: median(values) for name, values in sizes.items()}
    rows: list[dict[str, Cell]] = [
        {
            "x bare future": size / middle[FLOOR],
            "who": name,
            "bytes": round(size),
            "more": round(size - middle[FLOOR]),
            "target": at_most(size - middle[FLOOR], 400, " more") if name == AIOMSI else None,
        }
        for name, size in middle.items()
    ]
    report.table(f"memory for each of {waiters:,} callers who wait (tracemalloc)", rows)


if __name__ == "__main__":
    sys.exit(main())
