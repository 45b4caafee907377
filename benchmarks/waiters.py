"""Measure what a caller who waits costs, and what becomes of the others when some are cancelled."""

from __future__ import annotations

import asyncio
import random
import sys
import time
import tracemalloc
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from _contenders import aiomsi_token, bearer_token_provider, parked, shielded
from _rivals import AIOMSI, BEARER, CONTROL
from _support import Endpoint, Report, at_most, spread, without_collector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _contenders import Call, Contender
    from _support import Cell

_FOR_EVER = 600.0
_FLOOR = "task on a bare future"
_WAITERS: Mapping[str, Contender] = {
    _FLOOR: parked,
    AIOMSI: aiomsi_token,
    CONTROL: shielded,
    BEARER: bearer_token_provider,
}
_CROWDS: Mapping[str, Contender] = {AIOMSI: aiomsi_token, CONTROL: shielded, BEARER: bearer_token_provider}
_SEED = 20_260_101


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("Callers who wait for a first token, and callers who are cancelled meanwhile")
    with Endpoint() as endpoint:
        asyncio.run(_at_random(report, endpoint, *((1_000, 0.1) if report.quick else (10_000, 1.0))))
        endpoint.latency(_FOR_EVER)
        asyncio.run(_cancellations(report, endpoint, *((2_000, 3) if report.quick else (20_000, 5))))
        asyncio.run(_memory(report, endpoint, 2_000 if report.quick else 20_000))
    return report.finish()


async def _at_random(report: Report, endpoint: Endpoint, callers: int, latency: float) -> None:
    rows = []
    for name, contender in _CROWDS.items():
        endpoint.latency(0)
        async with contender(endpoint, ["https://warm.example"]) as (call,):
            await call()  # Imports count for nobody.
        endpoint.latency(latency)
        endpoint.count()
        cancelled, outcomes = await _thinned(endpoint, contender, callers, latency)
        requests = sum(endpoint.count().values())
        tokens = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
        errors = sum(isinstance(outcome, Exception) for outcome in outcomes)
        rows.append(_thinned_row(name, callers, cancelled, tokens, errors, requests))
        if name == AIOMSI:
            report.expect("requests by aiomsi while callers are cancelled", requests, least=1, most=1)
            report.expect("tokens for who was not cancelled", tokens, least=callers - cancelled, most=callers)
            report.expect("errors seen by callers of aiomsi", errors, least=0, most=0)
    report.table("callers cancelled at random while they wait, the one who came first among them", rows)


async def _thinned(
    endpoint: Endpoint, contender: Contender, callers: int, latency: float
) -> tuple[int, list[object | BaseException]]:
    """Cancel about half of the *callers*, spread over half of the endpoint's time, and return what all of them got."""
    chance = random.Random(_SEED)  # noqa: S311  (the same for everybody)
    async with contender(endpoint, ["https://resource.example"]) as calls:
        tasks = _all_at_once(calls, callers)
        await asyncio.sleep(latency / 10)
        doomed = [tasks[0], *(task for task in tasks[1:] if chance.random() < 0.5)]
        chance.shuffle(doomed)
        steps = 10
        for step in range(steps):
            for task in doomed[step::steps]:
                task.cancel()
            await asyncio.sleep(latency / 2 / steps)
        return len(doomed), await asyncio.gather(*tasks, return_exceptions=True)


def _thinned_row(name: str, callers: int, cancelled: int, tokens: int, errors: int, requests: int) -> dict[str, Cell]:
    return {
        "who": name,
        "callers": callers,
        "cancelled": cancelled,
        "tokens": tokens,
        "without a token": callers - cancelled - tokens,
        "errors": errors,
        "requests": requests,
        "expected": 1,
    }


def _all_at_once(calls: list[Call], callers: int) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(calls[number % len(calls)]()) for number in range(callers)]


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
            "spread %": spread(times[name]),
            "target": at_most(seconds, target, " s") if name == AIOMSI else None,
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
            "target": at_most(size - middle[_FLOOR], 400, " more") if name == AIOMSI else None,
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
