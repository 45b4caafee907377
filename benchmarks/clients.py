"""Count the requests of many Azure SDK clients that share one credential, as the SDK's documentation asks them to."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from _contenders import source
from _support import Endpoint, Report
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.rest import HttpRequest
from azure.identity.aio import ManagedIdentityCredential

from aiomsi import TokenProvider
from aiomsi.adapters.azure_core import TokenCredential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from _support import Cell

    Opening: TypeAlias = Callable[[Endpoint], AbstractAsyncContextManager[Any]]

_SCOPE = "https://vault.azure.net/.default"
_LATENCY = 0.02  # Seconds that the endpoint takes, within which all clients ask.
_CALLS = 20  # Of each client, all at once.


@asynccontextmanager
async def _ours(endpoint: Endpoint) -> AsyncIterator[TokenCredential]:
    async with TokenProvider(source(endpoint)) as provider:
        yield TokenCredential(provider)


@asynccontextmanager
async def _azure(_: Endpoint) -> AsyncIterator[Any]:
    async with ManagedIdentityCredential() as credential:
        yield credential


_OURS = "aiomsi TokenCredential"
_CREDENTIALS: Mapping[str, Opening] = {_OURS: _ours, "azure ManagedIdentityCredential": _azure}


def main() -> int:
    """Count, print, and return the exit code."""
    report = Report.from_command_line("Many Azure SDK clients on one credential, all of them cold")
    with Endpoint() as endpoint:
        endpoint.latency(_LATENCY)
        asyncio.run(_count(report, endpoint, (1, 10, 50) if report.quick else (1, 10, 50, 500)))
    return report.finish()


async def _count(report: Report, endpoint: Endpoint, sizes: tuple[int, ...]) -> None:
    rows = []
    for clients in sizes:
        for name, opened in _CREDENTIALS.items():
            endpoint.count()
            async with opened(endpoint) as credential:
                headers = await _crowd(credential, clients)
            requests = sum(endpoint.count().values())
            rows.append(_row(name, clients, headers, requests))
            if name == _OURS:
                report.expect(f"requests by {clients} clients on aiomsi", requests, least=1, most=1)
                right = sum(header.startswith("Bearer ") and header == headers[0] for header in headers)
                report.expect(f"calls of {clients} clients with aiomsi's token", right, **_exactly(clients * _CALLS))
    report.table("requests made by many Azure SDK clients that share one credential", rows)


def _exactly(number: int) -> dict[str, int]:
    return {"least": number, "most": number}


async def _crowd(credential: Any, clients: int) -> list[str]:
    """Let every client authorize its first calls at once, and return the headers."""
    policies = [AsyncBearerTokenCredentialPolicy(credential, _SCOPE) for _ in range(clients)]
    return await asyncio.gather(*(_authorized(policy) for policy in policies for _ in range(_CALLS)))


async def _authorized(policy: AsyncBearerTokenCredentialPolicy[Any, Any]) -> str:
    """Do what a client's pipeline does before it sends a call, which here goes nowhere."""
    request = PipelineRequest(HttpRequest("GET", "https://myvault.vault.azure.net/secrets"), PipelineContext(None))
    await policy.on_request(request)
    header: str = request.http_request.headers["Authorization"]
    return header


def _row(name: str, clients: int, headers: list[str], requests: int) -> dict[str, Cell]:
    return {"who": name, "clients": clients, "calls": len(headers), "requests": requests, "expected": 1}


if __name__ == "__main__":
    sys.exit(main())
