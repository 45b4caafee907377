"""From the source through redis-py to a real Redis, whose users' passwords are the tokens of the moment."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.exceptions import AuthenticationError

from aiomsi.adapters.redis import CredentialProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from aiomsi import TokenProvider
    from aiomsi.testing import ManualClock, ScriptedSource

pytestmark = pytest.mark.redis_server

HINT = "needs redis-server (apt-get install redis-server)"
OID = "77777777-aaaa-4bbb-8ccc-000000000007"
HALF = 43_200  # Seconds after which the next token is fetched.
WORKERS = 20


class Server:
    """A Redis that runs; *admin* may do everything in it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.admin: Any = redis.Redis(port=port, protocol=2)

    def know(self, *tokens: str) -> None:
        """Have these and no other passwords for the user."""
        self.admin.execute_command("ACL", "SETUSER", OID, "resetpass", *[f">{token}" for token in tokens])

    def connections(self) -> list[str]:
        """Return the ids of the connections on which somebody is logged in as the user."""
        return sorted(client["id"] for client in self.admin.client_list() if client["user"] == OID)

    def logins(self) -> int:
        """Return how often a password was sent."""
        statistics = self.admin.info("commandstats")
        return sum(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in ("auth", "hello"))

    def refusals(self) -> int:
        return sum(entry["count"] for entry in self.admin.acl_log())

    def clean(self) -> None:
        self.admin.execute_command("ACL", "DELUSER", OID)
        self.admin.execute_command("ACL", "SETUSER", OID, "on", "allkeys", "allchannels", "allcommands")
        self.admin.acl_log_reset()
        self.admin.config_resetstat()


def free_port() -> int:
    """Return a port on which nobody listens, and to which 10000 can be added, as a node of a cluster does."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_536:
            return port


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """Run a Redis on a free port of loopback."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip(HINT)
    port = free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("Ready to accept connections" in line for line in process.stdout)
            server = Server(port)
            yield server
            server.admin.close()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """A Redis with a user who has no password yet."""
    running.clean()
    return running


@pytest.fixture
async def credentials(provider: TokenProvider) -> AsyncIterator[CredentialProvider]:
    async with CredentialProvider(provider, username=OID) as found:
        yield found


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture(params=[ConnectionPool, BlockingConnectionPool])
async def client(
    request: pytest.FixtureRequest, server: Server, credentials: CredentialProvider, protocol: int
) -> AsyncIterator[Redis]:
    pool = request.param(
        port=server.port,
        protocol=protocol,
        credential_provider=credentials,
        max_connections=WORKERS,
        decode_responses=True,
    )
    async with Redis(connection_pool=pool, credential_provider=credentials) as found:
        yield found
    await pool.disconnect()


