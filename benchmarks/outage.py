"""Count what callers and the endpoint see of an outage of ten minutes, in simulated time.

It is the real code of both, on a loop whose time leaps (see `_simulated_time.py`), with the endpoint on the same one,
which answers every request at once with 500. Callers have patience without end.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from unittest.mock import patch

from _contenders import bearer_token_provider, source
from _rivals import AIOMSI, BEARER
from _simulated_time import simulated
from _support import Report

from aiomsi import TokenProvider
from aiomsi.endpoint import Answer, IdentityEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from _contenders import Call
    from _simulated_time import LoopClock
    from _support import Cell

    Opening: TypeAlias = Callable[["_Host"], AbstractAsyncContextManager[list[Call]]]

_RESOURCE = "https://vault.azure.net"
_OUTAGE = 600
_AFTER = 60  # Seconds in which to come back.
_REFRESH_IN = 60  # Seconds into the outage.
_SEED = 1


@dataclass
class _Host:
    """An endpoint in this process, and the time."""

    environ: dict[str, str]
    clock: LoopClock


@asynccontextmanager
async def _aiomsi(host: _Host) -> AsyncIterator[list[Call]]:
    async with TokenProvider(source(host), clock=host.clock) as provider:
        yield [partial(provider.token, _RESOURCE)]


@asynccontextmanager
async def _bearer(host: _Host) -> AsyncIterator[list[Call]]:
    with patch.dict(os.environ, host.environ):
        async with bearer_token_provider(host, [_RESOURCE]) as calls:
            yield calls


CONTENDERS: Mapping[str, Opening] = {AIOMSI: _aiomsi, BEARER: _bearer}


@dataclass
class _Seen:
    """What became of the calls that began in the outage, in seconds since then; later ones only show its end."""

    calls: int = 0
    answered: int = 0
    waited: int = 0
    longest: float = 0.0
    back: float | None = None  # When a call first got a token after the end of the outage.
    errors: Counter[int] = field(default_factory=Counter)  # By second.
    attempts: Counter[int] = field(default_factory=Counter)

    async def follow(self, call: Call, clock: LoopClock, start: float) -> None:
        """Make one call."""
        began = clock.monotonic()
        counts = began - start < _OUTAGE
        self.calls += counts
        try:
            await call()
            self.answered += counts
            if self.back is None and clock.monotonic() - start >= _OUTAGE:
                self.back = clock.monotonic() - start - _OUTAGE
        except Exception:  # noqa: BLE001  (any error is one too many, whatever it is)
            self.errors[int(clock.monotonic() - start)] += counts
        took = clock.monotonic() - began
        self.waited += counts and took > 0
        self.longest = max(self.longest, took if counts else 0.0)


def main() -> int:
    """Simulate, print, and return the exit code."""
    report = Report.from_command_line("An outage of ten minutes, under steady calls")
    rate = 10 if report.quick else 100
    for holding in (True, False):
        seen = {name: simulate(opened, rate, holding=holding) for name, opened in CONTENDERS.items()}
        _expect(report, seen[AIOMSI], holding=holding)
        held = "a token is held" if holding else "no token is held"
        report.table(f"{held}, at {rate} calls/s", [_row(name, each) for name, each in seen.items()])
        report.keep(f"time line while {held}", _time_line(seen))
    return report.finish()


def simulate(opened: Opening, rate: int, *, holding: bool) -> _Seen:
    """Let an outage pass under so many calls per second."""
    random.seed(_SEED)
    with simulated() as (runner, clock):
        return runner.run(_run(opened, clock, rate, holding=holding))


async def _run(opened: Opening, clock: LoopClock, rate: int, *, holding: bool) -> _Seen:
    async with IdentityEndpoint() as endpoint, opened(_Host(endpoint.environ("app_service"), clock)) as (call,):
        if holding:
            endpoint.script(Answer(body=_token(clock.wall())))
            await call()
        endpoint.requests.clear()
        endpoint.script(then=Answer(500))
        seen, running = _Seen(), set[asyncio.Task[None]]()
        start = clock.monotonic()
        for number in range(rate * (_OUTAGE + _AFTER)):
            if number == rate * _OUTAGE:
                endpoint.script(then=None)
            task = asyncio.create_task(seen.follow(call, clock, start))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(start + (number + 1) / rate - clock.monotonic())
            if number < rate * _OUTAGE:
                seen.attempts[number // rate] += len(endpoint.requests)
            endpoint.requests.clear()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return seen


def _token(now: float) -> dict[str, object]:
    body = {"access_token": "token-0", "token_type": "Bearer", "resource": _RESOURCE}
    return body | {"expires_on": str(int(now) + 86_400), "refresh_in": _REFRESH_IN}


def _expect(report: Report, seen: _Seen, *, holding: bool) -> None:
    if holding:
        report.expect("callers of aiomsi who waited", seen.waited, least=0, most=0)
        report.expect("errors seen by callers of aiomsi", seen.errors.total(), least=0, most=0)
        report.expect("callers of aiomsi with a token", seen.answered, least=seen.calls, most=seen.calls)
    # A fetch makes up to 4 requests, in 7 s. While a token is held the waits after it are 30, 60, 120, 240 and 300 s, a
    # fifth more or less; without one 1, 2, 4, 8, 16 and then 30 s.
    fetches = (5, 6) if holding else (19, 20)
    requests = seen.attempts.total()
    report.expect("requests by aiomsi in the outage", requests, least=4 * fetches[0] - 3, most=4 * fetches[1])
    report.expect("aiomsi's requests in the worst second", max(seen.attempts.values()), least=1, most=2)


def _row(name: str, seen: _Seen) -> dict[str, Cell]:
    return {
        "errors %": 100 * seen.errors.total() / seen.calls,
        "waited %": 100 * seen.waited / seen.calls,
        "who": name,
        "calls": seen.calls,
        "errors": seen.errors.total(),
        "waited": seen.waited,
        "unanswered": seen.calls - seen.answered - seen.errors.total(),
        "requests": seen.attempts.total(),
        "requests/s": seen.attempts.total() / _OUTAGE,
        "worst second": max(seen.attempts.values()),
        "longest call s": seen.longest,
        "back after s": seen.back,
    }


def _time_line(seen: Mapping[str, _Seen]) -> list[dict[str, Cell]]:
    """Return the sums of every ten seconds."""
    rows: list[dict[str, Cell]] = []
    for ten in range(0, _OUTAGE, 10):
        row: dict[str, Cell] = {"s": ten}
        for name, each in seen.items():
            row[f"{name} requests"] = sum(each.attempts[second] for second in range(ten, ten + 10))
            row[f"{name} errors"] = sum(each.errors[second] for second in range(ten, ten + 10))
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
