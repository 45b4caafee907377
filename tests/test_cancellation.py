"""Every public await, cancelled for the first, a middle and the last of those who wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiomsi import EndpointError, TokenProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiomsi.testing import ManualClock, ScriptedSource

VAULT = "https://vault.azure.net"
CALLERS = 5


async def _watched(provider: TokenProvider) -> str:
    async for token in provider.watch(VAULT):
        return token.token
    raise AssertionError


async def _prefetched(provider: TokenProvider) -> str | None:
    await provider.prefetch(VAULT)
    return provider.peek(VAULT)


async def _accessed(provider: TokenProvider, **options: str) -> str:
    return (await provider.access_token(VAULT, **options)).token


AWAITS: dict[str, Callable[[TokenProvider], Coroutine[Any, Any, str | None]]] = {
    "token": lambda provider: provider.token(VAULT),
    "access_token": _accessed,
    "claims": lambda provider: _accessed(provider, claims="{}"),
    "rejected": lambda provider: _accessed(provider, rejected="token-0"),
    "watch": _watched,
    "prefetch": _prefetched,
}


@pytest.fixture(params=list(AWAITS.values()), ids=list(AWAITS))
def call(request: pytest.FixtureRequest) -> Callable[[TokenProvider], Coroutine[Any, Any, str | None]]:
    found: Callable[[TokenProvider], Coroutine[Any, Any, str | None]] = request.param
    return found


@pytest.mark.parametrize("victim", [0, CALLERS // 2, CALLERS - 1], ids=["first", "middle", "last"])
async def test_a_cancelled_caller_takes_nobody_along(
    provider: TokenProvider,
    source: ScriptedSource,
    clock: ManualClock,
    call: Callable[[TokenProvider], Coroutine[Any, Any, str | None]],
    victim: int,
) -> None:
    """Whoever is cancelled, the others get the one token that was being fetched."""
    source.held = True
    callers = [asyncio.create_task(call(provider)) for _ in range(CALLERS)]
    await clock.settle()
    callers[victim].cancel()
    await clock.settle()
    assert callers[victim].cancelled()
    assert [caller.done() for caller in callers].count(True) == 1
    source.release()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome == "token-1"] == ["token-1"] * (CALLERS - 1)
    assert len(source.requests) == 1
    assert provider.statistics().waiting == 0


async def test_when_all_callers_leave_the_fetch_still_lands(
    provider: TokenProvider,
    source: ScriptedSource,
    clock: ManualClock,
    call: Callable[[TokenProvider], Coroutine[Any, Any, str | None]],
) -> None:
    """A fetch that nobody waits for any more warms the provider for the next caller."""
    source.held = True
    callers = [asyncio.create_task(call(provider)) for _ in range(CALLERS)]
    await clock.settle()
    for caller in callers:
        caller.cancel()
    await clock.settle()
    assert (provider.statistics().waiting, provider.statistics().in_flight) == (0, 1)
    source.release()
    await clock.settle()
    assert provider.peek(VAULT) == "token-1"
    assert len(source.requests) == 1


async def test_cancelling_everybody_at_once_wakes_everybody_at_once(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Cancelled callers and a landing in the same moment of the loop lose nothing and log nothing."""
    source.held = True
    source.script(EndpointError("down"))
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(CALLERS)]
    await clock.settle()
    source.release()
    for caller in callers[:-1]:
        caller.cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["CancelledError"] * 4 + ["EndpointError"]


@pytest.mark.parametrize("delay", range(8))
async def test_a_cancellation_at_any_moment_leaves_the_provider_whole(
    source: ScriptedSource, clock: ManualClock, delay: int
) -> None:
    """Whichever turn of the event loop a cancellation falls into, the next call works."""
    async with TokenProvider(source, clock=clock) as provider:
        caller = asyncio.create_task(provider.token(VAULT))
        for _ in range(delay):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert await provider.token(VAULT) == "token-1"
        assert len(source.requests) == 1
        assert provider.statistics().waiting == 0


async def test_a_caller_s_timeout_is_his_own(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """An anyio or asyncio timeout around a call ends that call and nothing else."""
    source.held = True
    other = asyncio.create_task(provider.token(VAULT))
    with anyio.move_on_after(0) as scope:
        await provider.token(VAULT)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await provider.token(VAULT)
    await clock.settle()
    source.release()
    assert await other == "token-1"


async def test_cancelling_a_wait_in_the_last_minute_leaves_the_flight(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Who waits for the next token near the old one's end may leave too."""
    await provider.token(VAULT)
    await clock.advance(86_400 - 30)
    source.held = True
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(3)]
    await clock.settle()
    callers[0].cancel()
    await clock.advance(2)
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == ["token-1", "token-1"]
    source.release()
    await clock.settle()
    assert provider.peek(VAULT) == "token-2"


async def test_cancelling_the_fetch_from_outside_stores_nothing(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Somebody who cancels every task there is gets his callers an error, and the next call a token."""
    source.held = True
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.settle()
    for task in asyncio.all_tasks() - {asyncio.current_task(), caller}:
        task.cancel()
    with pytest.raises(EndpointError, match="cancelled from outside"):
        await caller
    source.held = False
    assert await provider.token(VAULT) == "token-2"


async def test_cancelling_close_ends_the_fetches_all_the_same(source: ScriptedSource, clock: ManualClock) -> None:
    """`aclose` has told everybody before it first waits."""
    source.held = True
    provider = TokenProvider(source, clock=clock)
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.settle()
    closing = asyncio.create_task(provider.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    outcomes = await asyncio.gather(caller, closing, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["ProviderClosedError", "CancelledError"]
    await clock.settle()
    assert len(asyncio.all_tasks()) == 1
