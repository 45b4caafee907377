"""Who hears of a new token for Redis: pools, clusters, and whoever else asked to.

redis-py can authenticate open connections again, but not safely (8.1): one that was in use is given back to its pool
before the answer to its AUTH has come, so that the next command may take that answer for its own; and one dead
connection ends the round for all others. So that is done here, with each connection while nobody else has it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from redis.auth.token import SimpleToken
from redis.event import (
    ClientType,
    RegisterReAuthForAsyncClusterNodes,
    RegisterReAuthForPooledConnections,
    RegisterReAuthForPubSub,
)

from aiomsi._clock import SYSTEM_CLOCK, time_limit

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.connection import ConnectionPool

    from aiomsi._token import AccessToken

__all__ = ["ASYNCIO_ONLY", "Audience"]

ASYNCIO_ONLY = "CredentialProvider fetches tokens asynchronously; use redis.asyncio.Redis instead of redis.Redis"

_log = logging.getLogger("aiomsi.redis")

_ANSWERING_TIME = 10.0  # Seconds that Redis is given to answer an AUTH, since the other connections wait for it.


class Audience:
    """Who wants to hear of new tokens, and of the end; keeps nobody alive."""

    __slots__ = ("_callbacks", "_clusters", "_complaints", "_pools", "held")

    def __init__(self) -> None:
        self.held: AccessToken | None = None
        self._pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()
        self._clusters: weakref.WeakSet[RegisterReAuthForAsyncClusterNodes] = weakref.WeakSet()
        self._callbacks: list[Callable[[], Callable[[Any], Any] | None]] = []
        self._complaints: list[Callable[[], Callable[[Any], Any] | None]] = []

    def __bool__(self) -> bool:
        return bool(self._pools or self._clusters or self._callbacks)

    def admit(self, callback: Callable[[Any], Any]) -> None:
        """Add whoever is behind *callback*.

        Raises:
            RuntimeError: it is a synchronous client.
        """
        listener = getattr(callback, "__self__", None)
        event = getattr(listener, "_event", None)
        match listener:
            case RegisterReAuthForPubSub():
                pass  # Its connection is of a pool and waits for messages; an AUTH would break it off.
            case RegisterReAuthForPooledConnections() if event is not None:
                if event.client_type is ClientType.SYNC:
                    raise RuntimeError(ASYNCIO_ONLY)
                self._pools.update(event.connection_pools)
            case RegisterReAuthForAsyncClusterNodes() if event is not None:
                self._clusters.add(listener)
            case _:
                _add(self._callbacks, callback)

    def admit_complaint(self, callback: Callable[[Exception], Any]) -> None:
        """Add *callback* to those who want to hear of the end."""
        _add(self._complaints, callback)

    async def tell(self, user: str, token: AccessToken) -> None:
        """Pass on *token*, unless it is the one they have."""
        if self.held is not None and self.held.token == token.token:
            return
        self.held = token
        for pool in list(self._pools):
            await _call(partial(_serve_pool, pool, user), token)
        for node in self._nodes():
            await _call(partial(_serve_node, node, user), token)
        received = SYSTEM_CLOCK.wall()
        news = SimpleToken(token.token, token.expires_on * 1000, received * 1000, {"oid": user})
        for reference in list(self._callbacks):
            await _call(reference(), news)

    def reopen(self) -> None:
        """Have all connections that are in use opened anew when they are given back."""
        for pool in list(self._pools):
            _reopen(pool)
        for node in self._nodes():
            node.update_active_connections_for_reconnect()

    async def complain(self, error: Exception) -> None:
        """Say why no more tokens will come."""
        for reference in list(self._complaints):
            await _call(reference(), error)

    def _nodes(self) -> list[ClusterNode]:
        events: list[Any] = [listener._event for listener in self._clusters]  # noqa: SLF001  (as in `admit`)
        return [node for event in events for node in event.nodes.values()]


def _reopen(pool: ConnectionPool) -> None:
    """Have the connections of *pool* that are in use opened anew when they are given back."""
    connections: set[Any] = pool._in_use_connections  # noqa: SLF001  (its public way is asynchronous)
    for connection in connections:
        connection.mark_for_reconnect()


async def _serve_pool(pool: ConnectionPool, user: str, token: AccessToken) -> None:
    _reopen(pool)
    idle: list[Any] = pool._available_connections  # noqa: SLF001  (there is no public way)
    busy: set[Any] = pool._in_use_connections  # noqa: SLF001
    for connection in [*idle]:
        if _take(idle, connection):
            busy.add(connection)
            pool.max_connections += 1  # No command shall find the pool exhausted because of us.
            try:
                await _authenticate(connection, user, token)
            finally:
                busy.discard(connection)
                pool.max_connections -= 1
                # One that is closed while it is given back is in neither, and the pool is locked until then.
                leaving = pool._lock.locked()  # noqa: SLF001
                if len(idle) + len(busy) + leaving < pool.max_connections:
                    idle.append(connection)
                else:
                    await connection.disconnect(nowait=True)


async def _serve_node(node: ClusterNode, user: str, token: AccessToken) -> None:
    node.update_active_connections_for_reconnect()
    idle: deque[Any] = node._free  # noqa: SLF001  (there is no public way)
    for connection in [*idle]:
        if _take(idle, connection):
            try:
                await _authenticate(connection, user, token)
            finally:
                node.release(connection)


def _take(idle: list[Any] | deque[Any], connection: Any) -> bool:
    """Take *connection* for ourselves if it is idle and open; one that somebody took meanwhile is opened anew later."""
    if connection not in idle:
        connection.mark_for_reconnect()
    elif connection.is_connected and _is_of_this_loop(connection):
        idle.remove(connection)
        return True
    return False


def _is_of_this_loop(connection: Any) -> bool:
    """Whether *connection* is not one that a former event loop has left behind, which nobody can use or close."""
    loop = asyncio.get_running_loop()
    return getattr(connection._reader, "_loop", loop) is loop  # noqa: SLF001  (nor has asyncio a public way)


async def _authenticate(connection: Any, user: str, token: AccessToken) -> None:
    """Send *token* over a connection that nobody else has; if that fails, it is opened anew when it is needed."""
    try:
        async with time_limit(SYSTEM_CLOCK, _ANSWERING_TIME):
            await connection.send_command("AUTH", user, token.token)
            await connection.read_response()
    except Exception as error:  # noqa: BLE001  (whatever it is)
        _log.info("a connection to Redis is opened anew, since its AUTH failed: %s", type(error).__name__)
        await connection.disconnect(nowait=True)


async def _call(callback: Callable[[Any], Any] | None, news: object) -> None:
    """Call *callback* with *news*, whatever it raises; None is one whose object is gone."""
    if callback is None:
        return
    try:
        outcome = callback(news)
        if inspect.isawaitable(outcome):
            await outcome
    except Exception as error:  # noqa: BLE001  (one of them must not keep the others from hearing)
        _log.info("a listener to new tokens for Redis failed: %s", type(error).__name__)


def _add(references: list[Callable[[], Callable[[Any], Any] | None]], callback: Callable[[Any], Any]) -> None:
    """Add a reference to *callback*, a weak one if it is a method, unless there is one; drop those to nobody."""
    references[:] = [reference for reference in references if reference() not in (None, callback)]
    references.append(weakref.WeakMethod(callback) if isinstance(callback, MethodType) else lambda: callback)
