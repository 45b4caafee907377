"""Several event loops, one after the other or not, and forked processes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest
import uvloop

from aiomsi import TokenProvider, WrongLoopError
from aiomsi.testing import ManualClock, ScriptedSource

VAULT = "https://vault.azure.net"


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Bring a loop to its end, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def test_a_provider_may_be_made_without_a_loop() -> None:
    """A provider at module level needs no event loop before its first fetch."""
    provider = TokenProvider(ScriptedSource())
    assert asyncio.run(provider.token(VAULT)) == "token-1"


def test_a_token_outlives_its_event_loop() -> None:
    """A second `asyncio.run` finds the token of the first one, and can fetch others."""
    source = ScriptedSource()
    provider = TokenProvider(source)
    assert asyncio.run(provider.token(VAULT)) == "token-1"
    assert asyncio.run(provider.token(VAULT)) == "token-1"
    assert asyncio.run(provider.token("https://storage.azure.com/")) == "token-2"
    assert uvloop.run(provider.token("https://graph.microsoft.com")) == "token-3"
    assert len(source.requests) == 3


def test_a_fetch_does_not_outlive_its_event_loop() -> None:
    """A loop that ends in the middle of a fetch leaves nothing behind that the next one would wait for."""
    source = ScriptedSource(held=True, max_parallel=1)
    provider = TokenProvider(source)

    async def leave_in_the_middle() -> None:
        waiting = asyncio.create_task(provider.token(VAULT))
        while not source.requests:  # noqa: ASYNC110  (turns of the loop, not time)
            await asyncio.sleep(0)
        assert not waiting.done()

    asyncio.run(leave_in_the_middle())
    source.held = False
    assert asyncio.run(provider.token(VAULT)) == "token-2"


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_fetch_says_nothing_about_the_source(end: type[BaseException]) -> None:
    """Whoever presses Ctrl-C and starts again gets a token, and not what became of the first attempt."""
    source = ScriptedSource()
    source.script(end())
    provider = TokenProvider(source)
    with pytest.raises(end):
        asyncio.run(provider.token(VAULT))
    assert asyncio.run(provider.token(VAULT)) == "token-1"


def test_a_loop_that_ends_while_a_caller_waits_for_the_next_token_leaves_no_timer() -> None:
    """The two seconds of a token's last minute do not go on without their event loop."""
    source, clock = ScriptedSource(), ManualClock()
    provider = TokenProvider(source, clock=clock)
    asyncio.run(provider.token(VAULT))

    async def near_the_end() -> None:
        await clock.advance(86_400 - 30)
        source.held = True
        waiting = asyncio.create_task(provider.token(VAULT))
        await clock.settle()
        assert not waiting.done()

    former = asyncio.new_event_loop()
    former.run_until_complete(near_the_end())
    assert clock.timers == 3  # The two seconds, the limit of the fetch, and the next refresh.
    source.held = False
    assert asyncio.run(provider.token(VAULT)) == "token-3"
    end(former)
    assert provider.peek(VAULT) == "token-3"


def test_a_loop_that_was_stopped_and_abandoned_is_not_waited_for() -> None:
    """Flights of a loop that was never run to its end are dropped."""
    source = ScriptedSource(held=True)
    provider = TokenProvider(source)
    abandoned = asyncio.new_event_loop()
    caller = abandoned.create_task(provider.token(VAULT))
    abandoned.run_until_complete(asyncio.sleep(0))
    abandoned.run_until_complete(asyncio.sleep(0))
    assert provider.statistics().in_flight == 1
    source.held = False
    assert asyncio.run(provider.token(VAULT)) == "token-2"
    end(abandoned)
    assert caller.cancelled()
    assert provider.peek(VAULT) == "token-2"


def test_a_provider_can_be_closed_on_a_later_loop() -> None:
    """Closing on another loop than the fetching one is fine once that has ended."""
    provider = TokenProvider(ScriptedSource())
    asyncio.run(provider.token(VAULT))
    asyncio.run(provider.aclose())
    assert "closed" in repr(provider)


async def test_closing_again_is_fine_from_anywhere() -> None:
    """A provider that is closed already belongs to no event loop any more."""
    provider = TokenProvider(ScriptedSource())
    await provider.token(VAULT)
    await provider.aclose()
    await asyncio.to_thread(asyncio.run, provider.aclose())


async def test_a_cold_call_from_a_second_running_loop_is_refused() -> None:
    """While the provider's loop runs, another thread's loop gets warm tokens only."""
    provider = TokenProvider(ScriptedSource())
    await provider.token(VAULT)
    outcomes: list[object] = []

    def other_thread() -> None:
        outcomes.append(asyncio.run(provider.token(VAULT)))
        try:
            asyncio.run(provider.token("https://storage.azure.com/"))
        except WrongLoopError as error:
            outcomes.append(error)

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert outcomes[0] == "token-1"
    assert isinstance(outcomes[1], WrongLoopError)
    assert isinstance(outcomes[1], RuntimeError)
    assert (outcomes[1].resource, outcomes[1].source) == ("https://storage.azure.com/", "scripted")
    assert "one provider for each running loop" in str(outcomes[1])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_tokens_and_drops_flights() -> None:
    """A pre-fork server may prefetch in the parent: the children have the token, and their own fetches work."""
    source = ScriptedSource()
    provider = TokenProvider(source)
    asyncio.run(provider.prefetch(VAULT))
    child = os.fork()
    if child == 0:  # pragma: no cover  (the child reports by its exit code)
        answers = [asyncio.run(provider.token(r)) for r in (VAULT, "https://storage.azure.com/")]
        os._exit(0 if answers == ["token-1", "token-2"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_a_fork_in_a_running_loop_drops_what_the_parent_waits_for() -> None:
    """In a child that inherited a running loop, the parent's flights are not waited for, and no error is raised."""
    from aiomsi._clock import SYSTEM_CLOCK
    from aiomsi._fetcher import Fetcher

    fetcher = Fetcher(ScriptedSource(), SYSTEM_CLOCK)
    assert not fetcher.settle()
    fetcher._pid += 1
    assert fetcher.settle()
    assert not fetcher.settle()
