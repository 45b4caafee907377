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
    Peaks: TypeAlias = Mapping[str, float]

_LATENCY = 0.005  # Seconds that the endpoint takes for an answer.
WHO = (AIOMSI, CONTROL, BEARER, GET_TOKEN, THREADS)
# One of them asks once for each caller, over 100 connections, and a thread takes a place in a pool.
_MOST = {GET_TOKEN: 1_000, THREADS: 10_000}

# Repeats for each case, with more and more callers, since a process gives back little of the memory that it had.
_FULL: Mapping[Case, int] = {
    (1, 1): 15,
    (100, 1): 15,
    (100, 10): 7,
    (1_000, 1): 7,
    (10_000, 1): 7,
    (10_000, 10): 7,
    (100_000, 1): 5,
    (100_000, 10): 5,
}
_QUICK: Mapping[Case, int] = {(1, 1): 2, (100, 1): 2, (2_000, 1): 2, (2_000, 10): 2}
_LEAST = 1.0  # MB that the control takes; the ratio to less is that of pages.


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A cold start with many callers at once; the endpoint answers after 5 ms")
    with Endpoint() as endpoint, rivals(WHO) as company:
        endpoint.latency(_LATENCY)
        # First connections count for nobody.
        alone = {name: rival.order("race", callers=1, resources=_resources(1)) for name, rival in company.items()}
        rest = {name: raced["peak"] for name, raced in alone.items()}
        _stampedes(report, endpoint, company, rest, _QUICK if report.quick else _FULL)
    return report.finish()


def _stampedes(
    report: Report, endpoint: Endpoint, company: Mapping[str, Rival], rest: Peaks, cases: Mapping[Case, int]
) -> None:
    requests, seconds, work, memory = [], [], [], []
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
        if None not in rest.values():  # Where the system says how much it is.
            memory.append(memory_row(case, times["peak"], rest))
    report.table("requests made (the most in any repeat); azure get_token asks for every caller by itself", requests)
    report.table("time until the last caller has a token (medians), as a ratio to the control", seconds)
    report.table("CPU time of the process until then (medians), as a ratio to the control", work)
    if memory:
        at_rest: dict[str, Cell] = {f"{name} MB": rest[name] for name in WHO}
        report.table("peak memory of the process with one caller", [at_rest])
        report.table("peak memory of the process beyond that (medians), as a ratio to the control", memory)


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
    return row | {name: max(counts[name]) if name in counts else None for name in WHO}


def _time_row(case: Case, times: Mapping[str, list[float]]) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        f"{name} / control": _ratio(times[name], times[CONTROL]) if name in times else None
        for name in WHO
        if name != CONTROL
    }
    row |= {"callers": case[0], "resources": case[1]}
    row |= {f"{name} ms": median(times[name]) * 1e3 if name in times else None for name in WHO}
    return row | {f"{name} spread %": spread(times[name]) if name in times else None for name in WHO}


def _ratio(mine: list[float], control: list[float]) -> float:
    return median(one / other for one, other in zip(mine, control, strict=True))


def memory_row(case: Case, peaks: Mapping[str, list[float]], rest: Peaks) -> dict[str, Cell]:
    """Tell what a case took beyond what each process has at *rest*: next to the control, where that took enough."""
    more = {name: median(peaks[name]) - rest[name] for name in peaks}
    row: dict[str, Cell] = {
        f"{name} / control": more[name] / more[CONTROL] if name in more and more[CONTROL] >= _LEAST else None
        for name in WHO
        if name != CONTROL
    }
    row |= {"callers": case[0], "resources": case[1]}
    return row | {f"{name} MB": more.get(name) for name in WHO}


if __name__ == "__main__":
    sys.exit(main())
