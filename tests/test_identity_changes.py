"""Somebody logs in as another: what the former identity got is dropped, within five seconds and without a caller."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import TYPE_CHECKING

import pytest

from aiomsi import AccessToken, EndpointError, ProviderClosedError, RefreshPolicy, TokenProvider, TokenRefusedError
from aiomsi._source import identity_key_of
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from aiomsi.sources import TokenRequest

VAULT = "https://vault.azure.net"
STORAGE = "https://storage.azure.com/"
DAY = 86_400.0
HALF = DAY / 2
CALLERS = 5


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource(identity="alice")


async def waiting(provider: TokenProvider, clock: ManualClock, count: int = 1) -> list[asyncio.Task[str]]:
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(count)]
    await clock.settle()
    return callers


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Bring a loop to its end, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def state(provider: TokenProvider) -> str:
    return provider.statistics().resources[0].state


# A token is held


async def test_another_identity_s_token_is_served_within_five_seconds(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A fresh token of the former identity ends at the next look, and a crowd then shares one fetch."""
    assert await provider.token(VAULT) == "token-1"
    await clock.advance(7)
    source.identity = "bob"
    await clock.advance(2.9)
    assert provider.peek(VAULT) == "token-1"
    await clock.advance(0.1)
    assert provider.peek(VAULT) is None
    assert (state(provider), provider.statistics().tokens) == ("EMPTY", 0)
    assert set(await asyncio.gather(*(provider.token(VAULT) for _ in range(1000)))) == {"token-2"}
    await clock.advance(60)
    assert await provider.token(VAULT) == "token-2"
    assert len(source.requests) == 2


