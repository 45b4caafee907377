"""The clients of a server, in a process of their own that has little to do: one request for all, and a look at answers.

It obeys one line of JSON after the other, until there are no more, and says what came of each: all clients connect,
then all of them ask at once, and go on asking for so many seconds; with none, each of them asks once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop
from _support import stay_on_loopback


def main() -> None:
    """Obey until standard input ends."""
    stay_on_loopback()
    for line in sys.stdin:
        print(json.dumps(uvloop.run(_Crowd(**json.loads(line)).ask())), flush=True)


class _Crowd:
    """So many *clients* that all send *request* to *url*; an answer is good if it is a 200 as the first one is."""

    def __init__(self, *, url: str, request: str, clients: int, seconds: float) -> None:
        self.request = request.encode()
        self.body: bytes | None = None
        self.wrong = 0
        self.latencies: list[float] = []
        self._address = str(urlsplit(url).hostname), urlsplit(url).port or 80
        self._clients = clients
        self._seconds = seconds
        self._asking = 0

    async def ask(self) -> dict[str, float]:
        """Let them ask, and return how it went; *share* is what part of its time this process worked."""
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        connected = [await loop.create_connection(lambda: _Client(self), *self._address) for _ in range(self._clients)]
        began, worked = time.perf_counter(), time.process_time()
        self._end = began + self._seconds
        self._asking = self._clients
        for _, client in connected:
            client.ask()
        await self._done
        seconds, work = time.perf_counter() - began, time.process_time() - worked
        for transport, _ in connected:
            transport.abort()
        ordered = sorted(self.latencies)
        p99 = ordered[int(len(ordered) * 0.99)] if ordered else 0.0
        return {
            "answers": len(ordered),
            "wrong": self.wrong,
            "seconds": seconds,
            "p99": p99,
            "share": work / seconds,
        }

    def goes_on(self, now: float) -> bool:
        """Return whether a client that has its answer *now* asks again."""
        if now < self._end:
            return True
        self.leave()
        return False

    def leave(self) -> None:
        """Let one client go."""
        self._asking -= 1
        if not self._asking:
            self._done.set_result(None)


class _Client(asyncio.Protocol):
    """One connection, which is kept."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd
        self._heard = b""
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to ask."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Count an answer that will not come."""
        if self._waits:
            self._crowd.wrong += 1
            self._crowd.leave()

    def ask(self) -> None:
        """Send the request."""
        self._waits = True
        self._began = time.perf_counter()
        self._transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        """Take in a part of an answer, and ask again after the last one."""
        self._heard += data
        head, _, body = self._heard.partition(b"\r\n\r\n")
        _, found, length = head.partition(b"Content-Length: ")
        if not found or len(body) < int(length.partition(b"\r\n")[0]):
            return
        crowd, now = self._crowd, time.perf_counter()
        crowd.latencies.append(now - self._began)
        if crowd.body is None:
            crowd.body = body
        if not head.startswith(b"HTTP/1.1 200") or body != crowd.body:
            crowd.wrong += 1
        self._heard, self._waits = b"", False
        if crowd.goes_on(now):
            self.ask()


if __name__ == "__main__":
    main()
