"""Tokens as passwords for `redis.asyncio`, and the next one before the last one ends (extra `redis`)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, NoReturn, cast

from aiomsi._errors import AiomsiError
from aiomsi._resource import resource_of

try:
    from redis.credentials import StreamingCredentialProvider
    from redis.exceptions import AuthenticationError

    from aiomsi.adapters._redis_audience import ASYNCIO_ONLY, Audience
except ImportError as error:
    raise ImportError("aiomsi.adapters.redis needs the extra `redis`; run: pip install 'aiomsi[redis]'") from error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from types import TracebackType
    from typing import Self

    from aiomsi._provider import TokenProvider
    from aiomsi._token import AccessToken

__all__ = ["CredentialProvider"]

_log = logging.getLogger("aiomsi.redis")


class CredentialProvider(StreamingCredentialProvider):
    """Gives `redis.asyncio` the user name and token for each new connection, and keeps open ones authenticated.

        credentials = CredentialProvider(provider)
        client = Redis(host="mycache.redis.azure.net", port=10000, ssl=True, credential_provider=credentials)

    The user name is the object id in the token, which is how Azure names its Redis users; give *username* if tokens
    are opaque or your users are named otherwise. One CredentialProvider serves any number of clients and clusters.

    Redis closes a connection when its token ends. So whenever *provider* has a new token, which it gets well before
    that, an idle connection sends it, and one in use is opened anew as soon as its command is done. Only what takes
    longer than the token lives, a subscription for one, is cut off by Redis, and taken up again by redis-py.

    A pool that you make yourself, as `Redis.from_url` does, is served only if its client knows the credentials too:
    `Redis(connection_pool=pool, credential_provider=credentials)`.

    Neither this object nor the task that it runs on the event loop keeps a client alive. `aclose`, or `async with`,
    ends the task, as does the end of the event loop; on the next one it starts anew. The provider stays open.

    Source: Microsoft documentation, "Use Microsoft Entra ID for cache authentication"; redis-py, `redis.event`.

    Raises:
        TypeError: *provider* is none, or *resource* or *username* no string.
        ValueError: *resource* is none, or *username* is empty.
    """

    _task: asyncio.Task[None] | None = None

    def __init__(
        self, provider: TokenProvider, resource: str = "https://redis.azure.com", *, username: str | None = None
    ) -> None:
        if not callable(getattr(provider, "access_token", None)):
            raise TypeError(f"provider is a TokenProvider, not {type(provider).__name__}")
        if username is not None and not isinstance(username, str):
            raise TypeError(f"username is a string or None, not {type(username).__name__}")
        if username == "":
            raise ValueError("username is empty; leave it out to take the object id from the token")
        self._provider = provider
        self._resource = resource_of(resource)
        self._username = username
        self._audience = Audience()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<CredentialProvider {self._provider!r}>"

    def __del__(self) -> None:
        _end(self._task)

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the user name and the token for a new connection.

        Raises:
            redis.exceptions.AuthenticationError: no token could be had, and the cause says why, or it names nobody.
        """
        try:
            token = await self._provider.access_token(self._resource)
        except asyncio.CancelledError:
            self._audience.reopen()  # Or redis-py would take the connection for one that is logged in.
            raise
        except Exception as error:
            # redis-py tidies up a connection, and tries again, after errors of its own only.
            raise AuthenticationError(f"no token for Redis: {_text(error)}") from error
        user = _user(token, self._username)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # The first connection here; those of a former event loop have ended with it.
            self._loop, self._audience.held = loop, token
        self._follow(loop)
        return user, token.token

    def get_credentials(self) -> NoReturn:
        """Refuse: a synchronous client cannot wait for a token.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(ASYNCIO_ONLY)

    def on_next(self, callback: Callable[[Any], Any]) -> None:
        """Have *callback* called, and awaited, with each new token; a method only for as long as its object lives.

        It gets a `redis.auth.token.TokenInterface` whose "oid" is the user name. Clients call this by themselves.

        Raises:
            RuntimeError: the client is a synchronous one.
        """
        self._audience.admit(callback)
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            if loop is self._loop:  # Else nobody is connected, and the first to be so begins to follow.
                self._follow(loop)

    def on_error(self, callback: Callable[[Exception], Any]) -> None:
        """Have *callback* called, and awaited, when tokens are followed no more: none could be had, or it was closed.

        A refresh that fails while the token is valid is not an error: the provider tries again. The next new connection
        begins to follow again.
        """
        self._audience.admit_complaint(callback)

    def is_streaming(self) -> bool:
        """Return True: the connections hear of new tokens."""
        return True

    async def aclose(self) -> None:
        """Stop keeping connections authenticated; new ones get tokens all the same. Idempotent."""
        self._closed = True
        task, self._task = self._task, None
        _end(task)
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to pass on new tokens, if somebody wants them and nobody does so yet."""
        if self._closed or not self._audience:
            return
        if self._task is not None and not self._task.done() and self._task.get_loop().is_running():
            return
        following = _pass_on(self._provider.watch(self._resource), self._username, self._audience)
        # In an empty context, and without a reference to this object: it must keep neither it nor its first request.
        self._task = contextvars.Context().run(loop.create_task, following)


async def _pass_on(tokens: AsyncIterator[AccessToken], username: str | None, audience: Audience) -> None:
    """Tell the *audience* of every token that it does not have."""
    try:
        async with aclosing(cast("AsyncGenerator[AccessToken]", tokens)):
            async for token in tokens:
                await audience.tell(_user(token, username), token)
    except Exception as error:  # noqa: BLE001  (nobody awaits this task)
        _log.info("connections to Redis are not kept authenticated until the next is opened: %s", _text(error))
        await audience.complain(error)


def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel *task*, from whichever thread."""
    if task is not None:
        with suppress(RuntimeError):  # Its event loop has ended, and it with that.
            task.get_loop().call_soon_threadsafe(task.cancel)


def _user(token: AccessToken, username: str | None) -> str:
    """Return the name of the Redis user to whom *token* belongs."""
    principal = token.principal
    found = username or (principal and principal.object_id)
    if not found:
        raise AuthenticationError(
            f"the token from {token.source} for {token.resource} names no object id, which is the Redis user's name in"
            " Azure; give it as CredentialProvider(..., username=...)"
        )
    return found


def _text(error: Exception) -> str:
    # The text of an error that is not ours may hold anything, a secret included.
    return str(error) if isinstance(error, AiomsiError | AuthenticationError) else type(error).__name__
