"""Tokens for gRPC calls, over TLS to a real server on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme

from aiomsi import TokenProvider, TokenRefusedError
from aiomsi.adapters.grpc import BearerAuth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from aiomsi.testing import ManualClock, ScriptedSource

API = "https://my.api"
CALLERS = 5


class Server:
    """A server that answers a call of any kind with what it was sent; *seen* are the Authorization headers."""

    port: int
    insecure_port: int

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.seen: list[str | None] = []

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "unary_unary": grpc.unary_unary_rpc_method_handler(self._one),
                "unary_stream": grpc.unary_stream_rpc_method_handler(self._several),
                "stream_unary": grpc.stream_unary_rpc_method_handler(self._joined),
                "stream_stream": grpc.stream_stream_rpc_method_handler(self._all),
            },
        )

    def credentials(self) -> grpc.ServerCredentials:
        certificate = self.authority.issue_cert("localhost")
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        return grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])

    def _see(self, context: Any) -> None:
        self.seen.append(dict(context.invocation_metadata()).get("authorization"))

    async def _one(self, request: bytes, context: Any) -> bytes:
        self._see(context)
        return request

    async def _several(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._see(context)
        yield request

    async def _joined(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self._see(context)
        return b"".join([request async for request in requests])

    async def _all(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self._see(context)
        async for request in requests:
            yield request


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((found.handlers(),))
    found.port = server.add_secure_port("localhost:0", found.credentials())
    found.insecure_port = server.add_insecure_port("localhost:0")
    await server.start()
    yield found
    await server.stop(None)


def credentials(server: Server, auth: BearerAuth) -> grpc.ChannelCredentials:
    tls = grpc.ssl_channel_credentials(server.authority.cert_pem.bytes())
    return grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(auth))


@pytest.fixture
async def channel(server: Server, provider: TokenProvider) -> AsyncIterator[grpc.aio.Channel]:
    auth = BearerAuth(provider, API)
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials(server, auth)) as found:
        yield found


def call(channel: Any) -> Any:
    return channel.unary_unary("/test.Echo/unary_unary")(b"x")


async def call_with(server: Server, auth: BearerAuth) -> bytes:
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials(server, auth)) as channel:
        answer: bytes = await call(channel)
        return answer


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until *condition* holds, which threads of gRPC bring about."""
    while not condition():  # noqa: ASYNC110  (turns of the loop, not time)
        await asyncio.sleep(0)


@contextmanager
def another_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def make(provider: TokenProvider) -> BearerAuth:
    return BearerAuth(provider, API)


async def test_calls_of_every_kind_carry_the_token(
    server: Server, channel: grpc.aio.Channel, source: ScriptedSource
) -> None:
    """One fetch serves them all."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"x"

    assert await channel.unary_unary("/test.Echo/unary_unary")(b"x") == b"x"
    assert [part async for part in channel.unary_stream("/test.Echo/unary_stream")(b"x")] == [b"x"]
    assert await channel.stream_unary("/test.Echo/stream_unary")(requests()) == b"x"
    assert [part async for part in channel.stream_stream("/test.Echo/stream_stream")(requests())] == [b"x"]
    assert server.seen == ["Bearer token-1"] * 4
    assert [request.resource for request in source.requests] == [API]


async def test_calls_carry_the_token_of_their_time(
    server: Server, channel: grpc.aio.Channel, clock: ManualClock
) -> None:
    """The channel stays open while tokens come and go."""
    await call(channel)
    await call(channel)
    await clock.advance(43_200)
    await call(channel)
    assert server.seen == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def test_many_calls_at_once_need_one_fetch(
    server: Server, channel: grpc.aio.Channel, source: ScriptedSource
) -> None:
    """However many threads gRPC asks in."""
    await asyncio.gather(*[call(channel) for _ in range(50)])
    assert server.seen == ["Bearer token-1"] * 50
    assert len(source.requests) == 1


@pytest.mark.parametrize("victim", [0, CALLERS // 2, CALLERS - 1], ids=["first", "middle", "last"])
async def test_a_cancelled_call_takes_nobody_along(
    server: Server, channel: grpc.aio.Channel, provider: TokenProvider, source: ScriptedSource, victim: int
) -> None:
    """Whichever is cancelled, the others get the one token that was being fetched."""
    source.held = True
    calls = [call(channel) for _ in range(CALLERS)]
    await until(lambda: provider.statistics().waiting == CALLERS)
    calls[victim].cancel()
    source.release()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert outcomes == [b"x"] * (CALLERS - 1)
    assert server.seen == ["Bearer token-1"] * (CALLERS - 1)
    assert len(source.requests) == 1


async def test_when_all_calls_are_cancelled_the_fetch_still_lands(
    channel: grpc.aio.Channel, provider: TokenProvider, source: ScriptedSource
) -> None:
    """Its token serves the next call."""
    source.held = True
    calls = [call(channel) for _ in range(CALLERS)]
    await until(lambda: provider.statistics().waiting == CALLERS)
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    source.release()
    assert await call(channel) == b"x"
    assert len(source.requests) == 1


async def test_a_call_with_a_deadline_does_not_wait_longer_for_its_token(
    channel: grpc.aio.Channel, source: ScriptedSource
) -> None:
    """The call's own deadline counts, and the fetch goes on."""
    source.held = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test.Echo/unary_unary")(b"x", timeout=0.01)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    source.release()
    assert await call(channel) == b"x"


