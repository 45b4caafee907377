"""What is done with callers who wait for a first token, in the process of whoever they wait for."""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
from typing import TYPE_CHECKING

from _support import without_collector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _contenders import Call

__all__ = ["all_at_once", "cancel", "thin", "weigh"]

_STEPS = 10
_ARRIVAL = 0.1  # Seconds after which all of them wait.


def all_at_once(calls: Sequence[Call], callers: int) -> list[asyncio.Task[object]]:
    """Start so many callers, who take turns in what they call."""
    return [asyncio.create_task(calls[number % len(calls)]()) for number in range(callers)]


async def thin(calls: Sequence[Call], callers: int, latency: float, seed: int) -> dict[str, float]:
    """Cancel about half of the *callers*, spread over half of the endpoint's time, and tell what became of all."""
    chance = random.Random(seed)  # noqa: S311  (the same for everybody)
    with without_collector():
        began, worked = time.perf_counter(), time.process_time()
        tasks = all_at_once(calls, callers)
        await asyncio.sleep(latency / 10)
        doomed = [tasks[0], *(task for task in tasks[1:] if chance.random() < 0.5)]
        chance.shuffle(doomed)
        for step in range(_STEPS):
            for task in doomed[step::_STEPS]:
                task.cancel()
            await asyncio.sleep(latency / 2 / _STEPS)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        seconds, work = time.perf_counter() - began, time.process_time() - worked
    return {
        "cancelled": len(doomed),
        "tokens": sum(not isinstance(outcome, BaseException) for outcome in outcomes),
        "errors": sum(isinstance(outcome, Exception) for outcome in outcomes),
        "seconds": seconds,
        "cpu": work,
    }


async def cancel(calls: Sequence[Call], callers: int) -> float:
    """Return how many seconds it takes to cancel all of them."""
    tasks = all_at_once(calls, callers)
    await asyncio.sleep(_ARRIVAL)
    with without_collector():
        began = time.perf_counter()
        await _cancel(tasks)
        return time.perf_counter() - began


async def weigh(calls: Sequence[Call], callers: int) -> float:
    """Return how many bytes each of them takes."""
    first = all_at_once(calls, 1)  # Opens the connection, which is not a waiter's.
    await asyncio.sleep(_ARRIVAL)
    with without_collector():
        tracemalloc.start()
        tasks = all_at_once(calls, callers)
        await asyncio.sleep(_ARRIVAL)
        size = tracemalloc.get_traced_memory()[0] / callers
        tracemalloc.stop()
    await _cancel(first + tasks)
    return size


async def _cancel(tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
