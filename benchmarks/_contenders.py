"""Who is compared: everybody asks the same endpoint, and each time starts cold."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from aiomsi import AccessToken, TokenProvider
from aiomsi.sources import ManagedIdentity, Surroundings, TokenRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    Call: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


class Host(Protocol):
    """Whose endpoint *environ* names."""

    environ: dict[str, str]


if TYPE_CHECKING:
    Contender: TypeAlias = Callable[[Host, Sequence[str]], AbstractAsyncContextManager[list[Call]]]


def source(endpoint: Host) -> ManagedIdentity:
    """Return aiomsi's source for the host whose *endpoint* it is."""
    return ManagedIdentity(surroundings=Surroundings(environ=endpoint.environ))


def source_here() -> ManagedIdentity:
    """Return aiomsi's source for the host that our own environment names."""
    return ManagedIdentity(surroundings=Surroundings(environ=dict(os.environ)))


@asynccontextmanager
async def aiomsi_token(endpoint: Host, resources: Sequence[str]) -> AsyncIterator[list[Call]]:
    """Ask `TokenProvider.token`."""
    async with TokenProvider(source(endpoint)) as provider:
        yield [partial(provider.token, resource) for resource in resources]


@asynccontextmanager
async def shielded(endpoint: Host, resources: Sequence[str]) -> AsyncIterator[list[Call]]:
    """Be the control: what one writes without a library, around the same HTTP exchange."""
    asked = source(endpoint)
    tasks: dict[str, asyncio.Task[AccessToken]] = {}

    async def token(resource: str) -> str:
        if resource not in tasks:
            tasks[resource] = asyncio.create_task(asked.fetch(TokenRequest(resource)))
        return (await asyncio.shield(tasks[resource])).token

    yield [partial(token, resource) for resource in resources]
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@asynccontextmanager
async def parked(_endpoint: Host, resources: Sequence[str]) -> AsyncIterator[list[Call]]:
    """Be the floor: every caller waits for a bare future of its own, and nobody asks anything."""

    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    yield [wait for _ in resources]


@asynccontextmanager
async def get_token(_endpoint: Host, resources: Sequence[str]) -> AsyncIterator[list[Call]]:
    """Ask `azure.identity.aio.ManagedIdentityCredential.get_token`."""
    from azure.identity.aio import ManagedIdentityCredential  # noqa: PLC0415  (nobody's process holds what is another's)

    async with ManagedIdentityCredential() as credential:
        yield [partial(credential.get_token, f"{resource}/.default") for resource in resources]


@asynccontextmanager
async def bearer_token_provider(_endpoint: Host, resources: Sequence[str]) -> AsyncIterator[list[Call]]:
    """Ask `azure.identity.aio.get_bearer_token_provider`, one for each resource."""
    from azure.identity.aio import ManagedIdentityCredential, get_bearer_token_provider  # noqa: PLC0415  (as above)

    async with ManagedIdentityCredential() as credential:
        yield [get_bearer_token_provider(credential, f"{resource}/.default") for resource in resources]
