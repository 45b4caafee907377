"""Several sources, of which the first that is there answers."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, cast

import anyio

from aiomsi._errors import SourceUnavailableError, without_frames
from aiomsi._source import check_source, chooses_tenant, identity_key_of, max_parallel, time_limit_of
from aiomsi.sources._hosts import IMDS
from aiomsi.sources.azure_cli import AZ
from aiomsi.sources.managed_identity import ManagedIdentity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiomsi._source import Source, TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["FirstAvailable"]


class FirstAvailable:
    """Asks each of *sources* in order, until one is there; only a SourceUnavailableError moves on to the next.

    Where neither the environment nor the firmware tells whether there is a managed identity, IMDS is probed for a
    second, and the tool after it started at the same time; its token is used only if there is no managed identity.

    Raises:
        ValueError: no source is given.
        TypeError: one of them has no `fetch` or no `name`.
    """

    name = "first_available"

    def __init__(self, *sources: Source) -> None:
        if not sources:
            raise ValueError("FirstAvailable needs at least one source")
        for source in sources:
            check_source(source)
        self._sources = sources
        self._answered: Source | None = None

    def __repr__(self) -> str:
        return f"FirstAvailable({', '.join(map(repr, self._sources))})"

    @property
    def sources(self) -> tuple[Source, ...]:
        """What is asked, in this order."""
        return self._sources

    @property
    def time_limit(self) -> float:
        """Seconds after which a fetch is given up: what all of them may take, one after the other."""
        return sum(map(time_limit_of, self._sources))

    @property
    def max_parallel(self) -> int | None:
        """How many fetches the most limited of them takes at the same time."""
        return min((most for most in map(max_parallel, self._sources) if most is not None), default=None)

    @property
    def chooses_tenant(self) -> bool:
        """Whether any of them that may be asked can be asked for a token of a particular tenant."""
        return any(map(chooses_tenant, takewhile(_may_give_way, self._sources)))

    def identity_key(self) -> str | None:
        """Return what all of them together name, or None while one answers whose identity cannot change."""
        if self._answered is not None and identity_key_of(self._answered) is None:
            return None
        keys = ((source.name, identity_key_of(source)) for source in self._sources)
        return "; ".join(f"{name}: {key}" for name, key in keys if key is not None) or None

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Fetch one token from the first source that is there.

        Raises:
            SourceUnavailableError: none is there; the message has a line for each.
            AiomsiError: the first that is there gave an error.
        """
        passed: list[SourceUnavailableError] = []
        sources = deque(self._sources)
        while sources:
            source = sources.popleft()
            try:
                return await self._from(source, sources, request, passed)
            except SourceUnavailableError as error:
                passed.append(without_frames(error))
        raise _combined(passed, request.resource)

    async def _from(
        self, source: Source, others: deque[Source], request: TokenRequest, passed: list[SourceUnavailableError]
    ) -> AccessToken:
        """Return the token of *source*, or of the first of *others* where both have to be asked."""
        if not isinstance(source, ManagedIdentity) or (here := await source.here()):
            token = await _ask(source, request)
        elif here is None and others and not isinstance(others[0], ManagedIdentity):
            token, source = await _side_by_side(source, others.popleft(), request, passed)
        else:
            token = await _if_found(source, request, probe=here is None)
        self._answered = source
        return token


async def _ask(source: Source, request: TokenRequest) -> AccessToken:
    # No longer than it may take alone: a host that is throttled, say, must not use up what is meant for the others.
    own = request.clock.monotonic() + time_limit_of(source)
    return await source.fetch(replace(request, deadline=min(request.deadline, own)))


def _may_give_way(source: Source) -> bool:
    return not (isinstance(source, ManagedIdentity) and source.is_final)


async def _side_by_side(
    machine: ManagedIdentity, tool: Source, request: TokenRequest, passed: list[SourceUnavailableError]
) -> tuple[AccessToken, Source]:
    """Probe for a managed identity while *tool* is at work already; its token waits for the verdict.

    Returns the token, and whose it is.
    """
    ahead, whose = _HeadStart(), cast("Source", machine)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ahead.run, tool, request)
        outcome = await _outcome(_if_found(machine, request, probe=True))
        if isinstance(outcome, SourceUnavailableError):
            passed.append(without_frames(outcome))
            known = await machine.here()
            outcome, whose = await ahead.result(), tool
            if not known and await machine.here():  # Another fetch has found it meanwhile.
                outcome, whose = await _outcome(_ask(machine, request)), machine
        tasks.cancel_scope.cancel()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome, whose


async def _if_found(machine: ManagedIdentity, request: TokenRequest, *, probe: bool) -> AccessToken:
    if probe and await machine.probe(request):
        return await _ask(machine, request)
    why = "IMDS did not answer a probe" if probe else "its firmware names another maker than Microsoft"
    raise SourceUnavailableError(
        f"this machine has no managed identity: {machine.unnamed}, and {why}",
        resource=request.resource,
        source=machine.name,
    )


class _HeadStart:
    """A fetch that runs while something else is being found out."""

    def __init__(self) -> None:
        self._done = anyio.Event()
        self._outcome: AccessToken | Exception | None = None

    async def run(self, source: Source, request: TokenRequest) -> None:
        self._outcome = await _outcome(_ask(source, request))
        self._done.set()

    async def result(self) -> AccessToken | Exception:
        await self._done.wait()
        assert self._outcome is not None  # noqa: S101  (set before the event)
        return self._outcome


async def _outcome(call: Awaitable[AccessToken]) -> AccessToken | Exception:
    """Return what *call* raises, so that a task group, which would wrap it, does not see it."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001  (raised by the caller)
        return error


def _combined(passed: list[SourceUnavailableError], resource: str) -> SourceUnavailableError:
    if len(passed) == 1:
        return passed[0]
    lines = [f"no token for {resource!r}: none of the {len(passed)} sources asked is there"]
    lines += [f"- {error.source or 'unnamed'}: {error}" for error in passed]
    if any(error.status is not None and error.source == IMDS.name for error in passed):
        lines.append(f"To do: {IMDS.advice}")
    elif any(AZ.missing in str(error) for error in passed):
        lines.append(f"To do: {AZ.missing}")
    elif any(error.source == AZ.source for error in passed):
        lines.append("To do: az login")
    return SourceUnavailableError("\n".join(lines), resource=resource, source=FirstAvailable.name)
