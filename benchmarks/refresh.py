"""Count who waits while a token is refreshed, and who suffers when the endpoint is down and the token still good."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from _contenders import aiomsi_token, bearer_token_provider
from _support import Endpoint, Report

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from typing import Self

    from _contenders import Call, Contender
    from _support import Cell

_RESOURCE = "https://vault.azure.net"
_OURS, _AZURE = "aiomsi", "azure bearer provider"
_CONTENDERS: Mapping[str, Contender] = {_OURS: aiomsi_token, _AZURE: bearer_token_provider}

# Both are given tokens that are good for a day, since azure-identity takes one with less than 300 s left for no good,
# and that say when they want to be refreshed, which both obey. Left out is only azure-core's jitter of up to a minute:
# it puts the refresh off, beyond the end of this run, but changes nothing of what happens then.
_JITTER = "azure.core.pipeline.policies._authentication_async.MAX_REFRESH_JITTER_SECONDS"

# What aiomsi's back-off allows while the endpoint is down: a fetch makes up to 4 requests, in 7 s (after 1, 2 and 4 s),
# and the next fetch follows 24 s later at the earliest. No outage here lasts that long.
_FETCH_MOST = 4


@dataclass(frozen=True)
class _Pace:
    """How hard and how long; all but *rate* (calls per second) in seconds."""

    rate: int
    refresh_in: int
    latency: float
    outage: float


_FULL = _Pace(rate=2_000, refresh_in=2, latency=1.0, outage=8.0)
_QUICK = _Pace(rate=500, refresh_in=1, latency=0.3, outage=0.8)


@dataclass
class _Tally:
    """What happened to the callers; *longest* is in seconds."""

    calls: int = 0
    waited: int = 0
    answered: int = 0
    errors: int = 0
    longest: float = 0.0

    async def follow(self, call: Call) -> None:
        """Make one call and note how it goes."""
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
            self.longest = max(self.longest, time.perf_counter() - began)


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


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("Calls without a pause while a token is refreshed")
    pace = _QUICK if report.quick else _FULL
    with Endpoint() as endpoint, patch(_JITTER, 0):
        asyncio.run(_refreshes(report, endpoint, pace))
        asyncio.run(_outages(report, endpoint, pace))
    return report.finish()


async def _refreshes(report: Report, endpoint: Endpoint, pace: _Pace) -> None:
    rows = []
    for name, contender in _CONTENDERS.items():
        async with contender(endpoint, [_RESOURCE]) as (call,):
            await _first_token(endpoint, call, pace)
            endpoint.latency(pace.latency)
            tally = await _load(call, pace.rate, pace.refresh_in + pace.latency + 0.5)
            requests = _total(endpoint)
        rows.append(_row(name, tally, requests, "1"))
        if name == _OURS:
            _expect_nobody_noticed(report, "during a refresh", tally)
            report.expect("requests by aiomsi for one refresh", requests, least=1, most=1)
    report.table(f"one refresh that takes {pace.latency:g} s, at {pace.rate:,} calls/s", rows)


async def _outages(report: Report, endpoint: Endpoint, pace: _Pace) -> None:
    rows = []
    for name, contender in _CONTENDERS.items():
        async with contender(endpoint, [_RESOURCE]) as (call,):
            await _first_token(endpoint, call, pace)
            endpoint.fail(on=True)
            tally = await _load(call, pace.rate, pace.refresh_in + pace.outage)
            requests = _total(endpoint)
            endpoint.fail(on=False)
        rows.append(_row(name, tally, requests, f"1 to {_FETCH_MOST}" if name == _OURS else None))
        if name == _OURS:
            _expect_nobody_noticed(report, "during an outage", tally)
            report.expect("requests by aiomsi during an outage", requests, least=1, most=_FETCH_MOST)
    report.table(f"the refresh meets an outage of {pace.outage:g} s, the token is good for a day", rows)


async def _first_token(endpoint: Endpoint, call: Call, pace: _Pace) -> None:
    endpoint.latency(0)
    endpoint.tokens(_RESOURCE, pace.refresh_in, 3600)
    await call()
    endpoint.count()


async def _load(call: Call, rate: int, seconds: float) -> _Tally:
    """Call as often as *rate* says for so many *seconds*; who has no answer half a second later gets none."""
    tally = _Tally()
    running: set[asyncio.Task[None]] = set()
    began, begun = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(int(passed * rate) - begun):
            begun += 1
            task = asyncio.create_task(tally.follow(call))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.001)
    if running:
        _, late = await asyncio.wait(running, timeout=0.5)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return tally


def _total(endpoint: Endpoint) -> int:
    return sum(endpoint.count().values())


def _expect_nobody_noticed(report: Report, when: str, tally: _Tally) -> None:
    report.expect(f"callers of aiomsi who waited {when}", tally.waited, least=0, most=0)
    report.expect(f"errors seen by callers of aiomsi {when}", tally.errors, least=0, most=0)
    report.expect(f"callers of aiomsi without an answer {when}", tally.calls - tally.answered, least=0, most=0)


def _row(name: str, tally: _Tally, requests: int, expected: str | None) -> dict[str, Cell]:
    return {
        "waited %": 100 * tally.waited / tally.calls,
        "who": name,
        "calls": tally.calls,
        "waited": tally.waited,
        "errors": tally.errors,
        "unanswered": tally.calls - tally.answered - tally.errors,
        "requests": requests,
        "expected": expected,
        "longest call ms": tally.longest * 1e3,
    }


if __name__ == "__main__":
    sys.exit(main())
