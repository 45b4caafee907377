"""What the endpoint remembers of each request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

Pairs: TypeAlias = tuple[tuple[str, str], ...]

BODY_LIMIT = 65_536
"""Bytes of a body that are read: more than any of the protocols needs, and little enough to be remembered."""
_BODY_TIME = 30.0  # Seconds.


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came in, whether it was answered, refused or dropped.

    *query* is decoded; *headers* have lower-case names, and those sent twice are joined by ", "; *body* is cut after
    64 KiB; *host* is the protocol that the request spoke, or None; *received_at* is Unix time in seconds, UTC. *scheme*
    is "https" if it came over TLS, else "http". *remote* is the address of whoever asked, or None at a Unix socket.
    """

    method: str
    path: str
    query: Pairs
    headers: dict[str, str] = field(repr=False)  # They hold the secret.
    body: bytes = field(repr=False)
    host: str | None
    received_at: float
    scheme: str = "http"
    remote: str | None = None
    whole: bool = True
    """Whether the body is all of what was sent, and could be read."""

    @property
    def form(self) -> Pairs:
        """The decoded body, if it is a form."""
        content_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded":
            return ()
        return tuple(parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True))

    @property
    def resource(self) -> str | None:
        """What a token was asked for, be it by query or form, as resource or as scope."""
        given = first_of(self.query + self.form)
        scope = given.get("scope", "").partition(" ")[0]  # What comes after it is about the user.
        return given.get("resource") or scope.removesuffix("/.default") or None

    @property
    def parameters(self) -> dict[str, str]:
        """The query by name; of a parameter that was sent twice, the first."""
        return first_of(self.query)


def first_of(pairs: Pairs) -> dict[str, str]:
    """Return *pairs* by name; of those with the same name, the first."""
    return dict(reversed(pairs))


async def receive(request: web.BaseRequest, received_at: float, host: str | None) -> ReceivedRequest:
    """Read *request*, which speaks to *host*, whole, its body bounded."""
    body, whole = await _body(request) if request.can_read_body else (b"", True)
    return ReceivedRequest(
        method=request.method,
        path=request.path,
        query=tuple(request.query.items()),
        headers=_by_name(request.headers),
        body=body[:BODY_LIMIT],
        host=host,
        received_at=received_at,
        scheme=request.scheme,
        remote=request.remote or None,
        whole=whole,
    )


def _by_name(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    by_name = {name.lower(): value for name, value in headers.items()}
    if len(by_name) < len(headers):
        return {name: ", ".join(headers.getall(name)) for name in by_name}
    return by_name


async def _body(request: web.BaseRequest) -> tuple[bytes, bool]:
    """Return the body, and whether it is whole: it may be too long, too slow, or not what its headers say."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_TIME):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT:
                    return bytes(body), False
    except (TimeoutError, web.RequestPayloadError):
        return bytes(body), False
    return bytes(body), True