async def test_the_same_identity_changes_nothing(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """As long as the key stays the same, tokens are refreshed when they would be anyway."""
    for _ in range(10):
        await provider.token(VAULT)
        await clock.advance(HALF / 10)
    assert len(source.requests) == 2


async def test_all_resources_change_together_and_one_timer_looks_for_all(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """However many resources are held, the key is asked for once per look, and all tokens go."""
    await provider.prefetch(VAULT, STORAGE)
    assert clock.timers == 3
    source.identity = "bob"
    await clock.advance(5)
    assert (provider.peek(VAULT), provider.peek(STORAGE), clock.timers) == (None, None, 0)
    await provider.prefetch(VAULT, STORAGE)
    assert (len(source.requests), clock.timers) == (4, 3)


async def test_what_changed_during_a_fetch_is_noticed_though_its_token_has_landed(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The key counts that was known when the fetch began: the token may be the former identity's."""
    source.held = True
    (caller,) = await waiting(provider, clock)
    source.identity = "bob"
    source.release()
    assert await caller == "token-1"
    await clock.advance(5)
    assert provider.peek(VAULT) is None


async def test_a_change_is_logged_once_and_without_the_key(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The key may hold the name of a person."""
    caplog.set_level(logging.INFO)
    await provider.prefetch(VAULT, STORAGE)
    source.identity = "bob"
    await clock.advance(5)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("aiomsi.provider", "INFO")
    assert record.getMessage() == "scripted answers for another identity now; what the former got is dropped"


async def test_a_rejected_token_of_the_former_identity_is_replaced(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Who comes back with a token that has been dropped meanwhile gets the new identity's."""
    old = await provider.token(VAULT)
    source.identity = "bob"
    await clock.advance(5)
    assert (await provider.access_token(VAULT, rejected=old)).token == "token-2"


# A fetch is under way


@pytest.mark.parametrize("victim", [None, 0, CALLERS // 2, CALLERS - 1], ids=["nobody", "first", "middle", "last"])
async def test_a_fetch_for_the_former_identity_serves_those_who_wait_and_nobody_else(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, victim: int | None
) -> None:
    """Who asked before the change gets what that fetch brings; who asks after it shares a fetch of his own."""
    source.held = True
    early = await waiting(provider, clock, CALLERS)
    source.identity = "bob"
    await clock.advance(5)
    if victim is not None:
        early.pop(victim).cancel()
    late = await waiting(provider, clock, CALLERS)
    statistics = provider.statistics()
    assert (statistics.in_flight, statistics.waiting, state(provider)) == (2, len(early) + CALLERS, "FETCHING")
    source.release()
    assert set(await asyncio.gather(*early)) == {"token-1"}
    assert set(await asyncio.gather(*late)) == {"token-2"}
    assert (provider.peek(VAULT), len(source.requests)) == ("token-2", 2)
    assert (provider.statistics().in_flight, provider.statistics().waiting) == (0, 0)


async def test_a_former_identity_s_fetch_stores_nothing_though_nothing_newer_is_there(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A fetch that all its callers have left is not kept for the next one."""
    source.held = True
    (caller,) = await waiting(provider, clock)
    caller.cancel()
    source.identity = "bob"
    await clock.advance(5)
    assert (state(provider), provider.statistics().in_flight) == ("EMPTY", 1)
    source.release()
    await clock.settle()
    assert (state(provider), provider.peek(VAULT), clock.timers) == ("EMPTY", None, 0)
    assert await provider.token(VAULT) == "token-2"


@pytest.mark.parametrize("claims", [None, "{}"])
async def test_a_fetch_that_takes_long_is_looked_after_all_the_time(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, claims: str | None
) -> None:
    """While nothing but a fetch is there, looking goes on."""
    source.held = True
    asking = asyncio.create_task(provider.access_token(VAULT, claims=claims))
    await clock.advance(12)
    source.identity = "bob"
    await clock.advance(3)
    assert state(provider) == "EMPTY"
    source.release()
    assert (await asking).token == "token-1"
    assert provider.peek(VAULT) is None


async def test_a_former_identity_s_refusal_is_told_to_those_who_wait_and_forgotten(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A fetch that fails after the change closes no gate; it is counted all the same."""
    source.held = True
    source.script(TokenRefusedError("not alice"))
    (caller,) = await waiting(provider, clock)
    source.identity = "bob"
    await clock.advance(5)
    source.release()
    with pytest.raises(TokenRefusedError):
        await caller
    assert await provider.token(VAULT) == "token-1"
    (resource,) = provider.statistics().resources
    assert (resource.fetches, resource.failures, resource.last_error) == (2, 1, None)


async def test_a_former_identity_s_fetch_that_is_cancelled_from_outside_is_an_error(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Somebody who cancels every task there is does not cancel those who wait."""
    source.held = True
    (caller,) = await waiting(provider, clock)
    source.identity = "bob"
    await clock.advance(5)
    for task in asyncio.all_tasks() - {asyncio.current_task(), caller}:
        task.cancel()
    with pytest.raises(EndpointError, match="cancelled from outside"):
        await caller


async def test_a_former_identity_s_challenge_is_answered_and_not_kept(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A token for claims that was asked for before the change goes to who asked for it only."""
    await provider.token(VAULT)
    source.held = True
    challenged = asyncio.create_task(provider.access_token(VAULT, claims="{}"))
    await clock.settle()
    source.identity = "bob"
    await clock.advance(5)
    source.release()
    assert (await challenged).token == "token-2"
    assert provider.peek(VAULT) is None
    assert (await provider.access_token(VAULT, claims="{}")).token == "token-3"


async def test_in_the_last_minute_nobody_gets_the_former_identity_s_old_token(
    source: ScriptedSource, clock: ManualClock
) -> None:
    """Who waits for the refresh of a token that is dropped waits on for what the refresh brings."""
    async with TokenProvider(source, clock=clock, policy=RefreshPolicy(must_wait=20)) as provider:
        await provider.token(VAULT)
        await clock.advance(DAY - 50)
        source.held = True
        (caller,) = await waiting(provider, clock)
        source.identity = "bob"
        await clock.advance(25)
        assert not caller.done()
        source.release()
        assert await caller == "token-2"
        assert provider.peek(VAULT) is None


async def test_a_resource_with_a_former_identity_s_fetch_is_not_pushed_out(
    source: ScriptedSource, clock: ManualClock
) -> None:
    """While somebody waits for it, closing the provider must still reach him."""
    source.held = True
    async with TokenProvider(source, clock=clock, max_resources=1) as provider:
        early = await waiting(provider, clock)
        source.identity = "bob"
        await clock.advance(5)
        late = asyncio.create_task(provider.token(STORAGE))
        await clock.settle()
        await provider.aclose()
        outcomes = await asyncio.gather(*early, late, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ProviderClosedError] * 2
        assert (clock.timers, len(asyncio.all_tasks())) == (0, 1)


# An error is held


@pytest.mark.parametrize(
    "error",
    [TokenRefusedError("no access"), EndpointError("throttled", retry_after=3600)],
    ids=["refused", "throttled"],
)
async def test_another_identity_is_not_told_the_former_one_s_error(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, error: Exception
) -> None:
    """A refusal or a Retry-After was meant for the identity that asked."""
    source.script(error)
    with pytest.raises(type(error)):
        await provider.token(VAULT)
    source.identity = "bob"
    await clock.advance(4.9)
    with pytest.raises(type(error)):
        await provider.token(VAULT)
    await clock.advance(0.1)
    (resource,) = provider.statistics().resources
    assert (resource.state, resource.failures_in_a_row, resource.last_error) == ("EMPTY", 0, None)
    assert await provider.token(VAULT) == "token-1"


async def test_once_an_error_gates_nobody_there_is_nothing_to_look_after(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The next caller asks anew in any case, and without the former identity's count of failures."""
    source.script(TokenRefusedError("no"))
    with pytest.raises(TokenRefusedError):
        await provider.token(VAULT)
    await clock.advance(29)
    assert clock.timers == 1
    await clock.advance(2)
    assert (clock.timers, provider.statistics().resources[0].failures_in_a_row) == (0, 1)
    source.identity = "bob"
    source.script(EndpointError("down"))
    with pytest.raises(EndpointError):
        await provider.token(VAULT)
    assert provider.statistics().resources[0].failures_in_a_row == 1


# Nobody asks


async def test_a_dormant_token_is_not_served_for_another_identity(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Where nothing is in use nobody looks, so that the next call does, for all resources."""
    await provider.prefetch(VAULT, STORAGE)
    await clock.advance(HALF + 5)
    assert (state(provider), clock.timers) == ("DORMANT", 0)
    source.identity = "bob"
    assert await provider.token(VAULT) == "token-3"
    assert [resource.state for resource in provider.statistics().resources] == ["FRESH", "EMPTY"]
    assert len(source.requests) == 3
    source.identity = "carol"
    await clock.advance(5)
    assert provider.peek(VAULT) is None


async def test_a_dormant_token_of_the_same_identity_is_revived(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A resource that comes into use again gets its token at once, and is looked after again."""
    await provider.token(VAULT)
    await clock.advance(HALF + 5)
    assert await provider.token(VAULT) == "token-1"
    await clock.settle()
    assert (state(provider), clock.timers) == ("FRESH", 2)
    source.identity = "bob"
    await clock.advance(5)
    assert provider.peek(VAULT) is None


async def test_a_watcher_gets_the_new_identity_s_token_without_any_caller(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A long-lived connection learns that it has to authenticate anew, even if that takes several attempts."""
    seen: list[str] = []

    async def watch() -> None:
        async for token in provider.watch(VAULT):
            seen.append(token.token)  # noqa: PERF401  (the test looks while it goes on)

    watcher = asyncio.create_task(watch())
    await clock.settle()
    source.identity = "bob"
    await clock.advance(5)
    assert seen == ["token-1", "token-2"]
    source.script(EndpointError("down"), EndpointError("down"))
    source.identity = "carol"
    await clock.advance(5)
    assert (seen[2:], len(source.requests)) == ([], 3)
    await clock.advance(3)
    assert seen[2:] == ["token-3"]
    watcher.cancel()
    await clock.settle()


async def test_a_watcher_who_waits_for_a_former_identity_s_token_gets_both(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Who began to watch before the change is not left with what he asked for then."""
    seen: list[str] = []

    async def watch() -> None:
        async for token in provider.watch(VAULT):
            seen.append(token.token)  # noqa: PERF401  (the test looks while it goes on)

    source.held = True
    watcher = asyncio.create_task(watch())
    await clock.settle()
    source.identity = "bob"
    await clock.advance(5)
    source.release()
    await clock.advance(1)
    assert seen == ["token-1", "token-2"]
    watcher.cancel()
    await clock.settle()


# Event loops, and the end


def test_a_change_between_two_event_loops_is_noticed_by_the_first_call_that_fetches(source: ScriptedSource) -> None:
    """On a later loop the timer is set anew, and a change in between drops what was held."""
    clock = ManualClock()
    provider = TokenProvider(source, clock=clock)
    asyncio.run(provider.prefetch(VAULT, STORAGE))
    assert clock.timers == 3
    source.identity = "bob"
    assert asyncio.run(provider.token("https://graph.microsoft.com")) == "token-3"
    assert (provider.peek(VAULT), provider.statistics().tokens, clock.timers) == (None, 1, 2)


def test_a_former_identity_s_fetch_ends_with_its_event_loop(source: ScriptedSource) -> None:
    """On a later loop nothing is left in the air."""
    clock = ManualClock()
    provider = TokenProvider(source, clock=clock)

    async def leave_in_the_middle() -> None:
        source.held = True
        await waiting(provider, clock)
        source.identity = "bob"
        await clock.advance(5)

    former = asyncio.new_event_loop()
    former.run_until_complete(leave_in_the_middle())
    assert provider.statistics().in_flight == 1
    source.held = False
    assert asyncio.run(provider.token(VAULT)) == "token-2"
    assert provider.statistics().in_flight == 0
    source.release()
    end(former)
    assert provider.peek(VAULT) == "token-2"


@pytest.mark.parametrize("identity", ["alice", "bob"])
async def test_a_forked_child_looks_for_itself(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, identity: str
) -> None:
    """In a child that inherited a running loop there is one timer of the child's own."""
    await provider.token(VAULT)
    provider._fetcher._pid += 1
    source.identity = identity
    assert await provider.token(STORAGE) == "token-2"
    assert provider.peek(VAULT) == ("token-1" if identity == "alice" else None)
    assert clock.timers == 1 + provider.statistics().tokens
    source.identity = "carol"
    await clock.advance(5)
    assert (provider.statistics().tokens, clock.timers) == (0, 0)


async def test_a_closed_provider_looks_no_more(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing leaves no timer."""
    caplog.set_level(logging.INFO)
    await provider.token(VAULT)
    await provider.aclose()
    assert clock.timers == 0
    source.identity = "bob"
    await clock.advance(5)
    assert caplog.records == []


async def test_a_forgotten_provider_is_not_kept_alive_by_its_lookout(
    source: ScriptedSource, clock: ManualClock
) -> None:
    """A provider that was never closed goes away with its last reference, and its timer then does nothing."""
    provider = TokenProvider(source, clock=clock)
    await provider.token(VAULT)
    gone = weakref.ref(provider)
    del provider
    gc.collect()
    assert gone() is None
    source.identity = "bob"
    await clock.advance(DAY)
    assert (len(source.requests), clock.timers) == (1, 0)


# What the source tells


async def test_a_source_that_tells_no_identity_sets_no_timer(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Where nothing can be compared, nothing is looked at, whether the method is there or not."""

    class Plain:
        name = "plain"

        async def fetch(self, request: TokenRequest) -> AccessToken:
            return AccessToken("plain", request.clock.wall() + DAY, None, request.resource, "plain")

    source.identity = None
    await provider.token(VAULT)
    assert clock.timers == 1
    async with TokenProvider(Plain(), clock=clock) as plain:
        await plain.token(VAULT)
        assert clock.timers == 2


async def test_an_identity_that_cannot_be_told_for_a_while_changes_nothing(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """From no key to a key and back the token stays; what counts is the last key that was told."""
    source.identity = None
    await provider.token(VAULT)
    source.identity = "alice"
    await clock.advance(60)
    await provider.token(STORAGE)
    source.identity = None
    await clock.advance(60)
    assert (provider.peek(VAULT), provider.peek(STORAGE)) == ("token-1", "token-2")
    source.identity = "alice"
    await clock.advance(60)
    assert (provider.peek(VAULT), provider.peek(STORAGE)) == ("token-1", "token-2")
    source.identity = None
    await clock.advance(60)
    source.identity = "bob"
    await clock.advance(5)
    assert (provider.peek(VAULT), provider.peek(STORAGE)) == (None, None)
    assert len(source.requests) == 2


async def test_an_identity_that_is_known_only_after_the_fetch_is_looked_after(clock: ManualClock) -> None:
    """Several sources in a row can tell who answers only when one of them has."""

    class Chain(ScriptedSource):
        async def fetch(self, request: TokenRequest) -> AccessToken:
            self.identity = self.identity or "alice"
            return await super().fetch(request)

    source = Chain()
    async with TokenProvider(source, clock=clock) as provider:
        await provider.token(VAULT)
        source.identity = "bob"
        await clock.advance(5)
        assert await provider.token(VAULT) == "token-2"


class Unsure(ScriptedSource):
    """A source that cannot always tell its identity."""

    broken = False

    def identity_key(self) -> str | None:
        if self.broken:
            raise KeyError("a-secret")
        return self.identity


async def test_a_source_that_fails_to_tell_its_identity_is_as_one_that_cannot(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error stops neither fetches nor looks, and is logged for who looks closely, without its text."""
    caplog.set_level(logging.DEBUG, "aiomsi")
    source = Unsure(identity="alice")
    async with TokenProvider(source, clock=clock) as provider:
        source.broken = True
        assert await provider.token(VAULT) == "token-1"
        assert clock.timers == 1
        source.broken = False
        await provider.token(STORAGE)
        assert clock.timers == 3
        source.broken = True
        await clock.advance(60)
        assert provider.peek(VAULT) == "token-1"
        source.broken, source.identity = False, "bob"
        await clock.advance(5)
        assert provider.peek(VAULT) is None
    assert "the source scripted could not tell its identity: KeyError" in caplog.text
    assert "a-secret" not in caplog.text


@pytest.mark.parametrize("odd", ["", 7, b"alice", ["alice"]], ids=repr)
async def test_what_is_no_text_is_no_identity(odd: object) -> None:
    """An empty text, or anything else than one, is as none."""
    assert identity_key_of(ScriptedSource(identity=odd)) is None  # type: ignore[arg-type]
    assert identity_key_of(ScriptedSource(identity="alice")) == "alice"


# How often


@pytest.mark.parametrize(("interval", "seconds"), [(60, 60), (0, 1)])
async def test_how_often_is_looked_is_a_matter_of_policy(
    source: ScriptedSource, clock: ManualClock, interval: float, seconds: float
) -> None:
    """The interval may be chosen, and is a second at least."""
    async with TokenProvider(source, clock=clock, policy=RefreshPolicy(identity_interval=interval)) as provider:
        await provider.token(VAULT)
        source.identity = "bob"
        await clock.advance(seconds - 0.1)
        assert provider.peek(VAULT) == "token-1"
        await clock.advance(0.1)
        assert provider.peek(VAULT) is None
