"""Tokens for aiokafka, whose own client talks to a broker on loopback that can do no more than let somebody in."""

from __future__ import annotations

import asyncio
import gc
import re
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

from aiomsi import EndpointError, TokenRefusedError
from aiomsi.adapters.kafka import TokenProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiomsi
    from aiomsi.testing import ManualClock, ScriptedSource

NAMESPACE = "https://mynamespace.servicebus.windows.net"
CALLERS = 5

METADATA, HANDSHAKE, VERSIONS, AUTHENTICATE = 3, 17, 18, 36
REFUSED = 58


class Broker:
    """A broker that takes the *accepted* tokens, and tells who was let in that it is the only one there is.

    *offered* are the tokens it was given, *payloads* the whole texts, as in RFC 7628.
    """

    port: int

    def __init__(self) -> None:
        self.accepted: set[str] = {"token-1"}
        self.payloads: list[str] = []
        self.connections: set[asyncio.StreamWriter] = set()

    @property
    def offered(self) -> list[str]:
        return [payload.removeprefix("n,,\x01auth=Bearer ").rstrip("\x01") for payload in self.payloads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                key, _, number, client = struct.unpack(">hhih", request[:10])
                answer = struct.pack(">i", number) + self.answer(key, request[10 + client :])
                writer.write(struct.pack(">i", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, key: int, body: bytes) -> bytes:
        if key == VERSIONS:
            known = ((METADATA, 0), (HANDSHAKE, 1), (VERSIONS, 0), (AUTHENTICATE, 0))
            return struct.pack(">hi", 0, len(known)) + b"".join(
                struct.pack(">hhh", api, 0, most) for api, most in known
            )
        if key == HANDSHAKE:
            return struct.pack(">hi", 0, 1) + _text("OAUTHBEARER")
        if key == AUTHENTICATE:
            self.payloads.append(body[4:].decode())
            welcome = self.offered[-1] in self.accepted
            return struct.pack(">h", 0 if welcome else REFUSED) + _text("" if welcome else "who is that?") + bytes(4)
        assert key == METADATA
        return struct.pack(">ii", 1, 0) + _text("127.0.0.1") + struct.pack(">ii", self.port, 0)

    def cut_off(self) -> None:
        """Close all connections, as a broker does with those whose token has ended."""
        for writer in self.connections:
            writer.close()
        self.connections.clear()


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    found = Broker()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(found.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    found.cut_off()
    await asyncio.gather(*tasks)


@pytest.fixture
def tokens(provider: aiomsi.TokenProvider) -> TokenProvider:
    return TokenProvider(provider, NAMESPACE)


def settings(broker: Broker, tokens: TokenProvider) -> dict[str, Any]:
    return {
        "bootstrap_servers": f"127.0.0.1:{broker.port}",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_token_provider": tokens,
    }


@pytest.fixture
async def client(broker: Broker, tokens: TokenProvider) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(**settings(broker, tokens), retry_backoff_ms=1)
    yield client
    await client.close()


async def connect(broker: Broker, tokens: TokenProvider) -> Any:
    return await create_conn(
        "127.0.0.1",
        broker.port,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_token_provider=tokens,
    )


async def test_a_producer_is_let_in_with_the_token(
    broker: Broker, tokens: TokenProvider, source: ScriptedSource
) -> None:
    """The producer starts, and the broker has got the token in the form of RFC 7628 and nothing else."""
    producer = AIOKafkaProducer(**settings(broker, tokens))
    await producer.start()
    await producer.stop()
    assert isinstance(tokens, AbstractTokenProvider)
    assert broker.payloads == ["n,,\x01auth=Bearer token-1\x01\x01"]
    assert [request.resource for request in source.requests] == [NAMESPACE]


async def test_every_connection_gets_the_token_of_its_time(
    broker: Broker, client: AIOKafkaClient, clock: ManualClock
) -> None:
    """Connections that the broker closed at the token's end are opened again with the next token."""
    await client.bootstrap()
    assert await client.ready(0)
    await clock.advance(43_200)
    broker.accepted = {"token-2"}
    broker.cut_off()
    while await client.force_metadata_update() is not True or broker.offered[-1] != "token-2":
        pass
    assert await client.ready(0)
    assert set(broker.offered) == {"token-1", "token-2"}


async def test_many_connections_need_one_fetch(broker: Broker, tokens: TokenProvider, source: ScriptedSource) -> None:
    """However many are opened at once."""
    connections = await asyncio.gather(*[connect(broker, tokens) for _ in range(CALLERS)])
    for connection in connections:
        await connection.close()
    assert broker.offered == ["token-1"] * CALLERS
    assert len(source.requests) == 1


@pytest.mark.parametrize("victim", [0, CALLERS // 2, CALLERS - 1], ids=["first", "middle", "last"])
async def test_a_cancelled_caller_takes_nobody_along(
    tokens: TokenProvider, source: ScriptedSource, clock: ManualClock, victim: int
) -> None:
    """Whoever is cancelled, the others get the one token that was being fetched."""
    source.held = True
    callers = [asyncio.create_task(tokens.token()) for _ in range(CALLERS)]
    await clock.settle()
    callers[victim].cancel()
    await clock.settle()
    source.release()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert outcomes == ["token-1"] * (CALLERS - 1)
    assert len(source.requests) == 1


async def test_a_connection_attempt_that_is_given_up_leaves_nothing_behind(
    broker: Broker, tokens: TokenProvider, source: ScriptedSource, clock: ManualClock
) -> None:
    """The fetch that it waited for goes on, and the next attempt has its token."""
    source.held = True
    attempt = asyncio.create_task(connect(broker, tokens))
    while not source.requests:  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)
    attempt.cancel()
    await asyncio.wait([attempt])
    source.release()
    await clock.settle()
    await (await connect(broker, tokens)).close()
    assert broker.offered == ["token-1"]
    assert len(source.requests) == 1


async def test_an_error_says_why_and_is_one_that_aiokafka_outlives(
    tokens: TokenProvider, source: ScriptedSource
) -> None:
    """The text is the provider's, and its error the cause."""
    source.script(TokenRefusedError("the identity may not have it; ask for a role"))
    with pytest.raises(KafkaConnectionError, match="no token for Kafka: the identity may not have it") as caught:
        await tokens.token()
    assert isinstance(caught.value.__cause__, TokenRefusedError)


async def test_the_text_of_a_foreign_error_is_not_repeated(tokens: TokenProvider, source: ScriptedSource) -> None:
    """It may hold anything."""
    source.script(KeyError("a secret"))
    with pytest.raises(KafkaConnectionError) as caught:
        await tokens.token()
    assert str(caught.value) == "KafkaConnectionError: no token for Kafka: KeyError"


async def test_a_client_outlives_a_time_without_tokens(
    broker: Broker,
    client: AIOKafkaClient,
    source: ScriptedSource,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its tasks go on trying, and connect when there is a token again."""
    await client.bootstrap()
    await clock.advance(86_401)
    broker.cut_off()
    source.script(EndpointError("down for a moment"))
    assert not await client.ready(0)
    assert "no token for Kafka: down for a moment" in caplog.text
    await clock.advance(30)
    broker.accepted = {"token-2"}
    assert await client.ready(0)
    assert await client.force_metadata_update()


async def test_a_refusal_of_the_broker_shows_no_token(broker: Broker, tokens: TokenProvider) -> None:
    """The error is the broker's."""
    broker.accepted = set()
    with pytest.raises(KafkaError, match=re.escape("who is that?")) as caught:
        await connect(broker, tokens)
    gc.collect()
    assert "token-1" not in str(caught.value)


async def test_its_text_says_what_its_provider_does(tokens: TokenProvider) -> None:
    """And nothing of any token."""
    await tokens.token()
    assert repr(tokens) == f"<kafka.TokenProvider {NAMESPACE} <TokenProvider source=scripted tokens=1 in_flight=0>>"
    assert tokens.extensions() == {}


def test_wrong_arguments_are_told_at_once(provider: aiomsi.TokenProvider) -> None:
    """Not when the first connection is made."""
    with pytest.raises(TypeError, match="provider is a TokenProvider of aiomsi, not str"):
        TokenProvider(NAMESPACE, NAMESPACE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names no resource"):
        TokenProvider(provider, "")


def test_without_the_library_the_error_names_the_extra() -> None:
    """Importing the adapter says what to install."""
    script = "import sys; sys.modules['aiokafka'] = None; import aiomsi.adapters.kafka"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (
        "ImportError: aiomsi.adapters.kafka needs the extra `kafka`; run: pip install 'aiomsi[kafka]'" in outcome.stderr
    )
