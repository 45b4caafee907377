"""An event loop on which time does not pass but leaps: to the next timer, whenever nobody has anything to do.

What runs on it is the real code, with real sockets on loopback, over which what is sent has arrived before the loop
looks for it. Both ends must be on this loop; what is meant for a thread is done at once, while time stands still.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LeapingLoop", "LoopClock", "simulated"]

_T = TypeVar("_T")


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Take what has arrived; if that is nothing, let the time pass that would have been waited."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self.now += timeout
        return ready


class _NoThreads(ThreadPoolExecutor):
    def submit(self, function: Callable[..., _T], /, *args: Any, **options: Any) -> Future[_T]:
        """Do it now."""
        future = Future[_T]()
        try:
            future.set_result(function(*args, **options))
        except Exception as error:  # noqa: BLE001  (whoever waits for it gets it)
            future.set_exception(error)
        return future


class LeapingLoop(asyncio.SelectorEventLoop):
    """The event loop of this module."""

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)
        self.set_default_executor(_NoThreads())

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._leaping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (as the base's)
        """Do nothing: there are no threads to wait for."""


class LoopClock:
    """The time of the running loop, for aiomsi."""

    def __init__(self, start: float) -> None:
        self._start = start

    def wall(self) -> float:
        """Return the Unix time."""
        return self._start + self.monotonic()

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Call *callback* after *delay* seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)


@contextmanager
def simulated() -> Iterator[tuple[asyncio.Runner, LoopClock]]:
    """Make a loop and its clock, which is also what `time.time` says to everybody who asks it by that name."""
    loop, start = LeapingLoop(), time.time()
    clock = LoopClock(start)
    with patch("time.time", lambda: start + loop.time()), asyncio.Runner(loop_factory=lambda: loop) as runner:
        yield runner, clock
