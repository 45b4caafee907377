"""Tokens as the passwords of database connections (extra `sqlalchemy`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiomsi._resource import resource_of

try:
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.util import await_only
except ImportError as error:
    raise ImportError(
        "aiomsi.adapters.sqlalchemy needs the extra `sqlalchemy`; run: pip install 'aiomsi[sqlalchemy]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from aiomsi._provider import TokenProvider

__all__ = ["attach"]


def attach(engine: AsyncEngine, provider: TokenProvider, resource: str) -> None:
    """Let every new connection of *engine* use the current token for *resource* as its password.

        engine = create_async_engine("postgresql+asyncpg://name@server.postgres.database.azure.com/db?ssl=require")
        attach(engine, provider, "https://ossrdbms-aad.database.windows.net")

    All else that the engine connects with stays. A token is checked when a connection is made, so those that are open
    outlive it. An engine with a `creator` or `async_creator` makes its connections itself and gets no token. SQL Server
    takes none as a password; see `aiomsi.adapters.odbc`.

    Connecting raises an AiomsiError if no token could be had.

    Source: SQLAlchemy documentation, `DialectEvents.do_connect`; Microsoft documentation, "Use Microsoft Entra ID for
    authentication with Azure Database for PostgreSQL".

    Raises:
        TypeError: *engine* is no AsyncEngine, *provider* no TokenProvider, or *resource* no string.
        ValueError: *resource* is empty, holds blanks, or is more than one scope.
    """
    if not isinstance(engine, AsyncEngine):
        raise TypeError(
            f"engine is an AsyncEngine, not {type(engine).__name__}, which cannot wait for a token;"
            " make it with sqlalchemy.ext.asyncio.create_async_engine"
        )
    if not callable(getattr(provider, "token", None)):
        raise TypeError(f"provider is a TokenProvider, not {type(provider).__name__}")
    resource_of(resource)

    def connect(_dialect: object, _record: object, _arguments: object, parameters: MutableMapping[str, Any]) -> None:
        parameters["password"] = await_only(provider.token(resource))

    event.listen(engine.sync_engine, "do_connect", connect)
