"""One resource's life, as callers see it: time is a list of events."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import sys
import threading
import time
import weakref
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING

import pytest

from aiomsi import (
    AccessToken,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    ProviderClosedError,
    RefreshPolicy,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.sources import Surroundings, default
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType

    from aiomsi.sources import TokenRequest

VAULT = "https://vault.azure.net"
DAY = 86_400.0
HALF = DAY / 2


def state(provider: TokenProvider) -> str:
    (resource,) = provider.statistics().resources
    return resource.state


def runs_without_yielding(call: Coroutine[object, None, str]) -> str:
    """Drive *call* by hand, so that it cannot wait for anything."""
    try:
        call.send(None)
    except StopIteration as finished:
        return str(finished.value)
    call.close()
    raise AssertionError("it waited")


# One call for a crowd


async def test_a_crowd_shares_one_fetch(provider: TokenProvider, source: ScriptedSource, clock: ManualClock) -> None:
    """However many callers ask at the same time, the source is asked once."""
    source.held = True
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(1000)]
    await clock.settle()
    assert provider.statistics().waiting == 1000
    source.release()
    assert await asyncio.gather(*callers) == ["token-1"] * 1000
    assert len(source.requests) == 1
    assert provider.statistics().waiting == 0


async def test_each_resource_has_its_own_fetch(provider: TokenProvider, source: ScriptedSource) -> None:
    """Ten resources take ten fetches."""
    resources = [f"https://{number}.example" for number in range(10)]
    await asyncio.gather(*(provider.token(resource) for resource in resources * 20))
    assert sorted(request.resource for request in source.requests) == sorted(resources)


async def test_a_scope_shares_the_slot_of_its_resource(provider: TokenProvider, source: ScriptedSource) -> None:
    """`https://vault.azure.net/.default` is the same as `https://vault.azure.net`."""
    assert await provider.token(VAULT) == await provider.token(f"{VAULT}/.default")
    assert provider.peek(f"{VAULT}/.default") == "token-1"
    assert len(source.requests) == 1


async def test_a_scope_is_known_with_its_resource_and_the_other_way_round(provider: TokenProvider) -> None:
    """What is held under one of the two names is held under the other, also for who has never asked by that."""
    await provider.token(VAULT)
    assert provider.peek(f"{VAULT}/.default") == "token-1"
    await provider.token(f"{VAULT}//.default")
    assert provider.peek(f"{VAULT}/") == "token-2"


async def test_the_member_of_an_enum_is_a_resource_like_its_text(
    provider: TokenProvider, source: ScriptedSource
) -> None:
    """It finds the same token, and the source is given a plain text."""

    class Service(StrEnum):
        VAULT = "https://vault.azure.net"

    assert await provider.token(Service.VAULT) == await provider.token(VAULT) == provider.peek(Service.VAULT)
    assert [type(request.resource) for request in source.requests] == [str]


async def test_a_trailing_slash_is_another_resource(provider: TokenProvider, source: ScriptedSource) -> None:
    """Nothing but the scope's suffix is normalised, since the rest ends up in the audience."""
    await provider.token(VAULT)
    await provider.token(f"{VAULT}/")
    assert [request.resource for request in source.requests] == [VAULT, f"{VAULT}/"]


async def test_a_warm_call_does_not_yield(provider: TokenProvider) -> None:
    """With a fresh token held, `token` returns without giving way to other tasks."""
    await provider.token(VAULT)
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"


async def test_access_token_tells_all(provider: TokenProvider, clock: ManualClock) -> None:
    """`access_token` returns the moments of expiry and refresh, the resource and the source."""
    assert await provider.access_token(VAULT) == AccessToken(
        "token-1", clock.wall() + DAY, clock.wall() + HALF, VAULT, "scripted"
    )


async def test_the_fetch_does_not_inherit_the_caller_s_context(clock: ManualClock) -> None:
    """A trace span or request of the first caller is not adopted by the fetch."""
    span = ContextVar("span", default="none")
    seen = []

    class Watching(ScriptedSource):
        async def fetch(self, request: TokenRequest) -> AccessToken:
            seen.append(span.get())
            return await super().fetch(request)

    async with TokenProvider(Watching(), clock=clock) as provider:
        span.set("request 7")
        await provider.token(VAULT)
    assert seen == ["none"]


# Peek


async def test_peek_returns_a_fresh_token_and_nothing_else(provider: TokenProvider, clock: ManualClock) -> None:
    """`peek` is None before the first token, and from the refresh point on."""
    assert provider.peek(VAULT) is None
    await provider.token(VAULT)
    assert provider.peek(VAULT) == "token-1"
    clock.wall_offset += HALF
    assert provider.peek(VAULT) is None


@pytest.mark.parametrize("wrong", [None, 7, ["a"], "", "unknown"])
async def test_peek_at_what_is_no_resource_is_none(provider: TokenProvider, wrong: object) -> None:
    """`peek` raises nothing, since `token` will."""
    assert provider.peek(wrong) is None  # type: ignore[arg-type]


async def test_peek_counts_as_use(provider: TokenProvider, source: ScriptedSource, clock: ManualClock) -> None:
    """A service that only ever peeks keeps its token fresh."""
    await provider.token(VAULT)
    provider.peek(VAULT)
    await clock.advance(HALF)
    assert len(source.requests) == 2
    assert provider.peek(VAULT) == "token-2"