async def use(client: Redis, count: int) -> None:
    """Run so many commands that each needs a connection of its own."""
    pool: Any = client.connection_pool
    for connection in [await pool.get_connection() for _ in range(count)]:
        await pool.release(connection)


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until *condition* holds."""
    while not condition():  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)


async def test_open_connections_are_logged_in_again_and_stay(
    server: Server, client: Redis, source: ScriptedSource, clock: ManualClock
) -> None:
    """The old password can go, and new connections come with the new one."""
    server.know("token-1")
    await use(client, 5)
    before, logins = server.connections(), server.logins()
    assert len(before) == 5
    server.know("token-1", "token-2")
    await clock.advance(HALF)
    await until(lambda: server.logins() >= logins + 5 and not client.connection_pool._in_use_connections)
    server.know("token-2")
    await asyncio.gather(*[client.ping() for _ in range(5)])
    assert server.connections() == before
    await use(client, 7)
    assert len(server.connections()) == 7
    assert server.refusals() == 0
    assert len(source.requests) == 2


async def test_a_busy_pool_notices_nothing(
    server: Server, client: Redis, source: ScriptedSource, clock: ManualClock
) -> None:
    """While tokens come and go every command gets its own answer, none fails, and the pool grows no larger."""
    server.know(*[f"token-{number}" for number in range(1, 50)])
    done = [0] * WORKERS
    going = True

    async def work(number: int) -> None:
        while going:
            await client.set(f"key-{number}", f"{number}-{done[number]}")
            assert await client.get(f"key-{number}") == f"{number}-{done[number]}"
            done[number] += 1

    async with asyncio.TaskGroup() as workers:
        for number in range(WORKERS):
            workers.create_task(work(number))
        for _ in range(30):
            fewest = min(done)
            while min(done) == fewest:  # noqa: ASYNC110  (turns of the loop, not time)
                await asyncio.sleep(0)
            await clock.advance(HALF)
        going = False
    await clock.settle()
    assert len(source.requests) == 31
    server.know("token-31")
    await use(client, WORKERS)
    await until(lambda: len(server.connections()) == WORKERS)
    assert server.refusals() == 0


async def test_connections_that_redis_has_closed_are_opened_with_the_new_token(
    server: Server, client: Redis, clock: ManualClock
) -> None:
    """As it does with those whose token has ended."""
    server.know("token-1")
    await use(client, 5)
    server.admin.client_kill_filter(user=OID)
    server.know("token-2")
    await clock.advance(HALF)
    await use(client, 5)
    assert await client.ping()
    assert server.refusals() == 0


async def test_a_password_that_comes_late_is_a_matter_of_time(
    server: Server, client: Redis, clock: ManualClock
) -> None:
    """A refused login closes the connection, and the next command opens one."""
    server.know("token-1")
    await client.ping()
    server.know("token-3")
    await clock.advance(HALF)
    await until(server.refusals)
    await until(lambda: not server.connections())
    server.know("token-2")
    assert await client.ping()


async def test_a_wrong_password_is_an_authentication_error(server: Server, client: Redis) -> None:
    """It is Redis that says so, without the token."""
    server.know("another")
    client.connection_pool.connection_kwargs["retry"] = None
    with pytest.raises(AuthenticationError) as caught:
        await client.ping()
    assert "token-1" not in str(caught.value)


async def test_a_cancelled_command_leaves_no_connection_without_a_login(
    server: Server, client: Redis, source: ScriptedSource, clock: ManualClock
) -> None:
    """A connection that was waiting for its token is of use to the next command."""
    server.know("token-1")
    source.held = True
    command = asyncio.ensure_future(client.ping())
    await until(lambda: source.requests)
    command.cancel()
    await asyncio.wait([command])
    source.release()
    await clock.settle()
    assert await client.ping()
    assert len(server.connections()) == 1


async def test_a_subscription_goes_on(server: Server, client: Redis, clock: ManualClock) -> None:
    """A new token does not cost it a message."""
    server.know("token-1", "token-2")
    async with client.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe("channel")
        await subscription.get_message(timeout=None)
        messages = asyncio.create_task(_next_message(subscription))
        await clock.advance(HALF)
        server.know("token-2")
        await client.publish("channel", "hello")
        assert await messages == "hello"


async def _next_message(subscription: Any) -> Any:
    async for message in subscription.listen():
        return message["data"]
    raise AssertionError


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_cluster_is_logged_in_again(
    tmp_path_factory: pytest.TempPathFactory, credentials: CredentialProvider, clock: ManualClock, protocol: int
) -> None:
    """As a pool is."""
    with serving(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes") as server:
        server.admin.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        server.clean()
        server.know("token-1", "token-2")
        await until(lambda: b"cluster_state:ok" in server.admin.execute_command("CLUSTER", "INFO"))
        async with RedisCluster(
            host="127.0.0.1", port=server.port, protocol=protocol, credential_provider=credentials
        ) as cluster:
            await cluster.initialize()
            node = cluster.get_nodes()[0]
            connections: list[Any] = [node.acquire_connection() for _ in range(5)]
            for connection in connections:
                await connection.connect()
                node.release(connection)
            before, logins = server.connections(), server.logins()
            await clock.advance(HALF)
            await until(lambda: server.logins() >= logins + 5 and len(node._free) == 5)
            server.know("token-2")
            await asyncio.gather(*[cluster.set(f"key-{number}", number) for number in range(10)])
            assert set(before) <= set(server.connections())
            assert server.refusals() == 0
