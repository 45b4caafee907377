"""Tokens as passwords, with SQLAlchemy's own engines; SQLite knows no password, so a second listener takes it away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from aiomsi import TokenProvider, TokenRefusedError
from aiomsi.adapters.sqlalchemy import attach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiomsi.testing import ManualClock, ScriptedSource

DATABASE = "https://ossrdbms-aad.database.windows.net"


@pytest.fixture
async def engine(provider: TokenProvider) -> AsyncIterator[AsyncEngine]:
    """An engine that makes a new connection whenever one is asked for."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool, connect_args={"timeout": 7})
    attach(engine, provider, DATABASE)
    yield engine
    await engine.dispose()


@pytest.fixture
def connected(engine: AsyncEngine) -> list[dict[str, Any]]:
    """What each connection was made with."""
    return _recorded(engine)


def _recorded(engine: AsyncEngine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def record(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        found.append(dict(parameters))
        del parameters["password"]

    event.listen(engine.sync_engine, "do_connect", record)
    return found


async def _answer(engine: AsyncEngine) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text("select 42"))


async def test_a_connection_is_made_with_the_token(
    engine: AsyncEngine, connected: list[dict[str, Any]], source: ScriptedSource
) -> None:
    """The token is the password, and all other parameters are as the engine has them."""
    assert await _answer(engine) == 42
    (parameters,) = connected
    assert parameters.pop("password") == "token-1"
    assert parameters.pop("timeout") == 7
    assert "password" not in str(parameters)
    assert [request.resource for request in source.requests] == [DATABASE]


async def test_the_token_takes_the_place_of_another_password(provider: TokenProvider) -> None:
    """Where a password comes with the engine, the token is used nevertheless."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool, connect_args={"password": "other"})
    attach(engine, provider, DATABASE)
    connected = _recorded(engine)
    assert await _answer(engine) == 42
    assert [parameters["password"] for parameters in connected] == ["token-1"]


async def test_each_new_connection_gets_the_current_token(
    engine: AsyncEngine, connected: list[dict[str, Any]], source: ScriptedSource, clock: ManualClock
) -> None:
    """A token is fetched once for many connections, and another one when it is due."""
    for _ in range(3):
        await _answer(engine)
    assert len(source.requests) == 1
    await clock.advance(source.lifetime - 1)
    await _answer(engine)
    assert [parameters["password"] for parameters in connected] == ["token-1"] * 3 + ["token-2"]


async def test_a_connection_of_the_pool_asks_for_nothing(provider: TokenProvider, source: ScriptedSource) -> None:
    """A connection that is open already needs no token."""
    engine = create_async_engine("sqlite+aiosqlite://")
    attach(engine, provider, DATABASE)
    connected = _recorded(engine)
    for _ in range(3):
        await _answer(engine)
    await engine.dispose()
    assert (len(connected), len(source.requests)) == (1, 1)


async def test_no_token_no_connection(
    engine: AsyncEngine, connected: list[dict[str, Any]], source: ScriptedSource
) -> None:
    """An error of the provider comes out of the connecting as it is."""
    source.script(TokenRefusedError("this identity may not"))
    with pytest.raises(TokenRefusedError, match="this identity may not"):
        await _answer(engine)
    assert connected == []


@pytest.mark.parametrize("victim", [0, 2, 4], ids=["first", "middle", "last"])
async def test_a_cancelled_connecting_takes_nobody_along(
    engine: AsyncEngine, connected: list[dict[str, Any]], source: ScriptedSource, clock: ManualClock, victim: int
) -> None:
    """Whoever is cancelled while the token is fetched, the others connect with the one token."""
    source.held = True
    callers = [asyncio.create_task(_answer(engine)) for _ in range(5)]
    await clock.settle()
    callers[victim].cancel()
    await clock.settle()
    assert [caller.done() for caller in callers].count(True) == 1
    source.release()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert outcomes == [42] * 4
    assert [parameters["password"] for parameters in connected] == ["token-1"] * 4
    assert len(source.requests) == 1


def test_a_synchronous_engine_is_refused(provider: TokenProvider) -> None:
    """It cannot wait for a token; the error says what can."""
    with pytest.raises(TypeError, match=r"not Engine, .* make it with sqlalchemy\.ext\.asyncio\.create_async_engine"):
        attach(create_engine("sqlite://"), provider, DATABASE)  # type: ignore[arg-type]


async def test_a_session_maker_is_no_engine(engine: AsyncEngine, provider: TokenProvider) -> None:
    """What is made from an engine is not the engine."""
    with pytest.raises(TypeError, match="engine is an AsyncEngine, not async_sessionmaker"):
        attach(async_sessionmaker(engine), provider, DATABASE)  # type: ignore[arg-type]


async def test_wrong_arguments_are_told_at_once(engine: AsyncEngine, provider: TokenProvider) -> None:
    """Not when the first connection is made."""
    with pytest.raises(TypeError, match="provider is a TokenProvider, not str"):
        attach(engine, DATABASE, DATABASE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names no resource"):
        attach(engine, provider, "")


def test_without_the_library_the_error_names_the_extra() -> None:
    """Importing the adapter says what to install."""
    script = "import sys; sys.modules['sqlalchemy'] = None; import aiomsi.adapters.sqlalchemy"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "ImportError: aiomsi.adapters.sqlalchemy needs" in done.stderr
    assert "pip install 'aiomsi[sqlalchemy]'" in done.stderr
