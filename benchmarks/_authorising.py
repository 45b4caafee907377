"""What one library takes to authorise a request that is not sent, while a token is held: `_authorising.py aiomsi`.

It measures on demand (see `_on_demand.py`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from _on_demand import measure_on_demand
from _support import without_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager

    import aiohttp
    from _on_demand import Measure

    from aiomsi import BearerAuth

    Spin: TypeAlias = Callable[[Any, Any, Any, int], Coroutine[Any, Any, float]]
    Spins: TypeAlias = Mapping[str, tuple[Spin, Any, Any, int]]  # With the subject, the request, and how often.

__all__ = ["AZURE_RESOURCE", "EXACT", "OTHER", "POLICY", "RESOURCE", "WILD"]

RESOURCE = "https://vault.azure.net"
AZURE_RESOURCE = "https://queue.azure.net"  # Another one, so that the endpoint's count tells who asked.
EXACT, WILD = "aiomsi: BearerAuth, an origin", "aiomsi: BearerAuth, a wildcard"
OTHER, POLICY = "aiomsi: BearerAuth, not mapped", "azure-core: bearer token policy"

_CALLS = 20_000
_SLOW_CALLS = 2_000


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


@asynccontextmanager
async def _aiomsi() -> AsyncIterator[Measure]:
    import aiohttp  # noqa: PLC0415  (nobody's process holds what is another's)
    from _contenders import source_here  # noqa: PLC0415  (as above)
    from yarl import URL  # noqa: PLC0415  (as above)

    from aiomsi import BearerAuth, TokenProvider  # noqa: PLC0415  (as above)

    def request(url: str) -> aiohttp.ClientRequest:
        return aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())

    async with TokenProvider(source_here()) as provider:
        await provider.token(RESOURCE)
        auth = BearerAuth(provider, {"https://my.vault.azure.net": RESOURCE, "https://*.vault.azure.net": RESOURCE})
        spins: Spins = {
            EXACT: (_spin_exact, auth, request("https://my.vault.azure.net/secrets/a"), _CALLS),
            WILD: (_spin_wild, auth, request("https://other.vault.azure.net/secrets/a"), _CALLS),
            OTHER: (_spin_other, auth, request("https://a.example/"), _CALLS),
        }
        yield partial(_measure, spins)


@asynccontextmanager
async def _azure() -> AsyncIterator[Measure]:
    from azure.core.pipeline import PipelineContext, PipelineRequest  # noqa: PLC0415  (as above)
    from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy  # noqa: PLC0415  (as above)
    from azure.core.rest import HttpRequest  # noqa: PLC0415  (as above)
    from azure.identity.aio import ManagedIdentityCredential  # noqa: PLC0415  (as above)

    async with ManagedIdentityCredential() as credential:
        policy: Any = AsyncBearerTokenCredentialPolicy(credential, f"{AZURE_RESOURCE}/.default")
        policy.next = _Sent()
        request: Any = PipelineRequest(
            HttpRequest("GET", "https://my.vault.azure.net/secrets/a"), PipelineContext(None)
        )
        await policy.send(request)
        yield partial(_measure, {POLICY: (_spin_policy, policy, request, _SLOW_CALLS)})


_LIBRARIES: Mapping[str, Callable[[], AbstractAsyncContextManager[Measure]]] = {"aiomsi": _aiomsi, "azure-core": _azure}


async def _measure(spins: Spins) -> dict[str, float]:
    """Return the seconds of one request each, without what sending it takes."""
    seconds, sent = {}, _Sent()
    for name, (spin, subject, request, calls) in spins.items():
        with without_collector():
            took = await spin(subject, request, sent.send, calls)
            seconds[name] = (took - await _spin_nothing(subject, request, sent.send, calls)) / calls
    return seconds


if __name__ == "__main__":
    measure_on_demand(_LIBRARIES[sys.argv[1]]())
