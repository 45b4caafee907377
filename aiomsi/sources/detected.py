"""What applies where nothing was said: the platform's identity, or else the developer's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi._source import chooses_tenant, max_parallel, time_limit_of
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources.azure_cli import AzureCLI
from aiomsi.sources.chain import FirstAvailable
from aiomsi.sources.connection_string import VARIABLE, from_connection_string
from aiomsi.sources.managed_identity import ManagedIdentity

if TYPE_CHECKING:
    from aiomsi._source import Source, TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["default"]


def default(*, surroundings: Surroundings | None = None) -> Source:
    """Return the source that `TokenProvider()` uses.

    It is what the connection string in `AzureServicesAuthConnectionString` says, or where that is not set: the managed
    identity of this machine if it has one, else the account logged in to the Azure CLI. Nothing is read or tried
    before the first fetch.
    """
    return _Detected(surroundings or Surroundings())


class _Detected:
    name = "default"

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        # Kept, since a source learns what is here; the text is what it was made from.
        self._configured: tuple[str, Source] | None = None
        self._chain = FirstAvailable(ManagedIdentity(surroundings=surroundings), AzureCLI(surroundings=surroundings))

    def __repr__(self) -> str:
        return "default()"

    @property
    def _source(self) -> Source:
        text = self._surroundings.get(VARIABLE)
        if text is None:
            return self._chain
        if self._configured is None or self._configured[0] != text:
            self._configured = text, from_connection_string(text, self._surroundings)
        return self._configured[1]

    @property
    def time_limit(self) -> float:
        return time_limit_of(self._source)

    @property
    def max_parallel(self) -> int | None:
        return max_parallel(self._source)

    @property
    def chooses_tenant(self) -> bool:
        return chooses_tenant(self._source)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        return await self._source.fetch(request)
