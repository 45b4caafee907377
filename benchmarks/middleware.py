"""Measure what authorising a request costs while a token is held, and how much of a request that is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from _authorising import AZURE_RESOURCE, POLICY, RESOURCE, WILD
from _contenders import source
from _rivals import Rival, rivals
from _support import Endpoint, Report, at_least, at_most, spread, without_collector

from aiomsi import BearerAuth, TokenProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from _support import Cell

_LIBRARIES = ("aiomsi", "azure-core")
_BARE, _HEADER = "bare", "with the header"
_NOTHING, _AUTH = "with the header and a middleware", "with BearerAuth"
_TARGET = 1_000  # Nanoseconds.
_SHARE_TARGET = 2  # Per cent of a bare request.


async def _spin_session(subject: aiohttp.ClientSession, url: str, _send: object, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        async with subject.get(url) as response:
            await response.read()
    return time.perf_counter() - began


class _Server(asyncio.Protocol):
    """A server that costs next to nothing, so that what is measured is the client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer whatever is asked."""
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A request that gets a token, while one is held")
    rounds = 5 if report.quick else 25
    with Endpoint() as endpoint:
        with rivals(_LIBRARIES, "_authorising.py") as company:
            first = endpoint.count()
            added = _in_process(report, company, rounds)
            _requests(report, first, endpoint.count())
        asyncio.run(_on_loopback(report, endpoint, added, rounds))
    return report.finish()


def _requests(report: Report, first: Mapping[str, int], warm: Mapping[str, int]) -> None:
    report.expect("requests by aiomsi for its first token", first.get(RESOURCE, 0), least=1, most=1)
    report.expect("requests by aiomsi while it is held", warm.get(RESOURCE, 0), least=0, most=0)
    rows: list[dict[str, Cell]] = [
        {"who": who, "first token": first.get(resource, 0), "while it is held": warm.get(resource, 0)}
        for who, resource in zip(_LIBRARIES, (RESOURCE, AZURE_RESOURCE), strict=True)
    ]
    report.table("requests made for tokens", rows)


def _in_process(report: Report, company: Mapping[str, Rival], rounds: int) -> float:
    """Measure without sending anything, and return the nanoseconds that a wildcard takes."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for rival in company.values():
            for name, each in rival.order("measure").items():
                seconds[name].append(each)
    report.table(f"without sending it, which is subtracted (medians of {rounds})", [_row(n, seconds) for n in seconds])
    return median(seconds[WILD]) * 1e9


def _row(name: str, seconds: Mapping[str, list[float]]) -> dict[str, Cell]:
    ratio = median(mine / ours for mine, ours in zip(seconds[name], seconds[WILD], strict=True))
    nanoseconds = median(seconds[name]) * 1e9
    target = f"over 2: {at_least(ratio, 2).split()[-1]}" if name == POLICY else at_most(nanoseconds, _TARGET, " ns")
    return {
        "x wildcard": ratio,
        "who": name,
        "ns": nanoseconds,
        "spread %": spread(seconds[name]),
        "target": target,
    }


async def _on_loopback(report: Report, endpoint: Endpoint, added: float, rounds: int) -> None:
    """Measure real requests: bare, with the same header, and with somebody to put it there, in turn."""
    calls = 100 if report.quick else 400
    seconds: dict[str, list[float]] = defaultdict(list)
    async with TokenProvider(source(endpoint)) as provider, _server() as url, AsyncExitStack() as stack:
        header = {"Authorization": f"Bearer {await provider.token(RESOURCE)}"}
        auth = BearerAuth(provider, {url: RESOURCE}, allow_http_on_loopback=True)
        options: dict[str, dict[str, Any]] = {
            _BARE: {},
            _HEADER: {"headers": header},
            _NOTHING: {"headers": header, "middlewares": [_do_nothing]},
            _AUTH: {"middlewares": [auth]},
        }
        sessions = {
            name: await stack.enter_async_context(aiohttp.ClientSession(**each)) for name, each in options.items()
        }
        for number in range(2 * rounds + 1):
            for name, session in sessions.items():
                with without_collector():
                    took = await _spin_session(session, url, None, calls) / calls
                if number:
                    seconds[name].append(took)
    report.table(f"a request on loopback (medians of {2 * rounds})", _loopback_rows(seconds, added))


def _loopback_rows(seconds: Mapping[str, list[float]], added: float) -> list[dict[str, Cell]]:
    share = added / (median(seconds[_BARE]) * 1e9) * 100
    return [
        {
            "x bare": median(mine / bare for mine, bare in zip(times, seconds[_BARE], strict=True)),
            "request": name,
            "us": median(times) * 1e6,
            "spread %": spread(times),
            "of it the above": f"{share:.2f} %" if name == _AUTH else None,
            "target": at_most(share, _SHARE_TARGET, " %") if name == _AUTH else None,
        }
        for name, times in seconds.items()
    ]


async def _do_nothing(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    return await handler(request)


@asynccontextmanager
async def _server() -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
