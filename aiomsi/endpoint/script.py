"""Which step of a script is whose turn: by the number of the request, by the time, or simply by its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, get_args

from .faults import Step, at_least_zero

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class OnRequests:
    """Play *step* for the token requests from number *first* to number *last*, both included.

    They are counted from 1, since the script was set; `math.inf` as *last* means all that follow.
    """

    first: int
    last: float
    step: Step | None

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise ValueError(f"requests must be counted from 1 upwards, not from {self.first!r} to {self.last!r}")
        check_step(self.step)


@dataclass(frozen=True, slots=True)
class During:
    """Play *step* for the token requests that come from second *start* on, and before second *end*.

    They are counted since the script was set, by the endpoint's clock; `math.inf` as *end* means for ever.
    """

    start: float
    end: float
    step: Step | None

    def __post_init__(self) -> None:
        at_least_zero("start", self.start)
        if not self.start < self.end:
            raise ValueError(f"end must be later than start, not {self.start!r} to {self.end!r}")
        check_step(self.step)


Rule: TypeAlias = OnRequests | During


@dataclass(frozen=True, slots=True)
class Script:
    """What to play for which token request: the first of the *rules* that applies decides.

    Where none does, the request gets the one of *steps* that stands at its place, and after those *then*.
    """

    rules: tuple[Rule, ...] = ()
    steps: tuple[Step | None, ...] = ()
    then: Step | None = None

    def step_for(self, number: int, elapsed: float) -> Step | None:
        """Return the step for the request *number*, counted from 1, after *elapsed* seconds."""
        for rule in self.rules:
            if _applies(rule, number, elapsed):
                return rule.step
        return self.steps[number - 1] if number <= len(self.steps) else self.then


class Performance:
    """A script that is being played since the moment *since*."""

    __slots__ = ("_number", "_script", "_since")

    def __init__(self, script: Script, since: float) -> None:
        self._script = script
        self._since = since
        self._number = 0

    def next_step(self, now: float) -> Step | None:
        """Return the step for the next request, which came at the moment *now*."""
        self._number += 1
        # A request that is older than the script is played by its beginning.
        return self._script.step_for(self._number, max(0.0, now - self._since))


def script_of(parts: Iterable[Step | Rule | None], then: Step | None) -> Script:
    """Return the script that consists of *parts* and, for all requests after those, *then*.

    Raises TypeError for what is neither a step nor a rule.
    """
    rules: list[Rule] = []
    steps: list[Step | None] = []
    for part in parts:
        if isinstance(part, Rule):
            rules.append(part)
        else:
            steps.append(check_step(part))
    return Script(tuple(rules), tuple(steps), check_step(then))


def check_step(step: Step | None) -> Step | None:
    """Return *step*, or raise TypeError for what is none."""
    if step is not None and not isinstance(step, get_args(Step)):
        remedy = f"write parse_step({step!r})" if isinstance(step, str) else "did you mean to call it?"
        raise TypeError(f"{step!r} is not a step; {remedy}")
    return step


def _applies(rule: Rule, number: int, elapsed: float) -> bool:
    if isinstance(rule, OnRequests):
        return rule.first <= number <= rule.last
    return rule.start <= elapsed < rule.end
