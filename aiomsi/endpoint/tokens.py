"""What is asked for and what is given, and the fake tokens of an endpoint that nobody told how to get real ones."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

IdentityKind: TypeAlias = Literal["client_id", "object_id", "resource_id"]

# Spelled so that a person who meets one in a log sees at once that it is fake.
_TENANT_ID = "fa4efa4e-0000-4000-8000-00000000000a"
_OBJECT_ID = "fa4efa4e-0000-4000-8000-00000000000b"
_CLIENT_ID = "fa4efa4e-0000-4000-8000-00000000000c"


@dataclass(frozen=True, slots=True)
class TokenAsked:
    """A well-formed request for a token: by which *host*'s protocol, for which *resource*, as which identity.

    *identity_kind* and *identity* are None where the system-assigned identity is meant.
    """

    host: str
    resource: str
    identity_kind: IdentityKind | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class TokenGiven:
    """A token to hand out; *expires_on* is Unix time in seconds, UTC, and *refresh_in* is in seconds from now."""

    token: str = field(repr=False)
    expires_on: float
    refresh_in: float | None = None
    client_id: str | None = None


class IssueRefused(Exception):  # noqa: N818  # A refusal is an answer of the protocol, not an error of the endpoint.
    """Raised by an issuer to answer with HTTP *status* in the host's own error shape.

    *retry_after* (seconds) becomes a Retry-After header, rounded up to whole seconds.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        if not 400 <= status <= 599:  # noqa: PLR2004  # The range of HTTP errors (RFC 9110).
            raise ValueError(f"status must be an HTTP error, 400 to 599, not {status!r}")
        if retry_after is not None and not retry_after >= 0:
            raise ValueError(f"retry_after must be at least 0 seconds, not {retry_after!r}")
        super().__init__(status, code, message, retry_after)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


Issue: TypeAlias = Callable[[TokenAsked], Awaitable[TokenGiven]]


def fake_tokens(wall: Callable[[], float], lifetime: float) -> Issue:
    """Return an issuer of unsigned tokens that live for *lifetime* seconds, no two of them the same."""

    async def issue(asked: TokenAsked) -> TokenGiven:
        now = wall()
        claims = _claims(asked, now, now + lifetime)
        parts = (_segment({"alg": "none", "typ": "JWT"}), _segment(claims), _base64url(b"not-a-signature"))
        return TokenGiven(".".join(parts), now + lifetime, client_id=str(claims["appid"]))

    return issue


def _claims(asked: TokenAsked, now: float, expires_on: float) -> dict[str, str | int]:
    """Return what an access token of Entra's version 1.0 claims about an application."""
    object_id = asked.identity if asked.identity_kind == "object_id" and asked.identity else _OBJECT_ID
    client_id = asked.identity if asked.identity_kind == "client_id" and asked.identity else _CLIENT_ID
    claims: dict[str, str | int] = {
        "aud": asked.resource,
        "iss": f"https://sts.windows.net/{_TENANT_ID}/",
        "iat": int(now),
        "nbf": int(now),
        "exp": int(expires_on),
        "appid": client_id,
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
        "tid": _TENANT_ID,
        "uti": secrets.token_urlsafe(16),
        "ver": "1.0",
    }
    if asked.identity_kind == "resource_id" and asked.identity:
        claims["xms_mirid"] = asked.identity
    return claims


def _segment(value: dict[str, str] | dict[str, str | int]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
