"""From the source through three libraries to a real PostgreSQL, whose role's password is the token of the moment."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from aiomsi import TokenRefusedError
from aiomsi.adapters.sqlalchemy import attach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from aiomsi import TokenProvider
    from aiomsi.testing import ManualClock, ScriptedSource

    Use = Callable[[int], Awaitable[list[int]]]

pytestmark = pytest.mark.postgresql

HINT = "needs PostgreSQL's initdb and postgres, in PATH or /usr/lib/postgresql/*/bin (apt-get install postgresql)"
DATABASE = "https://ossrdbms-aad.database.windows.net"
ROLE = "app"
HALF = 43_200  # Seconds after which the next token is fetched.
CALLERS = 5
MOST = 10  # Connections in a pool.


class Server:
    """A PostgreSQL that runs; *administer* is how its owner talks to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.where: dict[str, Any] = {"host": "127.0.0.1", "port": port}

    def administer(self, statement: str) -> None:
        with psycopg.connect(**self.where, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def know(self, token: str) -> None:
        """Have this and no other password for the role."""
        self.administer(f"ALTER ROLE {ROLE} PASSWORD '{token}'")


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL's, the newest if there are several."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.skip(HINT)
    return found


def account() -> dict[str, Any]:
    """Return how to start a program that refuses to run as root."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if is_root else {}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    # Not in pytest's own folder, in which no other account may look.
    with tempfile.TemporaryDirectory(prefix="aiomsi-postgresql-", ignore_cleanup_errors=True) as folder:
        options: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}, **account()}
        if "user" in options:
            shutil.chown(folder, options["user"], options["group"])
        create = [program("initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "data"]
        subprocess.run(create, check=True, capture_output=True, **options)
        (Path(folder) / "data" / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = ("listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off")
        serve = [program("postgres"), "-D", "data", *[word for setting in settings for word in ("-c", setting)]]
        with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, **options) as process:
            assert process.stderr is not None
            try:
                assert any("ready to accept connections" in line for line in process.stderr)
                server = Server(port)
                server.administer(f"CREATE ROLE {ROLE} LOGIN")
                yield server
            finally:
                process.send_signal(signal.SIGINT)  # Or it would wait until everybody has left.


@pytest.fixture
def server(running: Server) -> Server:
    """A PostgreSQL to which the first token is the key."""
    running.know("token-1")
    return running


# Each opens a pool, and yields what runs a query on so many connections at once and returns their process ids.


@asynccontextmanager
async def with_asyncpg(server: Server, provider: TokenProvider) -> AsyncIterator[Use]:
    password = partial(provider.token, DATABASE)
    options = {"user": ROLE, "database": "postgres", "min_size": 0, "max_size": MOST}
    async with asyncpg.create_pool(**server.where, **options, password=password) as pool:

        async def use(count: int) -> list[int]:
            async with AsyncExitStack() as stack:
                connections = [await stack.enter_async_context(pool.acquire()) for _ in range(count)]
                return [await connection.fetchval("SELECT pg_backend_pid()") for connection in connections]

        yield use


@asynccontextmanager
async def with_psycopg(server: Server, provider: TokenProvider) -> AsyncIterator[Use]:
    async def parameters() -> dict[str, Any]:
        return {**server.where, "user": ROLE, "dbname": "postgres", "password": await provider.token(DATABASE)}

    async with AsyncConnectionPool(kwargs=parameters, min_size=0, max_size=MOST, open=False) as pool:

        async def use(count: int) -> list[int]:
            async with AsyncExitStack() as stack:
                connections = [await stack.enter_async_context(pool.connection()) for _ in range(count)]
                return [connection.info.backend_pid for connection in connections]

        yield use


@asynccontextmanager
async def with_sqlalchemy(server: Server, provider: TokenProvider, driver: str) -> AsyncIterator[Use]:
    url = f"postgresql+{driver}://{ROLE}@127.0.0.1:{server.port}/postgres"
    engine = create_async_engine(url, pool_size=MOST)
    attach(engine, provider, DATABASE)

    async def use(count: int) -> list[int]:
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(engine.connect()) for _ in range(count)]
            return [await connection.scalar(text("SELECT pg_backend_pid()")) for connection in connections]

    yield use
    await engine.dispose()


POOLS: dict[str, Callable[[Server, TokenProvider], AbstractAsyncContextManager[Use]]] = {
    "asyncpg": with_asyncpg,
    "psycopg": with_psycopg,
    "sqlalchemy-asyncpg": partial(with_sqlalchemy, driver="asyncpg"),
    "sqlalchemy-psycopg": partial(with_sqlalchemy, driver="psycopg"),
}


@pytest.fixture(params=list(POOLS))
async def use(request: pytest.FixtureRequest, server: Server, provider: TokenProvider) -> AsyncIterator[Use]:
    async with POOLS[request.param](server, provider) as found:
        yield found


async def test_many_connections_need_one_fetch(use: Use, source: ScriptedSource) -> None:
    """However many a pool opens."""
    assert len(set(await use(CALLERS))) == CALLERS
    assert [request.resource for request in source.requests] == [DATABASE]


async def test_new_connections_come_with_the_token_of_their_time(
    server: Server, use: Use, source: ScriptedSource, clock: ManualClock
) -> None:
    """Those that are open stay, and nobody notices that the old password is none any more."""
    before = await use(2)
    await clock.advance(HALF)
    server.know("token-2")
    after = await use(CALLERS)
    assert set(before) < set(after)
    assert len(set(after)) == CALLERS
    assert len(source.requests) == 2


async def connect(server: Server, provider: TokenProvider) -> Any:
    password = partial(provider.token, DATABASE)
    return await asyncpg.connect(**server.where, user=ROLE, database="postgres", password=password)


@pytest.mark.parametrize("victim", [0, CALLERS // 2, CALLERS - 1], ids=["first", "middle", "last"])
async def test_a_cancelled_connection_takes_nobody_along(
    server: Server, provider: TokenProvider, source: ScriptedSource, victim: int
) -> None:
    """Whichever is given up while it waits for the token, the others are made."""
    source.held = True
    attempts = [asyncio.create_task(connect(server, provider)) for _ in range(CALLERS)]
    while provider.statistics().waiting < CALLERS:  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)
    attempts[victim].cancel()
    await asyncio.wait([attempts[victim]])
    source.release()
    connections: list[Any] = await asyncio.gather(*attempts, return_exceptions=True)
    assert isinstance(connections.pop(victim), asyncio.CancelledError)
    assert [await connection.fetchval("SELECT current_user") for connection in connections] == [ROLE] * (CALLERS - 1)
    for connection in connections:
        await connection.close()
    assert len(source.requests) == 1


@pytest.mark.parametrize("name", ["asyncpg", "sqlalchemy-asyncpg", "sqlalchemy-psycopg"])
async def test_a_connection_without_a_token_says_why(
    server: Server, provider: TokenProvider, source: ScriptedSource, name: str
) -> None:
    """The error of the provider comes through as it is."""
    source.script(TokenRefusedError("the identity may not have it; ask for a role"))
    async with POOLS[name](server, provider) as use:
        with pytest.raises(TokenRefusedError, match="ask for a role"):
            await use(1)


async def test_a_token_that_the_server_does_not_take_is_the_server_s_error(
    server: Server, provider: TokenProvider
) -> None:
    """And shows no token."""
    server.know("another")
    with pytest.raises(asyncpg.InvalidPasswordError) as caught:
        await connect(server, provider)
    assert "token-1" not in str(caught.value)
