"""`aiomsi demo`: the acts, in the order in which a token's life brings them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiomsi import RefreshPolicy, TokenProvider
from aiomsi._clock import SYSTEM_CLOCK, sleep
from aiomsi._command_line.callers import ask_all_at_once, ask_steadily
from aiomsi._command_line.endpoint_process import endpoint_process
from aiomsi.sources import ManagedIdentity, Surroundings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiomsi._command_line.endpoint_process import EndpointProcess
    from aiomsi._command_line.measurement import Phase, Record

__all__ = ["TIME_LIMIT", "play"]

TIME_LIMIT = 14.0  # Seconds for everything after the endpoint has started.

_RESOURCE = "https://vault.azure.net"
# The life of the tokens is scaled down, and so are the waits between refreshes that failed.
_POLICY = RefreshPolicy(refresh_retry_first=0.5, refresh_retry_most=1.0)
_NORMAL, _SLOW = 0.3, 1.0  # Seconds that the endpoint takes to answer.
_FAILED_TRIES = 2  # The outage goes on until it has met so many requests.
_TICK = 0.1


async def play(record: Record, announce: Callable[[Phase], object], *, time_limit: float = TIME_LIMIT) -> None:
    """Play the demo and write into *record* what happens; *announce* is called in a thread after each phase.

    Raises:
        AiomsiError: the endpoint's process ended by itself.
    """
    async with endpoint_process() as endpoint:
        # Its variables alone, so that nothing on this machine or in its environment is asked.
        source = ManagedIdentity(surroundings=Surroundings(environ=endpoint.environ))
        async with TokenProvider(source, policy=_POLICY) as provider:
            with anyio.move_on_after(time_limit):
                await _Demo(record, announce, endpoint, provider).play()
                record.finished = True


class _Demo:
    def __init__(
        self, record: Record, announce: Callable[[Phase], object], endpoint: EndpointProcess, provider: TokenProvider
    ) -> None:
        self._record = record
        self._announce = announce
        self._endpoint = endpoint
        self._provider = provider
        self._earlier_requests = 0

    async def play(self) -> None:
        await self._first_token()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask_steadily, self._provider, _RESOURCE, lambda: self._record.phases[-1])
                await self._refresh()
                await self._outage()
                await self._recovery()
                tasks.cancel_scope.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from group  # Such as the one that says that the endpoint's process has ended.

    async def _first_token(self) -> None:
        async with self._phase("first token", "all ask at once", latency=_NORMAL) as phase:
            await ask_all_at_once(self._provider, _RESOURCE, self._record.callers, phase)

    async def _refresh(self) -> None:
        async with self._phase("refresh", f"the endpoint takes {_SLOW:g} s", latency=_SLOW) as phase:
            await self._next_token(phase)

    async def _outage(self) -> None:
        async with self._phase("outage", "the endpoint answers 503", latency=_NORMAL, failing=True) as phase:
            began = SYSTEM_CLOCK.monotonic()
            while phase.requests < _FAILED_TRIES:
                await self._tick(phase)
        await self._endpoint.serve(latency=_NORMAL)
        self._record.outage = SYSTEM_CLOCK.monotonic() - began

    async def _recovery(self) -> None:
        async with self._phase("recovery", "the endpoint is back", latency=_NORMAL) as phase:
            await self._next_token(phase)

    @asynccontextmanager
    async def _phase(self, name: str, situation: str, *, latency: float, failing: bool = False) -> AsyncIterator[Phase]:
        phase = self._record.begin(name, situation)
        await self._endpoint.serve(latency=latency, failing=failing)
        yield phase
        await self._tick(phase)
        self._earlier_requests += phase.requests
        await anyio.to_thread.run_sync(self._announce, phase)

    async def _next_token(self, phase: Phase) -> None:
        (before,) = self._provider.statistics().resources
        now = before
        while now.refresh_on == before.refresh_on:
            await self._tick(phase)
            (now,) = self._provider.statistics().resources

    async def _tick(self, phase: Phase) -> None:
        await sleep(SYSTEM_CLOCK, _TICK)
        phase.requests = await self._endpoint.requests() - self._earlier_requests
        (now,) = self._provider.statistics().resources
        self._record.state = now.state
        self._record.remaining = 0.0 if now.expires_on is None else now.expires_on - SYSTEM_CLOCK.wall()
