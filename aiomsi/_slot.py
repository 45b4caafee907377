"""One resource's life: the token held, the flight in the air, and when to fly next.

Everything here is synchronous and runs on the provider's event loop, so that no lock is needed: a caller asks, and is
given a token, an error, or a flight to wait for. One state machine, which is why it is one module.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import weakref
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from aiomsi._backoff import Backoff
from aiomsi._errors import AiomsiError, EndpointError, without_frames
from aiomsi._flight import Flight
from aiomsi._schedule import LEAST_WAIT, Freshness, Moment, Timetable, same_token_delay, timetable
from aiomsi._source import TokenRequest
from aiomsi._token import AccessToken

if TYPE_CHECKING:
    from aiomsi._clock import Timer
    from aiomsi._errors import ProviderClosedError
    from aiomsi._fetcher import Fetcher
    from aiomsi._lookout import Lookout
    from aiomsi._schedule import RefreshPolicy

__all__ = ["Answer", "Slot", "sha256_of"]

_log = logging.getLogger("aiomsi.provider")

Answer: TypeAlias = AccessToken | Flight[AccessToken]

_NEVER = -math.inf


def sha256_of(token: str) -> str:
    """Return the lower-case hexadecimal SHA-256 of *token*, which may be kept and compared where it may not."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What was so when a flight was launched."""

    number: int
    claims: str | None
    forced: bool
    held: AccessToken | None


