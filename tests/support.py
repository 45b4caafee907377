"""What several test modules share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PacedClock"]


class PacedClock(ManualClock):
    """A manual clock that moves over each wait of a source that talks to the outside world between its waits.

    A source sets timers by turns: the limit of an attempt, and the wait before the next one.
    """

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        super().__init__(now)
        self._alarms: asyncio.Queue[float] = asyncio.Queue()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Any:
        self._alarms.put_nowait(delay)
        return super().call_later(delay, callback)

    async def next_alarm(self, task: asyncio.Task[Any]) -> float | None:
        """Return the delay of the next timer that is set, or None if *task* ends first."""
        alarm = asyncio.ensure_future(self._alarms.get())
        await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
        if alarm.done():
            return alarm.result()
        alarm.cancel()
        return None

    async def pace(self, task: asyncio.Task[Any]) -> list[float]:
        """Let *task* go on to its end, and return how long it waited between its attempts, in seconds."""
        waits: list[float] = []
        while await self.next_alarm(task) is not None:
            wait = await self.next_alarm(task)
            if wait is None:
                break
            waits.append(wait)
            await self.advance(wait)
        return waits
