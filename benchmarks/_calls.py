"""Calls at a steady pace, and what becomes of each: whether it waited, how long it took, and what it got."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Self

    from _contenders import Call

BIN = 0.05  # Seconds, into which a time line is cut.


@dataclass
class Tally:
    """What happened to the callers; *lines* holds, for each bin in which calls began, the seconds that they took."""

    calls: int = 0
    waited: int = 0
    answered: int = 0
    errors: int = 0
    lines: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def follow(self, call: Call, start: float) -> None:
        """Make one call and note how it goes; the time line begins at *start*."""
        self.calls += 1
        driven = _Driven(call())
        began = time.perf_counter()
        try:
            await driven
            self.answered += 1
        except Exception:  # noqa: BLE001  (any error is one too many, whatever it is)
            self.errors += 1
        finally:
            self.waited += driven.waited
            self.lines[int((began - start) / BIN)].append(time.perf_counter() - began)

    def summary(self) -> dict[str, Any]:
        """Return all that there is to say, as JSON can hold it: of each bin its number, calls, p99 and longest call."""
        every = sorted(seconds for line in self.lines.values() for seconds in line)
        return {
            "calls": self.calls,
            "waited": self.waited,
            "answered": self.answered,
            "errors": self.errors,
            "longest": every[-1],
            "p99": _p99(every),
            "lines": [[bin_, len(line), _p99(sorted(line)), max(line)] for bin_, line in sorted(self.lines.items())],
        }


class _Driven(Generator[Any, Any, object]):
    """Drives a coroutine step by step, and so knows whether it ever waited, which no clock can tell as surely."""

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._coroutine = coroutine
        self.waited = False

    def __await__(self) -> Self:
        return self

    def send(self, value: Any) -> Any:
        pending = self._coroutine.send(value)  # Raises StopIteration at the end, so what follows is a wait.
        self.waited = True
        return pending

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)


async def load(call: Call, rate: int, seconds: float) -> Tally:
    """Call *rate* times a second for so many *seconds*; who has no answer half a second later gets none."""
    tally = Tally()
    running: set[asyncio.Task[None]] = set()
    began, begun = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(int(passed * rate) - begun):
            begun += 1
            task = asyncio.create_task(tally.follow(call, began))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.001)
    if running:
        _, late = await asyncio.wait(running, timeout=0.5)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return tally


def _p99(ordered: list[float]) -> float:
    return ordered[int(len(ordered) * 0.99)]
