"""Tokens for the requests of an `httpx.AsyncClient` (extra `httpx`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi._challenge import claims_of, parse_challenges
from aiomsi._origins import Origins

try:
    import httpx
except ImportError as error:
    raise ImportError("aiomsi.adapters.httpx needs the extra `httpx`; run: pip install 'aiomsi[httpx]'") from error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from aiomsi._provider import TokenProvider

__all__ = ["BearerAuth"]

_HEADER = "Authorization"
_CHALLENGES = "WWW-Authenticate"
_SCHEME = "Bearer "
_OURS = "aiomsi"  # Marks a request whose header is ours, so that one sent anew gets the token of that time.


class BearerAuth(httpx.Auth):
    """Authorises the requests of an `httpx.AsyncClient`, and answers when a service wants another token.

        auth = BearerAuth(provider, {"https://myvault.vault.azure.net": "https://vault.azure.net"})
        async with httpx.AsyncClient(auth=auth) as client:
            ...

    *resources* are the origins that tokens may go to, and which token each of them gets: `https://*.vault.azure.net`
    stands for all vaults (the asterisk is exactly one label). Every other request passes untouched; so does one with
    an `Authorization` of its own, or with a user's name in its URL. Plain http is for loopback, and only if
    *allow_http_on_loopback*. httpx asks the proxy in `HTTP_PROXY` for it all the same, which would see the token: make
    that client with `trust_env=False`, or set `NO_PROXY`.

    httpx follows redirects by itself: within its origin a request keeps its token, and to any other it goes without,
    even to one in *resources*.

    When a service answers 401, another token is fetched, with the claims that it asks for, and the request is sent
    once more. One whose body is multipart or comes from a stream is not: the caller gets the 401 and may send it again.
    What a key vault says in its challenge of tenant and resource is looked at by the middleware for aiohttp alone.

    Source: RFC 6750; Microsoft documentation, "Claims challenges".

    Raises:
        TypeError: *provider* is none, or an origin or resource is no string.
        ValueError: an origin is malformed, or in plain http where that is not allowed.
    """

    def __init__(
        self, provider: TokenProvider, resources: Mapping[str, str], *, allow_http_on_loopback: bool = False
    ) -> None:
        if not callable(getattr(provider, "access_token", None)):
            raise TypeError(f"provider is a TokenProvider, not {type(provider).__name__}")
        self._provider = provider
        self._origins = Origins(resources, allow_http_on_loopback=allow_http_on_loopback)

    def __repr__(self) -> str:
        return f"<BearerAuth {self._provider!r}>"

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send *request* with a token, if its origin may have one, and once more if that is refused.

        Raises:
            AiomsiError: no token could be had; see the subclasses.
        """
        resource = self._resource(request.url)
        if resource is None or (_HEADER in request.headers and _OURS not in request.extensions):
            yield request
            return
        request.extensions = {**request.extensions, _OURS: True}
        # The token is in no variable, here and below: a traceback may show what our frames hold.
        request.headers[_HEADER] = _SCHEME + await self._provider.token(resource)
        response = yield request
        # After redirects the last request alone was refused; those that led to it may have had their effect.
        refused = response.request
        if response.status_code == httpx.codes.UNAUTHORIZED and self._carries_token(refused, resource):
            claims = claims_of(parse_challenges(response.headers.get_list(_CHALLENGES)))
            if await self._renew(refused, resource, claims):
                yield refused

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:  # noqa: ARG002
        """Refuse: a synchronous client cannot wait for a token.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("BearerAuth fetches tokens asynchronously; use httpx.AsyncClient instead of httpx.Client")

    def _resource(self, url: httpx.URL) -> str | None:
        if url.userinfo:
            return None
        return self._origins.resource(url.scheme, url.raw_host.decode("ascii"), url.port)

    def _carries_token(self, request: httpx.Request, resource: str) -> bool:
        # On the way to another origin httpx took the token off.
        return _HEADER in request.headers and self._resource(request.url) == resource

    async def _renew(self, refused: httpx.Request, resource: str, claims: str | None) -> bool:
        """Put another token into a refused request; return whether it has one now and can be sent again."""
        fresh = await self._provider.access_token(
            resource, claims=claims, rejected=refused.headers[_HEADER].removeprefix(_SCHEME)
        )
        if refused.headers[_HEADER] == _SCHEME + fresh.token:
            return False
        refused.headers[_HEADER] = _SCHEME + fresh.token
        # Whoever sent a stream gets the 401, but the next request gets the new token.
        return isinstance(refused.stream, httpx.ByteStream)
