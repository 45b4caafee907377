"""What becomes of each source, and which of them a service would get its token from.

Every source is asked once, all at the same time. Which one applies is not decided here: a chain of stand-ins, each with
the outcome of its source, is asked as a service would ask the chain itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from aiomsi._clock import time_limit
from aiomsi._errors import AiomsiError, EndpointError, about
from aiomsi._source import chooses_tenant, time_limit_of
from aiomsi.sources.chain import FirstAvailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import Source, TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["Outcome", "Trial", "ask_all", "decide", "members"]

_GRACE = 1.0  # Seconds after which a source that does not keep to its deadline is given up.

Outcome: TypeAlias = "AccessToken | AiomsiError"


@dataclass(frozen=True, slots=True)
class Trial:
    """What a source gave, after how many *seconds*."""

    source: Source
    outcome: Outcome
    seconds: float


def members(source: Source) -> tuple[Source, ...]:
    """Return the sources that *source* consists of: itself, if it is no chain."""
    return source.sources if isinstance(source, FirstAvailable) else (source,)


async def ask_all(source: Source, request: TokenRequest, limit: float) -> list[Trial]:
    """Ask every member of *source* at the same time, each for *limit* seconds at the most."""
    chained = isinstance(source, FirstAvailable)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask(member, request, limit, chained=chained)) for member in members(source)]
    return [task.result() for task in asked]


async def _ask(member: Source, request: TokenRequest, limit: float, *, chained: bool) -> Trial:
    clock = request.clock
    began = clock.monotonic()
    limit = min(limit, time_limit_of(member))
    asked = replace(request, deadline=began + limit, tenant_id=request.tenant_id if chooses_tenant(member) else None)
    # In a chain it is found out first whether there is a managed identity; a chain of one does just that.
    alone = FirstAvailable(member) if chained else member
    outcome: Outcome
    try:
        with about(request.resource, member.name):
            async with time_limit(clock, limit + _GRACE):
                outcome = await alone.fetch(asked)
    except AiomsiError as error:
        outcome = error
    except TimeoutError:
        outcome = EndpointError(
            f"{member.name} gave no token within {limit:g} s", resource=request.resource, source=member.name
        )
    except Exception as error:  # noqa: BLE001  (a bug in one source is no reason not to tell of the others)
        what = f"{member.name} failed in an unexpected way ({type(error).__name__}); please report this"
        outcome = AiomsiError(what, resource=request.resource, source=member.name)
    return Trial(member, outcome, clock.monotonic() - began)


async def decide(trials: Sequence[Trial], request: TokenRequest) -> tuple[Outcome, int]:
    """Return what a service would get, and how many of the sources it would ask."""
    asked = [_Replay(trial) for trial in trials]
    outcome: Outcome
    try:
        outcome = await FirstAvailable(*asked).fetch(request)
    except AiomsiError as error:
        outcome = error
    return outcome, sum(replay.asked for replay in asked)


class _Replay:
    """A source that gives what another one gave."""

    def __init__(self, trial: Trial) -> None:
        self.name = trial.source.name
        self.asked = False
        self._outcome = trial.outcome

    async def fetch(self, _request: TokenRequest) -> AccessToken:
        self.asked = True
        if isinstance(self._outcome, AiomsiError):
            raise self._outcome
        return self._outcome
