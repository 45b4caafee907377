"""What several test modules share."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any

import trustme
from aiohttp import web

from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

__all__ = ["Internet", "PacedClock", "internet", "leading_nowhere", "nowhere"]


class PacedClock(ManualClock):
    """A manual clock that moves over each wait of a source that talks to the outside world between its waits."""

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        super().__init__(now)
        self._alarms: asyncio.Queue[float] = asyncio.Queue()
        self._waits: asyncio.Queue[float] = asyncio.Queue()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Any:
        self._alarms.put_nowait(delay)
        # What ends a wait is the setting of an event; what ends an attempt is something else.
        if isinstance(getattr(callback, "__self__", None), asyncio.Event):
            self._waits.put_nowait(delay)
        return super().call_later(delay, callback)

    async def next_alarm(self, task: asyncio.Task[Any]) -> float | None:
        """Return the delay of the next timer that is set, or None if *task* ends first."""
        return await _first(self._alarms, task)

    async def pace(self, task: asyncio.Task[Any]) -> list[float]:
        """Let *task* go on to its end, and return how long it waited between its attempts, in seconds."""
        waits: list[float] = []
        while (wait := await _first(self._waits, task)) is not None:
            waits.append(wait)
            await self.advance(wait)
        return waits


@contextmanager
def nowhere() -> Iterator[str]:
    """Yield a URL on loopback where nobody listens, nor can begin to meanwhile."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def leading_nowhere(url: str) -> dict[str, str]:
    """Return the variables that send a program to *url*, rather than off this machine or to the address of IMDS."""
    return {
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": url,
        "HTTP_PROXY": url,
        "HTTPS_PROXY": url,
        "NO_PROXY": "127.0.0.1,localhost",
    }


async def _first(alarms: asyncio.Queue[float], task: asyncio.Task[Any]) -> float | None:
    alarm = asyncio.ensure_future(alarms.get())
    await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
    if alarm.done():
        return alarm.result()
    alarm.cancel()
    return None


class Internet:
    """The public internet as a test sees it: a proxy on loopback that leads every name to one TLS server.

    *answer* makes the server's answer to a request; *requests* and *forms* are what it was asked, *hosts* the hosts and
    ports that the proxy was asked for. *environ* is what a source needs to find its way here and to trust it; *port*
    is where the server is for those that use no proxy, *sha1* the digest of its certificate.
    """

    environ: dict[str, str]
    authority: bytes
    sha1: str
    port: int

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answer = answer
        self.requests: list[web.Request] = []
        self.forms: list[dict[str, str]] = []
        self.hosts: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        return await self.answer(request)

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer CONNECT with a tunnel to the server, wherever it was meant to go."""
        _, host, _ = (await reader.readuntil(b"\r\n\r\n")).split(maxsplit=2)
        self.hosts.append(host.decode())
        there = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def internet(
    folder: Path, answer: Callable[[web.Request], Awaitable[web.StreamResponse]], *names: str
) -> AsyncIterator[Internet]:
    """Yield an internet whose server has a certificate for *names* and localhost, from an authority in *folder*."""
    found = Internet(answer)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", *names)
    found.authority = authority.cert_pem.bytes()
    (folder / "authority.pem").write_bytes(found.authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    found.sha1 = hashlib.sha1(ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())).hexdigest()  # noqa: S324
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    found.port = runner.addresses[0][1]
    tunnels: set[asyncio.Task[None]] = set()

    def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.add(asyncio.ensure_future(found.lead(reader, writer)))

    proxy = await asyncio.start_server(lead, "127.0.0.1", 0)
    found.environ = {
        "HTTPS_PROXY": f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}",
        "SSL_CERT_FILE": str(folder / "authority.pem"),
    }
    try:
        yield found
    finally:
        proxy.close()
        await runner.cleanup()
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)