async def test_peek_and_statistics_work_from_any_thread(provider: TokenProvider) -> None:
    """Another thread may look at what is held."""
    await provider.token(VAULT)
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.extend([provider.peek(VAULT), provider.statistics().tokens]))
    thread.start()
    thread.join()
    assert seen == ["token-1", 1]


async def test_the_fetch_keeps_nothing_alive_of_its_first_caller(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """While a fetch is under way, what its first caller had in his context may go when he goes."""

    class Request:
        """Something that a caller carries along."""

    carried: ContextVar[Request] = ContextVar("carried")
    gone: list[weakref.ref[Request]] = []

    async def caller() -> None:
        request = Request()
        gone.append(weakref.ref(request))
        carried.set(request)
        await provider.token(VAULT)

    source.held = True
    task = asyncio.create_task(caller())
    await clock.settle()
    task.cancel()
    await asyncio.wait([task])
    del task
    gc.collect()
    assert provider.statistics().in_flight == 1
    assert gone[0]() is None
    source.release()


# Proactive refresh


async def test_a_used_token_is_refreshed_behind_everybody_s_back(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """At the refresh point a timer fetches the next token; no caller starts it or waits for it."""
    await provider.token(VAULT)
    await provider.token(VAULT)
    await clock.advance(HALF - 1)
    assert len(source.requests) == 1
    source.held = True
    await clock.advance(1)
    assert len(source.requests) == 2
    assert state(provider) == "REFRESHING"
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    source.release()
    await clock.settle()
    assert runs_without_yielding(provider.token(VAULT)) == "token-2"


async def test_an_unused_token_goes_dormant(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A token that nobody used since it came is not refreshed, until the next call revives it."""
    await provider.token(VAULT)
    await clock.advance(HALF + 60)
    assert (state(provider), len(source.requests), clock.timers) == ("DORMANT", 1, 0)
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    await clock.settle()
    assert (state(provider), len(source.requests)) == ("FRESH", 2)


async def test_the_host_s_refresh_in_is_honoured(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Where the host says when to refresh, that is when."""
    source.refresh_in = 1000
    await provider.token(VAULT)
    await provider.token(VAULT)
    await clock.advance(999)
    assert len(source.requests) == 1
    await clock.advance(1)
    assert len(source.requests) == 2


async def test_a_wall_clock_set_forward_refreshes_at_once(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """After a suspended night the wall clock, which went on, decides."""
    await provider.token(VAULT)
    clock.wall_offset += HALF
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    await clock.settle()
    assert len(source.requests) == 2
    clock.wall_offset += DAY
    assert await provider.token(VAULT) == "token-3"


async def test_a_wall_clock_set_back_does_not_keep_a_token_alive(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The timer runs on the monotonic clock, and ends FRESH whatever the wall clock says."""
    await provider.token(VAULT)
    clock.wall_offset -= 10 * DAY
    await clock.advance(HALF)
    assert provider.peek(VAULT) is None
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    await clock.settle()
    assert len(source.requests) == 2
    await clock.advance(2 * DAY)
    assert await provider.token(VAULT) == "token-3"


async def test_in_the_last_minute_callers_wait_two_seconds_at_most(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Near its end the old token is served only if the new one does not come within two seconds."""
    await provider.token(VAULT)
    await clock.advance(DAY - 30)
    source.held = True
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.advance(1.9)
    assert not caller.done()
    assert state(provider) == "MUST"
    await clock.advance(0.1)
    assert await caller == "token-1"
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    source.release()
    await clock.settle()
    assert await provider.token(VAULT) == "token-2"
    assert len(source.requests) == 2


async def test_in_the_last_minute_the_next_token_is_worth_a_short_wait(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A flight that lands within the two seconds gives its token to those who waited."""
    await provider.token(VAULT)
    await clock.advance(DAY - 30)
    source.held = True
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(3)]
    await clock.advance(1)
    source.release()
    assert await asyncio.gather(*callers) == ["token-2"] * 3
    assert clock.timers == 1


async def test_in_the_last_minute_a_failing_refresh_is_not_the_callers_concern(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """While the old token is valid, who waited for the next one gets the old one when that fails."""
    await provider.token(VAULT)
    await clock.advance(DAY - 30)
    source.script(EndpointError("down"))
    assert await provider.token(VAULT) == "token-1"
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    assert len(source.requests) == 2


async def test_a_token_that_expires_while_callers_wait_is_not_given_to_them(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The two seconds may end after the token did; then only a new one will do."""
    source.lifetime = 10
    await provider.token(VAULT)
    await clock.advance(9.5)
    source.held = True
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.advance(5)
    assert not caller.done()
    source.release()
    assert await caller == "token-2"


async def test_an_expired_token_is_never_served(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """From its end on, callers wait for the next token."""
    await provider.token(VAULT)
    await clock.advance(DAY)
    source.held = True
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.settle()
    assert state(provider) == "FETCHING"
    source.release()
    assert await caller == "token-2"


async def test_expiry_shows_in_the_statistics(provider: TokenProvider, clock: ManualClock) -> None:
    """A token past its end is no longer counted."""
    await provider.token(VAULT)
    await clock.advance(DAY + 1)
    assert (state(provider), provider.statistics().tokens) == ("EXPIRED", 0)


# The same token again


async def test_the_same_token_again_is_not_asked_for_in_a_loop(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A host that hands out the token already held is asked again after a quarter of the remaining life."""
    source.script("cached", "cached", "cached")
    await provider.token(VAULT)
    await provider.token(VAULT)
    source.lifetime = HALF
    await clock.advance(HALF)
    assert len(source.requests) == 2
    assert runs_without_yielding(provider.token(VAULT)) == "cached"
    assert state(provider) == "FRESH"
    await clock.advance(HALF / 4 - 1)
    assert len(source.requests) == 2
    await clock.advance(1)
    assert len(source.requests) == 3


async def test_the_same_token_near_its_end_is_replaced_once_it_expired(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The wait for a newer token does not outlive the old one."""
    source.script("cached")
    await provider.token(VAULT)
    await clock.advance(DAY - 45)
    source.script("cached")
    source.lifetime = 45
    assert await provider.token(VAULT) == "cached"
    assert runs_without_yielding(provider.token(VAULT)) == "cached"
    await clock.advance(45)
    assert await provider.token(VAULT) == "token-1"


# Failure


async def test_with_nothing_valid_everybody_who_waits_gets_the_error(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """One failed fetch fails all who waited for it, each with an instance of his own."""
    source.held = True
    source.script(EndpointError("down", resource=VAULT, source="scripted", status=503))
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(3)]
    await clock.settle()
    source.release()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, EndpointError)
        assert (str(error), error.resource, error.source, error.status) == ("down", VAULT, "scripted", 503)
    assert len(source.requests) == 1


async def test_a_failure_is_repeated_for_a_while_and_then_the_next_caller_probes(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """In an outage the source is asked after 1, 2, 4 s and so on, and others get the last error at once."""
    asked: list[float] = []
    source.script(*[EndpointError("down")] * 6)
    for _ in range(630):
        with pytest.raises(EndpointError):
            await provider.token(VAULT)
        if len(source.requests) > len(asked):
            asked.append(clock.monotonic())
        else:
            assert state(provider) == "FAILED"
        await clock.advance(0.1)
        if len(asked) == 6:
            break
    assert asked == pytest.approx([0, 1, 3, 7, 15, 31], abs=0.5)
    await clock.advance(29)
    with pytest.raises(EndpointError):
        await provider.token(VAULT)
    await clock.advance(1.1)
    assert await provider.token(VAULT) == "token-1"
    assert provider.statistics().resources[0].failures_in_a_row == 0


async def test_each_caller_s_error_has_a_traceback_of_its_own(provider: TokenProvider, source: ScriptedSource) -> None:
    """A stored error does not grow with the frames of all who were given it."""
    source.script(EndpointError("down"))
    lengths = []
    for _ in range(3):
        with pytest.raises(EndpointError) as caught:
            await provider.token(VAULT)
        lengths.append(len(caught.traceback))
    assert lengths[1] == lengths[2] <= lengths[0] + 2


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (TokenRefusedError("no"), 30),
        (MalformedResponseError("what"), 1),
        (SourceUnavailableError("gone"), 1),
        (EndpointError("throttled", retry_after=77), 77),
        (KeyError("a bug in a source"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_what_failed_decides_how_soon_it_is_tried_again(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, error: Exception, seconds: float
) -> None:
    """A refusal stands for 30 s, Retry-After is kept, everything else begins with a second."""
    source.script(error)
    for _ in range(2):
        with pytest.raises(type(error)):
            await provider.token(VAULT)
    await clock.advance(seconds - 0.01)
    with pytest.raises(type(error)):
        await provider.token(VAULT)
    assert len(source.requests) == 1
    await clock.advance(0.01)
    assert await provider.token(VAULT) == "token-1"


async def test_an_absent_source_is_asked_again_after_two_seconds_at_most(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The developer may just have logged in."""
    source.script(*[SourceUnavailableError("run: az login")] * 5)
    for _ in range(5):
        with pytest.raises(SourceUnavailableError):
            await provider.token(VAULT)
        await clock.advance(2)
    assert len(source.requests) == 5


async def test_while_a_token_is_valid_failures_are_swallowed_and_backed_off(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In an outage callers keep the old token; the source is asked after 30, 60, 120, 240 and then 300 s."""
    await provider.token(VAULT)
    await provider.token(VAULT)
    source.script(*[EndpointError("down")] * 100)
    caplog.set_level(logging.INFO)
    began = HALF
    asked: list[float] = []
    await clock.advance(HALF)
    for _ in range(1400):
        assert runs_without_yielding(provider.token(VAULT)) == "token-1"
        if len(source.requests) - 1 > len(asked):
            asked.append(clock.monotonic() - began)
        await clock.advance(1)
    assert asked == pytest.approx([0, 30, 90, 210, 450, 750, 1050, 1350], abs=2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    source.answers.clear()
    await clock.advance(300)
    assert runs_without_yielding(provider.token(VAULT)) == "token-2"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_without_callers_an_outage_is_retried_only_while_the_token_lives(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Nobody is there to be served: a resource that expired in an outage is left alone."""
    await provider.token(VAULT)
    await provider.token(VAULT)
    source.script(*[EndpointError("down")] * 1000)
    await clock.advance(DAY + 300)
    attempts = len(source.requests)
    await clock.advance(DAY)
    assert len(source.requests) == attempts
    assert clock.timers == 0


async def test_retry_after_binds_the_timer_too(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A throttled refresh is not tried again before the host allows it."""
    await provider.token(VAULT)
    await provider.token(VAULT)
    source.script(EndpointError("throttled", retry_after=1000))
    await clock.advance(HALF + 999)
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"
    assert len(source.requests) == 2
    await clock.advance(1)
    assert len(source.requests) == 3


async def test_when_the_token_expires_in_an_outage_the_wait_is_cut(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A back-off chosen while callers had a token is cut to 30 s when they have none any more."""
    await provider.token(VAULT)
    await clock.advance(DAY - 100)
    source.script(*[EndpointError("down")] * 3)
    await provider.token(VAULT)
    await clock.advance(90)  # Failed at -100, -70 and -10 s; the next attempt would be 110 s after the end.
    assert len(source.requests) == 4
    await clock.advance(10)
    with pytest.raises(EndpointError):
        await provider.token(VAULT)
    await clock.advance(29.9)
    with pytest.raises(EndpointError):
        await provider.token(VAULT)
    await clock.advance(0.1)
    assert await provider.token(VAULT) == "token-2"


async def test_expiry_does_not_cut_a_retry_after(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The host's word is kept even when callers have no token."""
    await provider.token(VAULT)
    await clock.advance(DAY - 100)
    source.script(EndpointError("throttled", retry_after=400))
    await provider.token(VAULT)
    await clock.advance(399)
    with pytest.raises(EndpointError):
        await provider.token(VAULT)
    await clock.advance(1)
    assert await provider.token(VAULT) == "token-2"


async def test_a_source_that_does_not_end_in_time_is_given_up(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A second past the source's limit its waiters get an EndpointError, and the next caller asks anew."""
    source.held = True
    source.time_limit = 5
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.advance(5.9)
    assert not caller.done()
    await clock.advance(0.1)
    with pytest.raises(EndpointError, match="within 5 s"):
        await caller
    source.held = False
    await clock.advance(1)
    assert await provider.token(VAULT) == "token-2"


async def test_waiting_for_a_place_does_not_count_against_the_time_limit(clock: ManualClock) -> None:
    """A source that takes two at a time gets two at a time; the third one's time begins when it is asked."""
    source = ScriptedSource(held=True, max_parallel=2, time_limit=5)
    async with TokenProvider(source, clock=clock) as provider:
        callers = [asyncio.create_task(provider.token(f"https://{number}.example")) for number in range(3)]
        await clock.advance(4)
        assert len(source.requests) == 2
        source.release()
        await clock.settle()
        assert source.requests[2].deadline == clock.monotonic() + 5
        assert len(await asyncio.gather(*callers)) == 3


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (None, "returned NoneType where an AccessToken belongs"),
        (AccessToken("", 2e9, None, VAULT, "odd"), "returned no token"),
        (AccessToken(7, 2e9, None, VAULT, "odd"), "returned no token"),  # type: ignore[arg-type]
        (AccessToken("t\r\nX: y", 2e9, None, VAULT, "odd"), "no HTTP header can carry"),
        (AccessToken("t", True, None, VAULT, "odd"), "no Unix time"),
        (AccessToken("t", float("nan"), None, VAULT, "odd"), "no Unix time"),
        (AccessToken("t", 10**400, None, VAULT, "odd"), "no Unix time"),
        (AccessToken("t", 2e9, 10**400, VAULT, "odd"), "no Unix time"),
        (AccessToken("t", 1_759_999_990, None, VAULT, "odd"), "expired 10 s ago"),
        (AccessToken("t", 2e9, "soon", VAULT, "odd"), "refresh_on='soon'"),  # type: ignore[arg-type]
    ],
)
async def test_a_source_s_nonsense_is_an_error_and_not_a_token(
    clock: ManualClock, given: AccessToken, complaint: str
) -> None:
    """What a source returns is checked before it is held."""

    class Odd:
        name = "odd"

        async def fetch(self, request: TokenRequest) -> AccessToken:  # noqa: ARG002
            return given

    async with TokenProvider(Odd(), clock=clock) as provider:
        with pytest.raises(MalformedResponseError, match=complaint):
            await provider.token(VAULT)


async def test_errors_that_are_not_ours_are_raised_as_they_are_and_logged_without_their_text(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a source is not dressed up; its text, which may hold a secret, is not logged."""
    await provider.token(VAULT)
    await provider.token(VAULT)
    source.script(KeyError("a-secret"))
    await clock.advance(HALF)
    assert "KeyError" in caplog.text
    assert "a-secret" not in caplog.text
    assert provider.statistics().resources[0].last_error == "KeyError"


# A token that a service refused


async def test_a_rejected_token_is_replaced_once_for_all(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A thousand callers whose token was refused cause one fetch."""
    old = await provider.token(VAULT)
    source.held = True
    callers = [asyncio.create_task(provider.access_token(VAULT, rejected=old)) for _ in range(1000)]
    await clock.settle()
    source.release()
    assert {token.token for token in await asyncio.gather(*callers)} == {"token-2"}
    assert (await provider.access_token(VAULT, rejected=old)).token == "token-2"
    assert len(source.requests) == 2
    assert source.requests[1].rejected_sha256 is not None
    assert old not in repr(source.requests[1])


async def test_a_service_that_refuses_everything_causes_no_storm(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Rejections lead to a fetch at most every 5 s; in between, the held token is returned."""
    token = await provider.token(VAULT)
    for _ in range(200):
        token = (await provider.access_token(VAULT, rejected=token)).token
        await clock.advance(0.1)
    assert 4 <= len(source.requests) - 1 <= 5


async def test_the_rejected_token_again_waits_like_any_same_token(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Where the host's own cache gives the rejected token back, asking it again is pointless for long."""
    source.script(*["cached"] * 10)
    await provider.token(VAULT)
    for _ in range(100):
        assert (await provider.access_token(VAULT, rejected="cached")).token == "cached"
        await clock.advance(10)
    assert len(source.requests) == 2


async def test_a_failure_to_replace_a_rejected_token_is_raised(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Who knows that the held token is no good is told so, and who does not keeps using it."""
    old = await provider.token(VAULT)
    source.script(EndpointError("down"))
    for _ in range(2):
        with pytest.raises(EndpointError):
            await provider.access_token(VAULT, rejected=old)
    assert await provider.token(VAULT) == old
    assert len(source.requests) == 2
    await clock.advance(30)
    assert (await provider.access_token(VAULT, rejected=old)).token == "token-2"


async def test_rejecting_an_expired_token_is_asking_for_one(provider: TokenProvider, clock: ManualClock) -> None:
    """With nothing held there is nothing to compare."""
    old = await provider.token(VAULT)
    await clock.advance(DAY)
    assert (await provider.access_token(VAULT, rejected=old)).token == "token-2"


async def test_claims_go_past_the_cache(provider: TokenProvider, source: ScriptedSource, clock: ManualClock) -> None:
    """A claims challenge is answered by a token fetched with those claims, which all callers then get."""
    old = await provider.token(VAULT)
    source.held = True
    callers = [asyncio.create_task(provider.access_token(VAULT, claims='{"a":1}', rejected=old)) for _ in range(100)]
    await clock.settle()
    source.release()
    assert {token.token for token in await asyncio.gather(*callers)} == {"token-2"}
    assert await provider.token(VAULT) == "token-2"
    assert (await provider.access_token(VAULT, claims='{"a":1}', rejected=old)).token == "token-2"
    assert [request.claims for request in source.requests] == [None, '{"a":1}']


async def test_claims_without_a_rejected_token_are_limited_to_every_five_seconds(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The same claims twice within the interval get what the first time brought."""
    await provider.access_token(VAULT, claims="{}")
    assert (await provider.access_token(VAULT, claims="{}")).token == "token-1"
    await clock.advance(5)
    assert (await provider.access_token(VAULT, claims="{}")).token == "token-2"
    assert len(source.requests) == 2


async def test_different_claims_at_once_with_nothing_held_are_one_fetch(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Whoever else challenges within the interval gets what the first challenge brings, as with a held token."""
    source.held = True
    callers = [asyncio.create_task(provider.access_token(VAULT, claims=f'{{"a":{number}}}')) for number in range(100)]
    await clock.settle()
    assert [request.claims for request in source.requests] == ['{"a":0}']
    await clock.advance(5)
    later = asyncio.create_task(provider.access_token(VAULT, claims='{"a":7}'))
    await clock.settle()
    source.release()
    assert {token.token for token in await asyncio.gather(*callers)} == {"token-1"}
    assert (await later).token == "token-2"


async def test_other_claims_than_the_held_token_s_are_fetched(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A token newer than the rejected one will not do if it was fetched without the claims."""
    await provider.token(VAULT)
    await clock.advance(6)
    await provider.access_token(VAULT, rejected="token-1")
    await clock.advance(6)
    assert (await provider.access_token(VAULT, claims="{}", rejected="token-1")).token == "token-3"
    assert [request.claims for request in source.requests] == [None, None, "{}"]


async def test_a_token_for_claims_is_not_overwritten_by_an_older_refresh(clock: ManualClock) -> None:
    """A refresh that began before the challenge and lands after it is dropped."""
    gates = [asyncio.Event() for _ in range(3)]
    asked: list[TokenRequest] = []

    class Gated:
        name = "gated"

        async def fetch(self, request: TokenRequest) -> AccessToken:
            number = len(asked)
            asked.append(request)
            await gates[number].wait()
            return AccessToken(f"token-{number}", request.clock.wall() + DAY, None, request.resource, "gated")

    async with TokenProvider(Gated(), clock=clock, policy=RefreshPolicy(spread=0)) as provider:
        gates[0].set()
        await provider.token(VAULT)
        await provider.token(VAULT)
        await clock.advance(HALF)
        challenged = asyncio.create_task(provider.access_token(VAULT, claims="{}"))
        await clock.settle()
        assert provider.statistics().in_flight == 2
        gates[2].set()
        assert (await challenged).token == "token-2"
        gates[1].set()
        await clock.settle()
        assert await provider.token(VAULT) == "token-2"


async def test_the_rejected_token_is_in_no_traceback_of_ours(provider: TokenProvider, source: ScriptedSource) -> None:
    """A traceback that prints local variables does not show a token from our frames."""
    source.script("a-very-secret-token", EndpointError("down"))
    token = await provider.token(VAULT)
    with pytest.raises(EndpointError) as caught:
        await provider.access_token(VAULT, rejected=token)
    ours = [entry.frame.f_locals for entry in caught.traceback if "aiomsi/" in str(entry.path)]
    assert ours
    assert "a-very-secret-token" not in repr(ours)


# Tenants


async def test_a_tenant_is_ignored_where_the_source_cannot_choose(
    provider: TokenProvider, source: ScriptedSource
) -> None:
    """Asking with and without a tenant is the same for a managed identity."""
    await provider.access_token(VAULT, tenant_id="t1")
    await provider.token(VAULT)
    assert [request.tenant_id for request in source.requests] == [None]


async def test_a_tenant_has_a_slot_of_its_own_where_the_source_can_choose(
    provider: TokenProvider, source: ScriptedSource
) -> None:
    """Two tenants' tokens for one resource are kept apart."""
    source.chooses_tenant = True
    tokens = [(await provider.access_token(VAULT, tenant_id=tenant)).token for tenant in (None, "t1", "t2", "t1")]
    assert tokens == ["token-1", "token-2", "token-3", "token-2"]
    assert [request.tenant_id for request in source.requests] == [None, "t1", "t2"]
    assert {resource.tenant_id for resource in provider.statistics().resources} == {None, "t1", "t2"}


async def test_a_source_that_cannot_tell_whether_it_chooses_says_what_was_asked_for(clock: ManualClock) -> None:
    """An environment that chooses nonsense is the same error with a tenant as without one."""
    source = default(surroundings=Surroundings(environ={"AZURE_TOKEN_CREDENTIALS": "nonsense"}))
    async with TokenProvider(source, clock=clock) as provider:
        for tenant_id in (None, "t1"):
            with pytest.raises(ConfigurationError) as caught:
                await provider.access_token(VAULT, tenant_id=tenant_id)
            assert (caught.value.resource, caught.value.source) == (VAULT, "default")


# Watching


async def test_watch_yields_now_and_at_each_new_token(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A watcher sees every token that lands, and keeps the resource refreshed without any other caller."""
    seen = []

    async def watch() -> None:
        async for token in provider.watch(VAULT):
            seen.append(token.token)  # noqa: PERF401  (the test looks while it goes on)

    watcher = asyncio.create_task(watch())
    await clock.settle()
    assert seen == ["token-1"]
    for _ in range(3):
        await clock.advance(HALF)
    assert seen == ["token-1", "token-2", "token-3", "token-4"]
    watcher.cancel()
    await clock.settle()
    await clock.advance(10 * DAY)
    assert len(source.requests) == 4


async def test_watch_survives_an_outage_longer_than_the_token(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """For a watcher a token is fetched again even after the old one expired."""
    tokens = provider.watch(VAULT)
    assert (await anext(tokens)).token == "token-1"
    source.script(*[EndpointError("down")] * 10_000)
    waiting = asyncio.ensure_future(anext(tokens))
    await clock.advance(DAY + HALF)
    assert not waiting.done()
    source.answers.clear()
    await clock.advance(60)
    assert (await waiting).token == "token-2"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    await tokens.aclose()  # type: ignore[attr-defined]


async def test_watch_raises_when_no_first_token_can_be_had(provider: TokenProvider, source: ScriptedSource) -> None:
    """There is nothing to watch where nothing can be fetched."""
    source.script(TokenRefusedError("no"))
    with pytest.raises(TokenRefusedError):
        await anext(aiter(provider.watch(VAULT)))


async def test_watch_ends_with_the_provider(provider: TokenProvider, clock: ManualClock) -> None:
    """Closing the provider ends a watcher with a ProviderClosedError."""
    tokens = provider.watch(VAULT)
    await anext(aiter(tokens))
    waiting = asyncio.ensure_future(anext(aiter(tokens)))
    await clock.settle()
    await provider.aclose()
    with pytest.raises(ProviderClosedError):
        await waiting


async def test_a_slow_watcher_gets_the_newest_token(provider: TokenProvider, clock: ManualClock) -> None:
    """Tokens that landed while the watcher was busy are skipped."""
    tokens = aiter(provider.watch(VAULT))
    await anext(tokens)
    await clock.advance(HALF)
    await clock.advance(HALF)
    assert (await anext(tokens)).token == "token-3"
    await tokens.aclose()  # type: ignore[attr-defined]


async def test_a_watcher_is_not_given_a_token_that_died_meanwhile(provider: TokenProvider, clock: ManualClock) -> None:
    """Between landing and waking time may pass; what expired in between is skipped."""
    seen: list[str] = []

    async def watch(jump: float) -> None:
        async for token in provider.watch(VAULT):
            seen.append(token.token)
            if token.token == "token-2":
                clock.wall_offset += jump

    watchers = [asyncio.create_task(watch(jump)) for jump in (2 * DAY, 0)]
    await clock.settle()
    await clock.advance(HALF)
    assert seen == ["token-1", "token-1", "token-2"]
    await clock.advance(HALF)
    assert seen[3:] == ["token-3", "token-3"]
    for watcher in watchers:
        watcher.cancel()
    await asyncio.wait(watchers)


# Prefetching


async def test_prefetch_warms_several_at_once(provider: TokenProvider, source: ScriptedSource) -> None:
    """After prefetch no caller waits."""
    await provider.prefetch(VAULT, "https://storage.azure.com/")
    assert len(source.requests) == 2
    assert runs_without_yielding(provider.token(VAULT)) == "token-1"


async def test_prefetch_tells_all_that_failed(provider: TokenProvider, source: ScriptedSource) -> None:
    """The errors come together, and the others are warm."""
    source.script("good", EndpointError("down"))
    with pytest.raises(ExceptionGroup, match="1 of 2 tokens could not be fetched") as caught:
        await provider.prefetch("https://a.example", "https://b.example")
    assert [str(error) for error in caught.value.exceptions] == ["down"]
    assert provider.peek("https://a.example") == "good"


async def test_prefetch_checks_all_before_it_fetches_any(provider: TokenProvider, source: ScriptedSource) -> None:
    """One misspelt resource is told before anything is sent."""
    with pytest.raises(ValueError, match="blanks"):
        await provider.prefetch(VAULT, "https://a b")
    assert source.requests == []


# How many are kept


async def test_no_more_resources_are_kept_than_allowed(clock: ManualClock, source: ScriptedSource) -> None:
    """Resources beyond the limit push out those not used for longest, names and all."""
    async with TokenProvider(source, clock=clock, max_resources=3) as provider:
        await provider.token("https://0.example/.default")
        for number in range(1, 10):
            await provider.token(f"https://{number}.example")
        kept = [resource.resource for resource in provider.statistics().resources]
        assert kept == ["https://7.example", "https://8.example", "https://9.example"]
        assert provider.peek("https://0.example/.default") is None


async def test_a_used_resource_gets_a_second_chance(clock: ManualClock, source: ScriptedSource) -> None:
    """What is in use survives a flood of resources that are not, and goes on being refreshed."""
    async with TokenProvider(source, clock=clock, max_resources=3, policy=RefreshPolicy(spread=0)) as provider:
        await provider.token(VAULT)
        for number in range(10):
            await provider.token(VAULT)
            await provider.token(f"https://{number}.example")
        assert provider.peek(VAULT) == "token-1"
        await provider.token("https://a.example")
        await clock.advance(HALF)
        assert provider.peek(VAULT) not in (None, "token-1")


async def test_a_resource_with_a_fetch_under_way_is_not_pushed_out(clock: ManualClock) -> None:
    """The limit gives way rather than abandon callers who wait."""
    source = ScriptedSource(held=True)
    async with TokenProvider(source, clock=clock, max_resources=1) as provider:
        callers = [asyncio.create_task(provider.token(f"https://{number}.example")) for number in range(3)]
        await clock.settle()
        source.release()
        assert len(await asyncio.gather(*callers)) == 3
        await provider.token(VAULT)
        assert len(provider.statistics().resources) == 1


async def test_cold_calls_at_once_cost_in_proportion_to_their_number(clock: ManualClock) -> None:
    """To make room, not every resource with a fetch under way is looked at again."""

    async def work(callers: int) -> int:
        calls = 0

        def count(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        source = ScriptedSource(held=True)
        async with TokenProvider(source, clock=clock, max_resources=4) as provider:
            waiting = [asyncio.create_task(provider.token(f"https://{number}.example")) for number in range(callers)]
            sys.setprofile(count)
            try:
                await clock.settle()
            finally:
                sys.setprofile(None)
            source.release()
            await asyncio.gather(*waiting)
            await provider.token(VAULT)
            assert len(provider.statistics().resources) == 4
        return calls

    assert await work(200) < 3 * await work(100)


async def test_a_forgotten_provider_is_not_kept_alive_by_its_timer(source: ScriptedSource) -> None:
    """A provider that was never closed goes away with its last reference."""
    provider = TokenProvider(source)
    await provider.token(VAULT)
    gone = weakref.ref(provider)
    del provider
    gc.collect()
    assert gone() is None


async def test_the_timer_of_a_forgotten_provider_does_nothing(source: ScriptedSource, clock: ManualClock) -> None:
    """Nothing is fetched for a provider that is gone."""
    provider = TokenProvider(source, clock=clock)
    await provider.token(VAULT)
    await provider.token(VAULT)
    del provider
    gc.collect()
    await clock.advance(DAY)
    assert len(source.requests) == 1


# Closing


async def test_closing_ends_fetches_and_tells_who_waits(source: ScriptedSource, clock: ManualClock) -> None:
    """Callers who wait when the provider is closed get a ProviderClosedError, and the fetch is cancelled."""
    source.held = True
    provider = TokenProvider(source, clock=clock)
    callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(3)]
    callers.append(asyncio.create_task(provider.access_token(VAULT, claims="{}")))  # type: ignore[arg-type]
    await clock.settle()
    await provider.aclose()
    for error in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(error, ProviderClosedError)
        assert (error.resource, error.source) == (VAULT, "scripted")
    assert clock.timers == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_closed_provider_says_so(provider: TokenProvider, caplog: pytest.LogCaptureFixture) -> None:
    """After closing, every call raises ProviderClosedError, which is a RuntimeError; closing again is fine."""
    await provider.token(VAULT)
    await provider.aclose()
    await provider.aclose()
    assert repr(provider) == "<TokenProvider source=scripted closed>"
    assert provider.peek(VAULT) is None
    for call in (provider.token(VAULT), provider.access_token(VAULT)):
        with pytest.raises(ProviderClosedError, match="was closed") as caught:
            await call
        assert caught.value.resource == VAULT
    with pytest.raises(RuntimeError, match="was closed"):
        await provider.__aenter__()
    with pytest.raises(ExceptionGroup):
        await provider.prefetch(VAULT)
    assert caplog.records == []


async def test_closing_does_not_wait_for_a_source_that_will_not_end(clock: ManualClock) -> None:
    """A source that swallows its cancellation delays closing by a second and no more."""
    stubborn = asyncio.Event()

    class Stubborn:
        name = "stubborn"

        async def fetch(self, request: TokenRequest) -> AccessToken:
            while not stubborn.is_set():
                try:
                    await stubborn.wait()
                except asyncio.CancelledError:
                    continue
            return AccessToken("late", request.clock.wall() + DAY, None, request.resource, "stubborn")

    provider = TokenProvider(Stubborn(), clock=clock)
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.settle()
    closing = asyncio.create_task(provider.aclose())
    await clock.settle()
    with pytest.raises(ProviderClosedError):
        await caller
    await clock.advance(1)
    await closing
    stubborn.set()
    await clock.settle()


async def test_an_abandoned_fetch_that_ends_after_all_is_ignored(clock: ManualClock) -> None:
    """The token of a source that was given up does not replace a newer one."""
    gates = [asyncio.Event(), asyncio.Event()]
    gates[1].set()
    asked: list[int] = []

    class Stubborn:
        name = "stubborn"
        time_limit = 5

        async def fetch(self, request: TokenRequest) -> AccessToken:
            number = len(asked)
            asked.append(number)
            while not gates[number].is_set():
                try:
                    await gates[number].wait()
                except asyncio.CancelledError:
                    continue
            return AccessToken(f"token-{number}", request.clock.wall() + DAY, None, request.resource, "stubborn")

    async with TokenProvider(Stubborn(), clock=clock) as provider:
        caller = asyncio.create_task(provider.token(VAULT))
        await clock.advance(6)
        with pytest.raises(EndpointError):
            await caller
        await clock.advance(1)
        assert await provider.token(VAULT) == "token-1"
        gates[0].set()
        await clock.settle()
        assert await provider.token(VAULT) == "token-1"


# Wrong arguments


@pytest.mark.parametrize(
    "wrong", ["", "/.default", "https://x/.default/.default", "https://a b", "a\nb", "a b", "https://a https://b"]
)
async def test_a_wrong_resource_is_told_before_anything_is_sent(
    provider: TokenProvider, source: ScriptedSource, wrong: str
) -> None:
    """A text that names no resource is a ValueError that shows it."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is what is asserted)
        await provider.token(wrong)
    assert repr(wrong) in str(caught.value)
    assert source.requests == []


@pytest.mark.parametrize("wrong", [None, 7, b"https://vault.azure.net", ["https://vault.azure.net"]])
async def test_a_resource_of_another_type_is_told(provider: TokenProvider, wrong: object) -> None:
    """Anything but a string is a TypeError that shows it."""
    with pytest.raises(TypeError, match="a resource is a string"):
        await provider.token(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tenant_id", "claims", "rejected"])
async def test_empty_options_are_told(provider: TokenProvider, name: str) -> None:
    """An option is a text that is not empty, or left out."""
    with pytest.raises(ValueError, match=name):
        await provider.access_token(VAULT, **{name: ""})
    with pytest.raises(TypeError, match=name):
        await provider.access_token(VAULT, **{name: b"x"})  # type: ignore[arg-type]


def test_a_provider_is_made_of_the_right_things() -> None:
    """Wrong arguments are told when the provider is made."""
    source = ScriptedSource()
    with pytest.raises(TypeError, match="a source is an object"):
        TokenProvider("az")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a source is an object"):
        TokenProvider(ScriptedSource)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="policy is a RefreshPolicy"):
        TokenProvider(source, policy={"margin": 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a clock is an object"):
        TokenProvider(source, clock=time)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_resources"):
        TokenProvider(source, max_resources=True)
    with pytest.raises(TypeError, match="max_resources"):
        TokenProvider(source, max_resources=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_resources"):
        TokenProvider(source, max_resources=0)


# What may be seen


async def test_statistics_tell_what_goes_on(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Sums and each resource are there, with the last error, and no token."""
    await provider.token(VAULT)
    await provider.token(VAULT)
    source.script(EndpointError("down"))
    await clock.advance(HALF)
    statistics = provider.statistics()
    (resource,) = statistics.resources
    assert (statistics.tokens, statistics.fetches, statistics.failures, statistics.in_flight) == (1, 2, 1, 0)
    assert (resource.state, resource.last_error, resource.failures_in_a_row) == ("DUE", "down", 1)
    assert "token-1" not in repr(statistics)


async def test_no_token_is_in_any_repr(provider: TokenProvider) -> None:
    """Neither the provider nor a token shows what must stay secret."""
    token = await provider.access_token(VAULT)
    assert repr(provider) == "<TokenProvider source=scripted tokens=1 in_flight=0>"
    assert "token-1" not in repr(token)


def test_errors_can_be_sent_to_another_process() -> None:
    """Errors keep their attributes through pickle."""
    error = EndpointError("down", resource=VAULT, source="imds", status=429, code="busy", retry_after=7)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301  (our own)
    assert type(copied) is EndpointError
    assert (str(copied), vars(copied)) == (str(error), vars(error))
