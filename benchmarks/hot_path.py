"""Measure what a call costs when a token is held."""

from __future__ import annotations

import sys
from collections import defaultdict
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from _rivals import Rival, rivals
from _support import Endpoint, Report, at_least, at_most, spread
from _warm import AZURE_RESOURCE, BEARER, EMPTY, GET_TOKEN, PEEK, RESOURCE, TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _support import Cell

    Measured: TypeAlias = Mapping[str, list[dict[str, float]]]

_LIBRARIES = ("aiomsi", "azure")


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A call while a token is held")
    loops = ["asyncio", *(["uvloop"] if find_spec("uvloop") else [])]
    names = [f"{library} on {loop}" for loop in loops for library in _LIBRARIES]
    with Endpoint() as endpoint, rivals(names, "_warm.py") as company:
        cold_count = endpoint.count()
        _calls(report, company, loops, 5 if report.quick else 25)
        warm_count = endpoint.count()
    _requests(report, cold_count, warm_count, len(loops))
    return report.finish()


def _requests(report: Report, cold: Mapping[str, int], warm: Mapping[str, int], loops: int) -> None:
    report.expect("requests by aiomsi for its first tokens", cold.get(RESOURCE, 0), least=loops, most=loops)
    report.expect("requests by aiomsi in warm calls", warm.get(RESOURCE, 0), least=0, most=0)
    rows: list[dict[str, Cell]] = [
        {"who": who, "first tokens": cold.get(resource, 0), "expected": loops, "warm calls": warm.get(resource, 0)}
        for who, resource in zip(_LIBRARIES, (RESOURCE, AZURE_RESOURCE), strict=True)
    ]
    report.table("requests made, on all event loops", rows)


def _calls(report: Report, company: Mapping[str, Rival], loops: Sequence[str], rounds: int) -> None:
    measured: Measured = defaultdict(list)
    for _ in range(rounds):
        for name, rival in company.items():
            measured[name].append(rival.order("measure"))
    for loop in loops:
        ours, theirs = (measured[f"{library} on {loop}"] for library in _LIBRARIES)
        rows = [_call_row(call, ours) for call in (EMPTY, TOKEN, PEEK)]
        rows += [_call_row(call, theirs) for call in (GET_TOKEN, BEARER)]
        report.table(f"a warm call on {loop} (medians of {rounds})", rows)


def _call_row(call: str, measured: list[dict[str, float]]) -> dict[str, Cell]:
    ratio = median(times[call] / times[EMPTY] for times in measured)
    target = {
        TOKEN: at_most(ratio, 2.5),
        PEEK: at_most(ratio, 1.7),
        GET_TOKEN: "over 100: " + at_least(ratio, 100).split()[-1],
        BEARER: "over 60: " + at_least(ratio, 60).split()[-1],
    }
    nanoseconds = median(times[call] for times in measured) * 1e9
    return {
        "x empty await": ratio,
        "call": call,
        "ns": nanoseconds,
        "spread %": spread([times[call] for times in measured]),
        "target": target.get(call),
    }


if __name__ == "__main__":
    sys.exit(main())
