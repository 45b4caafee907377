"""Calls with a token in hand, of one library on one event loop: `_warm.py "aiomsi on asyncio"`.

It measures on demand (see `_on_demand.py`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from _on_demand import measure_on_demand
from _support import without_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager

    from _on_demand import Measure

    from aiomsi import TokenProvider

    Spin: TypeAlias = Callable[[Any, str, int], Coroutine[Any, Any, float]]
    Spins: TypeAlias = Mapping[str, tuple[Spin, Any, str, int]]  # With the subject, its argument, and how often.

__all__ = ["AZURE_RESOURCE", "BEARER", "EMPTY", "GET_TOKEN", "PEEK", "RESOURCE", "TOKEN"]

RESOURCE = "https://vault.azure.net"
AZURE_RESOURCE = "https://queue.azure.net"  # Another one, so that the endpoint's count tells who asked.
EMPTY, TOKEN, PEEK = "empty coroutine method", "aiomsi: await token", "aiomsi: peek"
GET_TOKEN, BEARER = "azure: get_token", "azure: bearer provider"

_SCOPE = f"{AZURE_RESOURCE}/.default"
_CALLS = 100_000
_SLOW_CALLS = 4_000  # Of what takes 100 times as long.


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


@asynccontextmanager
async def _aiomsi() -> AsyncIterator[Spins]:
    from _contenders import source_here  # noqa: PLC0415  (nobody's process holds what is another's)

    from aiomsi import TokenProvider  # noqa: PLC0415  (as above)

    async with TokenProvider(source_here()) as provider:
        yield {TOKEN: (_spin_token, provider, RESOURCE, _CALLS), PEEK: (_spin_peek, provider, RESOURCE, _CALLS)}


@asynccontextmanager
async def _azure() -> AsyncIterator[Spins]:
    from azure.identity.aio import ManagedIdentityCredential, get_bearer_token_provider  # noqa: PLC0415  (as above)

    async with ManagedIdentityCredential() as credential:
        yield {
            GET_TOKEN: (_spin_get_token, credential, _SCOPE, _SLOW_CALLS),
            BEARER: (_spin_bearer, get_bearer_token_provider(credential, _SCOPE), _SCOPE, _SLOW_CALLS),
        }


_LIBRARIES: Mapping[str, Callable[[], AbstractAsyncContextManager[Spins]]] = {"aiomsi": _aiomsi, "azure": _azure}


def main() -> None:
    """Measure until standard input ends."""
    library, _, loop = sys.argv[1].split()
    measure_on_demand(_opened(_LIBRARIES[library]()), _factory(loop))


def _factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415  (not for every system)

    return uvloop.new_event_loop


@asynccontextmanager
async def _opened(library: AbstractAsyncContextManager[Spins]) -> AsyncIterator[Measure]:
    """Fetch the tokens; everybody has the same control, in the same process."""
    async with library as calls:
        spins: Spins = {EMPTY: (_spin_empty, _Empty(), RESOURCE, _CALLS), **calls}
        for spin, subject, resource, _ in spins.values():
            await spin(subject, resource, 100)
        yield partial(_measure, spins)


async def _measure(spins: Spins) -> dict[str, float]:
    """Return the seconds of one call each; the loop around the calls is not counted."""
    seconds = {}
    for name, (spin, subject, resource, calls) in spins.items():
        with without_collector():
            seconds[name] = (await spin(subject, resource, calls) - await _spin_nothing(calls)) / calls
    return seconds


if __name__ == "__main__":
    main()
