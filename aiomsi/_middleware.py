"""Tokens where requests are made: client middleware for aiohttp."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import BytesPayload, IOBasePayload, MultipartWriter
from aiohttp.hdrs import AUTHORIZATION, WWW_AUTHENTICATE

from aiomsi._challenge import claims_of, parse_challenges
from aiomsi._errors import AiomsiError
from aiomsi._origins import Origins
from aiomsi._tenants import tenant_of_token, tenant_of_vault, tenants_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, Payload
    from yarl import URL

    from aiomsi._provider import TokenProvider

__all__ = ["BearerAuth"]

_log = logging.getLogger("aiomsi.middleware")

_UNAUTHORISED = 401
_SCHEME = "Bearer "
_MOST_HEADERS = 64  # Those of tokens that have been replaced are among them.
_MOST_TENANTS = 256  # Vaults of other tenants that are remembered; a forgotten one just takes one request more.


class BearerAuth:
    """Authorises the requests of an `aiohttp.ClientSession`, and answers when a service wants another token.

        auth = BearerAuth(provider, {"https://myvault.vault.azure.net": "https://vault.azure.net"})
        async with aiohttp.ClientSession(middlewares=[auth]) as session:
            ...

    *resources* are the origins that tokens may go to, and which token each of them gets: `https://*.vault.azure.net`
    stands for all vaults (the asterisk is exactly one label), and `AZURE_PUBLIC_CLOUD`, `AZURE_US_GOVERNMENT` and
    `AZURE_CHINA` for whole clouds. Every other request, and every hop of a redirect to somewhere else, passes
    untouched; so does one with an `Authorization` of its own. Plain http is for loopback, and only if
    *allow_http_on_loopback*, and not through a proxy.

    When a service answers 401, another token is fetched, with the claims that it asks for or from the tenant that a
    key vault names, and the request is sent once more, if its body can be: not that of a generator. The tenant must be
    the token's own or one of *allowed_tenants* (GUIDs or domains, as the vault names them).

    Of several middlewares it is the last: those after it could send the token elsewhere, while those before it may
    send a request again and never see a token, which is in the request only while that is being sent. It holds no
    connection and belongs to no session.

    Source: RFC 6750; Microsoft documentation, "Claims challenges", and "Authentication, requests and responses" (Key
    Vault).

    Raises:
        TypeError: *provider* or *resources* is none, or an origin, resource or tenant is no string.
        ValueError: an origin or tenant is malformed, or an origin in plain http where that is not allowed.
    """

    __slots__ = ("_allowed_tenants", "_headers", "_origins", "_provider", "_tenants")

    def __init__(
        self,
        provider: TokenProvider,
        resources: Mapping[str, str],
        *,
        allowed_tenants: Collection[str] = (),
        allow_http_on_loopback: bool = False,
    ) -> None:
        if not callable(getattr(provider, "peek", None)):
            raise TypeError(f"provider is a TokenProvider, not {type(provider).__name__}")
        self._provider = provider
        self._origins = Origins(resources, allow_http_on_loopback=allow_http_on_loopback)
        self._allowed_tenants = tenants_of(allowed_tenants)
        self._headers = _Headers()
        self._tenants: dict[URL, str] = {}  # The vaults, by origin, that are in another tenant.

    def __repr__(self) -> str:
        return f"<BearerAuth {self._provider!r}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send *request* with a token, if its origin may have one.

        Raises:
            SecurityError: a key vault asks for a token of something else.
            AiomsiError: no token could be had; see the subclasses.
        """
        url = request.url
        resource = self._origins.resource(url.scheme, url.raw_host or "", url.explicit_port)
        overheard = request.proxy is not None and not request.is_ssl()
        if resource is None or overheard or AUTHORIZATION in request.headers:
            if resource is None and _log.isEnabledFor(logging.DEBUG):
                _log.debug("no token for %s://%s:%s, which is not mapped", url.scheme, url.raw_host, url.port)
            return await handler(request)
        tenant_id = self._tenants.get(url.origin()) if self._tenants else None
        try:
            # The token is in no variable of ours: a traceback may show what our frames hold.
            request.headers[AUTHORIZATION] = self._headers[
                self._provider.peek(resource) or await self._provider.token(resource)
                if tenant_id is None
                else await self._of_tenant(url, resource, tenant_id)
            ]
            response = await handler(request)
            if response.status == _UNAUTHORISED:
                response = await self._answered(request, handler, response, _Purpose(resource, tenant_id))
            return response
        finally:
            # Or it would be in the text of errors that aiohttp makes of the response, and if a middleware sends the
            # request again seem to be the caller's own.
            request.headers.pop(AUTHORIZATION, None)

    async def _of_tenant(self, url: URL, resource: str, tenant_id: str) -> str:
        try:
            return (await self._provider.access_token(resource, tenant_id=tenant_id)).token
        except AiomsiError:
            self._tenants.pop(url.origin(), None)  # The vault may have moved.
            raise

    async def _answered(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
        given: _Purpose,
        *,
        claims_only: bool = False,
    ) -> ClientResponse:
        """Return the answer to *request* with another token than the one given, or else *response*, a 401."""
        origin = request.url.origin()
        if self._tenants.get(origin) == given.tenant_id:
            self._tenants.pop(origin, None)
        try:
            wanted = await self._reauthorised(request, response, given, claims_only=claims_only)
        except BaseException:
            response.release()
            raise
        if wanted is None:
            return response
        # Before the next one is sent: a session with one connection would wait for itself.
        response.release()
        request.update_expect_continue()  # Or aiohttp would wait for the 100 that was for the first one.
        response = await handler(request)
        if response.status != _UNAUTHORISED:
            self._remember(origin, wanted.tenant_id)
        elif wanted.tenant_id != given.tenant_id and not claims_only:
            # The vault has named its tenant, and may ask for claims now; anything else could go on for ever.
            return await self._answered(request, handler, response, wanted, claims_only=True)
        return response

    async def _reauthorised(
        self, request: ClientRequest, response: ClientResponse, given: _Purpose, *, claims_only: bool
    ) -> _Purpose | None:
        """Put the token into *request* that *response*, a 401, asks for; return None if it cannot be sent so."""
        if not request.headers.get(AUTHORIZATION, "").startswith(_SCHEME):
            return None  # A middleware behind this one has authorised it in another way.
        wanted = self._wanted(request, response, given)
        if wanted is None or (claims_only and wanted.claims is None):
            return None
        fresh = await self._provider.access_token(
            wanted.resource, tenant_id=wanted.tenant_id, claims=wanted.claims, rejected=_sent(request)
        )
        # If this request cannot be sent again, at least the next one has a better token.
        if fresh.token == _sent(request) or not _is_repeatable(request.body):
            return None
        request.headers[AUTHORIZATION] = _SCHEME + fresh.token
        return wanted

    def _wanted(self, request: ClientRequest, response: ClientResponse, given: _Purpose) -> _Purpose | None:
        """Return which token *response*, a 401, asks for, or None if it shall not have that."""
        challenges = parse_challenges(response.headers.getall(WWW_AUTHENTICATE, ()))
        named = tenant_of_vault(challenges, str(request.url.origin()), given.resource)
        own = tenant_of_token(_sent(request))
        if named in self._allowed_tenants and named != own:
            given = given._replace(tenant_id=named)
        elif named is not None and own not in (None, named):
            what = "%s wants a token of the tenant %s, which is neither the token's own nor one of allowed_tenants"
            _log.warning(what, request.url.host, named)
            return None
        return given._replace(claims=claims_of(challenges))

    def _remember(self, vault: URL, tenant_id: str | None) -> None:
        if tenant_id is not None:
            if len(self._tenants) >= _MOST_TENANTS:
                self._tenants.clear()
            self._tenants[vault] = tenant_id


class _Headers(dict[str, str]):
    """The header of each token, put together once, since a token is long."""

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"  # Each holds a token.

    def __missing__(self, token: str) -> str:
        if len(self) >= _MOST_HEADERS:
            self.clear()
        header = self[token] = _SCHEME + token
        return header


class _Purpose(NamedTuple):
    """What a token is for."""

    resource: str
    tenant_id: str | None
    claims: str | None = None


def _sent(request: ClientRequest) -> str:
    return request.headers[AUTHORIZATION].removeprefix(_SCHEME)


def _is_repeatable(body: Payload | bytes) -> bool:
    """Return whether *body* can be sent again: of a stream, aiohttp would send what is left, which may be nothing."""
    if isinstance(body, MultipartWriter):
        return all(_is_repeatable(part) for part, _, _ in body)
    return isinstance(body, bytes) or (isinstance(body, BytesPayload | IOBasePayload) and not body.consumed)
