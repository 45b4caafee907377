"""What the demo measures, and what follows from it. Pure: it is told everything."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Claim", "Phase", "Record", "counted", "percentile", "total"]


@dataclass(slots=True)
class Phase:
    """One part of the demo: what its callers went through, and how often the endpoint was asked meanwhile.

    *waits* holds the seconds that each call took; *suspended* counts the calls that did not return at once but gave
    way to the event loop, although a valid token had been there before.
    """

    name: str
    situation: str = ""
    waits: array[float] = field(default_factory=lambda: array("d"))
    suspended: int = 0
    errors: int = 0
    requests: int = 0

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return len(self.waits)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the demo is to show, in the words that fit what was measured."""

    text: str
    holds: bool


@dataclass(slots=True)
class Record:
    """The whole demo: its phases so far, and how the token is doing now.

    *outage* is how many seconds the endpoint was failing, *remaining* how many the held token is still valid.
    """

    callers: int
    phases: list[Phase] = field(default_factory=list)
    outage: float = 0.0
    state: str = "EMPTY"
    remaining: float = 0.0
    finished: bool = False

    def begin(self, name: str, situation: str) -> Phase:
        """Begin the next phase."""
        phase = Phase(name, situation)
        self.phases.append(phase)
        return phase

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What was to be shown, and whether it was."""
        if not self.finished:
            return (Claim("the demo did not come to its end in time", holds=False),)
        first, *_, outage, recovery = self.phases
        return (
            _coalesced(first, self.callers),
            _unhurried(total(self.phases)),
            _unseen(total([outage, recovery]), self.outage, outage.requests),
        )

    @property
    def kept(self) -> bool:
        """Whether every claim holds and no call at all failed."""
        return all(claim.holds for claim in self.claims) and not total(self.phases).errors


def _coalesced(first: Phase, callers: int) -> Claim:
    text = f"{counted(first.requests, 'request')} for {counted(first.calls, 'caller')}"
    return Claim(text, holds=first.requests == 1 and first.calls == callers)


def _unhurried(everything: Phase) -> Claim:
    if everything.suspended:
        return Claim(f"{counted(everything.suspended, 'call')} waited for a refresh", holds=False)
    return Claim("nobody waited for a refresh", holds=True)


def _unseen(calls: Phase, seconds: float, tries: int) -> Claim:
    """Judge *calls*, made during and after an outage in which the endpoint was asked for a refresh *tries* times."""
    what = f"an outage of {seconds:.1f} s"
    if calls.errors or calls.suspended:
        return Claim(f"{what} was seen by callers", holds=False)
    return Claim(f"{what} went unseen", holds=True) if tries else Claim(f"{what} met no refresh", holds=False)


def total(phases: Iterable[Phase]) -> Phase:
    """Return the sum of *phases*."""
    result = Phase("total")
    for phase in phases:
        result.waits.extend(phase.waits)
        result.suspended += phase.suspended
        result.errors += phase.errors
        result.requests += phase.requests
    return result


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that at least *percent* of them do not exceed; NaN without any values."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def counted(number: int, noun: str) -> str:
    """Return *number* and *noun*, in the plural where there is not exactly one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
