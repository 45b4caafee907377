"""Odd sources, odd errors and odd event loops: nobody waits for ever, nothing is asked for in a hot loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aiomsi import (
    AccessToken,
    EndpointError,
    MalformedResponseError,
    ProviderClosedError,
    RefreshPolicy,
    TokenProvider,
)
from aiomsi._errors import another, without_frames
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from aiomsi.sources import TokenRequest

VAULT = "https://vault.azure.net"
DAY = 86_400.0
HALF = DAY / 2


class FalsyError(Exception):
    def __bool__(self) -> bool:
        return False


class UnchangeableError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def in_a_circle() -> Exception:
    error = KeyError("cause of itself")
    error.__cause__ = error
    return error


@pytest.mark.parametrize(
    "error",
    [
        FalsyError("no"),
        UnchangeableError("no"),
        in_a_circle(),
        ExceptionGroup("several", [KeyError("a"), ValueError("b")]),
        EndpointError("no", retry_after="30"),  # type: ignore[arg-type]
        EndpointError("no", retry_after=float("nan")),
        EndpointError("no", retry_after=10**400),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_source_raises_ends_the_wait_and_is_backed_off(
    clock: ManualClock, error: BaseException
) -> None:
    """Callers get an error at once, and a hundred further calls are not a hundred requests."""
    asked: list[TokenRequest] = []

    class Odd:
        name = "odd"

        async def fetch(self, request: TokenRequest) -> AccessToken:
            asked.append(request)
            raise error

    async with TokenProvider(Odd(), clock=clock) as provider:
        for _ in range(100):
            with pytest.raises(Exception):  # noqa: B017, PT011  (whatever it is)
                async with asyncio.timeout(5):
                    await provider.token(VAULT)
    assert len(asked) == 1


async def test_a_subclass_of_a_token_is_held_as_a_plain_one(clock: ManualClock) -> None:
    """What a source returns is copied; its class need not be as well-behaved as ours."""

    class Odd(AccessToken):
        def __init__(self) -> None:
            super().__init__("t", 2e9, None, "another resource", "odd")

    class Source:
        name = "odd"

        async def fetch(self, request: TokenRequest) -> AccessToken:  # noqa: ARG002
            return Odd()

    async with TokenProvider(Source(), clock=clock) as provider:
        token = await provider.access_token(VAULT)
    assert (type(token), token.resource) == (AccessToken, VAULT)


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_source_that_takes_nobody_is_told(clock: ManualClock, limit: int) -> None:
    """A limit that nobody can pass is an error, not a queue without end."""
    async with TokenProvider(ScriptedSource(max_parallel=limit), clock=clock) as provider:
        with pytest.raises(ValueError, match="max_parallel"):
            await provider.token(VAULT)


async def test_a_source_that_is_given_up_gives_its_place_back(clock: ManualClock) -> None:
    """A fetch that ignores its cancellation does not keep others out for ever."""
    done = asyncio.Event()

    class Stubborn(ScriptedSource):
        async def fetch(self, request: TokenRequest) -> AccessToken:
            while not done.is_set() and request.resource == "https://stuck.example":
                try:
                    await done.wait()
                except asyncio.CancelledError:
                    continue
            return await super().fetch(request)

    async with TokenProvider(Stubborn(max_parallel=1, time_limit=5), clock=clock) as provider:
        stuck = asyncio.create_task(provider.token("https://stuck.example"))
        await clock.settle()
        other = asyncio.create_task(provider.token(VAULT))
        await clock.advance(6)
        with pytest.raises(EndpointError):
            await stuck
        assert await other == "token-1"
        done.set()
        await clock.settle()


def cancel_the_fetches(*spared: asyncio.Task[Any]) -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task(), *spared}:
        task.cancel()


async def test_a_fetch_cancelled_from_outside_is_not_the_callers_concern_while_a_token_is_valid(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """Who waits near a token's end gets that token, and the source is not asked again at once."""
    await provider.token(VAULT)
    await clock.advance(DAY - 30)
    source.held = True
    caller = asyncio.create_task(provider.token(VAULT))
    await clock.settle()
    cancel_the_fetches(caller)
    assert await caller == "token-1"
    for _ in range(100):
        assert await provider.token(VAULT) == "token-1"
    assert len(source.requests) == 2
    await clock.advance(1)
    source.release()
    await clock.settle()
    assert await provider.token(VAULT) == "token-3"


