"""What the endpoint remembers of each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

# More than any of the protocols needs, and little enough to be remembered.
_BODY_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came in, whether it was answered, refused or dropped.

    *query* is decoded; *headers* have lower-case names, and those sent twice are joined by ", "; *body* is cut after
    64 KiB; *host* is the protocol that the request spoke, or None; *received_at* is Unix time in seconds, UTC.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str] = field(repr=False)  # They hold the secret.
    body: bytes = field(repr=False)
    host: str | None
    resource: str | None
    received_at: float

    @property
    def parameters(self) -> dict[str, str]:
        """The query by name; of a parameter that was sent twice, the first."""
        return dict(reversed(self.query))


async def receive(request: web.BaseRequest, host: str | None, received_at: float) -> ReceivedRequest:
    """Read *request* whole, its body bounded."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        name = name.lower()  # noqa: PLW2901  # No second name for the same thing.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = tuple(request.rel_url.query.items())
    resource = dict(reversed(query)).get("resource") or None
    body = await _body(request)
    return ReceivedRequest(request.method, request.path, query, headers, body, host, resource, received_at)


async def _body(request: web.BaseRequest) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            break
    return bytes(body[:_BODY_LIMIT])
