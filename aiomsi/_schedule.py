"""When to fetch: pure functions of what they are told, none of which asks the time."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from enum import Enum

from aiomsi._errors import AiomsiError, SourceUnavailableError, TokenRefusedError

__all__ = [
    "LEAST_WAIT",
    "Freshness",
    "Moment",
    "RefreshPolicy",
    "Timetable",
    "asked_wait",
    "retry_delay",
    "same_token_delay",
    "timetable",
]


LEAST_WAIT = 1.0  # Seconds between the calls of a timer: a host in a hurry gets no hot loop.


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """When tokens are refreshed and failures retried. All values but the fractions are in seconds.

    Raises:
        TypeError: a value is not a number.
        ValueError: a value is out of its range; the message names it.
    """

    half_life_from: float = 7200.0
    """A token with at least this life is refreshed after half of it, where the host names no moment itself."""
    margin: float = 300.0
    """A shorter one is refreshed this long before its end, but not before half its life."""
    spread: float = 0.1
    """The refresh is drawn from the last part of that wait, so that a fleet spreads out. 0.1 of 12 h is 72 min."""
    must_margin: float = 60.0
    """This long before a token's end callers begin to wait for the next one,"""
    must_fraction: float = 0.1
    """but not for more than this part of its life,"""
    must_wait: float = 2.0
    """and none for longer than this while the old one is valid."""
    refresh_retry_first: float = 30.0
    """The wait after a first failed refresh while a token is valid; each further failure doubles it,"""
    refresh_retry_most: float = 300.0
    """up to this,"""
    refresh_retry_spread: float = 0.2
    """drawn from this part around it."""
    failure_retry_first: float = 1.0
    """With no valid token, a failure is repeated to callers for this long; each further failure doubles it,"""
    failure_retry_most: float = 30.0
    """up to this, which is also what a refusal gets."""
    unavailable_retry_most: float = 2.0
    """The same limit for a source that is not there: the developer may just have logged in."""
    expired_retry_most: float = 30.0
    """When a token expires during a wait for the next attempt, the rest of the wait is cut to this."""
    same_token_least: float = 60.0
    """When the host hands out the token that is held already, it is asked again after this,"""
    same_token_fraction: float = 0.25
    """or after this part of the token's remaining life if that is longer."""
    rejected_interval: float = 5.0
    """Tokens that a service refused are replaced no more often than this."""
    identity_interval: float = 5.0
    """A source that can tell its identity is asked for it this often, but at most every second, while it is in use."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"RefreshPolicy.{name} is a number, not {value!r}")
            most = 1 if name.endswith(("spread", "fraction")) else sys.float_info.max
            if not 0 <= value <= most:
                unit = "a fraction from 0 to 1" if most == 1 else "a number of seconds, 0 or more"
                raise ValueError(f"RefreshPolicy.{name} is {unit}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of both clocks, in seconds."""

    wall: float
    monotonic: float


class Freshness(Enum):
    """How good a held token is."""

    FRESH = "use it"
    DUE = "use it, and fetch the next one behind the caller's back"
    MUST = "use it only if the next one does not come soon"
    EXPIRED = "never use it again"


@dataclass(frozen=True, slots=True)
class Timetable:
    """A token's life, in seconds since it was received."""

    received: Moment
    base: float
    soft: float
    must: float
    life: float

    def age(self, now: Moment) -> float:
        """Return the seconds since receipt, believing the clock that says more.

        The wall clock jumps, and the monotonic one stands still while the machine is suspended (PEP 418); serving a
        dead token is the worse mistake.
        """
        return max(now.wall - self.received.wall, now.monotonic - self.received.monotonic)

    def freshness(self, now: Moment) -> Freshness:
        """Return how good the token is *now*."""
        age = self.age(now)
        if age < self.soft:
            return Freshness.FRESH
        if age < self.must:
            return Freshness.DUE
        return Freshness.MUST if age < self.life else Freshness.EXPIRED


def timetable(
    policy: RefreshPolicy, received: Moment, expires_on: float, refresh_on: float | None, chance: float
) -> Timetable:
    """Plan the life of a token that expires at *expires_on*; *chance* is drawn from 0 to 1, once per token."""
    life = expires_on - received.wall
    base = 0.0 if refresh_on is None else refresh_on - received.wall
    if not 0 < base < life:
        base = life / 2 if life >= policy.half_life_from else max(life - policy.margin, life / 2)
    must = life - min(policy.must_margin, life * policy.must_fraction)
    soft = max(base * (1 - policy.spread * chance), LEAST_WAIT)
    return Timetable(received, base, min(must, soft), must, life)


def retry_delay(policy: RefreshPolicy, error: BaseException, failures: int, *, holding: bool, chance: float) -> float:
    """Return the seconds until the next attempt after the *failures*-th failure in a row.

    *holding* says whether a valid token is held, *chance* is drawn from 0 to 1. Retry-After comes on top.
    """
    doubled = 2.0 ** min(failures - 1, 20)
    if holding:
        delay = min(policy.refresh_retry_first * doubled, policy.refresh_retry_most)
        delay *= 1 + policy.refresh_retry_spread * (2 * chance - 1)
    elif isinstance(error, TokenRefusedError):
        delay = policy.failure_retry_most
    else:
        absent = isinstance(error, SourceUnavailableError)
        delay = min(
            policy.failure_retry_first * doubled,
            policy.unavailable_retry_most if absent else policy.failure_retry_most,
        )
    return delay


def asked_wait(error: BaseException) -> float:
    """Return the seconds that the host asked us to wait, 0 if it did not."""
    wait = error.retry_after if isinstance(error, AiomsiError) else None
    return float(wait) if isinstance(wait, int | float) and 0 <= wait <= sys.float_info.max else 0.0


def same_token_delay(policy: RefreshPolicy, remaining: float) -> float:
    """Return the seconds until the next attempt when the host handed out the token that is held already."""
    return max(policy.same_token_least, remaining * policy.same_token_fraction)
