"""Tokens for the calls of grpcio (extra `grpc`)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from aiomsi._errors import AiomsiError, WrongLoopError
from aiomsi._resource import resource_of

try:
    import grpc
except ImportError as error:
    raise ImportError("aiomsi.adapters.grpc needs the extra `grpc`; run: pip install 'aiomsi[grpc]'") from error

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from aiomsi._provider import TokenProvider

__all__ = ["BearerAuth"]


class BearerAuth(grpc.AuthMetadataPlugin):  # type: ignore[misc]  # grpcio has no types.
    """Puts a token for *resource* into the metadata of every call, over TLS only, as gRPC sees to.

        tokens = grpc.metadata_call_credentials(BearerAuth(provider, "https://my.api"))
        credentials = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), tokens)

        async with grpc.aio.secure_channel("my.host:443", credentials) as channel:
            ...

    Make it where the event loop runs to which *provider* belongs, and another one for the next event loop. gRPC asks
    for the token in threads of its own: a fresh one is given at once, any other is fetched on that event loop. A
    channel that is not of `grpc.aio` works too, in threads other than that loop's, which it would block.

    When no token can be had, the call fails as UNAVAILABLE with details that say why.

    Source: gRPC documentation, "Authentication", "Extending gRPC to support other authentication mechanisms".

    Raises:
        TypeError: *provider* is none, or *resource* no string.
        ValueError: *resource* is none.
    """

    def __init__(self, provider: TokenProvider, resource: str) -> None:
        if not callable(getattr(provider, "access_token", None)):
            raise TypeError(f"provider is a TokenProvider, not {type(provider).__name__}")
        self._provider = provider
        self._resource = resource_of(resource)
        self._loop = _running_loop()

    def __repr__(self) -> str:
        return f"<BearerAuth {self._resource} {self._provider!r}>"

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:  # noqa: ARG002
        """Call *callback* with the metadata of one call, now or later, or with the error. For gRPC, from any thread."""
        token = self._provider.peek(self._resource)
        if token is None:
            self._fetch(callback)
        else:
            callback(_metadata(token), None)

    def _fetch(self, callback: grpc.AuthMetadataPluginCallback) -> None:
        fetch = _scheduled(self._provider.token(self._resource), self._loop)
        if fetch is None:
            callback(None, _failure(_no_loop()))
        else:
            fetch.add_done_callback(partial(_answer, callback))


def _scheduled(call: Coroutine[Any, Any, str], loop: asyncio.AbstractEventLoop | None) -> Future[str] | None:
    """Have *call* run on *loop*; return None if that does not run."""
    if loop is not None and loop.is_running():
        with suppress(RuntimeError):  # It was closed in this moment.
            return asyncio.run_coroutine_threadsafe(call, loop)
    call.close()
    return None


def _answer(callback: grpc.AuthMetadataPluginCallback, outcome: Future[str]) -> None:
    """Tell gRPC what came of a fetch."""
    error = _no_loop() if outcome.cancelled() else outcome.exception()
    if error is None:
        callback(_metadata(outcome.result()), None)
    else:
        callback(None, _failure(error))


def _metadata(token: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {token}"),)


def _failure(error: BaseException) -> RuntimeError:
    """Return an error whose text is what the call's details will say."""
    # The text of an error that is not ours may hold anything, a secret included.
    return RuntimeError(f"no token: {error if isinstance(error, AiomsiError) else type(error).__name__}")


def _no_loop() -> WrongLoopError:
    return WrongLoopError(
        "the event loop on which this BearerAuth was made does not run, or there was none;"
        " make it where the event loop of its provider runs"
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
