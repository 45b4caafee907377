"""A token, and what it says about its owner."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["AccessToken", "Principal", "token_problem", "unverified_claims"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token was issued to, as its unverified claims say: for logs, never for decisions."""

    type: Literal["App", "User"]
    app_id: str | None
    object_id: str | None
    tenant_id: str | None
    user_principal_name: str | None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token and the moments at which it stops being good.

    *expires_on* and *refresh_on* are Unix times in seconds, UTC. *refresh_on* is when a newer token should be fetched;
    a source leaves it None where the host does not say, and the provider then fills it in from its policy.
    *resource* is what the token was asked for, *source* the name of who gave it.
    """

    token: str = field(repr=False)
    expires_on: float
    refresh_on: float | None
    resource: str
    source: str
    token_type: str = "Bearer"  # noqa: S105  (a scheme, no secret)

    @property
    def principal(self) -> Principal | None:
        """Who this token was issued to, or None if it is opaque. Nothing is verified."""
        claims = unverified_claims(self.token)
        if claims is None:
            return None
        name = _text(claims, "upn") or _text(claims, "preferred_username") or _text(claims, "unique_name")
        return Principal(
            type="User" if _is_user(claims, name) else "App",
            app_id=_text(claims, "appid") or _text(claims, "azp"),
            object_id=_text(claims, "oid"),
            tenant_id=_text(claims, "tid"),
            user_principal_name=name,
        )


def token_problem(token: object, expires_on: float | None, now: float) -> str | None:
    """Return what *token* is if it cannot be served at *now*, or None if it can."""
    if not isinstance(token, str) or not token:
        return "no token"
    if not (token.isascii() and token.isprintable()) or " " in token:
        return "a token that no HTTP header can carry"
    if expires_on is None:
        return "a token without a time that can be read"
    if expires_on <= now:
        return f"a token that expired {now - expires_on:.0f} s ago (is this machine's clock right?)"
    return None


def unverified_claims(token: str) -> dict[str, Any] | None:
    """Return the claims of the JWT *token* without verifying anything, or None if it is not a JWT (RFC 7519)."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  (header, payload, signature)
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _is_user(claims: dict[str, Any], name: str | None) -> bool:
    # `idtyp` is optional and exact; without it only users have a name or delegated scopes.
    kind = _text(claims, "idtyp")
    return kind == "user" if kind else bool(name or _text(claims, "scp"))


def _text(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and value else None
