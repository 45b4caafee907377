"""Entra's token endpoint: an application proves who it is, and gets a token.

Source: Microsoft documentation, "OAuth 2.0 client credentials flow on the Microsoft identity platform"; RFC 7523.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread

from aiomsi._clock import sleep
from aiomsi._errors import ConfigurationError, MalformedResponseError, TokenRefusedError, about
from aiomsi._token import AccessToken
from aiomsi.sources._entra_errors import STALE_ASSERTION, entra_refusal
from aiomsi.sources._messages import FORM, Request, form
from aiomsi.sources._proxies import proxy_for
from aiomsi.sources._redaction import shape
from aiomsi.sources._retrying import Patience, persist
from aiomsi.sources._tls import system_trust
from aiomsi.sources._token_answer import token_in
from aiomsi.sources._transport import Line, Peer, connect
from aiomsi.sources._wire import url_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiomsi._source import TokenRequest
    from aiomsi.sources._surroundings import Surroundings

__all__ = [
    "ASSERTION_TYPE",
    "ATTEMPT_LIMIT",
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
_CONNECT_LIMIT = 10.0
_PATIENCE = Patience()
_PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
_ANSWERS_CHALLENGES = "CP1"
_SECOND_LOOK = 1.0  # Seconds after which a proof that was out of date is made again.
_TENANT = re.compile(r"(?!\.+$)[0-9A-Za-z.-]+")


@dataclass(frozen=True, slots=True)
class Application:
    """Who asks, and where: *authority* is the URL of the cloud's Entra without a slash at its end."""

    source: str
    client_id: str
    tenant_id: str
    authority: str
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """The members of a token request that prove who asks, which are secret."""

    members: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the token endpoint of an authority is asked, if not there, and how it is known."""

    base: str
    peer: Peer


Prove: TypeAlias = "Callable[[], Awaitable[Proof]]"


def application(
    surroundings: Surroundings,
    source: str,
    *,
    client_id: str | None,
    tenant_id: str | None,
    authority: str | None,
    capabilities: tuple[str, ...] = (),
) -> Application:
    """Return who asks, from what was given and otherwise from the environment.

    Raises:
        ConfigurationError: the client or the tenant is not known, or something is malformed.
    """
    client_id = client_id or surroundings.get("AZURE_CLIENT_ID")
    tenant_id = tenant_id or surroundings.get("AZURE_TENANT_ID")
    if not client_id:
        raise ConfigurationError("the client id is not known: give client_id, or set AZURE_CLIENT_ID", source=source)
    if not tenant_id:
        raise ConfigurationError("the tenant is not known: give tenant_id, or set AZURE_TENANT_ID", source=source)
    for what, text in (("client id", client_id), ("tenant", tenant_id)):
        if not _TENANT.fullmatch(text):
            raise ConfigurationError(f"the {what} is {text!r}, but should be a GUID or a domain", source=source)
    return Application(source, client_id, tenant_id, _authority(surroundings, source, authority), capabilities)


def _authority(surroundings: Surroundings, source: str, given: str | None) -> str:
    text = given or surroundings.get("AZURE_AUTHORITY_HOST") or _PUBLIC_AUTHORITY
    text = text if "://" in text else f"https://{text}"
    problem = url_problem(text)
    if problem is None and urlsplit(text).scheme != "https":
        problem = "does not begin with https://"
    if problem is None and urlsplit(text).query:
        problem = "has a query"
    if problem is not None:
        what = "authority" if given else "AZURE_AUTHORITY_HOST"
        raise ConfigurationError(f"{what} {problem}; it should be like {_PUBLIC_AUTHORITY}", source=source)
    return text.rstrip("/")


def check_capabilities(capabilities: Sequence[str]) -> tuple[str, ...]:
    """Return *capabilities* as a tuple.

    Raises:
        TypeError: it is no sequence of strings.
        ValueError: one of them is not a plain word.
    """
    if isinstance(capabilities, str) or not all(isinstance(capability, str) for capability in capabilities):
        raise TypeError(f"client_capabilities is a sequence of strings such as ('CP1',), not {capabilities!r}")
    for capability in capabilities:
        if not re.fullmatch(r"[0-9A-Za-z_.-]+", capability):
            raise ValueError(f"{capability!r} is no client capability; the one in use is 'CP1'")
    return tuple(capabilities)


async def public_peer(url: str, surroundings: Surroundings, source: str) -> Peer:
    """Return how the public https service at *url* is reached and known.

    Raises:
        ConfigurationError: the environment names a proxy or authorities that cannot be used.
    """
    try:
        trust = await anyio.to_thread.run_sync(system_trust, surroundings)
    except OSError as error:
        raise ConfigurationError(
            f"the certificate authorities that SSL_CERT_FILE or SSL_CERT_DIR name cannot be read: {error}",
            source=source,
        ) from error
    return Peer(trust, proxy=proxy_for(url, surroundings), connect_limit=_CONNECT_LIMIT)


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
    tenant_id = request.tenant_id or app.tenant_id
    with about(request.resource, app.source):
        if not _TENANT.fullmatch(tenant_id):
            raise ConfigurationError(f"the tenant is {tenant_id!r}, but should be a GUID or a domain")
        members = _members(app, request)
        if route is None:
            route = Route(app.authority, await public_peer(app.authority, surroundings, app.source))
        url = f"{route.base}/{tenant_id}/oauth2/v2.0/token"
        async with connect(url, source=app.source, clock=request.clock, peer=route.peer) as line:

            async def attempt() -> AccessToken:
                try:
                    return await _ask(line, url, members, await prove(), request)
                except TokenRefusedError as error:
                    if error.code != STALE_ASSERTION:
                        raise
                await sleep(request.clock, _SECOND_LOOK)
                return await _ask(line, url, members, await prove(), request)

            return await persist(attempt, _PATIENCE, clock=request.clock, until=request.deadline, limit=retry_timeout)


def _members(app: Application, request: TokenRequest) -> dict[str, str]:
    members = {
        "client_id": app.client_id,
        "grant_type": "client_credentials",
        "scope": f"{request.resource}/.default",
    }
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
    body = form({**members, **proof.members})
    sent = Request(url, {"Content-Type": FORM}, "POST", body, tuple(proof.members.values()))
    del body  # A traceback may show what our frames hold.
    answer = await line.send(sent, min(ATTEMPT_LIMIT, request.deadline - request.clock.monotonic()))
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
