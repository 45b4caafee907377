"""What is asked for and what is given, and the fake tokens of an endpoint that nobody told how to get real ones."""

from __future__ import annotations

import base64
import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

IdentityKind: TypeAlias = Literal["client_id", "object_id", "resource_id"]

# Spelled so that a person who meets one in a log sees at once that it is fake.
FAKE_TENANT_ID = "fa4efa4e-0000-4000-8000-00000000000a"
FAKE_CLIENT_ID = "fa4efa4e-0000-4000-8000-00000000000c"
FAKE_CLUSTER = "https://oidc.fa4efa4e.invalid/"
_OBJECT_ID = "fa4efa4e-0000-4000-8000-00000000000b"
_USER_OBJECT_ID = "fa4efa4e-0000-4000-8000-00000000000d"
_USER_NAME = "nobody@fa4efa4e.invalid"

# The hosts that give out the tokens of whoever is signed in, not those of an application.
_USERS_HOSTS = frozenset({"cloud_shell"})

_HOUR = 3600
_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TokenAsked:
    """A well-formed request for a token: by which *host*'s protocol, for which *resource*, as which identity.

    *identity_kind* and *identity* are None where the system-assigned identity is meant. *tenant_id* is the tenant, a
    GUID or a domain, where the protocol names one, as Entra's does. *user* is the user principal name of the user in
    whose name the application *identity* asks; None if it asks in its own.
    """

    host: str
    resource: str
    identity_kind: IdentityKind | None = None
    identity: str | None = None
    tenant_id: str | None = None
    user: str | None = None


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
        whose = _application(asked) if _is_application(asked) else _user(asked)
        claims = _claims(asked, now, now + lifetime) | whose
        return TokenGiven(_unsigned(claims), now + lifetime, client_id=whose.get("appid"))

    return issue


def fake_service_account_token(now: float) -> str:
    """Return an unsigned token as a cluster projects it into a pod for Entra, good for an hour from *now*."""
    return _unsigned(
        {
            "aud": ["api://AzureADTokenExchange"],
            "exp": int(now) + _HOUR,
            "iat": int(now),
            "iss": FAKE_CLUSTER,
            "jti": secrets.token_urlsafe(16),
            "nbf": int(now),
            "sub": "system:serviceaccount:default:demo",
        }
    )


def claimed_issuer(token: str) -> object:
    """Return what *token*, a JWT, says about who issued it, or None if that cannot be read."""
    return _payload(token).get("iss")


def shifted(given: TokenGiven, seconds: float) -> TokenGiven:
    """Return *given* as if it had happened *seconds* later; what a fake token claims about times is shifted with it."""
    expires_on = given.expires_on + seconds
    token = given.token
    if token.startswith(_FAKE_HEADER) and token.endswith(_FAKE_SIGNATURE):
        whole_seconds = int(expires_on) - int(given.expires_on)
        claims = _payload(token)
        times = {name: claims[name] for name in _TIMES if isinstance(claims.get(name), int)}
        token = _unsigned(claims | {name: time + whole_seconds for name, time in times.items()})
    return replace(given, token=token, expires_on=expires_on)


def _payload(token: str) -> dict[str, Any]:
    """Return what *token*, a JWT, claims; nothing if that cannot be read."""
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _claims(asked: TokenAsked, now: float, expires_on: float) -> dict[str, object]:
    """Return what an access token of Entra's version 1.0 claims, whoever it is for."""
    tenant_id = asked.tenant_id if asked.tenant_id and _GUID.fullmatch(asked.tenant_id) else FAKE_TENANT_ID
    return {
        "aud": asked.resource,
        "iss": f"https://sts.windows.net/{tenant_id}/",
        "iat": int(now),
        "nbf": int(now),
        "exp": int(expires_on),
        "tid": tenant_id,
        "uti": secrets.token_urlsafe(16),
        "ver": "1.0",
    }


def _application(asked: TokenAsked) -> dict[str, str]:
    named = {asked.identity_kind: asked.identity} if asked.identity else {}
    object_id = named.get("object_id", _OBJECT_ID)
    claims = {
        "appid": named.get("client_id", FAKE_CLIENT_ID),
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
    }
    return claims | ({"xms_mirid": named["resource_id"]} if "resource_id" in named else {})


def _is_application(asked: TokenAsked) -> bool:
    return asked.user is None and asked.host not in _USERS_HOSTS


def _user(asked: TokenAsked) -> dict[str, str]:
    object_id = _USER_OBJECT_ID if asked.user is None else _object_id(asked.user)
    claims = {
        "idtyp": "user",
        "oid": object_id,
        "scp": "user_impersonation",
        "sub": object_id,
        "upn": asked.user or _USER_NAME,
    }
    return claims | ({"appid": asked.identity} if asked.identity else {})


def _object_id(user: str) -> str:
    """Return the object id of *user*, which is always the same one, and nobody else's."""
    return f"fa4efa4e-{str(uuid.uuid5(uuid.NAMESPACE_URL, user.lower()))[9:]}"


def _unsigned(claims: Mapping[str, object]) -> str:
    return f"{_FAKE_HEADER}{_segment(claims)}{_FAKE_SIGNATURE}"


def _segment(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_FAKE_HEADER = _segment({"alg": "none", "typ": "JWT"}) + "."
_FAKE_SIGNATURE = "." + _base64url(b"not-a-signature")
_TIMES = ("iat", "nbf", "exp")
