"""Measure what authorising a request costs while a token is held, and how much of a request that is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import aiohttp
from _contenders import source
from _support import Endpoint, Report, at_least, at_most, spread, without_collector
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.rest import HttpRequest
from azure.identity.aio import ManagedIdentityCredential
from yarl import URL

from aiomsi import BearerAuth, TokenProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from _support import Cell

    Spin: TypeAlias = Callable[[Any, Any, Any, int], Coroutine[Any, Any, float]]

_RESOURCE = "https://vault.azure.net"
_AZURE_RESOURCE = "https://queue.azure.net"  # Another one, so that the endpoint's count tells who asked.
_CALLS = 20_000
_SLOW_CALLS = 2_000

_EXACT, _WILD = "aiomsi: BearerAuth, an origin", "aiomsi: BearerAuth, a wildcard"
_OTHER, _POLICY = "aiomsi: BearerAuth, not mapped", "azure-core: bearer token policy"
_BARE, _HEADER = "bare", "with the header"
_NOTHING, _AUTH = "with the header and a middleware", "with BearerAuth"
_TARGET = 1_000  # Nanoseconds.
_SHARE_TARGET = 2  # Per cent of a bare request.


class _Sent:
    """What comes of a request that is not sent: an answer, to aiohttp and to azure-core."""

    status = 200
    http_response = SimpleNamespace(status_code=200)

    async def send(self, _: object) -> _Sent:
        """Do nothing: the least that sending can cost."""
        return self


# One function each, since the interpreter specialises each call where it stands; the first is what is subtracted.


async def _spin_nothing(_subject: object, request: object, send: Any, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await send(request)
    return time.perf_counter() - began


async def _spin_exact(subject: BearerAuth, request: aiohttp.ClientRequest, send: Any, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject(request, send)
    return time.perf_counter() - began


async def _spin_wild(subject: BearerAuth, request: aiohttp.ClientRequest, send: Any, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject(request, send)
    return time.perf_counter() - began


async def _spin_other(subject: BearerAuth, request: aiohttp.ClientRequest, send: Any, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject(request, send)
    return time.perf_counter() - began


async def _spin_policy(subject: Any, request: Any, _send: object, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await subject.send(request)
    return time.perf_counter() - began


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
    with Endpoint() as endpoint:
        asyncio.run(_measure(report, endpoint, 5 if report.quick else 25))
    return report.finish()


async def _measure(report: Report, endpoint: Endpoint, rounds: int) -> None:
    async with TokenProvider(source(endpoint)) as provider, ManagedIdentityCredential() as credential:
        await provider.token(_RESOURCE)
        policy: Any = AsyncBearerTokenCredentialPolicy(credential, f"{_AZURE_RESOURCE}/.default")
        policy.next = _Sent()
        await policy.send(_azure_request())
        first = endpoint.count()
        added = await _in_process(report, provider, policy, rounds)
        await _on_loopback(report, provider, added, rounds)
    _requests(report, first, endpoint.count())


def _requests(report: Report, first: Mapping[str, int], warm: Mapping[str, int]) -> None:
    report.expect("requests by aiomsi for its first token", first.get(_RESOURCE, 0), least=1, most=1)
    report.expect("requests by aiomsi while it is held", warm.get(_RESOURCE, 0), least=0, most=0)
    rows: list[dict[str, Cell]] = [
        {"who": who, "first token": first.get(resource, 0), "while it is held": warm.get(resource, 0)}
        for who, resource in (("aiomsi", _RESOURCE), ("azure-core", _AZURE_RESOURCE))
    ]
    report.table("requests made for tokens", rows)


async def _in_process(report: Report, provider: TokenProvider, policy: Any, rounds: int) -> float:
    """Measure without sending anything, and return the nanoseconds that a wildcard takes."""
    sent = _Sent()
    auth = BearerAuth(provider, {"https://my.vault.azure.net": _RESOURCE, "https://*.vault.azure.net": _RESOURCE})
    spins: dict[str, tuple[Spin, Any, Any, int]] = {
        _EXACT: (_spin_exact, auth, _request("https://my.vault.azure.net/secrets/a"), _CALLS),
        _WILD: (_spin_wild, auth, _request("https://other.vault.azure.net/secrets/a"), _CALLS),
        _OTHER: (_spin_other, auth, _request("https://a.example/"), _CALLS),
        _POLICY: (_spin_policy, policy, _azure_request(), _SLOW_CALLS),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, (spin, subject, request, calls) in spins.items():
            with without_collector():
                took = await spin(subject, request, sent.send, calls)
                seconds[name].append((took - await _spin_nothing(subject, request, sent.send, calls)) / calls)
    report.table(f"without sending it, which is subtracted (medians of {rounds})", [_row(n, seconds) for n in spins])
    return median(seconds[_WILD]) * 1e9


def _row(name: str, seconds: Mapping[str, list[float]]) -> dict[str, Cell]:
    ratio = median(mine / ours for mine, ours in zip(seconds[name], seconds[_WILD], strict=True))
    nanoseconds = median(seconds[name]) * 1e9
    target = f"over 2: {at_least(ratio, 2).split()[-1]}" if name == _POLICY else at_most(nanoseconds, _TARGET, " ns")
    return {
        "x wildcard": ratio,
        "who": name,
        "ns": nanoseconds,
        "spread %": spread(seconds[name]),
        "target": target,
    }


async def _on_loopback(report: Report, provider: TokenProvider, added: float, rounds: int) -> None:
    """Measure real requests: bare, with the same header, and with somebody to put it there, in turn."""
    calls = 100 if report.quick else 400
    header = {"Authorization": f"Bearer {await provider.token(_RESOURCE)}"}
    seconds: dict[str, list[float]] = defaultdict(list)
    async with _server() as url, AsyncExitStack() as stack:
        auth = BearerAuth(provider, {url: _RESOURCE}, allow_http_on_loopback=True)
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
    share = added / (median(seconds[_BARE]) * 1e9) * 100
    rows: list[dict[str, Cell]] = [
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
    report.table(f"a request on loopback (medians of {2 * rounds})", rows)


async def _do_nothing(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    return await handler(request)


@asynccontextmanager
async def _server() -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _request(url: str) -> aiohttp.ClientRequest:
    return aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())


def _azure_request() -> Any:
    return PipelineRequest(HttpRequest("GET", "https://my.vault.azure.net/secrets/a"), PipelineContext(None))


if __name__ == "__main__":
    sys.exit(main())
