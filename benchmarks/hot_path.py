"""Measure what a call costs when a token is held."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from _contenders import source
from _support import Endpoint, Report, at_least, at_most, spread, without_collector
from azure.identity.aio import ManagedIdentityCredential, get_bearer_token_provider

from aiomsi import TokenProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from _support import Cell

    Loops: TypeAlias = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]
    Spin: TypeAlias = Callable[[Any, str, int], Coroutine[Any, Any, float]]

_RESOURCE = "https://vault.azure.net"
_AZURE_RESOURCE = "https://queue.azure.net"  # Another one, so that the endpoint's count tells who asked.
_SCOPE = f"{_AZURE_RESOURCE}/.default"
_CALLS = 100_000
_SLOW_CALLS = 4_000  # Of what takes 100 times as long.

_EMPTY, _TOKEN, _PEEK = "empty coroutine method", "aiomsi: await token", "aiomsi: peek"
_GET_TOKEN, _BEARER = "azure: get_token", "azure: bearer provider"


class _Empty:
    async def empty(self, resource: str) -> None:
        """Do nothing: the least that an awaited method can cost."""


# One function each, all with the same loop: the interpreter specialises each call where it stands, and a shared loop
# that calls whatever it is given would be specialised for the first of them.


async def _spin_empty(subject: _Empty, resource: str, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject.empty(resource)
    return time.perf_counter() - began


async def _spin_token(subject: TokenProvider, resource: str, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject.token(resource)
    return time.perf_counter() - began


async def _spin_peek(subject: TokenProvider, resource: str, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        subject.peek(resource)
    return time.perf_counter() - began


async def _spin_get_token(subject: Any, scope: str, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject.get_token(scope)
    return time.perf_counter() - began


async def _spin_bearer(subject: Callable[[], Awaitable[str]], _scope: str, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject()
    return time.perf_counter() - began


async def _spin_nothing(calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        pass
    return time.perf_counter() - began


class _Warm:
    """Everybody with a token in hand, on one event loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._spins: dict[str, tuple[Spin, Any, str, int]] = {}

    def open(self, endpoint: Endpoint) -> None:
        """Fetch the tokens."""
        provider, credential = TokenProvider(source(endpoint)), ManagedIdentityCredential()
        bearer = get_bearer_token_provider(credential, _SCOPE)
        self._spins = {
            _EMPTY: (_spin_empty, _Empty(), _RESOURCE, _CALLS),
            _TOKEN: (_spin_token, provider, _RESOURCE, _CALLS),
            _PEEK: (_spin_peek, provider, _RESOURCE, _CALLS),
            _GET_TOKEN: (_spin_get_token, credential, _SCOPE, _SLOW_CALLS),
            _BEARER: (_spin_bearer, bearer, _SCOPE, _SLOW_CALLS),
        }
        self._close = (provider.aclose, credential.close)
        for spin, subject, resource, _ in self._spins.values():
            self._runner.run(spin(subject, resource, 100))

    def measure(self) -> dict[str, float]:
        """Return the seconds of one call each; the loop around the calls is not counted."""
        return self._runner.run(self._measure())

    async def _measure(self) -> dict[str, float]:
        seconds = {}
        for name, (spin, subject, resource, calls) in self._spins.items():
            with without_collector():
                seconds[name] = (await spin(subject, resource, calls) - await _spin_nothing(calls)) / calls
        return seconds

    def close(self) -> None:
        """Let go of the connections."""
        for close in self._close:
            self._runner.run(close())
        self._runner.close()


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A call while a token is held")
    with Endpoint() as endpoint:
        warm = {name: _Warm(asyncio.Runner(loop_factory=factory)) for name, factory in _loops().items()}
        for loop in warm.values():
            loop.open(endpoint)
        cold_count = endpoint.count()
        _calls(report, warm, 5 if report.quick else 25)
        warm_count = endpoint.count()
        for loop in warm.values():
            loop.close()
    _requests(report, cold_count, warm_count, len(warm))
    return report.finish()


def _requests(report: Report, cold: Mapping[str, int], warm: Mapping[str, int], loops: int) -> None:
    report.expect("requests by aiomsi for its first tokens", cold.get(_RESOURCE, 0), least=loops, most=loops)
    report.expect("requests by aiomsi in warm calls", warm.get(_RESOURCE, 0), least=0, most=0)
    rows: list[dict[str, Cell]] = [
        {"who": who, "first tokens": cold.get(resource, 0), "expected": loops, "warm calls": warm.get(resource, 0)}
        for who, resource in (("aiomsi", _RESOURCE), ("azure", _AZURE_RESOURCE))
    ]
    report.table("requests made, on all event loops", rows)


def _loops() -> Loops:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop  # noqa: PLC0415  (not for every system)
    except ImportError:
        return loops
    return loops | {"uvloop": uvloop.new_event_loop}


def _calls(report: Report, warm: Mapping[str, _Warm], rounds: int) -> None:
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for name, loop in warm.items():
            seconds[name].append(loop.measure())
    for name, measured in seconds.items():
        rows = [_call_row(call, measured) for call in measured[0]]
        report.table(f"a warm call on {name} (medians of {rounds})", rows)


def _call_row(call: str, measured: list[dict[str, float]]) -> dict[str, Cell]:
    ratio = median(times[call] / times[_EMPTY] for times in measured)
    target = {
        _TOKEN: at_most(ratio, 2.5),
        _PEEK: at_most(ratio, 1.7),
        _GET_TOKEN: "over 100: " + at_least(ratio, 100).split()[-1],
        _BEARER: "over 60: " + at_least(ratio, 60).split()[-1],
    }
    nanoseconds = median(times[call] for times in measured) * 1e9
    return {
        "x empty await": ratio,
        "call": call,
        "ns": nanoseconds,
        "spread %": spread([times[call] for times in measured]),
        "target": target.get(call),
    }


if __name__ == "__main__":
    sys.exit(main())
