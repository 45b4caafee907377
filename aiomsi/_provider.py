"""The public face: which slot a call belongs to, and how long all of them live.

Half of its length is what callers read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiomsi._clock import SYSTEM_CLOCK, check_clock
from aiomsi._errors import ProviderClosedError, about, another
from aiomsi._fetcher import Fetcher
from aiomsi._lookout import Lookout
from aiomsi._memory import Memory, TenantResource
from aiomsi._resource import resource_of, scope_of
from aiomsi._schedule import RefreshPolicy
from aiomsi._slot import Slot, sha256_of
from aiomsi._source import check_source, chooses_tenant
from aiomsi._statistics import ProviderStatistics, describe
from aiomsi._token import AccessToken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self

    from aiomsi._clock import Clock
    from aiomsi._memory import SlotName
    from aiomsi._slot import Answer
    from aiomsi._source import Source

__all__ = ["TokenProvider"]

_log = logging.getLogger("aiomsi.provider")

_CLOSING_TIME = 1.0  # Seconds that the tasks of a provider being closed are given to end.


class TokenProvider:
    """Gives out tokens: fetched once however many callers ask, and replaced before anyone has to wait.

    *source* says how to get a token; without one the environment decides (see `aiomsi.sources.default`), or the
    connection string in `AzureServicesAuthConnectionString` if that is set. *policy* holds the times of refreshes and
    retries. At most *max_resources* resources are remembered; those not used for longest go first, and those with a
    fetch under way stay. Where *source* can tell for whom it answers, as a tool can with its `identity_key()`, that is
    looked at every 5 s (see RefreshPolicy) while tokens are in use, and when it changes all that is held is dropped.

    Making a provider does no I/O, reads no environment and needs no event loop. It belongs to the event loop that first
    fetches a token with it, and when that has ended to the next; `peek` and `statistics` may be called from any thread.
    `async with` closes it at the end; without that, nothing stays open but what its event loop ends anyway.

    Raises:
        TypeError: *source* has no `fetch` or no `name`, *policy* is no RefreshPolicy, *clock* no Clock, or
            *max_resources* no int.
        ValueError: *max_resources* is less than 1.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_fetcher",
        "_lookout",
        "_memory",
        "_policy",
        "_slots",
        "_wall",
    )

    def __init__(
        self,
        source: Source | None = None,
        *,
        policy: RefreshPolicy = RefreshPolicy(),  # noqa: B008  (frozen)
        clock: Clock | None = None,
        max_resources: int = 64,
    ) -> None:
        if source is None:
            from aiomsi.sources import default  # noqa: PLC0415  (who brings a source needs none of ours)

            source = default()
        check_source(source)
        if not isinstance(policy, RefreshPolicy):
            raise TypeError(f"policy is a RefreshPolicy, not {policy!r}")
        if isinstance(max_resources, bool) or not isinstance(max_resources, int):
            raise TypeError(f"max_resources is an int, not {max_resources!r}")
        if max_resources < 1:
            raise ValueError(f"max_resources is at least 1, not {max_resources!r}")
        clock = SYSTEM_CLOCK if clock is None else clock
        check_clock(clock)
        self._policy = policy
        self._fetcher = Fetcher(source, clock)
        self._lookout = Lookout(source, clock, policy.identity_interval, self._look)
        self._memory = Memory(max_resources)
        self._slots = self._memory.by_name
        self._wall = clock.wall
        self._closed = False

    @classmethod
    def from_connection_string(
        cls,
        connection_string: str,
        *,
        policy: RefreshPolicy = RefreshPolicy(),  # noqa: B008  (frozen)
        clock: Clock | None = None,
        max_resources: int = 64,
    ) -> Self:
        """Make a provider for a connection string such as `RunAs=App;AppId=<client id>`.

        Raises:
            ConfigurationError: the connection string is wrong; the message says where, without showing any value.
        """
        from aiomsi.sources import from_connection_string  # noqa: PLC0415  (as above)

        return cls(from_connection_string(connection_string), policy=policy, clock=clock, max_resources=max_resources)

    def __repr__(self) -> str:
        now = self.statistics()
        state = " closed" if self._closed else f" tokens={now.tokens} in_flight={now.in_flight}"
        return f"<TokenProvider source={self._fetcher.source.name}{state}>"

    async def token(self, resource: str) -> str:
        """Return a bearer token for *resource*, a resource URI or GUID, or one scope ending in `/.default`.

        Does not yield to the event loop while a fresh token is held.

        Raises:
            TypeError: *resource* is not a string.
            ValueError: *resource* is empty, holds blanks, or is more than one scope.
            AiomsiError: no token could be had; see the subclasses.
        """
        try:
            slot = self._slots[resource]
            if self._wall() < slot.fresh_until:
                slot.used = True
                return slot.value
        except (KeyError, TypeError):
            pass  # Asked for the first time, or not a string, which is told below.
        return (await _arrival(self._slot(resource).ask())).token

    def peek(self, resource: str) -> str | None:
        """Return the token for *resource* if a fresh one is held, else None, which asks for `token`.

        Counts as use. May be called from any thread.
        """
        try:
            slot = self._slots[resource]
            if self._wall() < slot.fresh_until:
                slot.used = True
                return slot.value
        except (KeyError, TypeError):
            pass
        return None

    async def access_token(
        self,
        resource: str,
        *,
        tenant_id: str | None = None,
        claims: str | None = None,
        rejected: str | None = None,
    ) -> AccessToken:
        """Return a token for *resource* with all that is known of it.

        *tenant_id* asks for a token of that tenant, and is ignored where the source cannot choose one. *claims* is the
        decoded JSON text of a claims challenge. *rejected* is a token that the service refused: another one is fetched
        only if that very token is still held. Both go to the source at most every 5 s (see RefreshPolicy); in between,
        the held token is returned even if it is the rejected one, so compare before you send it again.

        Raises:
            TypeError: *resource* is not a string.
            ValueError: an argument is empty, or *resource* holds blanks or is more than one scope.
            AiomsiError: no token could be had; see the subclasses.
        """
        # From here on only the digest: a traceback may show what our frames hold.
        digest = None if rejected is None else sha256_of(_text("rejected", rejected))
        del rejected
        for name, value in (("tenant_id", tenant_id), ("claims", claims)):
            if value is not None:
                _text(name, value)
        slot = self._slot(resource, tenant_id)
        answer = slot.ask() if claims is None and digest is None else slot.renew(claims, digest)
        return await _arrival(answer)

    async def watch(self, resource: str) -> AsyncIterator[AccessToken]:
        """Yield the token for *resource* now, and again whenever another one has been fetched.

        While it is watched the token is refreshed before its end; a refresh that fails is retried and not raised.

        Raises:
            TypeError: *resource* is not a string.
            ValueError: *resource* is empty, holds blanks, or is more than one scope.
            AiomsiError: no first token could be had, or the provider was closed.
        """
        token: AccessToken | None = await self.access_token(resource)
        slot = self._slot(resource)
        news = slot.watch()
        token = slot.held or token  # One may have landed since.
        try:
            while True:
                if token is not None:
                    yield token
                await news.wait()
                news.clear()
                self._settle(slot.resource)
                token = slot.held
        finally:
            slot.unwatch(news)

    async def prefetch(self, *resources: str) -> None:
        """Fetch the tokens for several resources at once, so that the first callers need not wait.

        Raises:
            TypeError: a resource is not a string; nothing was fetched.
            ValueError: a resource is none; nothing was fetched.
            ExceptionGroup: the errors of those that failed; the others are held.
        """
        for resource in resources:
            resource_of(resource)
        outcomes = await asyncio.gather(*map(self.access_token, resources), return_exceptions=True)
        errors = []
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                errors.append(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(resources)} tokens could not be fetched", errors)

    def statistics(self) -> ProviderStatistics:
        """Return what the provider holds and does now. May be called from any thread."""
        return ProviderStatistics(tuple(map(describe, self._memory)))

    async def aclose(self) -> None:
        """End all fetches; callers who wait get a ProviderClosedError, and so does everybody after. Idempotent."""
        if not self._closed and self._fetcher.settle():
            self._ground()
        self._closed = True
        self._lookout.disarm()
        for slot in self._memory.clear():
            slot.close(self._closed_error(slot.resource))
        await self._fetcher.finish(_CLOSING_TIME)

    async def __aenter__(self) -> Self:
        self._settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _slot(self, name: str, tenant_id: str | None = None) -> Slot:
        """Return the slot of the resource or scope *name*, a new one if it is asked for the first time."""
        resource = resource_of(name)
        self._settle(resource)
        if tenant_id is not None:
            with about(resource, self._fetcher.source.name):
                tenant_id = tenant_id if chooses_tenant(self._fetcher.source) else None
        key: SlotName = resource if tenant_id is None else TenantResource(resource, tenant_id)
        slot = self._slots.get(key)
        if slot is None:
            slot = Slot(resource, tenant_id, self._policy, self._fetcher, self._lookout)
            self._memory.add(slot, *((key, scope_of(resource)) if tenant_id is None else (key,)))
        return slot

    def _settle(self, resource: str | None = None) -> None:
        """Raise if closed; make the running loop ours, dropping what belonged to a former one, or a former identity."""
        if self._closed:
            raise self._closed_error(resource)
        if self._fetcher.settle(resource):
            self._ground()
        if self._lookout.lapsed:
            self._look()

    def _look(self) -> None:
        """Drop all that a former identity got, if another one would answer now; look again while it matters."""
        self._lookout.disarm()
        if self._lookout.has_changed():
            _log.info("%s answers for another identity now; what the former got is dropped", self._fetcher.source.name)
            for slot in self._memory:
                slot.disown()
        if any(slot.exposed for slot in self._memory):
            self._lookout.arm()

    def _ground(self) -> None:
        self._lookout.disarm()
        for slot in self._memory:
            slot.ground()

    def _closed_error(self, resource: str | None) -> ProviderClosedError:
        return ProviderClosedError(
            "this TokenProvider was closed; make a new one, or close it later",
            resource=resource,
            source=self._fetcher.source.name,
        )


async def _arrival(answer: Answer) -> AccessToken:
    """Return the token of *answer*, waiting for it if it is still in the air."""
    if isinstance(answer, AccessToken):
        return answer
    seat = answer.board()
    try:
        outcome = await seat
    finally:
        answer.leave(seat)
    if isinstance(outcome, BaseException):
        raise another(outcome)
    return outcome


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string or None, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} is empty; leave it out instead")
    return value
