"""The way from a slot to the source: on one event loop, so many at a time, each for so long."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from aiomsi._errors import MalformedResponseError, WrongLoopError, about
from aiomsi._source import max_parallel, time_limit_of
from aiomsi._token import AccessToken, token_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi._clock import Clock
    from aiomsi._source import Source, TokenRequest

__all__ = ["Fetcher"]

_GRACE = 1.0  # Seconds that a source may take to notice that its time is up.


class Fetcher:
    """Asks the source, and owns what belongs to one event loop: the tasks that ask, and their places in the queue."""

    __slots__ = ("_loop", "_pid", "_places", "_tasks", "clock", "source")

    def __init__(self, source: Source, clock: Clock) -> None:
        self.source = source
        self.clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._places: asyncio.Semaphore | None = None
        self._tasks: set[asyncio.Task[AccessToken]] = set()

    def settle(self, resource: str | None = None) -> bool:
        """Make the running loop ours, for *resource*; return whether another one, or another process, was before.

        Raises:
            WrongLoopError: the loop that was ours still runs.
        """
        loop, pid = asyncio.get_running_loop(), os.getpid()
        if loop is self._loop and pid == self._pid:
            return False
        former, forked = self._loop, pid != self._pid
        if former is not None and former.is_running() and not forked:
            raise WrongLoopError(
                "this TokenProvider belongs to an event loop that is still running, and a token has to be fetched on"
                " another; make one provider for each running loop",
                resource=resource,
                source=self.source.name,
            )
        self._loop, self._pid, self._places = loop, pid, None
        self._tasks = set()
        return former is not None

    def own(self, task: asyncio.Task[AccessToken]) -> None:
        """Keep *task* from being collected as garbage before it is done."""
        self._tasks.add(task)
        # In an empty context, as the task itself: it must not keep alive what its first caller carries along.
        task.add_done_callback(self._tasks.discard, context=contextvars.Context())

    async def finish(self, seconds: float) -> None:
        """Wait until every task is done, but for *seconds* at the most."""
        if self._tasks and asyncio.get_running_loop() is self._loop:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def fetch(self, request: TokenRequest, overdue: Callable[[float], object]) -> AccessToken:
        """Fetch one token; *overdue* is called with the limit in seconds if it passes without an end."""
        with about(request.resource, self.source.name), await self._place() as place:
            limit = time_limit_of(self.source)

            def give_up() -> None:
                place.close()  # Or a source that ignores its cancellation would keep it for ever.
                overdue(limit)

            alarm = self.clock.call_later(limit + _GRACE, give_up)
            place.callback(alarm.cancel)
            token = await self.source.fetch(replace(request, deadline=self.clock.monotonic() + limit))
            return _checked(token, request, self.source.name, self.clock.wall())

    async def _place(self) -> ExitStack:
        """Wait for a place at the source, and return what gives it back, once."""
        place = ExitStack()
        most = max_parallel(self.source)
        if most is not None:
            if self._places is None:
                self._places = asyncio.Semaphore(most)
            await self._places.acquire()
            place.callback(self._places.release)
        return place


def _checked(token: AccessToken, request: TokenRequest, name: str, now: float) -> AccessToken:
    """Return *token*, as ours, if it can be served; a source that anybody may write is not trusted to be right."""
    problem = _problem(token, now)
    if problem is not None:
        raise MalformedResponseError(f"the source {name!r} returned {problem} (asked for {request.resource!r})")
    # A plain one: a subclass may not be as frozen, or not be copied in the same way.
    return AccessToken(
        token.token, token.expires_on, token.refresh_on, request.resource, token.source, token.token_type
    )


def _problem(token: object, now: float) -> str | None:
    if not isinstance(token, AccessToken):
        return f"{type(token).__name__} where an AccessToken belongs"
    if not _is_number(token.expires_on):
        return f"a token with expires_on={token.expires_on!r}, which is no Unix time"
    if token.refresh_on is not None and not _is_number(token.refresh_on):
        return f"a token with refresh_on={token.refresh_on!r}, which is no Unix time"
    return token_problem(token.token, token.expires_on, now)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
