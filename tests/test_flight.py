"""Many callers, one call."""

from __future__ import annotations

import asyncio

import pytest

from aiomsi._flight import Flight


def _as_it_is(_flight: Flight[str], outcome: str | BaseException) -> str | BaseException:
    return outcome


async def _call(gate: asyncio.Event, outcome: str | Exception = "landed") -> str:
    await gate.wait()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def test_all_who_boarded_get_what_the_owner_makes_of_the_outcome() -> None:
    """The owner sees the outcome once, before any waiter, and decides what they get."""
    gate = asyncio.Event()
    seen: list[object] = []

    def landed(flight: Flight[str], outcome: str | BaseException) -> str:
        seen.append((flight, outcome, [seat.done() for seat in seats]))
        return "for the waiters"

    flight = Flight(_call(gate), landed)
    seats = [flight.board() for _ in range(3)]
    assert flight.waiting == 3
    gate.set()
    assert await asyncio.gather(*seats) == ["for the waiters"] * 3
    assert seen == [(flight, "landed", [False] * 3)]
    assert flight.waiting == 0


async def test_an_error_is_a_result_like_any_other() -> None:
    """Errors are handed over, not set on the waiters' futures, where an unread one would be logged."""
    gate = asyncio.Event()
    flight = Flight(_call(gate, KeyError("x")), _as_it_is)
    seat = flight.board()
    gate.set()
    assert isinstance(await seat, KeyError)


async def test_who_left_is_not_woken() -> None:
    """A waiter that left is no longer counted, and leaving twice is fine."""
    gate = asyncio.Event()
    flight = Flight(_call(gate), _as_it_is)
    stays, leaves = flight.board(), flight.board()
    flight.leave(leaves)
    flight.leave(leaves)
    gate.set()
    assert await stays == "landed"
    assert not leaves.done()


async def test_release_lets_those_go_who_wait_now() -> None:
    """The flight goes on, and who boards later gets what comes of it."""
    gate = asyncio.Event()
    flight = Flight(_call(gate), _as_it_is)
    early, cancelled = flight.board(), flight.board()
    cancelled.cancel()
    flight.release("the old one")
    late = flight.board()
    gate.set()
    assert (await early, await late) == ("the old one", "landed")


async def test_giving_up_ends_the_wait_before_the_call() -> None:
    """The waiters need not wait until a call that is cancelled has noticed it."""
    flight = Flight(_call(asyncio.Event()), _as_it_is)
    seat = flight.board()
    flight.give_up(KeyError("given up"))
    assert isinstance(seat.result(), KeyError)
    with pytest.raises(asyncio.CancelledError):
        await flight.task


async def test_a_flight_lands_only_once() -> None:
    """What comes of a call that was given up is nobody's concern any more."""
    gate = asyncio.Event()
    outcomes: list[object] = []

    def landed(_flight: Flight[str], outcome: str | BaseException) -> str | BaseException:
        outcomes.append(outcome)
        return outcome

    flight = Flight(_call(gate, KeyError("late")), landed)
    flight.give_up(ValueError("given up"))
    await asyncio.wait([flight.task])
    assert [type(outcome) for outcome in outcomes] == [ValueError]


async def test_an_owner_that_fails_leaves_nobody_waiting() -> None:
    """If the owner cannot take the outcome in, the waiters get what went wrong."""
    gate = asyncio.Event()

    def broken(_flight: Flight[str], _outcome: str | BaseException) -> str:
        raise KeyError("a bug")

    flight = Flight(_call(gate), broken)
    seat = flight.board()
    gate.set()
    assert isinstance(await seat, KeyError)


async def test_a_call_cancelled_from_outside_says_so() -> None:
    """Cancelling the task that makes the call is an outcome, not a hang."""
    flight = Flight(_call(asyncio.Event()), _as_it_is)
    seat = flight.board()
    flight.task.cancel()
    assert isinstance(await seat, asyncio.CancelledError)