async def test_a_watcher_outlives_a_cancelled_fetch(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The timer is set again, so that a watched token is refreshed all the same."""
    seen: list[str] = []

    async def watch() -> None:
        async for token in provider.watch(VAULT):
            seen.append(token.token)  # noqa: PERF401  (the test looks while it goes on)

    watcher = asyncio.create_task(watch())
    await clock.settle()
    source.held = True
    await clock.advance(HALF)
    cancel_the_fetches(watcher)
    await clock.settle()
    source.release()
    await clock.advance(1)
    assert seen == ["token-1", "token-3"]
    watcher.cancel()


async def test_a_watched_token_s_end_cuts_the_wait_for_the_next_attempt(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """With nobody but a watcher, the cut at the token's end happens too."""
    seen: list[float] = []

    async def watch() -> None:
        async for _ in provider.watch(VAULT):
            seen.append(clock.monotonic())  # noqa: PERF401  (the test looks while it goes on)

    watcher = asyncio.create_task(watch())
    await clock.settle()
    source.script(*[EndpointError("down")] * 10_000)
    await clock.advance(DAY - 1)
    source.answers.clear()
    await clock.advance(32)
    assert len(seen) == 2
    assert DAY - 1 <= seen[1] <= DAY + 30
    watcher.cancel()


async def test_a_hasty_host_gets_a_request_a_second_at_most(source: ScriptedSource, clock: ManualClock) -> None:
    """A refresh point in a millisecond, or a life of two, is no hot loop."""
    source.refresh_in = 0.001
    async with TokenProvider(source, clock=clock) as provider:
        for _ in range(100):
            await provider.token(VAULT)
            await clock.advance(0.1)
        assert len(source.requests) <= 11
        source.requests.clear()
        source.lifetime = 0.002
        watching = provider.watch("https://storage.azure.com/")
        await anext(aiter(watching))
        await clock.advance(10)
        assert len([r for r in source.requests if r.resource != VAULT]) <= 11
        await watching.aclose()  # type: ignore[attr-defined]


class Gated:
    """A source whose answers the test lets go one by one, in any order."""

    name = "gated"

    def __init__(self) -> None:
        self.gates: list[asyncio.Future[str]] = []

    async def fetch(self, request: TokenRequest) -> AccessToken:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        return AccessToken(await gate, request.clock.wall() + DAY, None, request.resource, "gated")


@pytest.fixture
def gated() -> Gated:
    return Gated()


async def answered(gated: Gated, clock: ManualClock, number: int, token: str | Exception) -> None:
    gate = gated.gates[number]
    if isinstance(token, Exception):
        gate.set_exception(token)
    else:
        gate.set_result(token)
    await clock.settle()


async def hold_an_old_token(provider: TokenProvider, gated: Gated, clock: ManualClock) -> None:
    asking = asyncio.create_task(provider.token(VAULT))
    await clock.settle()
    await answered(gated, clock, 0, "old")
    assert await asking == "old"


async def test_the_same_new_token_twice_in_the_air_is_not_a_stale_host(gated: Gated, clock: ManualClock) -> None:
    """A refresh and a rejection that bring the same new token do not close the gate for hours."""
    async with TokenProvider(gated, clock=clock, policy=RefreshPolicy(spread=0)) as provider:
        await hold_an_old_token(provider, gated, clock)
        await provider.token(VAULT)
        await clock.advance(HALF)
        rejecting = asyncio.create_task(provider.access_token(VAULT, rejected="old"))
        await clock.settle()
        await answered(gated, clock, 1, "new")
        await answered(gated, clock, 2, "new")
        assert (await rejecting).token == "new"
        await clock.advance(6)
        again = asyncio.create_task(provider.access_token(VAULT, rejected="new"))
        await clock.settle()
        assert len(gated.gates) == 4
        await answered(gated, clock, 3, "newest")
        assert (await again).token == "newest"


async def test_of_two_challenges_the_later_one_s_token_stays(gated: Gated, clock: ManualClock) -> None:
    """An older challenge's token is given to who asked for it, but does not replace the newer one's."""
    async with TokenProvider(gated, clock=clock) as provider:
        await hold_an_old_token(provider, gated, clock)
        slow = asyncio.create_task(provider.access_token(VAULT, claims="a"))
        await clock.advance(6)
        fast = asyncio.create_task(provider.access_token(VAULT, claims="b"))
        await clock.settle()
        await answered(gated, clock, 2, "for-b")
        await answered(gated, clock, 1, "for-a")
        assert ((await slow).token, (await fast).token, provider.peek(VAULT)) == ("for-a", "for-b", "for-b")


async def test_a_retry_after_stands_whatever_else_fails_meanwhile(gated: Gated, clock: ManualClock) -> None:
    """The host's hour is not shortened by another flight that just breaks."""
    async with TokenProvider(gated, clock=clock, policy=RefreshPolicy(spread=0)) as provider:
        await hold_an_old_token(provider, gated, clock)
        await provider.token(VAULT)
        await clock.advance(HALF)
        challenged = asyncio.create_task(provider.access_token(VAULT, claims="a"))
        await clock.settle()
        await answered(gated, clock, 1, EndpointError("throttled", retry_after=3600))
        await answered(gated, clock, 2, EndpointError("broken"))
        with pytest.raises(EndpointError):
            await challenged
        await clock.advance(3599)
        await provider.token(VAULT)
        assert len(gated.gates) == 3
        await clock.advance(1)
        assert len(gated.gates) == 4


async def test_a_provider_behind_a_source_may_be_closed(
    provider: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """A ProviderClosedError that comes from a source is its error, and not our own end."""
    await provider.token(VAULT)
    await clock.advance(DAY - 30)
    source.script(*[ProviderClosedError("the inner one")] * 2)
    for _ in range(100):
        assert await provider.token(VAULT) == "token-1"
    assert len(source.requests) == 2


def test_a_former_loop_s_timers_and_flights_do_nothing(gated: Gated) -> None:
    """What an earlier event loop still had does not touch what a later one holds, even if it runs on."""
    clock = ManualClock()
    provider = TokenProvider(gated, clock=clock)
    former = asyncio.new_event_loop()

    async def ask() -> asyncio.Task[str]:
        caller = asyncio.create_task(provider.token(VAULT))
        await clock.settle()
        return caller

    caller = former.run_until_complete(ask())

    async def later() -> str:
        asking = asyncio.create_task(provider.token(VAULT))
        await clock.settle()
        await answered(gated, clock, 1, "new")
        return await asking

    assert asyncio.run(later()) == "new"
    gated.gates[0].set_result("stale")
    assert former.run_until_complete(caller) == "stale"
    former.close()
    assert provider.peek(VAULT) == "new"


def test_a_later_loop_has_a_timer_of_its_own(source: ScriptedSource) -> None:
    """After a slow call on a second loop, refreshes go on by themselves there."""
    clock = ManualClock()
    provider = TokenProvider(source, clock=clock, policy=RefreshPolicy(spread=0))
    asyncio.run(provider.token(VAULT))

    async def later() -> None:
        await provider.token("https://storage.azure.com/")
        provider.peek(VAULT)
        await clock.advance(HALF)

    asyncio.run(later())
    assert [request.resource for request in source.requests].count(VAULT) == 2


async def test_an_evicted_resource_leaves_no_timer(source: ScriptedSource, clock: ManualClock) -> None:
    """What is forgotten is forgotten by the clock too."""
    async with TokenProvider(source, clock=clock, max_resources=2) as provider:
        for number in range(50):
            await provider.token(f"https://{number}.example")
        assert clock.timers == 2


def test_a_task_factory_of_the_older_signature_will_do(source: ScriptedSource) -> None:
    """Tracing libraries install factories that take a loop and a coroutine, and nothing else."""

    async def main() -> str:
        factory: Any = lambda loop, coroutine: asyncio.Task(coroutine, loop=loop)  # noqa: E731
        asyncio.get_running_loop().set_task_factory(factory)
        async with TokenProvider(source) as provider:
            return await provider.token(VAULT)

    assert asyncio.run(main()) == "token-1"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_will_do(source: ScriptedSource) -> None:
    """A fetch that ends before its flight is stored lands all the same."""

    async def main() -> list[str]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with TokenProvider(source) as provider:
            return await asyncio.gather(*(provider.token(VAULT) for _ in range(10)))

    assert asyncio.run(main()) == ["token-1"] * 10


async def test_debug_mode_logs_no_token(source: ScriptedSource, caplog: pytest.LogCaptureFixture) -> None:
    """The event loop's debug mode shows slow tasks and callbacks with their results, but of ours no token."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    source.script("a-very-secret-token")

    async def caller() -> None:
        await provider.token(VAULT)

    async with TokenProvider(source) as provider:
        await asyncio.gather(*(caller() for _ in range(3)))
    assert "AccessToken" in caplog.text
    assert "a-very-secret-token" not in caplog.text


async def test_a_token_of_any_text_can_be_rejected(provider: TokenProvider) -> None:
    """Not even a text that is no Unicode shows itself in an error."""
    await provider.token(VAULT)
    assert (await provider.access_token(VAULT, rejected="\ud800")).token == "token-1"


def test_a_connection_string_in_the_wrong_place_is_not_shown() -> None:
    """Who passes a connection string as a source is told so without its secret."""
    with pytest.raises(TypeError, match="not a str") as caught:
        TokenProvider("RunAs=App;AppKey=hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


async def test_prefetch_does_not_swallow_what_is_no_error(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation inside of prefetch is passed on."""
    provider = TokenProvider(ScriptedSource(), clock=clock)

    async def cancelled(_self: TokenProvider, _resource: str) -> AccessToken:
        raise asyncio.CancelledError

    monkeypatch.setattr(TokenProvider, "access_token", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await provider.prefetch(VAULT)


def test_copies_of_an_error_share_no_notes() -> None:
    """A note that one caller adds is not seen by the others."""
    error = EndpointError("down")
    error.add_note("first")
    copied = another(error)
    copied.add_note("second")
    assert error.__notes__ == ["first"]


def test_an_error_that_a_copy_would_change_is_shared() -> None:
    """A class that puts something before its message would do so twice."""

    class PrefixingError(Exception):
        def __init__(self, text: str) -> None:
            super().__init__(f"prefix: {text}")

    error = PrefixingError("x")
    assert another(error) is error


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301  (to give it a traceback)
    except BaseException as caught:  # noqa: BLE001  (whatever it is)
        return caught


def test_frames_are_taken_off_causes_and_members_too() -> None:
    """An error keeps no frame, wherever it is kept."""
    member, cause = raised(KeyError("member")), raised(ValueError("cause"))
    assert isinstance(member, KeyError)
    group = raised(ExceptionGroup("several", [member]))
    group.__cause__ = cause
    without_frames(group)
    assert (group.__traceback__, member.__traceback__, cause.__traceback__) == (None, None, None)


async def test_a_failing_provider_leaves_nothing_for_the_garbage_collector(clock: ManualClock) -> None:
    """Errors that are given out and dropped are gone at once, with the frames of their callers."""
    source = ScriptedSource()
    source.script(*[MalformedResponseError("odd")] * 100)
    gc.collect()
    gc.disable()
    try:
        async with TokenProvider(source, clock=clock) as provider:
            for _ in range(20):
                with contextlib.suppress(MalformedResponseError):
                    await provider.token(VAULT)
                await clock.advance(31)
            kept = [thing for thing in gc.get_objects() if isinstance(thing, MalformedResponseError)]
        assert len(kept) <= 100 - len(source.requests) + 2
    finally:
        gc.enable()
