"""The kit for tests is tested too."""

from __future__ import annotations

import asyncio

import pytest

from aiomsi import EndpointError
from aiomsi._clock import SYSTEM_CLOCK, sleep, time_limit
from aiomsi.sources import TokenRequest
from aiomsi.testing import ManualClock, ScriptedSource


async def test_time_passes_only_when_told() -> None:
    """Both clocks move together, and the wall clock can be set apart."""
    clock = ManualClock(1000)
    await clock.advance(5)
    assert (clock.wall(), clock.monotonic()) == (1005, 5)
    clock.wall_offset = -100
    assert (clock.wall(), clock.monotonic()) == (905, 5)
    assert repr(clock) == "<ManualClock wall=905.000 timers=0>"
    with pytest.raises(ValueError, match="time does not go back"):
        await clock.advance(-1)


async def test_timers_fire_in_order_and_at_their_own_moments() -> None:
    """A timer sees the time for which it was set, and one that it sets fires in the same advance."""
    clock = ManualClock()
    story: list[tuple[str, float]] = []

    def first() -> None:
        story.append(("first", clock.monotonic()))
        clock.call_later(1, lambda: story.append(("nested", clock.monotonic())))

    clock.call_later(3, lambda: story.append(("second", clock.monotonic())))
    clock.call_later(1, first)
    clock.call_later(2, lambda: story.append(("never", 0))).cancel()
    assert clock.timers == 2
    await clock.advance(10)
    assert story == [("first", 1), ("nested", 2), ("second", 3)]


@pytest.mark.parametrize("manual", [True, False], ids=["manual", "system"])
async def test_sleeping_and_limits_go_by_the_clock(manual: bool) -> None:
    """A sleeper wakes when its time has come, and a block that is too slow raises TimeoutError."""
    clock = ManualClock() if manual else None

    async def too_slow() -> None:
        async with time_limit(clock or SYSTEM_CLOCK, 0.01):
            await asyncio.Event().wait()

    sleeper = asyncio.create_task(sleep(clock or SYSTEM_CLOCK, 0.005))
    limited = asyncio.create_task(too_slow())
    if clock:
        await clock.advance(0.01)
    await sleeper
    with pytest.raises(TimeoutError):
        await limited


async def test_a_limit_that_is_kept_leaves_no_timer() -> None:
    """A block that ends in time, or with its own error, cancels its timer."""
    clock = ManualClock()
    async with time_limit(clock, 5):
        assert clock.timers == 1
    with pytest.raises(KeyError):
        async with time_limit(clock, 5):
            raise KeyError
    assert clock.timers == 0


def test_the_system_clock_holds_the_builtins_themselves() -> None:
    """A method around `time.time` would cost a warm call a third."""
    import time

    assert SYSTEM_CLOCK.wall is time.time
    assert SYSTEM_CLOCK.monotonic is time.monotonic
    assert repr(SYSTEM_CLOCK) == "<system clock>"


async def test_a_scripted_source_gives_what_it_was_told() -> None:
    """Texts are tokens, exceptions are raised, and then come numbered tokens."""
    clock = ManualClock(1000)
    source = ScriptedSource(lifetime=100, refresh_in=50)
    source.script("first", EndpointError("down"))
    request = TokenRequest("https://vault.azure.net", clock=clock)
    token = await source.fetch(request)
    assert (token.token, token.expires_on, token.refresh_on) == ("first", 1100, 1050)
    with pytest.raises(EndpointError):
        await source.fetch(request)
    assert (await source.fetch(request)).token == "token-1"
    assert source.requests == [request] * 3


def test_a_scripted_source_answers_for_whom_it_is_told() -> None:
    """Its identity is none at first, and may be changed at any time."""
    source = ScriptedSource()
    assert source.identity_key() is None
    source.identity = "alice"
    assert source.identity_key() == "alice"


async def test_releasing_a_held_source_spares_who_left() -> None:
    """A fetch that was cancelled while it was held is not woken."""
    source = ScriptedSource(held=True)
    fetch = asyncio.create_task(source.fetch(TokenRequest("r")))
    await asyncio.sleep(0)
    fetch.cancel()
    source.release()
    with pytest.raises(asyncio.CancelledError):
        await fetch
