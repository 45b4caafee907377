"""A server that always says the same, in a process of its own: what any identity endpoint is measured by.

    python _constant.py handler|protocol

reads what to say as a line of JSON, prints its URL, and serves until standard input ends. The handler is the one route
of an aiohttp application that logs no access; the protocol does not even read what it is asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, cast

from _support import stay_on_loopback
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Serve until standard input ends."""
    stay_on_loopback()
    body = json.dumps(json.loads(sys.stdin.readline())).encode()
    asyncio.run(_serve_protocol(body) if sys.argv[1] == "protocol" else _serve_handler(body))


async def _serve_handler(body: bytes) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    application = web.Application()
    application.router.add_get("/msi/token", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    await _until_the_end(runner.addresses[0][1])
    await runner.cleanup()


async def _serve_protocol(body: bytes) -> None:
    server = await asyncio.get_running_loop().create_server(_protocol(body), "127.0.0.1", 0, backlog=1024)
    async with server:
        await _until_the_end(server.sockets[0].getsockname()[1])


async def _until_the_end(port: int) -> None:
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _protocol(body: bytes) -> Callable[[], asyncio.BaseProtocol]:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"\r\n\r\n"):
                self._transport.write(answer)

    return Protocol


if __name__ == "__main__":
    main()
