"""Count the requests of a cold start with many callers, and measure what the last of them waits for."""

from __future__ import annotations

import sys
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from _rivals import AIOMSI, BEARER, CONTROL, GET_TOKEN, THREADS, Rival, rivals
from _support import Endpoint, Report, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _support import Cell

    Case: TypeAlias = tuple[int, int]  # Callers, resources.
    Times: TypeAlias = dict[str, dict[str, list[float]]]  # What was measured, of whom.

_LATENCY = 0.005  # Seconds that the endpoint takes for an answer.
_WHO = (AIOMSI, CONTROL, BEARER, GET_TOKEN, THREADS)
# One of them asks once for each caller, over 100 connections, and a thread takes a place in a pool.
_MOST = {GET_TOKEN: 1_000, THREADS: 10_000}

# Repeats for each case, the largest of which is the last.
_FULL: Mapping[Case, int] = {
    (1, 1): 15,
    (100, 1): 15,
    (1_000, 1): 7,
    (10_000, 1): 7,
    (100, 10): 7,
    (10_000, 10): 7,
    (100_000, 10): 5,
    (100_000, 1): 5,
}
_QUICK: Mapping[Case, int] = {(1, 1): 2, (100, 1): 2, (2_000, 10): 2, (2_000, 1): 2}


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A cold start with many callers at once; the endpoint answers after 5 ms")
    with Endpoint() as endpoint, rivals(_WHO) as company:
        endpoint.latency(_LATENCY)
        for rival in company.values():
            rival.order("race", callers=1, resources=["https://warm.example"])  # First connections count for nobody.
        rest = {name: rival.order("peak") for name, rival in company.items()}
        _stampedes(report, endpoint, company, _QUICK if report.quick else _FULL)
        _memory(report, company, rest)
    return report.finish()


def _stampedes(report: Report, endpoint: Endpoint, company: Mapping[str, Rival], cases: Mapping[Case, int]) -> None:
    requests, seconds, work = [], [], []
    for case, repeats in cases.items():
        times: Times = defaultdict(lambda: defaultdict(list))
        counts: dict[str, list[int]] = defaultdict(list)
        for _ in range(repeats):
            for name, rival in company.items():
                if case[0] > _MOST.get(name, case[0]):
                    continue
                endpoint.count()
                for what, measured in rival.order("race", callers=case[0], resources=_resources(case[1])).items():
                    times[what][name].append(measured)
                counts[name].append(_checked(report, name, case, endpoint.count()))
        requests.append(_request_row(case, counts))
        seconds.append(_time_row(case, times["seconds"]))
        work.append(_time_row(case, times["cpu"]))
    report.table("requests made (the most in any repeat); azure get_token asks for every caller by itself", requests)
    report.table("time until the last caller has a token (medians), as a ratio to the control", seconds)
    report.table("CPU time of the process until then (medians), as a ratio to the control", work)


def _resources(width: int) -> list[str]:
    return [f"https://resource-{number}.example" for number in range(width)]


def _checked(report: Report, name: str, case: Case, counted: Mapping[str, int]) -> int:
    callers, width = case
    total = sum(counted.values())
    if name == AIOMSI:
        what = f"requests by aiomsi for {callers:,} callers on {width} resources"
        report.expect(what, total, least=width, most=width)
        report.expect(f"{what}, for the same resource", max(counted.values(), default=0), least=1, most=1)
    return total


def _request_row(case: Case, counts: Mapping[str, list[int]]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"callers": case[0], "resources": case[1], "expected": case[1]}
    return row | {name: max(counts[name]) if name in counts else None for name in _WHO}


def _time_row(case: Case, times: Mapping[str, list[float]]) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        f"{name} / control": _ratio(times[name], times[CONTROL]) if name in times else None
        for name in _WHO
        if name != CONTROL
    }
    row |= {"callers": case[0], "resources": case[1]}
    row |= {f"{name} ms": median(times[name]) * 1e3 if name in times else None for name in _WHO}
    return row | {f"{AIOMSI} spread %": spread(times[AIOMSI]), "control spread %": spread(times[CONTROL])}


def _ratio(mine: list[float], control: list[float]) -> float:
    return median(one / other for one, other in zip(mine, control, strict=True))


def _memory(report: Report, company: Mapping[str, Rival], rest: Mapping[str, float | None]) -> None:
    """Tell what the largest case that everybody had has taken, since a process gives back little of it."""
    cases = _QUICK if report.quick else _FULL
    more: dict[str, tuple[float, float]] = {}
    for name, rival in company.items():
        peak, before = rival.order("peak"), rest[name]
        if peak is not None and before is not None:
            more[name] = peak - before, before
    rows: list[dict[str, Cell]] = [
        {
            "x control": added / more[CONTROL][0],
            "who": name,
            "callers": max(callers for callers, _ in cases if callers <= _MOST.get(name, callers)),
            "MB more than at rest": added,
            "MB at rest": before,
        }
        for name, (added, before) in more.items()
    ]
    if rows:
        report.table("peak memory of the process, with the most callers that it had", rows)


if __name__ == "__main__":
    sys.exit(main())
