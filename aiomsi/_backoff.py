"""Whether a source may be asked again yet, and what it said last. Pure: it is told the time."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from aiomsi._errors import another
from aiomsi._schedule import asked_wait, retry_delay

if TYPE_CHECKING:
    from aiomsi._schedule import RefreshPolicy

__all__ = ["Backoff"]

_NEVER = -math.inf


class Backoff:
    """The failures in a row, and the gate that they keep closed. All moments are in monotonic seconds."""

    __slots__ = ("_no_sooner", "_policy", "error", "failures", "retry_at")

    def __init__(self, policy: RefreshPolicy) -> None:
        self._policy = policy
        self.error: BaseException | None = None
        self.failures = 0
        self.retry_at = _NEVER
        self._no_sooner = _NEVER

    def is_open(self, now: float) -> bool:
        """Return whether a flight may start."""
        return now >= self.retry_at

    def check(self, now: float) -> None:
        """Raise a new instance of the last error while it stands."""
        if self.error is not None and not self.is_open(now):
            raise another(self.error)

    def succeed(self, now: float, wait: float = 0.0) -> None:
        """Forget all failures; no flight starts for *wait* seconds."""
        self.error, self.failures = None, 0
        self.retry_at, self._no_sooner = now + wait, _NEVER

    def fail(self, error: BaseException, now: float, *, holding: bool) -> None:
        """Remember one more failure; *holding* says whether callers have a valid token to live on."""
        self.error = error
        self.failures += 1
        chance = random.random()  # noqa: S311  (spreads a fleet; nobody gains by guessing it)
        # What another flight was told meanwhile stands.
        self._no_sooner = max(self._no_sooner, now + asked_wait(error))
        delay = retry_delay(self._policy, error, self.failures, holding=holding, chance=chance)
        self.retry_at = max(now + delay, self._no_sooner)

    def pause(self, now: float) -> None:
        """Let no flight start for a moment, though nothing was learnt about the source."""
        self.retry_at = max(self.retry_at, now + self._policy.failure_retry_first)

    def expire(self, now: float) -> None:
        """Shorten the wait, which was chosen while callers had a valid token and now they have none."""
        soonest = min(self.retry_at, now + self._policy.expired_retry_most) if self.error is not None else now
        self.retry_at = max(soonest, self._no_sooner)
