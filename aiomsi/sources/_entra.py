"""Entra's token endpoint: an application proves who it is, and gets a token.

Source: Microsoft documentation, "OAuth 2.0 client credentials flow on the Microsoft identity platform"; RFC 7523.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.to_thread

from aiomsi._clock import sleep
from aiomsi._errors import ConfigurationError, MalformedResponseError, TokenRefusedError, about
from aiomsi._token import AccessToken
from aiomsi.sources._entra_application import Application, application, check_capabilities, check_name
from aiomsi.sources._entra_errors import STALE_ASSERTION, entra_refusal
from aiomsi.sources._messages import FORM, Request, form
from aiomsi.sources._proxies import proxy_for
from aiomsi.sources._redaction import shape
from aiomsi.sources._retrying import Patience, persist
from aiomsi.sources._tls import system_trust
from aiomsi.sources._token_answer import token_in
from aiomsi.sources._transport import Line, Peer, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiomsi._source import TokenRequest
    from aiomsi.sources._surroundings import Surroundings

__all__ = [
    "ASSERTION_TYPE",
    "ATTEMPT_LIMIT",
    "CONNECT_LIMIT",
    "TIME_LIMIT",
    "Application",
    "Proof",
    "Route",
    "application",
    "check_capabilities",
    "entra_token",
    "public_peer",
]

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TIME_LIMIT = 60.0  # Seconds for a fetch, its retries included.
ATTEMPT_LIMIT = 30.0  # Seconds for one answer.
CONNECT_LIMIT = 10.0
_PATIENCE = Patience()
_ANSWERS_CHALLENGES = "CP1"
_SECOND_LOOK = 1.0  # Seconds after which a proof that was out of date is made again.


@dataclass(frozen=True, slots=True)
class Proof:
    """The members of a token request that prove who asks, which are secret, and the kind of grant that takes them."""

    members: Mapping[str, str] = field(repr=False)
    grant_type: str = "client_credentials"


@dataclass(frozen=True, slots=True)
class Route:
    """The URL below which tokens are asked for, without a slash at its end, and how its host is reached and known."""

    base: str
    peer: Peer


Prove: TypeAlias = "Callable[[], Awaitable[Proof]]"


async def public_peer(url: str, surroundings: Surroundings, source: str) -> Peer:
    """Return how the public https service at *url* is reached and known.

    Raises:
        ConfigurationError: the environment names a proxy or authorities that cannot be used.
    """
    try:
        trust = await anyio.to_thread.run_sync(system_trust, surroundings)
    except OSError as error:
        what = "the certificate authorities that SSL_CERT_FILE or SSL_CERT_DIR name cannot be read"
        raise ConfigurationError(f"{what}: {error}", source=source) from error
    return Peer(trust, proxy=proxy_for(url, surroundings), connect_limit=CONNECT_LIMIT)


async def entra_token(
    app: Application,
    request: TokenRequest,
    prove: Prove,
    *,
    surroundings: Surroundings,
    route: Route | None = None,
    retry_timeout: float | None = None,
) -> AccessToken:
    """Fetch one token for *app*; *prove* is called for each attempt, so that no proof gets old.

    Raises:
        AiomsiError: see the subclasses.
    """
    with about(request.resource, app.source):
        tenant_id = check_name("tenant", request.tenant_id or app.tenant_id, "tenant_id", app.source)
        members = _members(app, request)
        if route is None:
            route = Route(app.authority, await public_peer(app.authority, surroundings, app.source))
        url = f"{route.base}/{tenant_id}/oauth2/v2.0/token"
        async with connect(url, source=app.source, clock=request.clock, peer=route.peer) as line:

            async def attempt() -> AccessToken:
                return await _ask(line, url, members, await prove(), request)

            return await _exchange(attempt, request, retry_timeout)


async def _exchange(
    attempt: Callable[[], Awaitable[AccessToken]], request: TokenRequest, retry_timeout: float | None
) -> AccessToken:
    """Return what *attempt* returns, repeated while Entra cannot serve, and once if its proof was out of date."""
    clock, until = request.clock, request.deadline
    if retry_timeout is not None:
        until = min(until, clock.monotonic() + retry_timeout)
    try:
        return await persist(attempt, _PATIENCE, clock=clock, until=until)
    except TokenRefusedError as error:
        if error.code != STALE_ASSERTION or clock.monotonic() + _SECOND_LOOK >= until:
            raise
    await sleep(clock, _SECOND_LOOK)
    return await persist(attempt, _PATIENCE, clock=clock, until=until)


def _members(app: Application, request: TokenRequest) -> dict[str, str]:
    members = {"client_id": app.client_id, "scope": f"{request.resource}/.default"}
    claims = _claims(request, app.capabilities)
    return {**members, "claims": claims} if claims is not None else members


def _claims(request: TokenRequest, capabilities: Sequence[str]) -> str | None:
    """Return the claims of a challenge together with what the client declares it can do, as JSON text, or None."""
    claims: Any = {}
    if request.claims is not None:
        # Whoever passes the claims of a challenge on can deal with challenges, which is what CP1 says.
        capabilities = list(dict.fromkeys((*capabilities, _ANSWERS_CHALLENGES)))
        try:
            claims = json.loads(request.claims)
        except (ValueError, RecursionError):
            claims = None
    token = claims.get("access_token", {}) if isinstance(claims, dict) else None
    if not isinstance(token, dict):
        raise ConfigurationError("claims is no JSON object as claims challenges hold; pass its decoded text")
    if not capabilities:
        return None
    capable = {**token, "xms_cc": {"values": list(capabilities)}}
    return json.dumps({**claims, "access_token": capable}, separators=(",", ":"))


async def _ask(line: Line, url: str, members: dict[str, str], proof: Proof, request: TokenRequest) -> AccessToken:
    # Not in a variable of its own: a traceback may show those.
    sent = Request(
        url,
        {"Content-Type": FORM},
        "POST",
        form({**members, "grant_type": proof.grant_type, **proof.members}),
        tuple(proof.members.values()),
    )
    answer = await line.send(sent, ATTEMPT_LIMIT, deadline=request.deadline)
    now = request.clock.wall()
    if not 200 <= answer.status < 300:
        raise entra_refusal(answer, proof.members, line.source, request, now)
    token = token_in(answer, request.resource, line.source, now)
    if isinstance(token, AccessToken):
        return token
    raise MalformedResponseError(
        f"Entra answered a request for {request.resource!r} with {token}: it was {shape(answer.body)}",
        resource=request.resource,
        source=line.source,
    )
