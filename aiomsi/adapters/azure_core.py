"""Tokens for the clients of the Azure SDK, as an azure-core credential. Needs nothing but aiomsi."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from azure.core import credentials

    from aiomsi._provider import TokenProvider
    from aiomsi._token import AccessToken

__all__ = ["TokenCredential"]


class TokenCredential:
    """The credential of an asynchronous Azure SDK client that takes its tokens from *provider*.

        credential = TokenCredential(provider)
        client = BlobServiceClient("https://account.blob.core.windows.net", credential=credential)

    It is an `AsyncTokenCredential` and an `AsyncSupportsTokenInfo` of azure-core, for as many clients as you like. Each
    client keeps the token it got, and asks for the next one when that is due.

    Closing it, which some libraries do with the credentials they are given, leaves the provider open: it is shared.
    Close the provider yourself, after the clients.

    Errors are those of the provider and not azure-core's, whose retry policies would ask again what the provider has
    retried by itself (the storage clients four times in a minute and a half). In a `ChainedTokenCredential` such an
    error ends the chain; use `aiomsi.sources.FirstAvailable` instead.

    Source: azure-core, `azure.core.credentials_async`.

    Raises:
        TypeError: *provider* is none.
    """

    __slots__ = ("__weakref__", "_provider")

    def __init__(self, provider: TokenProvider) -> None:
        if not callable(getattr(provider, "access_token", None)):
            raise TypeError(f"provider is a TokenProvider, not {type(provider).__name__}")
        self._provider = provider

    def __repr__(self) -> str:
        return f"<TokenCredential {self._provider!r}>"

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,  # noqa: ARG002  (see get_token_info)
        **_: Any,  # The protocol: clients may pass what is not invented yet.
    ) -> credentials.AccessToken:
        """Return the token for one scope, such as `https://vault.azure.net/.default`, and its end in Unix time.

        For *claims*, *tenant_id*, *enable_cae* and errors see `get_token_info`.
        """
        token = await self._access_token(scopes, claims, tenant_id)
        return cast("credentials.AccessToken", _Token(token.token, int(token.expires_on)))

    async def get_token_info(
        self, *scopes: str, options: Mapping[str, Any] | None = None
    ) -> credentials.AccessTokenInfo:
        """Return the token for one scope, its end, and when to ask for the next, in seconds of Unix time.

        Of *options*, "claims" and "tenant_id" go to the provider's `access_token`. "enable_cae" says nothing to it:
        whether tokens are for continuous access evaluation is a matter of the source.

        Raises:
            TypeError: the scope is not a string.
            ValueError: there is none, or more than one, or it is malformed.
            AiomsiError: no token could be had; see the subclasses.
        """
        given = options or {}
        token = await self._access_token(scopes, given.get("claims"), given.get("tenant_id"))
        refresh_on = None if token.refresh_on is None else int(token.refresh_on)
        return cast(
            "credentials.AccessTokenInfo", _TokenInfo(token.token, int(token.expires_on), token.token_type, refresh_on)
        )

    async def close(self) -> None:
        """Do nothing: the provider is shared."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()

    async def _access_token(self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None) -> AccessToken:
        if len(scopes) != 1:
            raise ValueError(f"a token is for one scope, such as 'https://vault.azure.net/.default', not {scopes!r}")
        # Clients pass empty texts where a challenge says nothing.
        return await self._provider.access_token(scopes[0], claims=claims or None, tenant_id=tenant_id or None)


class _Token(NamedTuple):
    """Stands in for `azure.core.credentials.AccessToken`."""

    token: str
    expires_on: int

    def __repr__(self) -> str:
        return f"AccessToken(expires_on={self.expires_on})"


@dataclass(frozen=True, slots=True)
class _TokenInfo:
    """Stands in for `azure.core.credentials.AccessTokenInfo`."""

    token: str = field(repr=False)
    expires_on: int
    token_type: str
    refresh_on: int | None
