"""What can go wrong on the way: the steps of `IdentityEndpoint.script`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from .gate import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

_JSON = "application/json; charset=utf-8"
_REDIRECTS = (301, 302, 303, 307, 308)  # RFC 9110, those that say where to go instead.


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with exactly this, instead of with a token; a dict as *body* is sent as JSON."""

    status: int = 200
    body: bytes | str | Mapping[str, Any] = field(default=b"", repr=False)  # It may hold a token.
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:  # noqa: PLR2004  # The range of final HTTP answers (RFC 9110).
            raise ValueError(f"status must be 200 to 599, not {self.status!r}")

    @classmethod
    def html(cls, page: str = "<!doctype html><title>Sign in to the network</title>", status: int = 200) -> Self:
        """Return the answer of something that is no token endpoint: a captive portal, or a proxy in the way."""
        return cls(status, page, content_type="text/html; charset=utf-8")

    @classmethod
    def redirect(cls, location: str = "/elsewhere", status: int = 307) -> Self:
        """Return an answer that sends the client to *location*, by default to where this endpoint serves nothing.

        A client that goes there, and what it takes along, is then found in `IdentityEndpoint.requests`.
        """
        if status not in _REDIRECTS:
            raise ValueError(f"status must be one of {', '.join(map(str, _REDIRECTS))}, not {status!r}")
        return cls(status, headers={"Location": location})

    @property
    def content(self) -> bytes:
        """The body as it goes over the wire."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True, slots=True)
class Refused:
    """Refuse with HTTP *status*, in the host's own error shape.

    Without *code* and *message* it says what hosts say with that status. *retry_after* (seconds) becomes a Retry-After
    header, rounded up to whole seconds; *as_date* makes it a date instead, that many seconds from then by the
    endpoint's clock (RFC 9110 allows both), and only a date may lie in the past.
    """

    status: int
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None
    as_date: bool = False

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:  # noqa: PLR2004  # The range of HTTP errors (RFC 9110).
            raise ValueError(f"status must be an HTTP error, 400 to 599, not {self.status!r}")
        if self.as_date:
            finite("retry_after", self.retry_after)
        elif self.retry_after is not None:
            at_least_zero("retry_after", self.retry_after)


@dataclass(frozen=True, slots=True)
class Expired:
    """Answer with a token that expired *seconds* ago; a fake one says so itself too."""

    seconds: float = 60.0

    def __post_init__(self) -> None:
        at_least_zero("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Skewed:
    """Answer as a host whose clock is *seconds* ahead, or behind if that is negative.

    All times in the answer are off by that much, and those that a fake token claims.
    """

    seconds: float

    def __post_init__(self) -> None:
        finite("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Slow:
    """Answer normally, *seconds* later."""

    seconds: float

    def __post_init__(self) -> None:
        at_least_zero("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Hang:
    """Take the request and never answer."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Take the request, then reset the connection (TCP RST) without an answer.

    An aiohttp client session asks again once by itself after that, as HTTP allows for GET, and uses up another step.
    """


@dataclass(frozen=True, slots=True)
class Truncated:
    """Answer normally with the full Content-Length, but close the connection after half of the body."""


@dataclass(frozen=True, slots=True)
class Drip:
    """Answer normally, but one byte of the body every so many *seconds*."""

    seconds: float

    def __post_init__(self) -> None:
        at_least_zero("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Huge:
    """Answer with *size* bytes of JSON, chunked, so that no Content-Length warns of them."""

    size: int

    def __post_init__(self) -> None:
        at_least_zero("size", self.size)


Step: TypeAlias = Answer | Refused | Expired | Skewed | Slow | Hang | Reset | Truncated | Drip | Huge | Gate


def at_least_zero(name: str, value: float) -> None:
    """Raise ValueError unless *value* is a number that is not negative."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be at least 0, not {value!r}")


def finite(name: str, value: float | None) -> None:
    """Raise ValueError unless *value* is a number, and a finite one."""
    if value is None or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
