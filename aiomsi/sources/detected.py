"""What applies where nothing was said: the platform's identity, or else the developer's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiomsi._source import chooses_tenant, identity_key_of, max_parallel, time_limit_of
from aiomsi.sources._selection import CONNECTION_STRING, VARIABLES, half_said, selected
from aiomsi.sources._surroundings import Surroundings

if TYPE_CHECKING:
    from aiomsi._source import Source, TokenRequest
    from aiomsi._token import AccessToken

__all__ = ["chosen", "default"]

_log = logging.getLogger("aiomsi.sources")


def default(*, surroundings: Surroundings | None = None) -> Source:
    """Return the source that `TokenProvider()` uses.

    It is what the connection string in `AzureServicesAuthConnectionString` says, or where that is not set, what
    `AZURE_TOKEN_CREDENTIALS` selects: "prod", "dev" or the name of one source. Where that is not set either, it is the
    first of these that is there: the application whose secret or certificate the environment holds
    (`AZURE_CLIENT_SECRET` or `AZURE_CLIENT_CERTIFICATE_PATH`, with `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`); the
    managed identity of this machine, the one that `AZURE_CLIENT_ID` names if it is set; the developer who is logged in
    to the Azure CLI, the Azure Developer CLI, Azure PowerShell, Visual Studio or Active Directory. Nothing is read or
    tried before the first fetch. What the environment says only half of is logged as a warning.
    """
    return _Detected(surroundings or Surroundings())


def chosen(surroundings: Surroundings) -> Source:
    """Return what `default` would fetch from now.

    Raises:
        ConfigurationError: the environment chooses something that cannot be had.
    """
    if surroundings.get(CONNECTION_STRING) is None:
        return selected(surroundings)
    from aiomsi.sources.connection_string import from_connection_string  # noqa: PLC0415  (seldom there)

    return from_connection_string(surroundings.get(CONNECTION_STRING) or "", surroundings)


class _Detected:
    name = "default"

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        # Kept, since a source learns what is here; made anew if what it was made from has changed.
        self._made_from: list[str | None] = []
        self._made: Source | None = None

    def __repr__(self) -> str:
        return "default()"

    @property
    def _source(self) -> Source:
        if self._made is None or self._made_from != self._settings():
            self._made = chosen(self._surroundings)
            if not self._surroundings.get(CONNECTION_STRING):
                for what in half_said(self._surroundings):
                    _log.warning("%s; it is passed over", what)
            self._made_from = self._settings()
        return self._made

    def _settings(self) -> list[str | None]:
        return [self._surroundings.get(variable) for variable in (CONNECTION_STRING, *VARIABLES)]

    @property
    def time_limit(self) -> float:
        return time_limit_of(self._source)

    @property
    def max_parallel(self) -> int | None:
        return max_parallel(self._source)

    @property
    def chooses_tenant(self) -> bool:
        return chooses_tenant(self._source)

    def identity_key(self) -> str | None:
        return identity_key_of(self._source)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        return await self._source.fetch(request)
