"""Tokens for redis-py, over real sockets to a server that knows little more than AUTH (see test_redis_server)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import subprocess
import sys
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import StreamingCredentialProvider
from redis.event import RegisterReAuthForPooledConnections
from redis.exceptions import AuthenticationError, MaxConnectionsError

from aiomsi import EndpointError, ProviderClosedError, TokenProvider, TokenRefusedError
from aiomsi.adapters import _redis_audience
from aiomsi.adapters.redis import CredentialProvider
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.auth.token import TokenInterface

REDIS = "https://redis.azure.com"
OID = "77777777-aaaa-4bbb-8ccc-000000000007"
HALF = 43_200  # Seconds after which the next token is fetched.
CALLERS = 5
ANSWERS = {
    "COMMAND": b"*0\r\n",
    "PING": b"+PONG\r\n",
    "SUBSCRIBE": b"*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n",
}


class Visit:
    """One connection, and what it said to let itself in."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.passwords: list[str] = []
        self.open = True

    def cut_off(self) -> None:
        self.writer.close()


class Server:
    """As much of Redis as redis-py needs to connect: every password but the *refused* ones is right.

    *strangers* is how many commands came before a password. It answers no AUTH while *answering* is not set.
    """

    port: int

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.users: set[str] = set()
        self.strangers = 0
        self.refused: set[str] = set()
        self.answering = asyncio.Event()
        self.answering.set()

    @property
    def passwords(self) -> list[list[str]]:
        """Of each connection, in order."""
        return [visit.passwords for visit in self.visits]

    @property
    def renewed(self) -> int:
        """How often the second token was sent."""
        return sum(visit.passwords.count("token-2") for visit in self.visits)

    @property
    def open(self) -> int:
        return sum(visit.open for visit in self.visits)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(writer)
        self.visits.append(visit)
        try:
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].decode())
                writer.write(await self.answer(visit, [words[0].upper(), *words[1:]]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            visit.open = False
            writer.close()

    async def answer(self, visit: Visit, words: list[str]) -> bytes:
        match words:
            case ["AUTH", user, password] | ["HELLO", "3", "AUTH", user, password]:
                visit.passwords.append(password)
                self.users.add(user)
                await self.answering.wait()
                if password in self.refused:
                    return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
                return b"%1\r\n+proto\r\n:3\r\n" if words[0] == "HELLO" else b"+OK\r\n"
            case _ if not visit.passwords:
                self.strangers += 1
                return b"-NOAUTH Authentication required.\r\n"
            case ["CLUSTER", "SLOTS"]:
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$4\r\nnode\r\n" % self.port
        return ANSWERS.get(words[0], b"+OK\r\n")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as found:
        yield found


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    found = Server()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(found.serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.port = listening.sockets[0].getsockname()[1]
    yield found
    listening.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def credentials(provider: TokenProvider) -> AsyncIterator[CredentialProvider]:
    async with CredentialProvider(provider, username=OID) as found:
        yield found


@pytest.fixture
async def client(server: Server, credentials: CredentialProvider) -> AsyncIterator[Redis]:
    async with connected(server, credentials) as found:
        yield found


def connected(server: Server, credentials: CredentialProvider, **options: Any) -> Redis:
    """Return a client that tries everything once, and says nothing about itself."""
    once = Retry(NoBackoff(), 0)
    return Redis(port=server.port, protocol=2, credential_provider=credentials, retry=once, **options)


def jwt(**claims: object) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "x"]
    )


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until *condition* holds."""
    while not condition():  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)


async def open_connections(client: Redis, count: int) -> None:
    """Have the pool hold so many idle connections."""
    for connection in [await take(client) for _ in range(count)]:
        await client.connection_pool.release(connection)


async def take(client: Redis) -> Any:
    """Take a connection as a command does."""
    pool: Any = client.connection_pool
    return await pool.get_connection()


async def ping(client: Redis) -> bool:
    return bool(await client.ping())


def tasks() -> int:
    return len(asyncio.all_tasks())


# New connections


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_connection_is_let_in_with_the_object_id_and_the_token(
    server: Server, provider: TokenProvider, source: ScriptedSource, protocol: int
) -> None:
    """As Azure names its Redis users."""
    token = jwt(oid=OID)
    source.script(token)
    async with (
        CredentialProvider(provider) as credentials,
        Redis(port=server.port, protocol=protocol, credential_provider=credentials) as client,
    ):
        assert await client.ping()
        assert await credentials.get_credentials_async() == (OID, token)
    assert server.users == {OID}
    assert server.passwords == [[token]]
    assert [request.resource for request in source.requests] == [REDIS]


async def test_a_token_without_an_object_id_needs_a_user_name(
    server: Server, provider: TokenProvider, source: ScriptedSource
) -> None:
    """The error says how to give it."""
    source.script(jwt(tid="22222222-aaaa-4bbb-8ccc-000000000002"))
    async with connected(server, CredentialProvider(provider)) as client:
        with pytest.raises(AuthenticationError, match=r"names no object id.*username=\.\.\."):
            await client.ping()
    assert server.passwords == [[]]


async def test_many_connections_need_one_fetch(server: Server, client: Redis, source: ScriptedSource) -> None:
    """However many are opened at once, and nothing is said twice."""
    await open_connections(client, CALLERS)
    assert server.passwords == [["token-1"]] * CALLERS
    assert len(source.requests) == 1


@pytest.mark.parametrize("victim", [0, CALLERS // 2, CALLERS - 1], ids=["first", "middle", "last"])
async def test_a_cancelled_caller_takes_nobody_along(
    client: Redis, provider: TokenProvider, source: ScriptedSource, victim: int
) -> None:
    """Whichever command is cancelled while its connection waits for the token, the others are done."""
    source.held = True
    commands = [asyncio.create_task(ping(client)) for _ in range(CALLERS)]
    await until(lambda: provider.statistics().waiting == CALLERS)
    commands[victim].cancel()
    await asyncio.wait([commands[victim]])
    source.release()
    outcomes = await asyncio.gather(*commands, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert outcomes == [True] * (CALLERS - 1)
    assert len(source.requests) == 1


async def test_a_connection_that_was_not_let_in_is_not_used(
    server: Server, client: Redis, source: ScriptedSource, clock: ManualClock
) -> None:
    """One whose opener was cancelled while it waited for the token is closed, and the next command opens another."""
    source.held = True
    command = asyncio.create_task(ping(client))
    await until(lambda: source.requests)
    command.cancel()
    await asyncio.wait([command])
    source.release()
    await clock.settle()
    assert await client.ping()
    assert server.passwords == [[], ["token-1"]]
    assert server.strangers == 0


async def test_a_connection_of_a_cluster_that_was_not_let_in_is_not_used(
    server: Server,
    provider: TokenProvider,
    credentials: CredentialProvider,
    source: ScriptedSource,
    clock: ManualClock,
) -> None:
    """As one of a pool."""
    async with RedisCluster(host="127.0.0.1", port=server.port, protocol=2, credential_provider=credentials) as cluster:
        await cluster.initialize()
        await credentials.aclose()  # Or the next token would be there before this one ends.
        await clock.advance(86_400 * 2)
        await cluster.get_nodes()[0].disconnect()
        source.held = True
        command = asyncio.ensure_future(cluster.ping(target_nodes=RedisCluster.ALL_NODES))
        await until(lambda: provider.statistics().waiting)
        command.cancel()
        await asyncio.wait([command])
        source.release()
        await clock.settle()
        assert await cluster.ping(target_nodes=RedisCluster.ALL_NODES)
        assert server.strangers == 0


async def test_a_connection_without_a_token_says_why_and_is_closed(
    server: Server, client: Redis, source: ScriptedSource, clock: ManualClock
) -> None:
    """The error is one after which redis-py tidies up, and the next command works."""
    source.script(TokenRefusedError("the identity may not have it; ask for a role"))
    with pytest.raises(AuthenticationError, match="no token for Redis: the identity may not have it") as caught:
        await client.ping()
    assert isinstance(caught.value.__cause__, TokenRefusedError)
    await until(lambda: server.open == 0)
    await clock.advance(30)
    assert await client.ping()
    assert server.passwords == [[], ["token-1"]]


async def test_the_text_of_a_foreign_error_is_not_repeated(
    credentials: CredentialProvider, source: ScriptedSource
) -> None:
    """It may hold anything."""
    source.script(KeyError("a secret"))
    with pytest.raises(AuthenticationError) as caught:
        await credentials.get_credentials_async()
    assert str(caught.value) == "no token for Redis: KeyError"


# Open connections


async def test_idle_connections_send_the_next_token(server: Server, client: Redis, clock: ManualClock) -> None:
    """Each of them once, before the old one ends, and they stay open."""
    await open_connections(client, 3)
    await clock.advance(HALF)
    await until(lambda: all("token-2" in passwords for passwords in server.passwords))
    await client.ping()
    assert server.passwords == [["token-1", "token-2"]] * 3
    assert server.open == 3


async def test_a_connection_in_use_is_opened_anew_when_it_is_given_back(
    server: Server, client: Redis, clock: ManualClock
) -> None:
    """Nothing is sent in the midst of a command."""
    connection = await take(client)
    await clock.advance(HALF)
    await connection.send_command("PING")
    assert await connection.read_response() == b"PONG"
    assert server.passwords == [["token-1"]]
    await client.connection_pool.release(connection)
    assert await client.ping()
    assert server.passwords == [["token-1"], ["token-2"]]
    await until(lambda: server.open == 1)


async def test_a_connection_taken_in_the_meantime_is_opened_anew(
    server: Server, client: Redis, clock: ManualClock
) -> None:
    """One that a command takes while others are being served misses its turn, and is not forgotten."""
    await open_connections(client, 2)
    server.answering.clear()
    await clock.advance(HALF)
    await until(lambda: server.renewed)
    taken = await take(client)
    server.answering.set()
    await until(lambda: len(client.connection_pool._available_connections) == 1)
    await client.connection_pool.release(taken)
    await open_connections(client, 2)
    assert server.passwords == [["token-1", "token-2"], ["token-1"], ["token-2"]]


async def test_a_full_pool_is_not_exhausted_by_the_service(
    server: Server, credentials: CredentialProvider, clock: ManualClock
) -> None:
    """A command that comes meanwhile may open another connection, and the one too many is closed."""
    async with connected(server, credentials, max_connections=2) as client:
        await open_connections(client, 2)
        server.answering.clear()
        await clock.advance(HALF)
        await until(lambda: server.renewed)
        one, other = asyncio.create_task(take(client)), asyncio.create_task(take(client))
        await until(lambda: len(server.visits) == 3)
        server.answering.set()
        await asyncio.wait([one, other])
        await until(lambda: server.open == 2)
        with pytest.raises(MaxConnectionsError):
            await take(client)
        for connection in (one.result(), other.result()):
            await client.connection_pool.release(connection)
        assert server.passwords == [["token-1", "token-2"], ["token-1"], ["token-2"]]


async def test_a_connection_that_is_being_given_back_is_one_of_the_pool(
    server: Server, credentials: CredentialProvider, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as such while it is being closed, so the pool does not grow by the one served meanwhile."""
    async with connected(server, credentials, max_connections=2) as client:
        pool: Any = client.connection_pool
        served, used = await take(client), await take(client)
        await pool.release(served)
        server.answering.clear()
        await clock.advance(HALF)
        await until(lambda: server.renewed)
        another = asyncio.create_task(take(client))
        await until(lambda: len(server.visits) == 3)
        leaving, closed = used.disconnect, asyncio.Event()

        async def disconnect() -> None:
            await closed.wait()
            await leaving()

        monkeypatch.setattr(used, "disconnect", disconnect)
        releasing = asyncio.create_task(pool.release(used))
        await until(lambda: used not in pool._in_use_connections)
        server.answering.set()
        await until(lambda: served not in pool._in_use_connections)
        closed.set()
        await asyncio.wait([releasing, another])
        assert {*pool._available_connections, *pool._in_use_connections} == {used, another.result()}
        await pool.release(another.result())
        await until(lambda: server.open == 1)


async def test_a_dead_connection_is_no_obstacle(server: Server, client: Redis, clock: ManualClock) -> None:
    """The others are served, and it is opened anew when it is needed."""
    await open_connections(client, 3)
    server.visits[0].cut_off()
    await until(lambda: server.open == 2)
    await clock.advance(HALF)
    await until(lambda: server.passwords[1:] == [["token-1", "token-2"]] * 2)
    await open_connections(client, 3)
    assert server.passwords[3:] == [["token-2"]]


async def test_a_refused_token_is_sent_again_when_the_connection_is_needed(
    server: Server, client: Redis, clock: ManualClock
) -> None:
    """Redis may be slow to believe in it."""
    await client.ping()
    server.refused = {"token-2"}
    await clock.advance(HALF)
    await until(lambda: server.open == 0)
    server.refused = set()
    assert await client.ping()
    assert server.passwords == [["token-1", "token-2"], ["token-2"]]


async def test_a_silent_redis_is_waited_for_no_longer_than_ten_seconds(
    server: Server, client: Redis, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other connections, and other servers, wait for their turn."""
    monkeypatch.setattr(_redis_audience, "SYSTEM_CLOCK", clock)
    await open_connections(client, 2)
    server.answering.clear()
    await clock.advance(HALF)
    await until(lambda: server.passwords[0] == ["token-1", "token-2"])
    await clock.advance(9.9)
    assert server.open == 2
    await clock.advance(0.2)
    await until(lambda: server.passwords[1] == ["token-1", "token-2"])
    server.answering.set()
    await until(lambda: server.open == 1)


async def test_a_closed_client_stays_closed(
    server: Server, credentials: CredentialProvider, clock: ManualClock
) -> None:
    """Its connections are not opened for the sake of a new token."""
    client = connected(server, credentials)
    await open_connections(client, 2)
    await client.aclose()
    await clock.advance(HALF)
    await credentials.get_credentials_async()
    await until(lambda: server.open == 0)
    assert server.passwords == [["token-1"]] * 2


async def test_a_pool_with_credentials_of_its_own_is_served_while_a_client_of_it_has_been(
    server: Server, credentials: CredentialProvider, clock: ManualClock
) -> None:
    """The client may be gone."""
    pool = connected(server, credentials).connection_pool
    Redis(connection_pool=pool, credential_provider=credentials)
    gc.collect()
    async with Redis.from_pool(pool) as client:
        await client.ping()
        await clock.advance(HALF)
        await until(lambda: server.passwords == [["token-1", "token-2"]])


async def test_a_failed_refresh_ends_nothing(
    server: Server, client: Redis, source: ScriptedSource, clock: ManualClock
) -> None:
    """The provider tries again, and the connections get what it has then."""
    await client.ping()
    source.script(EndpointError("down for a moment"))
    await clock.advance(HALF)
    assert server.passwords == [["token-1"]]
    await clock.advance(60)
    await until(lambda: server.passwords == [["token-1", "token-2"]])


async def test_a_subscription_is_left_alone(server: Server, client: Redis, clock: ManualClock) -> None:
    """Redis closes its connection in the end, and redis-py opens it again."""
    async with client.pubsub() as subscription:
        await subscription.subscribe("channel")
        assert await subscription.get_message(timeout=None)
        await clock.advance(HALF)
        assert subscription.subscribed
        assert server.passwords == [["token-1"]]
        assert server.open == 1


async def test_a_subscription_over_the_newer_protocol_is_left_alone(
    server: Server, credentials: CredentialProvider, clock: ManualClock
) -> None:
    """redis-py would have it authenticated while it waits for messages, which breaks it off."""
    async with (
        Redis(port=server.port, protocol=3, credential_provider=credentials) as client,
        client.pubsub() as subscription,
    ):
        await subscription.subscribe("channel")
        assert await subscription.get_message(timeout=None)
        listening = asyncio.create_task(subscription.get_message(timeout=None))
        await clock.advance(HALF)
        assert not listening.done()
        assert server.passwords == [["token-1"]]
        listening.cancel()
        await asyncio.wait([listening])


async def test_the_nodes_of_a_cluster_are_served_as_pools_are(
    server: Server, credentials: CredentialProvider, clock: ManualClock
) -> None:
    """Idle connections send the next token, one in use is opened anew."""
    async with RedisCluster(host="127.0.0.1", port=server.port, protocol=2, credential_provider=credentials) as cluster:
        await cluster.initialize()
        node = cluster.get_nodes()[0]
        connections: list[Any] = [node.acquire_connection() for _ in range(3)]
        for connection in connections:
            await connection.connect()
        used, closed, idle = connections
        await closed.disconnect()
        node.release(closed)
        node.release(idle)
        await clock.advance(HALF)
        await until(lambda: server.renewed == 1)
        node.release(used)
        await until(lambda: len(node._free) == 3)
        await asyncio.gather(*[cluster.ping(target_nodes=node) for _ in range(3)])
        # The first one is that over which the cluster was asked for its nodes.
        assert server.passwords == [["token-1"]] * 3 + [["token-1", "token-2"]] + [["token-2"]] * 2


# Other listeners


async def test_a_listener_gets_every_new_token(
    provider: TokenProvider, credentials: CredentialProvider, clock: ManualClock
) -> None:
    """But not the one that was given out first, and whatever another listener does."""
    heard: list[TokenInterface] = []
    seen = asyncio.Event()

    def fail(_: TokenInterface) -> None:
        raise KeyError

    async def listen(token: TokenInterface) -> None:
        heard.append(token)
        seen.set()

    for callback in (fail, heard.append, listen, listen):
        credentials.on_next(callback)
    assert await credentials.get_credentials_async() == (OID, "token-1")
    await clock.settle()
    assert heard == []
    await clock.advance(HALF)
    await seen.wait()
    first, second = heard
    assert first is second
    assert (first.try_get("oid"), first.get_value()) == (OID, "token-2")
    token = await provider.access_token(REDIS)
    assert first.get_expires_at_ms() == token.expires_on * 1000
    assert first.get_received_at_ms() > 0


async def test_a_listener_may_come_after_the_first_connection(
    credentials: CredentialProvider, clock: ManualClock
) -> None:
    """It hears of the next token all the same."""
    heard: list[TokenInterface] = []
    await credentials.get_credentials_async()
    assert tasks() == 1
    credentials.on_next(heard.append)
    await clock.advance(HALF)
    assert [token.get_value() for token in heard] == ["token-2"]


async def test_a_method_is_called_while_its_object_lives(credentials: CredentialProvider, clock: ManualClock) -> None:
    """Which nothing here keeps alive."""

    class Listener:
        heard = 0

        def listen(self, _: object) -> None:
            Listener.heard += 1

    listener = Listener()
    credentials.on_next(listener.listen)
    credentials.on_next(listener.listen)
    await credentials.get_credentials_async()
    await clock.advance(HALF)
    assert Listener.heard == 1
    del listener
    gc.collect()
    await clock.advance(HALF)
    assert Listener.heard == 1


async def test_a_listener_of_redis_py_without_a_pool_is_one_like_others(
    credentials: CredentialProvider, clock: ManualClock
) -> None:
    """Were redis-py to keep its pools elsewhere one day, it would be asked to do it in its own way."""
    heard = asyncio.Event()

    class Renamed(RegisterReAuthForPooledConnections):
        async def authenticate(self, _: object) -> None:
            heard.set()

    listener: Any = Renamed()  # type: ignore[no-untyped-call]
    credentials.on_next(listener.authenticate)
    await credentials.get_credentials_async()
    await clock.advance(HALF)
    await heard.wait()


async def test_who_asks_hears_when_no_more_tokens_will_come(
    provider: TokenProvider, credentials: CredentialProvider, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The error says why."""
    heard: list[Exception] = []
    caplog.set_level("INFO", "aiomsi")
    credentials.on_next(lambda _: None)
    credentials.on_error(heard.append)
    await credentials.get_credentials_async()
    await clock.settle()
    await provider.aclose()
    await clock.settle()
    assert [type(error) for error in heard] == [ProviderClosedError]
    assert "connections to Redis are not kept authenticated until the next is opened: this TokenProvider" in caplog.text
    assert "token-" not in caplog.text


# The task


async def test_it_is_what_redis_py_calls_a_streaming_provider(credentials: CredentialProvider) -> None:
    """And it streams."""
    assert isinstance(credentials, StreamingCredentialProvider)
    assert credentials.is_streaming()


async def test_one_task_serves_all_clients_and_ends_when_it_is_closed(
    server: Server, provider: TokenProvider, clock: ManualClock
) -> None:
    """Twice is as well as once, and connections can be opened after it, which hear of no new token."""
    credentials = CredentialProvider(provider, username=OID)
    await credentials.aclose()
    credentials = CredentialProvider(provider, username=OID)
    async with connected(server, credentials) as one, connected(server, credentials) as other:
        assert tasks() == 1
        await asyncio.gather(one.ping(), other.ping())
        await until(lambda: tasks() == 4)  # This one, the two of the server, and ours.
        await credentials.aclose()
        await credentials.aclose()
        assert tasks() == 3
        await one.connection_pool.disconnect()
        assert await one.ping()
        await clock.advance(HALF)
    assert server.passwords == [["token-1"]] * 3


async def test_a_task_that_was_cancelled_from_outside_is_replaced(
    server: Server, client: Redis, clock: ManualClock
) -> None:
    """The next new connection begins anew, and those that missed a token get it."""
    await open_connections(client, 1)
    await clock.settle()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "_pass_on" in repr(task):
            task.cancel()
    await clock.advance(HALF)
    held = await take(client)
    assert await client.ping()
    await client.connection_pool.release(held)
    await until(lambda: server.passwords == [["token-1"], ["token-2"]])
    await clock.settle()
    assert await client.ping()
    await open_connections(client, 2)
    assert server.passwords == [["token-1"], ["token-2"], ["token-2"], ["token-2"]]


async def test_nothing_is_kept_alive(server: Server, provider: TokenProvider, clock: ManualClock) -> None:
    """A client that is forgotten takes the credentials and the task along, and the next token is nobody's."""
    credentials = CredentialProvider(provider, username=OID)
    client = connected(server, credentials)
    await client.ping()
    await until(lambda: tasks() == 3)
    gone = weakref.ref(credentials)
    pool = weakref.ref(client.connection_pool)
    await client.aclose()
    await until(lambda: tasks() == 2)
    del client, credentials
    gc.collect()
    assert (gone(), pool()) == (None, None)
    await clock.settle()
    assert tasks() == 1


async def test_clients_that_come_and_go_leave_nothing_behind(server: Server, credentials: CredentialProvider) -> None:
    """However many there were, as with one for each request."""

    async def come_and_go() -> None:
        async with connected(server, credentials) as client:
            await client.ping()

    for _ in range(10):
        await come_and_go()
    gc.collect()
    credentials.on_error(print)
    assert len(credentials._audience._complaints) == 1
    assert not credentials._audience


def test_it_works_on_the_next_event_loop() -> None:
    """With the clients of that loop, whose connections alone are served; it can be closed on a third."""
    source, clock = ScriptedSource(), ManualClock()
    provider = TokenProvider(source, clock=clock)
    credentials = CredentialProvider(provider, username=OID)

    async def use(server: Server) -> Redis:
        client = connected(server, credentials)
        await client.ping()
        await client.ping()
        await clock.advance(HALF)
        await until(lambda: len(server.passwords[0]) == 2)
        return client

    async def serve_and_use() -> list[list[str]]:
        async with serving() as server:
            await (await use(server)).aclose()
            return server.passwords

    former = asyncio.new_event_loop()
    stack = contextlib.AsyncExitStack()
    server = former.run_until_complete(stack.enter_async_context(serving()))
    client = former.run_until_complete(use(server))
    assert asyncio.run(serve_and_use()) == [["token-2", "token-3"]]
    assert server.passwords == [["token-1", "token-2"]]
    asyncio.run(credentials.aclose())
    former.run_until_complete(client.aclose())
    former.run_until_complete(stack.aclose())
    end(former)


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Bring a loop to its end, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


# What it says


def test_a_synchronous_client_is_refused(provider: TokenProvider) -> None:
    """When it is made, and the error names the other one."""
    credentials = CredentialProvider(provider)
    with pytest.raises(RuntimeError, match=r"use redis\.asyncio\.Redis instead of redis\.Redis"):
        redis.Redis(credential_provider=credentials)
    with pytest.raises(RuntimeError, match=r"use redis\.asyncio\.Redis instead of redis\.Redis"):
        credentials.get_credentials()


async def test_no_text_of_it_shows_a_token(
    client: Redis, credentials: CredentialProvider, source: ScriptedSource
) -> None:
    """Neither its own, nor that of an error with all that its frames hold."""
    await client.ping()
    assert repr(credentials) == "<CredentialProvider <TokenProvider source=scripted tokens=1 in_flight=0>>"
    opaque = CredentialProvider(TokenProvider(source))
    with pytest.raises(AuthenticationError) as caught:
        await opaque.get_credentials_async()
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "token-2" not in "".join(shown.format())


def test_wrong_arguments_are_told_at_once(provider: TokenProvider) -> None:
    """Not when the first connection is made."""
    with pytest.raises(TypeError, match="provider is a TokenProvider, not str"):
        CredentialProvider(REDIS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="username is a string or None, not bytes"):
        CredentialProvider(provider, username=b"me")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="username is empty"):
        CredentialProvider(provider, username="")
    with pytest.raises(ValueError, match="names no resource"):
        CredentialProvider(provider, "")


def test_without_the_library_the_error_names_the_extra() -> None:
    """Importing the adapter says what to install."""
    script = "import sys; sys.modules['redis'] = None; import aiomsi.adapters.redis"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (
        "ImportError: aiomsi.adapters.redis needs the extra `redis`; run: pip install 'aiomsi[redis]'" in outcome.stderr
    )
