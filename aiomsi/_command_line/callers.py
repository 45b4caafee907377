"""The demo's callers: all at once, or many every second; each call is timed."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiomsi import AiomsiError
from aiomsi._clock import SYSTEM_CLOCK, sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiomsi import TokenProvider
    from aiomsi._command_line.measurement import Phase

__all__ = ["CALLS_PER_SECOND", "ask_all_at_once", "ask_steadily", "returned_at_once"]

CALLS_PER_SECOND = 2_000
_TASKS = 100


async def ask_all_at_once(provider: TokenProvider, resource: str, callers: int, phase: Phase) -> None:
    """Let so many *callers* ask, each in a task of its own, before the event loop does anything else."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(_first_call(provider, resource, phase))


async def ask_steadily(provider: TokenProvider, resource: str, phase_now: Callable[[], Phase]) -> None:
    """Ask CALLS_PER_SECOND times a second, evenly spread, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(_TASKS):
            tasks.create_task(_calls(provider, resource, phase_now, number / CALLS_PER_SECOND))


async def _calls(provider: TokenProvider, resource: str, phase_now: Callable[[], Phase], delay: float) -> None:
    await sleep(SYSTEM_CLOCK, delay)
    while True:
        await _further_call(provider, resource, phase_now())
        await sleep(SYSTEM_CLOCK, _TASKS / CALLS_PER_SECOND)


async def _first_call(provider: TokenProvider, resource: str, phase: Phase) -> None:
    began = perf_counter()
    try:
        await provider.token(resource)
    except AiomsiError:
        phase.errors += 1
    phase.waits.append(perf_counter() - began)


async def _further_call(provider: TokenProvider, resource: str, phase: Phase) -> None:
    began = perf_counter()
    try:
        if not returned_at_once(provider.token(resource)):
            phase.suspended += 1
            await provider.token(resource)
    except AiomsiError:
        phase.errors += 1
    phase.waits.append(perf_counter() - began)


def returned_at_once(call: Coroutine[Any, Any, object]) -> bool:
    """Return whether *call* comes to its end without giving way to the event loop; if not, it is given up.

    This is exact, where any threshold of time would have to be guessed.
    """
    try:
        call.send(None)
    except StopIteration:
        return True
    call.close()
    return False
