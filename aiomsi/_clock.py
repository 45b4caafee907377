"""The only module that asks the time."""

from __future__ import annotations

import asyncio
import contextvars
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["SYSTEM_CLOCK", "Clock", "Timer", "check_clock", "sleep", "time_limit"]


class Timer(Protocol):
    """What `Clock.call_later` returns."""

    def cancel(self) -> object:
        """Keep the callback from being called."""


class Clock(Protocol):
    """Both kinds of time, and a way to be called when some has passed."""

    def wall(self) -> float:
        """Return the Unix time in seconds, UTC. It may jump."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment. It never goes back, but may stand still in suspend."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call *callback* on the running event loop after *delay* seconds of monotonic time."""


def check_clock(clock: object) -> None:
    """Raise TypeError if *clock* is none."""
    if not all(callable(getattr(clock, name, None)) for name in ("wall", "monotonic", "call_later")):
        raise TypeError(f"a clock is an object with `wall`, `monotonic` and `call_later`, not {clock!r}")


class _SystemClock:
    """This machine's clocks: the builtins themselves, since a method around them would cost a warm call a third."""

    __slots__ = ("monotonic", "wall")

    def __init__(self) -> None:
        self.wall = time.time
        self.monotonic = time.monotonic

    def __repr__(self) -> str:
        return "<system clock>"

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        # An empty context: a timer must not keep alive what the request that happened to set it carries along.
        return asyncio.get_running_loop().call_later(delay, callback, context=contextvars.Context())


SYSTEM_CLOCK: Clock = _SystemClock()


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait until *seconds* have passed on *clock*."""
    woken = asyncio.Event()
    timer = clock.call_later(seconds, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()


@asynccontextmanager
async def time_limit(clock: Clock, seconds: float, *, beats: int = 1) -> AsyncIterator[None]:
    """Raise TimeoutError if the block takes longer than *seconds* on *clock*.

    With more *beats* the time passes in that many steps, each of which takes a turn of the event loop: a loop that is
    blocked for a while uses up one of them, and not the time in which it could have seen what it waits for.
    """
    async with asyncio.timeout(None) as scope:
        left, step = beats, max(seconds, 0) / beats
        timer: Timer

        def pass_beat() -> None:
            nonlocal left, timer
            left -= 1
            if left:
                timer = clock.call_later(step, pass_beat)
            else:
                scope.reschedule(0)

        timer = clock.call_later(step, pass_beat)
        try:
            yield
        finally:
            timer.cancel()