async def test_a_call_without_a_token_says_why(
    server: Server, channel: grpc.aio.Channel, source: ScriptedSource
) -> None:
    """Nothing reaches the server, and the details are those of the provider's error."""
    source.script(TokenRefusedError("the identity may not have it; ask for a role"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no token: the identity may not have it; ask for a role" in caught.value.details()
    assert server.seen == []


async def test_the_text_of_a_foreign_error_is_not_repeated(channel: grpc.aio.Channel, source: ScriptedSource) -> None:
    """It may hold anything."""
    source.script(KeyError("a secret"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel)
    assert caught.value.details().endswith("no token: KeyError")


async def test_no_token_leaves_in_plain_text(server: Server, provider: TokenProvider) -> None:
    """A channel without TLS refuses the credentials."""
    await provider.token(API)
    tokens = grpc.metadata_call_credentials(BearerAuth(provider, API))
    async with grpc.aio.insecure_channel(f"localhost:{server.insecure_port}") as channel:
        with pytest.raises(grpc.aio.UsageError, match="only valid on secure channels"):
            channel.unary_unary("/test.Echo/unary_unary")(b"x", credentials=tokens)
    assert server.seen == []


async def test_a_channel_of_another_thread_gets_tokens_too(server: Server, provider: TokenProvider) -> None:
    """A blocking channel, away from the event loop, has its token fetched on it."""
    target, secured = f"localhost:{server.port}", credentials(server, BearerAuth(provider, API))

    def block() -> Any:
        with grpc.secure_channel(target, secured) as channel:
            return call(channel)

    assert await asyncio.to_thread(block) == b"x"
    assert server.seen == ["Bearer token-1"]


async def test_another_event_loop_may_call(server: Server, source: ScriptedSource) -> None:
    """Tokens are fetched on the event loop on which it was made, wherever the calls come from."""
    provider = TokenProvider(source)
    with another_loop() as loop:
        auth = asyncio.run_coroutine_threadsafe(make(provider), loop).result()
        assert await call_with(server, auth) == b"x"
        asyncio.run_coroutine_threadsafe(provider.aclose(), loop).result()
    assert server.seen == ["Bearer token-1"]


@pytest.mark.parametrize("close", [True, False], ids=["closed", "stopped"])
async def test_an_event_loop_that_has_ended_fails_the_call(server: Server, source: ScriptedSource, close: bool) -> None:
    """At once, and the details say what to do."""
    provider = TokenProvider(source)
    with another_loop() as loop:
        auth = asyncio.run_coroutine_threadsafe(make(provider), loop).result()
        if not close:
            loop.call_soon_threadsafe(loop.stop)
            await until(lambda: not loop.is_running())
            with pytest.raises(grpc.aio.AioRpcError, match="make it where the event loop of its provider runs"):
                await call_with(server, auth)
    with pytest.raises(grpc.aio.AioRpcError, match="make it where the event loop of its provider runs"):
        await call_with(server, auth)
    assert source.requests == []


async def test_an_event_loop_that_ends_during_the_fetch_fails_the_call(server: Server, source: ScriptedSource) -> None:
    """Whoever cancels its tasks, as `asyncio.run` does at its end, lets nobody wait for ever."""
    provider = TokenProvider(source)
    source.held = True
    with another_loop() as loop:
        auth = asyncio.run_coroutine_threadsafe(make(provider), loop).result()
        waiting = asyncio.create_task(call_with(server, auth))
        await until(lambda: source.requests)
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        with pytest.raises(grpc.aio.AioRpcError, match="make it where the event loop of its provider runs"):
            await waiting


async def test_an_event_loop_that_is_closed_in_this_moment_fails_the_call(
    server: Server, provider: TokenProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the use of it."""
    ended = asyncio.new_event_loop()
    ended.close()
    monkeypatch.setattr(ended, "is_running", lambda: True)
    auth = BearerAuth(provider, API)
    monkeypatch.setattr(auth, "_loop", ended)
    with pytest.raises(grpc.aio.AioRpcError, match="make it where the event loop of its provider runs"):
        await call_with(server, auth)


async def test_a_fresh_token_needs_no_event_loop(server: Server, provider: TokenProvider) -> None:
    """One that was made without an event loop gives out what is held, and says so when nothing is."""
    auth = await asyncio.to_thread(BearerAuth, provider, API)
    with pytest.raises(grpc.aio.AioRpcError, match="make it where the event loop of its provider runs"):
        await call_with(server, auth)
    await provider.prefetch(API)
    assert await call_with(server, auth) == b"x"


async def test_its_text_says_what_its_provider_does(provider: TokenProvider) -> None:
    """And nothing of any token."""
    await provider.token(API)
    assert repr(BearerAuth(provider, API)) == f"<BearerAuth {API} <TokenProvider source=scripted tokens=1 in_flight=0>>"


def test_wrong_arguments_are_told_at_once(provider: TokenProvider) -> None:
    """Not when the first call is made."""
    with pytest.raises(TypeError, match="provider is a TokenProvider, not str"):
        BearerAuth(API, API)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names no resource"):
        BearerAuth(provider, "")


def test_without_the_library_the_error_names_the_extra() -> None:
    """Importing the adapter says what to install."""
    script = "import sys; sys.modules['grpc'] = None; import aiomsi.adapters.grpc"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ImportError: aiomsi.adapters.grpc needs the extra `grpc`; run: pip install 'aiomsi[grpc]'" in outcome.stderr
