"""What a host says to a proper question, in the ordinary way or as a step of the script wants it.

The ordinary answers of the current second are remembered: a token that many ask for is written once a second.
"""

from __future__ import annotations

import logging
import math
import traceback
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from .faults import Answer, Expired, Refused, Skewed
from .tokens import IssueRefused, shifted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Step
    from .protocol import Host
    from .tokens import Issue, TokenAsked, TokenGiven

_log = logging.getLogger("aiomsi.endpoint")

_SERVER_ERROR = 500

# Whoever asks chooses the resources, so only so many answers are remembered.
_MOST_WRITTEN = 100

# What IMDS's specification calls its errors; the hosts put some of them into words of their own.
_CODES = {
    401: "unauthorized_client",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    429: "too_many_requests",
    503: "service_unavailable",
}


class Answers:
    """The answers of an endpoint whose tokens come from *issue*; *wall* tells the Unix time in seconds, UTC."""

    __slots__ = ("_issue", "_second", "_wall", "_written")

    def __init__(self, issue: Issue, wall: Callable[[], float]) -> None:
        self._issue = issue
        self._wall = wall
        self._second = 0
        self._written: dict[TokenAsked, tuple[TokenGiven, Answer]] = {}

    async def answer(self, host: Host, asked: TokenAsked, step: Step | None = None) -> Answer:
        """Return what *host* answers when it is *asked*: a token, or a refusal, bent as *step* wants it."""
        if isinstance(step, Refused):
            return _refuse(host, step, self._wall())
        try:
            given = await self._issue(asked)
            if isinstance(step, Expired | Skewed):
                return _bend(host, asked, given, step, self._wall())
            return self._hand_out(host, asked, given)
        except IssueRefused as refused:
            return host.refusal(refused, self._wall())
        except Exception as error:  # noqa: BLE001  # Whatever an issuer raises, its caller gets an answer.
            # The text of a foreign exception may hold a token, so only its kind and place are told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("the issuer raised %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            message = f"The issuer of this endpoint raised {type(error).__name__}."
            return host.refusal(IssueRefused(500, "server_error", message), self._wall())

    def _hand_out(self, host: Host, asked: TokenAsked, given: TokenGiven) -> Answer:
        second = int(self._wall())
        if second != self._second or len(self._written) >= _MOST_WRITTEN:
            self._second, self._written = second, {}
        last_given, written = self._written.get(asked, (None, None))
        if written is None or last_given is not given:
            # Told no more than the second, so that it cannot write what would be wrong later in it.
            content = Answer(body=host.body(host, asked, given, second)).content
            written = Answer(body=content)
            self._written[asked] = given, written
        return written


def _bend(host: Host, asked: TokenAsked, given: TokenGiven, step: Expired | Skewed, now: float) -> Answer:
    if isinstance(step, Expired):
        given = shifted(given, now - step.seconds - given.expires_on)
        return Answer(body=host.body(host, asked, given, now))
    then = now + step.seconds
    body = host.body(host, asked, shifted(given, step.seconds), then)
    return Answer(body=body, headers={"Date": formatdate(then, usegmt=True)})


def _refuse(host: Host, step: Refused, now: float) -> Answer:
    usual_code = _CODES.get(step.status, "invalid_request" if step.status < _SERVER_ERROR else "server_error")
    code = usual_code if step.code is None else step.code
    message = _phrase(step.status) if step.message is None else step.message
    if not step.as_date or step.retry_after is None:
        return host.refusal(IssueRefused(step.status, code, message, step.retry_after), now)
    refusal = host.refusal(IssueRefused(step.status, code, message), now)
    moment = formatdate(math.ceil(now + step.retry_after), usegmt=True)
    return replace(refusal, headers={**refusal.headers, "Retry-After": moment})


def _phrase(status: int) -> str:
    known = {known.value: known.phrase for known in HTTPStatus}
    return f"The emulator was told to refuse: {known.get(status, 'HTTP')} ({status})."
