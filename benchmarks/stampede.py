"""Count the requests of a cold start with many callers, and measure how long the last of them waits.

Also: what it costs to cancel callers who wait, and how much memory each of them takes.
"""

from __future__ import annotations

import asyncio
import sys
import time
import tracemalloc
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from _contenders import aiomsi_token, bearer_token_provider, get_token, parked, shielded
from _support import Endpoint, Report, at_most, without_collector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _contenders import Call, Contender
    from _support import Cell

    Case: TypeAlias = tuple[int, int]  # Callers, resources.

_LATENCY = 0.005  # Seconds that the endpoint takes for an answer.
_FOR_EVER = 600.0
_OURS, _CONTROL, _GET_TOKEN, _BEARER = "aiomsi", "control: shielded task", "azure get_token", "azure bearer provider"
_STAMPEDERS: Mapping[str, Contender] = {
    _OURS: aiomsi_token,
    _CONTROL: shielded,
    _GET_TOKEN: get_token,
    _BEARER: bearer_token_provider,
}
_GET_TOKEN_MOST = 1_000  # It asks once for each caller, over 100 connections.
_FLOOR = "task on a bare future"
_WAITERS: Mapping[str, Contender] = {_FLOOR: parked, _OURS: aiomsi_token, _CONTROL: shielded}

# Repeats for each case.
_FULL: Mapping[Case, int] = {
    (1, 1): 15,
    (100, 1): 15,
    (1_000, 1): 7,
    (10_000, 1): 7,
    (100_000, 1): 5,
    (100, 10): 7,
    (10_000, 10): 7,
    (100_000, 10): 5,
}
_QUICK: Mapping[Case, int] = {(1, 1): 3, (100, 1): 3, (2_000, 1): 3, (2_000, 10): 3}


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A cold start with many callers at once; the endpoint answers after 5 ms")
    with Endpoint() as endpoint:
        asyncio.run(_stampedes(report, endpoint, _QUICK if report.quick else _FULL))
        endpoint.latency(_FOR_EVER)
        asyncio.run(_cancellations(report, endpoint, *((2_000, 3) if report.quick else (20_000, 5))))
        asyncio.run(_memory(report, endpoint, 2_000 if report.quick else 20_000))
    return report.finish()


async def _stampedes(report: Report, endpoint: Endpoint, cases: Mapping[Case, int]) -> None:
    endpoint.latency(_LATENCY)
    for contender in _STAMPEDERS.values():
        await _stampede(endpoint, contender, (1, 1))  # Imports and first connections count for nobody.
    requests, seconds = [], []
    for case, repeats in cases.items():
        times: dict[str, list[float]] = defaultdict(list)
        counts: dict[str, list[int]] = defaultdict(list)
        for _ in range(repeats):
            for name, contender in _STAMPEDERS.items():
                if name == _GET_TOKEN and case[0] > _GET_TOKEN_MOST:
                    continue
                endpoint.count()
                times[name].append(await _stampede(endpoint, contender, case))
                counts[name].append(_checked(report, name, case, endpoint.count()))
        requests.append(_request_row(case, counts))
        seconds.append(_time_row(case, times))
    report.table("requests made (the most in any repeat); azure get_token asks for every caller by itself", requests)
    report.table("time until the last caller has a token (medians), as a ratio to the control", seconds)


async def _stampede(endpoint: Endpoint, contender: Contender, case: Case) -> float:
    callers, width = case
    async with contender(endpoint, [f"https://resource-{number}.example" for number in range(width)]) as calls:
        with without_collector():
            began = time.perf_counter()
            tasks = _all_at_once(calls, callers)
            for task in tasks:
                await task
            return time.perf_counter() - began


def _all_at_once(calls: list[Call], callers: int) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(calls[number % len(calls)]()) for number in range(callers)]


def _checked(report: Report, name: str, case: Case, counted: Mapping[str, int]) -> int:
    callers, width = case
    total = sum(counted.values())
    if name == _OURS:
        what = f"requests by aiomsi for {callers:,} callers on {width} resources"
        report.expect(what, total, least=width, most=width)
        report.expect(f"{what}, for the same resource", max(counted.values(), default=0), least=1, most=1)
    return total


def _request_row(case: Case, counts: Mapping[str, list[int]]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"callers": case[0], "resources": case[1], "expected": case[1]}
    return row | {name: max(counts[name]) if name in counts else None for name in _STAMPEDERS}


def _time_row(case: Case, times: Mapping[str, list[float]]) -> dict[str, Cell]:
    middle = {name: median(values) for name, values in times.items()}
    row: dict[str, Cell] = {
        f"{name} / control": middle[name] / middle[_CONTROL] if name in middle else None
        for name in (_OURS, _GET_TOKEN, _BEARER)
    }
    row |= {"callers": case[0], "resources": case[1]}
    return row | {"aiomsi ms": middle[_OURS] * 1e3, "control ms": middle[_CONTROL] * 1e3}


async def _cancellations(report: Report, endpoint: Endpoint, waiters: int, repeats: int) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, contender in _WAITERS.items():
            times[name].append(await _cancellation(endpoint, contender, waiters))
    middle = {name: median(values) for name, values in times.items()}
    target = 0.5 * waiters / 20_000
    rows: list[dict[str, Cell]] = [
        {
            "x bare future": seconds / middle[_FLOOR],
            "who": name,
            "seconds": seconds,
            "target": at_most(seconds, target, " s") if name == _OURS else None,
        }
        for name, seconds in middle.items()
    ]
    report.table(f"cancelling {waiters:,} callers who wait (medians of {repeats})", rows)


async def _cancellation(endpoint: Endpoint, contender: Contender, waiters: int) -> float:
    async with contender(endpoint, ["https://resource.example"]) as calls:
        tasks = _all_at_once(calls, waiters)
        await asyncio.sleep(0.1)
        with without_collector():
            began = time.perf_counter()
            await _cancel(tasks)
            return time.perf_counter() - began


async def _cancel(tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _memory(report: Report, endpoint: Endpoint, waiters: int) -> None:
    sizes: dict[str, list[float]] = defaultdict(list)
    tracemalloc.start()
    for _ in range(3):
        for name, contender in _WAITERS.items():
            sizes[name].append(await _size(endpoint, contender, waiters))
    tracemalloc.stop()
    middle = {name: median(values) for name, values in sizes.items()}
    rows: list[dict[str, Cell]] = [
        {
            "x bare future": size / middle[_FLOOR],
            "who": name,
            "bytes": round(size),
            "more": round(size - middle[_FLOOR]),
            "target": at_most(size - middle[_FLOOR], 400, " more") if name == _OURS else None,
        }
        for name, size in middle.items()
    ]
    report.table(f"memory for each of {waiters:,} callers who wait (tracemalloc)", rows)


async def _size(endpoint: Endpoint, contender: Contender, waiters: int) -> float:
    async with contender(endpoint, ["https://resource.example"]) as calls:
        first = _all_at_once(calls, 1)  # Opens the connection, which is not a waiter's.
        await asyncio.sleep(0.1)
        with without_collector():
            before = tracemalloc.get_traced_memory()[0]
            tasks = _all_at_once(calls, waiters)
            await asyncio.sleep(0.1)
            size = (tracemalloc.get_traced_memory()[0] - before) / waiters
        await _cancel(first + tasks)
        return size


if __name__ == "__main__":
    sys.exit(main())
