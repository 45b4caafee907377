"""What the endpoint remembers of each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from aiohttp import web

Pairs: TypeAlias = tuple[tuple[str, str], ...]

# More than any of the protocols needs, and little enough to be remembered.
_BODY_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came in, whether it was answered, refused or dropped.

    *query* is decoded; *headers* have lower-case names, and those sent twice are joined by ", "; *body* is cut after
    64 KiB; *host* is the protocol that the request spoke, or None; *resource* is what a token was asked for, be it by
    query or form, as resource or as scope; *received_at* is Unix time in seconds, UTC. *scheme* is "https" if it came
    over TLS, else "http"; *form* is the decoded body of a form. *remote* is the address of whoever asked, or None at a
    Unix socket.
    """

    method: str
    path: str
    query: Pairs
    headers: dict[str, str] = field(repr=False)  # They hold the secret.
    body: bytes = field(repr=False)
    host: str | None
    resource: str | None
    received_at: float
    scheme: str = "http"
    form: Pairs = field(default=(), repr=False)  # It may hold a secret or an assertion.
    remote: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The query by name; of a parameter that was sent twice, the first."""
        return first_of(self.query)


def first_of(pairs: Pairs) -> dict[str, str]:
    """Return *pairs* by name; of those with the same name, the first."""
    return dict(reversed(pairs))


async def receive(request: web.BaseRequest, received_at: float, host: str | None) -> ReceivedRequest:
    """Read *request*, which speaks to *host*, whole, its body bounded."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        name = name.lower()  # noqa: PLW2901  # No second name for the same thing.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = tuple(request.rel_url.query.items())
    body = await _body(request) if request.can_read_body else b""
    form = _form(headers.get("content-type", ""), body) if body else ()
    return ReceivedRequest(
        method=request.method,
        path=request.path,
        query=query,
        headers=headers,
        body=body,
        host=host,
        resource=_resource(first_of(query + form)),
        received_at=received_at,
        scheme=request.scheme,
        form=form,
        remote=request.remote or None,
    )


async def _body(request: web.BaseRequest) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            break
    return bytes(body[:_BODY_LIMIT])


def _form(content_type: str, body: bytes) -> Pairs:
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return ()
    return tuple(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def _resource(given: dict[str, str]) -> str | None:
    return given.get("resource") or given.get("scope", "").removesuffix("/.default") or None