class Slot:
    """What is known of one resource (and tenant), and what is being done about it."""

    __slots__ = (
        "__weakref__",
        "_claims",
        "_closed",
        "_fetcher",
        "_flight",
        "_forced",
        "_forced_at",
        "_forced_number",
        "_impatient",
        "_lookout",
        "_outdated",
        "_patience",
        "_plan",
        "_policy",
        "_timer",
        "_token",
        "_watchers",
        "backoff",
        "failed",
        "fetches",
        "fresh_until",
        "resource",
        "spared",
        "tenant_id",
        "used",
        "value",
    )

    def __init__(
        self, resource: str, tenant_id: str | None, policy: RefreshPolicy, fetcher: Fetcher, lookout: Lookout
    ) -> None:
        self.resource = resource
        self.tenant_id = tenant_id
        # All that a warm call touches: the token's text, the wall time up to which it is FRESH, and the mark of use.
        self.value = ""
        self.fresh_until = _NEVER
        self.used = False
        self.spared = False  # It was used since the last token, but the mark was spent on surviving an eviction.
        self.backoff = Backoff(policy)
        self.fetches = 0
        self.failed = 0
        self._policy = policy
        self._fetcher = fetcher
        self._lookout = lookout
        self._closed: ProviderClosedError | None = None
        self._token: AccessToken | None = None
        self._plan: Timetable | None = None
        self._claims: str | None = None  # The claims that the held token was fetched with.
        self._flight: Flight[AccessToken] | None = None
        self._impatient = False  # This flight has made somebody wait long enough.
        self._patience: Timer | None = None
        self._forced: dict[tuple[str | None, str | None], Flight[AccessToken]] = {}
        self._forced_at = _NEVER
        self._forced_number = 0
        self._outdated: list[Flight[AccessToken]] = []  # Launched for a former identity.
        self._timer: Timer | None = None
        self._watchers: dict[asyncio.Event, None] = {}

    # What callers ask

    def ask(self) -> Answer:
        """Return a valid token, or the flight that brings one; raise the last error while it is too early to retry."""
        self.used = True
        now = self._now()
        token, freshness = self._held(now)
        if token is None:
            if self._flight is None:
                self.backoff.check(now.monotonic)
                self._flight = self._launch()
            return self._flight
        if freshness is Freshness.FRESH:
            return token
        if self._flight is None and self.backoff.is_open(now.monotonic):
            self._flight = self._launch()
        if freshness is Freshness.DUE or self._flight is None or self._impatient:
            return token
        if self._patience is None:
            self._patience = self._fetcher.clock.call_later(self._policy.must_wait, self._lose_patience)
        return self._flight

    def renew(self, claims: str | None, rejected_sha256: str | None) -> Answer:
        """Return a token that answers *claims* and is not the rejected one, or the flight that brings it.

        While it is too early for another flight the last error is raised, or else the held token returned even if it
        is the rejected one: a service that always answers 401 must not cause a storm.
        """
        self.used = True
        now = self._now()
        token, _ = self._held(now)
        if token is None and claims is None:
            return self.ask()
        replaced = token is not None and rejected_sha256 not in (None, sha256_of(token.token))
        if token is not None and replaced and claims in (None, self._claims):
            return token
        key = (claims, rejected_sha256)
        if key not in self._forced:
            self.backoff.check(now.monotonic)
            next_at = max(self.backoff.retry_at, self._forced_at + self._policy.rejected_interval)
            # With nothing held, what the last challenge brings has to do.
            instead = token or next(reversed(self._forced.values()), None)
            if instead is not None and now.monotonic < next_at:
                return instead
            self._forced_at = now.monotonic
            if rejected_sha256 is None and token is not None:
                rejected_sha256 = sha256_of(token.token)  # The claims say that the held one will not do.
            self._forced[key] = self._launch(claims, rejected_sha256, forced=True)
        return self._forced[key]

    def watch(self) -> asyncio.Event:
        """Return an event that is set whenever another token lands; `unwatch` it however the watching ends."""
        news = asyncio.Event()
        self._watchers[news] = None
        self._arm()
        return news

    def unwatch(self, news: asyncio.Event) -> None:
        """Forget a watcher."""
        self._watchers.pop(news, None)

    # What the provider asks

    @property
    def flights(self) -> list[Flight[AccessToken]]:
        """All that is in the air."""
        shared = [] if self._flight is None else [self._flight]
        return [*shared, *self._forced.values(), *self._outdated]

    @property
    def busy(self) -> bool:
        """Whether a fetch is under way or somebody watches, so that the slot must not be evicted."""
        return bool(self.flights or self._watchers)

    @property
    def exposed(self) -> bool:
        """Whether a change of identity would make wrong what it holds, or what it does without being asked."""
        gated = self.backoff.error is not None and not self.backoff.is_open(self._now().monotonic)
        return gated or bool(self._timer or self._flight or self._forced)

    @property
    def held(self) -> AccessToken | None:
        """The token, if a valid one is held. Changes nothing."""
        plan, token = self._plan, self._token
        return None if plan is None or plan.freshness(self._now()) is Freshness.EXPIRED else token

    @property
    def state(self) -> str:
        """The name of the slot's state. Changes nothing."""
        now, plan, flight = self._now(), self._plan, self._flight
        freshness = Freshness.EXPIRED if plan is None else plan.freshness(now)
        if freshness is Freshness.EXPIRED:
            if flight is not None:
                return "FETCHING"
            if self.backoff.error is not None and not self.backoff.is_open(now.monotonic):
                return "FAILED"
            return "EMPTY" if plan is None else "EXPIRED"
        if freshness is Freshness.DUE:
            idle = "DORMANT" if self._timer is None else "DUE"
            return idle if flight is None else "REFRESHING"
        return freshness.name

    def ground(self) -> None:
        """Drop what belonged to an event loop that is gone; the token stays, with a timer on the new one."""
        self._clear()
        self._forced, self._outdated, self._watchers = {}, [], {}
        self._arm()

    def disown(self) -> None:
        """Drop what a former identity got; who waits for its flights gets what they bring, and nobody else does."""
        self.retire()
        self.fresh_until = _NEVER
        self._token = self._plan = None  # Not `value`, which a `peek` in another thread may be about to return.
        self.backoff = Backoff(self._policy)
        self._outdated = self.flights
        self._clear()
        self._forced = {}
        if self._watchers:
            self._flight = self._launch()

    def retire(self) -> None:
        """Let nothing more happen by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self, error: ProviderClosedError) -> None:
        """End everything: waiters get *error*, watchers are woken."""
        self._closed = error
        self.retire()
        for flight in self.flights:
            flight.give_up(error)
        self._wake_watchers()

    # Flights

    def _launch(
        self, claims: str | None = None, rejected_sha256: str | None = None, *, forced: bool = False
    ) -> Flight[AccessToken]:
        self._lookout.arm()
        self.fetches += 1
        _log.debug("asking %s for a token for %s", self._fetcher.source.name, self.resource)
        ticket = _Ticket(self.fetches, claims, forced, self._token)
        request = TokenRequest(self.resource, self.tenant_id, claims, rejected_sha256, self._fetcher.clock)
        flight = Flight(
            self._fetcher.fetch(request, overdue=lambda limit: flight.give_up(self._overdue(limit))),
            partial(self._on_landing, ticket),
        )
        self._fetcher.own(flight.task)
        return flight

    def _on_landing(
        self, ticket: _Ticket, flight: Flight[AccessToken], outcome: AccessToken | BaseException
    ) -> AccessToken | BaseException:
        """Take in what came of a flight, and return what its waiters get."""
        if outcome is self._closed or flight not in self.flights:
            return outcome  # Of a provider that was closed, or of a former event loop.
        if flight in self._outdated:
            self._outdated.remove(flight)
            self.failed += isinstance(outcome, Exception)
            return outcome if isinstance(outcome, AccessToken | Exception) else self._interrupted()
        self._forget(flight)
        self._lookout.arm()  # A chain may know only now which of its sources answers.
        now = self._now()
        if isinstance(outcome, AccessToken):
            return self._receive(outcome, ticket, now)
        if isinstance(outcome, Exception):
            self._fail(outcome, now)
        elif flight.task.cancelling() or isinstance(outcome, KeyboardInterrupt | SystemExit):
            # The process ends, or somebody cancelled every task there is: nothing was learnt about the source.
            self.backoff.pause(now.monotonic)
            self._arm()
            outcome = self._interrupted()
        else:
            outcome = self._trouble(f"broke off with {type(outcome).__name__} when asked for {self.resource!r}")
            self._fail(outcome, now)
        token, _ = self._held(now)
        return outcome if ticket.forced or token is None else token

    def _forget(self, flight: Flight[AccessToken]) -> None:
        # By identity: a flight of a former loop, or one given up, must not clear its successor away.
        self._forced = {key: other for key, other in self._forced.items() if other is not flight}
        if flight is self._flight:
            self._clear()

    def _clear(self) -> None:
        self._flight = None
        self._impatient = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        token, _ = self._held(self._now())
        if token is not None and self._flight is not None:
            self._impatient = True
            self._flight.release(token)

    def _overdue(self, limit: float) -> EndpointError:
        return self._trouble(f"gave no token for {self.resource!r} within {limit:g} s; it will be asked again")

    def _interrupted(self) -> EndpointError:
        return self._trouble(f"was being asked for {self.resource!r} when the fetch was cancelled from outside")

    def _trouble(self, what: str) -> EndpointError:
        name = self._fetcher.source.name
        return EndpointError(f"the source {name!r} {what}", resource=self.resource, source=name)

    # Outcomes

    def _receive(self, token: AccessToken, ticket: _Ticket, now: Moment) -> AccessToken:
        held, _ = self._held(now)
        if held is not None and ticket.number < self._forced_number:
            return token if ticket.forced else held  # A service has asked for a newer one, which is held.
        if ticket.forced:
            self._forced_number = ticket.number
        self._claims = ticket.claims
        if self.backoff.failures:
            _log.info("tokens for %s can be had from %s again", self.resource, token.source)
        if held is None or self._plan is None or held.token != token.token:
            token = self._replace(token, now)
        elif held is ticket.held:
            token = self._keep(held, self._plan, now)
        else:
            token = held  # Two flights have brought the same new token.
            self.backoff.succeed(now.monotonic)
        self.used = self.spared = False
        self._arm()
        return token

    def _replace(self, token: AccessToken, now: Moment) -> AccessToken:
        chance = random.random()  # noqa: S311  (spreads a fleet; nobody gains by guessing it)
        self.backoff.succeed(now.monotonic)
        self._plan = timetable(self._policy, now, token.expires_on, token.refresh_on, chance)
        self._token = replace(token, refresh_on=now.wall + self._plan.base)
        self.value = token.token
        self.fresh_until = now.wall + self._plan.soft
        _log.debug("a token for %s came from %s, good for %.0f s", self.resource, token.source, self._plan.life)
        self._wake_watchers()
        return self._token

    def _keep(self, held: AccessToken, plan: Timetable, now: Moment) -> AccessToken:
        # The host caches tokens as we do, and has said that there is no newer one yet.
        age = plan.age(now)
        wait = same_token_delay(self._policy, plan.life - age)
        self.backoff.succeed(now.monotonic, wait)
        self._plan = replace(plan, soft=min(plan.must, age + wait))
        self.fresh_until = now.wall + self._plan.soft - age
        return held

    def _fail(self, error: BaseException, now: Moment) -> None:
        without_frames(error)
        token, _ = self._held(now)
        self.failed += 1
        self.backoff.fail(error, now.monotonic, holding=token is not None)
        if self.backoff.failures == 1 and (token is not None or self._watchers):  # Else callers get it raised.
            # The text of an error that is not ours may hold anything, a secret included.
            text = error if isinstance(error, AiomsiError) else type(error).__name__
            _log.warning("no new token for %s, the held one is served while it is valid: %s", self.resource, text)
        self._arm()

    def _held(self, now: Moment) -> tuple[AccessToken | None, Freshness]:
        if self._plan is None:
            return None, Freshness.EXPIRED
        freshness = self._plan.freshness(now)
        if freshness is Freshness.EXPIRED:
            self._token = self._plan = None
            self.value, self.fresh_until = "", _NEVER
            self.backoff.expire(now.monotonic)
        return self._token, freshness

    def _wake_watchers(self) -> None:
        for news in self._watchers:
            news.set()

    # The timer

    def _arm(self) -> None:
        """Set the timer for the next flight, which no caller has to start."""
        self.retire()
        now = self._now()
        wait = self.backoff.retry_at - now.monotonic
        if self._plan is not None:
            age = self._plan.age(now)
            wait = max(wait, self._plan.soft - age)
            if self._watchers:  # Nobody else would notice the end, which may cut the wait.
                wait = min(wait, self._plan.life - age)
        elif not self._watchers:
            return
        # A weak reference: a timer set for hours must not keep a forgotten provider alive.
        self._timer = self._fetcher.clock.call_later(max(wait, LEAST_WAIT), partial(_ring, weakref.ref(self)))

    def _on_timer(self) -> None:
        self._timer = None
        self.fresh_until = _NEVER  # Whatever the wall clock says: it may have been set back.
        now = self._now()
        token, _ = self._held(now)
        wanted = bool(self._watchers) or (token is not None and (self.used or self.spared))
        if not wanted or self._flight is not None:
            return
        if self.backoff.is_open(now.monotonic):
            self._flight = self._launch()
        else:
            self._arm()

    def _now(self) -> Moment:
        clock = self._fetcher.clock
        return Moment(clock.wall(), clock.monotonic())


def _ring(slot: weakref.ref[Slot]) -> None:
    found = slot()
    if found is not None:
        found._on_timer()  # noqa: SLF001  (this module's own)
