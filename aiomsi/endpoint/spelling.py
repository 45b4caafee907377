"""Steps and rules as a person types them on a command line."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from .faults import Answer, Drip, Expired, Hang, Huge, Refused, Reset, Skewed, Slow, Truncated
from .script import During, OnRequests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .faults import Step
    from .script import Rule

_WHEN = re.compile(
    r"(?P<first>\d{1,9})(?:(?P<on>-)(?P<last>\d{1,9})?)?"
    r"|(?P<start>\d{1,9}(?:\.\d{1,9})?)s-(?:(?P<end>\d{1,9}(?:\.\d{1,9})?)s)?",
    re.ASCII,
)
_STATUS = re.compile(r"\d{3}", re.ASCII)
_EXAMPLES = (
    "ok, 503, 429:3, 429:3:date, status:204, slow:2, hang, reset, truncated, drip:0.1, huge:1000000, html, html:503, "
    "redirect, redirect:http://127.0.0.1:8080/, expired, expired:60, skew:-600"
)


def parse_step(text: str) -> Step | Rule | None:
    """Return the step that *text* spells, as `IdentityEndpoint.script` takes it.

    * "ok" is a normal answer: None;
    * "503" is `Refused(503)`, "429:3" the same with a Retry-After of 3 seconds, "429:3:date" with a date;
    * "status:204" is an `Answer` with that status and an empty body;
    * "slow:2", "hang", "reset", "truncated", "drip:0.1", "huge:1000000" and "skew:-600" are the classes of those names;
    * "expired" and "expired:3600" are `Expired`; "html", "html:503", "redirect" and "redirect:URL" are answers of
      those kinds.

    After any of them, "@3", "@3-5" and "@3-" say for which requests it is, and "@10s-40s" and "@10s-" in which seconds.

    Raises ValueError for everything else.
    """
    spelled, at, when = text.partition("@")
    try:
        step = _step(spelled)
        return _rule(when, step) if at else step
    except ValueError as error:
        raise ValueError(f"{text!r} is not a step: {error}") from None


def _step(spelled: str) -> Step | None:
    name, _, rest = spelled.partition(":")
    if _STATUS.fullmatch(name):
        return _refused(int(name), rest)
    if name not in _STEPS:
        raise ValueError(f"write one of {_EXAMPLES}")
    return _STEPS[name](rest)


def _rule(when: str, step: Step | None) -> Rule:
    found = _WHEN.fullmatch(when)
    if found is None:
        raise ValueError("after the @, write one of 3, 3-5, 3-, 10s-40s, 10s-")
    if found["first"] is None:
        return During(float(found["start"]), float(found["end"] or math.inf), step)
    first = int(found["first"])
    return OnRequests(first, float(found["last"] or math.inf) if found["on"] else first, step)


def _refused(status: int, rest: str) -> Refused:
    delay, _, form = rest.partition(":")
    if form not in ("", "date"):
        raise ValueError(f"after the seconds comes nothing or 'date', not {form!r}")
    return Refused(status, retry_after=_number(delay) if rest else None, as_date=form == "date")


def _number(rest: str) -> float:
    try:
        return float(rest)
    except ValueError:
        raise ValueError(f"after the colon comes a number, not {rest!r}") from None


def _whole(rest: str) -> int:
    if not re.fullmatch(r"\d{1,18}", rest, re.ASCII):
        raise ValueError(f"after the colon comes a whole number, not {rest!r}")
    return int(rest)


def _alone(step: Step | None) -> Callable[[str], Step | None]:
    """Return a maker of *step*, which takes nothing."""

    def make(rest: str) -> Step | None:
        if rest:
            raise ValueError(f"nothing comes after the name, not {rest!r}")
        return step

    return make


_STEPS: Mapping[str, Callable[[str], Step | None]] = {
    "ok": _alone(None),
    "status": lambda rest: Answer(_whole(rest)),
    "slow": lambda rest: Slow(_number(rest)),
    "hang": _alone(Hang()),
    "reset": _alone(Reset()),
    "truncated": _alone(Truncated()),
    "drip": lambda rest: Drip(_number(rest)),
    "huge": lambda rest: Huge(_whole(rest)),
    "html": lambda rest: Answer.html(status=_whole(rest)) if rest else Answer.html(),
    "redirect": lambda rest: Answer.redirect(rest) if rest else Answer.redirect(),
    "expired": lambda rest: Expired(_number(rest)) if rest else Expired(),
    "skew": lambda rest: Skewed(_number(rest)),
}
