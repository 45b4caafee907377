"""Measure how the cost of a call, of a resource, and of its refreshes grows with the number of resources."""

from __future__ import annotations

import asyncio
import random
import sys
import time
import tracemalloc
from statistics import median
from typing import TYPE_CHECKING

from _support import Report, spread, without_collector

from aiomsi import TokenProvider
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _support import Cell

_FULL, _QUICK = (1, 10, 100, 1_000, 10_000), (1, 10, 100, 1_000)
_CALLS = 50_000
_DEFAULT = 64  # What `max_resources` is where nobody says otherwise.
_DAY = 86_400
_REFRESHES = 2  # In a day, of a token that lives for a day.
_SEED = 1


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("What more resources cost, on a source that answers at once")
    sizes = _QUICK if report.quick else _FULL
    asyncio.run(_costs(report, sizes, 3 if report.quick else 5))
    asyncio.run(_traffic(report, sizes))
    asyncio.run(_crowded(report))
    return report.finish()


def _names(number: int) -> list[str]:
    return [f"https://resource-{each}.example" for each in range(number)]


async def _costs(report: Report, sizes: Sequence[int], rounds: int) -> None:
    warm: dict[int, list[float]] = {size: [] for size in sizes}
    cold: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            first, each = await _seconds(size)
            cold[size].append(first)
            warm[size].append(each)
    rows: list[dict[str, Cell]] = []
    for size in sizes:
        ratio = median(mine / one for mine, one in zip(warm[size], warm[sizes[0]], strict=True))
        row: dict[str, Cell] = {"x one resource": ratio, "resources": size}
        row |= {"ns per warm call": median(warm[size]) * 1e9, "spread %": spread(warm[size])}
        row |= {"us per first token": median(cold[size]) * 1e6}
        rows.append(row | {"bytes per resource": round(await _bytes(size))})
    report.table(f"cost by the number of resources, each called in its turn (medians of {rounds})", rows)


async def _seconds(size: int) -> tuple[float, float]:
    """Return what a first token and a warm call take, each in seconds."""
    names = _names(size)
    async with TokenProvider(ScriptedSource(), max_resources=size + 1) as provider:
        await provider.token("https://warm.example")
        in_turn = names * (_CALLS // size)
        with without_collector():
            began = time.perf_counter()
            for name in names:
                await provider.token(name)
            first = (time.perf_counter() - began) / size
            began = time.perf_counter()
            for name in in_turn:
                await provider.token(name)
            return first, (time.perf_counter() - began) / len(in_turn)


async def _bytes(size: int) -> float:
    names = _names(size)
    source = ScriptedSource()
    async with TokenProvider(source, max_resources=size + 1) as provider:
        await provider.token("https://warm.example")
        with without_collector():
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for name in names:
                await provider.token(name)
            source.requests.clear()
            after = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
    return (after - before) / size


async def _traffic(report: Report, sizes: Sequence[int]) -> None:
    """Let a day pass on a clock of our own, in which every token is used once an hour."""
    rows: list[dict[str, Cell]] = []
    for size in sizes:
        random.seed(_SEED)
        moments = await _day(size)
        worst = max(moments.count(minute) for minute in set(moments))
        per_resource = len(moments) / size
        rows.append(
            {"requests per resource": per_resource, "resources": size, "requests": len(moments), "worst minute": worst}
        )
        expected = _REFRESHES * size
        report.expect(f"refreshes of {size:,} resources in a day", len(moments), least=expected, most=expected)
    report.table("requests for refreshes in a day (simulated), with tokens of 24 h", rows)


async def _day(size: int) -> list[int]:
    """Return the minute of each refresh."""
    clock, source, names = ManualClock(), ScriptedSource(), _names(size)
    start = clock.wall()
    async with TokenProvider(source, clock=clock, max_resources=size) as provider:
        for name in names:
            await provider.token(name)
        source.requests.clear()
        moments: list[int] = []
        for _ in range(24 * 60):
            await clock.advance(60)
            minute = int(clock.wall() - start) // 60
            moments += [minute] * len(source.requests)
            source.requests.clear()
            if minute % 60 == 0:
                for name in names:
                    provider.peek(name)
    return moments


async def _crowded(report: Report) -> None:
    """Use more resources than are remembered, one after the other: the first is forgotten when the last one comes."""
    rows: list[dict[str, Cell]] = []
    for size in (_DEFAULT, _DEFAULT + 1, 2 * _DEFAULT):
        source = ScriptedSource()
        async with TokenProvider(source) as provider:
            rounds = []
            for _ in range(2):
                for name in _names(size):
                    await provider.token(name)
                rounds.append(len(source.requests))
                source.requests.clear()
            held = provider.statistics().tokens
        row: dict[str, Cell] = {"resources": size, "max_resources": _DEFAULT, "held": held}
        rows.append(row | {"requests, first round": rounds[0], "requests, second round": rounds[1]})
        report.expect(f"tokens held of {size} resources", held, least=_DEFAULT, most=_DEFAULT)
        report.expect(f"requests for {size} resources, first round", rounds[0], least=size, most=size)
        again = 0 if size <= _DEFAULT else size
        report.expect(f"requests for {size} resources, second round", rounds[1], least=0, most=again)
    report.table("more resources in turn than the default of max_resources", rows)


if __name__ == "__main__":
    sys.exit(main())
