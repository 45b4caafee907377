"""The sockets of an endpoint: one for plain HTTP, and one for TLS where a host wants it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path

# How long, in seconds, an issuer that swallows its cancellation may hold up the closing.
_GRACE = 0.5

# Seconds for which a connection is kept without any request, so that nobody can hold thousands for nothing.
_IDLE_LIMIT = 120.0

_LOCALHOST = ("127.0.0.1", "::1")


class Sockets:
    """Listen on *address*, or on the Unix socket *path*, and hand every request to whoever opened them.

    A port of 0 is a free one, found when they are opened first, and the same ever after. Raises ValueError for an
    address that is none, or not loopback where *beyond_loopback* is not said, and for what is no port.
    """

    def __init__(
        self, address: str, port: int, tls_port: int, *, path: Path | None = None, beyond_loopback: bool = False
    ) -> None:
        self.address = _address(address, beyond_loopback=beyond_loopback)
        local = path is not None or ipaddress.ip_address(address).is_loopback
        self.names = frozenset({self._bracketed, "localhost"} if local else {self._bracketed})
        """What a Host header calls it, without a port."""
        self._port, self._tls_port = _port("port", port), _port("tls_port", tls_port)
        if path is not None and not hasattr(socket, "AF_UNIX"):
            raise ValueError("unix_socket must be None on this platform, which has none")
        self._path = path
        self._inode: tuple[int, int] | None = None
        self._listeners: list[asyncio.Server] = []
        self._server: web.Server | None = None

    @property
    def url(self) -> str | None:
        """Where plain HTTP is, or None until there is a port; at a Unix socket any name will do."""
        if self._path is not None:
            return "http://localhost"
        return f"http://{self._bracketed}:{self._port}" if self._port else None

    @property
    def tls_url(self) -> str | None:
        """Where TLS is, or None until there is a port."""
        name = "localhost" if self.address in _LOCALHOST else self._bracketed
        return f"https://{name}:{self._tls_port}" if self._tls_port else None

    @property
    def are_open(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    async def open(
        self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], context: ssl.SSLContext | None
    ) -> None:
        """Have *handle* answer the requests, and those over TLS too if there is a *context*.

        Raises OSError where a port is taken.
        """

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if self._server is not server:  # A TLS handshake can outlast the closing.
                request.protocol.force_close()
                return web.Response()
            return await handle(request)

        # aiohttp logs the offending line of a malformed request, and that may hold the secret.
        mute = logging.Logger("aiomsi.endpoint", logging.CRITICAL + 1)  # noqa: LOG001  # Nobody can switch it on.
        self._server = server = web.Server(
            answer, handler_cancellation=True, keepalive_timeout=_IDLE_LIMIT, access_log=None, logger=mute
        )
        try:
            if self._path is not None:
                await self._listen_at(self._path, server)
            else:
                self._port = await self._listen(server, self._port, None)
            if context is not None:
                self._tls_port = await self._listen(server, self._tls_port, context)
        except BaseException:
            await self.close()
            raise

    async def close(self, grace: float = 0.0) -> None:
        """Stop listening, give requests under way *grace* seconds to be answered, and cut what is left.

        Closing twice does no harm.
        """
        listeners, self._listeners = self._listeners, []
        server, self._server = self._server, None
        inode, self._inode = self._inode, None
        try:
            if self._path is not None and inode is not None:
                await asyncio.to_thread(_remove, self._path, inode)
        finally:  # However impatient the caller is.
            for listener in listeners:
                listener.close()
            if server is not None:
                await _hang_up(server, grace)

    @property
    def _bracketed(self) -> str:
        return f"[{self.address}]" if ":" in self.address else self.address

    async def _listen(self, server: web.Server, port: int, context: ssl.SSLContext | None) -> int:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server, self.address, port, backlog=1024, ssl=context)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def _listen_at(self, path: Path, server: web.Server) -> None:
        opened, self._inode = await asyncio.to_thread(_bound, path)
        self._listeners.append(await asyncio.get_running_loop().create_unix_server(server, sock=opened))


async def _hang_up(server: web.Server, grace: float) -> None:
    """Give the requests under way *grace* seconds to be answered, and cut what is left."""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                server.pre_shutdown()  # Hangs up on those who ask nothing at the moment.
                await server.shutdown(grace)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await _cut_all(server)


async def _cut_all(server: web.Server) -> None:
    """Abort the connections of *server*, which cancels their handlers, and wait until the handlers are gone."""
    await asyncio.sleep(0)  # A connection that was accepted this moment reaches the server one turn later.
    while connections := server.connections:
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)


def _bound(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """Return a socket at *path* for its owner only, in place of one at which nobody listens any more, and its inode."""
    with contextlib.suppress(FileNotFoundError):
        _clear(path)
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.bind(str(path))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)  # Nobody can connect before that: it does not listen yet.
        status = path.lstat()
    except BaseException:
        opened.close()
        raise
    return opened, (status.st_dev, status.st_ino)


def _remove(path: Path, inode: tuple[int, int]) -> None:
    """Remove *path* if it is still ours, and not somebody else's by now."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == inode:
            path.unlink()


def _clear(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "there is a file already, which is no socket", str(path))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))


def _address(host: str, *, beyond_loopback: bool) -> str:
    # Real tokens may pass here in plain http, so nobody else's machine gets to ask, unless somebody wanted it so.
    try:
        if ipaddress.ip_address(host).is_loopback or beyond_loopback:
            return host
    except ValueError:
        pass
    wanted = "an IP address" if beyond_loopback else "a loopback address such as 127.0.0.1"
    raise ValueError(f"host must be {wanted}, not {host!r}")


def _port(name: str, port: int) -> int:
    if not 0 <= port <= 65_535:  # noqa: PLR2004  # TCP has no others.
        raise ValueError(f"{name} must be 0 to 65535, not {port!r}")
    return port
