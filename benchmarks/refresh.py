"""Follow every caller while a token is refreshed, while the endpoint is down, and while the wall clock is set."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from _calls import BIN, load
from _contenders import source
from _rivals import AIOMSI, BEARER, Rival, rivals
from _support import Endpoint, Report

from aiomsi import TokenProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _support import Cell

_RESOURCE = "https://vault.azure.net"
_WHO = (AIOMSI, BEARER)

# Both are given tokens that are good for a day, since azure-identity takes one with less than 300 s left for no good,
# and that say when they want to be refreshed, which both obey.

# What aiomsi's back-off allows while the endpoint is down: a fetch makes up to 4 requests, in 7 s (after 1, 2 and 4 s),
# and the next fetch follows 24 s later at the earliest. No outage here lasts that long.
_FETCH_MOST = 4

_STEPS = {"+1 h": 3_600.0, "-1 h": -3_600.0}


@dataclass(frozen=True)
class _Pace:
    """How hard and how long; all but *rate* (calls per second) in seconds."""

    rate: int
    refresh_in: int
    latency: float
    outage: float


_FULL = _Pace(rate=2_000, refresh_in=2, latency=1.0, outage=8.0)
_QUICK = _Pace(rate=500, refresh_in=1, latency=0.15, outage=0.2)
_REST = 0.2  # Seconds of calls after a refresh.


@dataclass
class _SetClock:
    """This machine's clocks, of which somebody sets the one on the wall."""

    offset: float = 0.0
    monotonic: Callable[[], float] = field(default=time.monotonic)

    def wall(self) -> float:
        """Return what it shows."""
        return time.time() + self.offset

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Wait on the event loop, which knows nothing of the wall."""
        return asyncio.get_running_loop().call_later(delay, callback)


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("Calls without a pause while a token is refreshed")
    pace = _QUICK if report.quick else _FULL
    with Endpoint() as endpoint, rivals(_WHO) as company:
        _refreshes(report, endpoint, company, pace)
        _outages(report, endpoint, company, pace)
        asyncio.run(_clock_steps(report, endpoint, pace))
    return report.finish()


def _refreshes(report: Report, endpoint: Endpoint, company: Mapping[str, Rival], pace: _Pace) -> None:
    rows, went = [], {}
    for name, rival in company.items():
        _first_token(endpoint, rival, pace)
        endpoint.latency(pace.latency)
        went[name] = rival.order("load", rate=pace.rate, seconds=pace.refresh_in + pace.latency + _REST)
        requests = _total(endpoint)
        rival.order("drop")
        rows.append(_row(name, went[name], requests, "1"))
        if name == AIOMSI:
            _expect_nobody_noticed(report, "during a refresh", went[name])
            report.expect("requests by aiomsi for one refresh", requests, least=1, most=1)
    report.table(f"one refresh that takes {pace.latency:g} s, at {pace.rate:,} calls/s", rows)
    report.keep("time line of the refresh, by the moment at which calls began", _time_line(went))


def _outages(report: Report, endpoint: Endpoint, company: Mapping[str, Rival], pace: _Pace) -> None:
    rows, went = [], {}
    for name, rival in company.items():
        _first_token(endpoint, rival, pace)
        endpoint.fail(on=True)
        went[name] = rival.order("load", rate=pace.rate, seconds=pace.refresh_in + pace.outage)
        requests = _total(endpoint)
        endpoint.fail(on=False)
        rival.order("drop")
        rows.append(_row(name, went[name], requests, f"1 to {_FETCH_MOST}" if name == AIOMSI else None))
        if name == AIOMSI:
            _expect_nobody_noticed(report, "during an outage", went[name])
            report.expect("requests by aiomsi during an outage", requests, least=1, most=_FETCH_MOST)
    report.table(f"the refresh meets an outage of {pace.outage:g} s, the token is good for a day", rows)
    report.keep("time line of the outage, by the moment at which calls began", _time_line(went))


def _first_token(endpoint: Endpoint, rival: Rival, pace: _Pace) -> None:
    endpoint.latency(0)
    endpoint.tokens(_RESOURCE, pace.refresh_in, 3600)
    rival.order("hold", resource=_RESOURCE)
    endpoint.count()


async def _clock_steps(report: Report, endpoint: Endpoint, pace: _Pace) -> None:
    """Set the clock while calls go on. Not for azure-identity, which asks the process's clock and takes no other."""
    endpoint.latency(0)
    endpoint.tokens(_RESOURCE, *[pace.refresh_in] * len(_STEPS), *[3600] * len(_STEPS))
    went = await asyncio.gather(*(_clock_step(endpoint, pace, step) for step in _STEPS))
    counts = endpoint.count()
    rows: list[dict[str, Cell]] = []
    for step, summary in zip(_STEPS, went, strict=True):
        requests = counts[_resource_of(step)] - 1
        row: dict[str, Cell] = {"step": step}
        rows.append(row | _row(AIOMSI, summary, requests, "1"))
        _expect_nobody_noticed(report, f"while the clock is set by {step}", summary)
        report.expect(f"requests by aiomsi while the clock is set by {step}", requests, least=1, most=1)
    report.table("the wall clock is set before a refresh is due", rows)


async def _clock_step(endpoint: Endpoint, pace: _Pace, step: str) -> dict[str, Any]:
    clock = _SetClock()
    async with TokenProvider(source(endpoint), clock=clock) as provider:
        call = partial(provider.token, _resource_of(step))
        await call()
        endpoint.latency(pace.latency)
        asyncio.get_running_loop().call_later(pace.refresh_in / 4, setattr, clock, "offset", _STEPS[step])
        return (await load(call, pace.rate, pace.refresh_in + pace.latency)).summary()


def _resource_of(step: str) -> str:
    return f"https://clock{step.replace(' ', '')}.example"


def _total(endpoint: Endpoint) -> int:
    return sum(endpoint.count().values())


def _expect_nobody_noticed(report: Report, when: str, went: Mapping[str, Any]) -> None:
    report.expect(f"callers of aiomsi who waited {when}", went["waited"], least=0, most=0)
    report.expect(f"errors seen by callers of aiomsi {when}", went["errors"], least=0, most=0)
    report.expect(f"callers of aiomsi without an answer {when}", went["calls"] - went["answered"], least=0, most=0)


def _row(name: str, went: Mapping[str, Any], requests: int, expected: str | None) -> dict[str, Cell]:
    return {
        "waited %": 100 * went["waited"] / went["calls"],
        "who": name,
        "calls": went["calls"],
        "waited": went["waited"],
        "errors": went["errors"],
        "unanswered": went["calls"] - went["answered"] - went["errors"],
        "requests": requests,
        "expected": expected,
        "p99 ms": went["p99"] * 1e3,
        "longest call ms": went["longest"] * 1e3,
    }


def _time_line(went: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Cell]]:
    lines = {name: {number: rest for number, *rest in tally["lines"]} for name, tally in went.items()}
    rows: list[dict[str, Cell]] = []
    for number in sorted(set[int]().union(*lines.values())):
        row: dict[str, Cell] = {"ms": round(number * BIN * 1e3)}
        for name, line in lines.items():
            calls, p99, longest = line.get(number, (0, None, None))
            row[f"{name} calls"] = calls
            row[f"{name} p99 ms"] = None if p99 is None else p99 * 1e3
            row[f"{name} max ms"] = None if longest is None else longest * 1e3
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
