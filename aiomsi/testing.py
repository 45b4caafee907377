"""For tests, ours and yours: a clock that the test moves, and a source that answers as it is told."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiomsi._token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi._source import TokenRequest

__all__ = ["ManualClock", "ScriptedSource"]

_SETTLING = 10  # Rounds of the event loop in a row without a timer set or fired, after which nothing more will happen.


@dataclass(eq=False, slots=True)
class _Timer:
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock on which time passes only when the test says so.

    *now* is the Unix time in seconds, UTC, at which it starts. `await clock.advance(60)` lets a minute pass and every
    timer fire at its own moment; setting `clock.wall_offset` lets the wall clock jump.
    """

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self._start = now
        self._passed = 0.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()
        self.wall_offset = 0.0

    def __repr__(self) -> str:
        return f"<ManualClock wall={self.wall():.3f} timers={self.timers}>"

    @property
    def timers(self) -> int:
        """How many timers are set."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def wall(self) -> float:
        """Return the Unix time in seconds, UTC."""
        return self._start + self._passed + self.wall_offset

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self._passed

    def call_later(self, delay: float, callback: Callable[[], object], /) -> _Timer:
        """Call *callback* when *delay* seconds have passed."""
        timer = _Timer(callback)
        heapq.heappush(self._timers, (self._passed + delay, next(self._order), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass, with all timers due in them, and all that follows from those.

        Raises:
            ValueError: *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds!r})")
        end = self._passed + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            moment, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._passed = max(self._passed, moment)
                timer.callback()
                await self.settle()
        self._passed = end
        await self.settle()

    async def settle(self) -> None:
        """Let the event loop run until everything waits: for this clock, for a caller, or for the outside world."""
        for _ in range(_SETTLING):
            await asyncio.sleep(0)  # noqa: TID251  (no time passes)


@dataclass(eq=False)
class ScriptedSource:
    """A source that answers as it is told, and remembers what it was asked.

    *answers* are used up in order: a text is the token to give, an exception is raised. When they are used up, tokens
    are numbered: "token-1", "token-2" and so on. Each lives for *lifetime* seconds, and is to be refreshed *refresh_in*
    seconds from now (None: as the policy says). With *held* set every fetch waits until `release()`. *identity* is what
    `identity_key()` returns.
    """

    lifetime: float = 86_400.0
    refresh_in: float | None = None
    held: bool = False
    name: str = "scripted"
    time_limit: float = 30.0
    max_parallel: int | None = None
    chooses_tenant: bool = False
    identity: str | None = None
    requests: list[TokenRequest] = field(default_factory=list)
    answers: deque[str | BaseException] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._gates: list[asyncio.Future[None]] = []

    def identity_key(self) -> str | None:
        """Return a text that names the identity for which it answers."""
        return self.identity

    def script(self, *answers: str | BaseException) -> None:
        """Add *answers* to those to be given."""
        self.answers.extend(answers)

    def release(self) -> None:
        """Let the fetches that wait now go on, and later ones not wait."""
        self.held = False
        gates, self._gates = self._gates, []
        for gate in gates:
            if not gate.done():
                gate.set_result(None)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Give the next answer."""
        self.requests.append(request)
        answer = self.answers.popleft() if self.answers else f"token-{next(self._numbers)}"
        if self.held:
            gate = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            await gate
        if isinstance(answer, BaseException):
            raise answer
        now = request.clock.wall()
        return AccessToken(
            token=answer,
            expires_on=now + self.lifetime,
            refresh_on=None if self.refresh_in is None else now + self.refresh_in,
            resource=request.resource,
            source=self.name,
        )
