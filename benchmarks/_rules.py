"""When each library refreshes a token, and when it repeats a refresh that failed: ours run, the others by their rules.

Each rule names where it was read. A token of 2 h or more comes with the moment at which it wants to be refreshed, half
of its life, as the endpoints send it; one of less has none.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, count, repeat
from typing import TYPE_CHECKING, TypeAlias

from aiomsi import EndpointError, RefreshPolicy
from aiomsi._backoff import Backoff
from aiomsi._schedule import Moment, timetable
from aiomsi.sources._retrying import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Draw: TypeAlias = Callable[[float], float]  # From a token's life to the wait until it is refreshed.
    Waits: TypeAlias = Callable[[], Iterable[float]]  # Those between the attempts, while each of them fails.

__all__ = ["COLD_RETRIES", "OURS", "POLICY", "RULES", "Rule", "Waits"]

OURS = "aiomsi"
POLICY = RefreshPolicy()

_LONG = 7_200.0
_RECEIPT = Moment(0.0, 0.0)
_DOWN = EndpointError("the endpoint is down", status=503)
_PATIENCE = Patience()

# MSAL.NET draws up to 5 minutes on either side at every call, here one each second: the chance that none of the first
# so many calls has refreshed.
_UNTOUCHED = list(accumulate((1 - number / 600 for number in range(1, 601)), lambda left, chance: left * chance))


@dataclass(frozen=True)
class Rule:
    """The wait until a token is refreshed, and the waits after failures while it is valid, where those are a rule."""

    draw: Draw
    waits: Waits | None = None


def _aiomsi(life: float) -> float:
    refresh_on = life / 2 if life >= _LONG else None
    return timetable(POLICY, _RECEIPT, life, refresh_on, random.random()).soft  # noqa: S311  (as the library draws it)


def _aiomsi_waits(*, holding: bool) -> Iterator[float]:
    """Yield the waits within a fetch, then the one between two of them, and so on."""
    backoff, now = Backoff(POLICY), 0.0
    while True:
        began = now
        for failures in count(1):
            wait = _PATIENCE.wait(_DOWN, failures, elapsed=now - began)
            if wait is None:
                break
            yield wait
            now += wait
        backoff.fail(_DOWN, now, holding=holding)
        yield backoff.retry_at - now
        now = backoff.retry_at


def _azure_core_python(life: float) -> float:
    # azure-core, _should_refresh_token: up to a minute after refresh_on, or 4 to 5 minutes before the end.
    return (life / 2 if life >= _LONG else life - 300) + random.randint(0, 60)  # noqa: S311


def _refresh_on_or_five_minutes(life: float) -> float:
    # msal, ManagedIdentityClient; Azure.Core for .NET, AccessTokenCache; azcore for Go since 1.18, BearerTokenPolicy.
    return life / 2 if life >= _LONG else life - 300


def _refresh_on_or_two_minutes(life: float) -> float:
    # core-rest-pipeline for JavaScript, tokenCycler: refreshAfterTimestamp.
    return life / 2 if life >= _LONG else life - 120


def _msal_net(life: float) -> float:
    refreshed = bisect_left(_UNTOUCHED, -random.random(), key=lambda left: -left)  # noqa: S311
    return _refresh_on_or_five_minutes(life) - 300 + refreshed


RULES: Mapping[str, Rule] = {
    OURS: Rule(_aiomsi, lambda: _aiomsi_waits(holding=True)),
    # azure-identity, DEFAULT_TOKEN_REFRESH_RETRY_DELAY.
    "azure-identity (Python)": Rule(_azure_core_python, lambda: repeat(30.0)),
    "msal (Python)": Rule(_refresh_on_or_five_minutes),
    "MSAL.NET": Rule(_msal_net),
    "Azure.Core (.NET)": Rule(_refresh_on_or_five_minutes, lambda: repeat(30.0)),
    "azcore (Go)": Rule(_refresh_on_or_five_minutes, lambda: repeat(30.0)),
    "tokenCycler (JavaScript)": Rule(_refresh_on_or_two_minutes, lambda: repeat(3.0)),
}

# With no token all others try again whenever they are called, here once each second.
COLD_RETRIES: Mapping[str, Waits] = {
    OURS: lambda: _aiomsi_waits(holding=False),
    "a new try at every call": lambda: repeat(1.0),
}
