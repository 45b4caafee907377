"""What can go wrong on the way: the steps of `IdentityEndpoint.script`, and how each one is played on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

_JSON = "application/json; charset=utf-8"
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with exactly this, instead of with a token; a dict as *body* is sent as JSON."""

    status: int = 200
    body: bytes | str | Mapping[str, Any] = field(default=b"", repr=False)  # It may hold a token.
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:  # noqa: PLR2004  # The range of final HTTP answers (RFC 9110).
            raise ValueError(f"status must be 200 to 599, not {self.status!r}")

    @property
    def content(self) -> bytes:
        """The body as it goes over the wire."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True, slots=True)
class Slow:
    """Answer normally, *seconds* later."""

    seconds: float

    def __post_init__(self) -> None:
        at_least_zero("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Hang:
    """Take the request and never answer."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Take the request, then reset the connection (TCP RST) without an answer.

    An aiohttp client session asks again once by itself after that, as HTTP allows for GET, and uses up another step.
    """


@dataclass(frozen=True, slots=True)
class Truncated:
    """Answer normally with the full Content-Length, but close the connection after half of the body."""


@dataclass(frozen=True, slots=True)
class Drip:
    """Answer normally, but one byte of the body every so many *seconds*."""

    seconds: float

    def __post_init__(self) -> None:
        at_least_zero("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Huge:
    """Answer with *size* bytes of JSON, chunked, so that no Content-Length warns of them."""

    size: int

    def __post_init__(self) -> None:
        at_least_zero("size", self.size)


class Gate:
    """Hold every request that comes to it until the test opens it; then answer them normally.

    Opening it lets through those who wait, and the gate holds again whoever comes next: one gate may be several steps
    of a script, or its `then`. It belongs to the event loop of the endpoint.

        gate = Gate()
        endpoint.script(gate)
        caller = asyncio.create_task(provider.token(resource))
        await gate.reached()
        ...  # The request is in the air now, for as long as you like.
        gate.open()
    """

    __slots__ = ("_arrival", "_held")

    def __init__(self) -> None:
        self._arrival = asyncio.Event()
        self._held: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<Gate held={self.held}>"

    @property
    def held(self) -> int:
        """How many requests wait at the gate now."""
        return len(self._held)

    async def reached(self, count: int = 1) -> None:
        """Wait until at least *count* requests are held at the same time."""
        while self.held < count:
            self._arrival.clear()
            await self._arrival.wait()

    def open(self) -> None:
        """Let through all requests that are held now."""
        held, self._held = self._held, set()
        for place in held:
            if not place.done():  # Its client may have hung up a moment ago.
                place.set_result(None)

    async def hold(self) -> None:
        """Wait in front of the gate: the endpoint does, on behalf of a request."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.add(place)
        self._arrival.set()
        try:
            await place
        finally:
            self._held.discard(place)


Step: TypeAlias = Answer | Slow | Hang | Reset | Truncated | Drip | Huge | Gate


def at_least_zero(name: str, value: float) -> None:
    """Raise ValueError unless *value* is a number that is not negative."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be at least 0, not {value!r}")


async def play(
    step: Step | None, request: web.BaseRequest, answer: Callable[[], Awaitable[Answer]], always: Mapping[str, str]
) -> web.StreamResponse:
    """Answer *request* as *step* wants it; *answer* makes the normal answer, *always* are its host's headers."""
    match step:
        case Hang():
            return await _never()
        case Reset():
            _reset(request)
            return await _never()
        case Huge():
            return await _stream(request, web.StreamResponse(headers=_headers(Answer(), always)), _bulk(step.size), 0)
        case Gate():
            await step.hold()
        case Slow():
            await asyncio.sleep(step.seconds)
    reply = step if isinstance(step, Answer) else await answer()
    if isinstance(step, Truncated):
        return await _cut(request, reply, always)
    if isinstance(step, Drip):
        drops = (bytes([byte]) for byte in reply.content)
        return await _stream(request, _announced(reply, always), drops, step.seconds)
    return respond(reply, always)


def respond(reply: Answer, always: Mapping[str, str]) -> web.Response:
    """Return *reply* as a response that also carries *always*, unless it has headers of the same names."""
    return web.Response(status=reply.status, body=reply.content, headers=_headers(reply, always))


def _headers(reply: Answer, always: Mapping[str, str]) -> dict[str, str]:
    lines = (*always.items(), ("Content-Type", reply.content_type), *reply.headers.items())
    return {name.title(): value for name, value in lines}


def _announced(reply: Answer, always: Mapping[str, str]) -> web.StreamResponse:
    """Return a response that promises the whole body of *reply* and has sent nothing of it."""
    response = web.StreamResponse(status=reply.status, headers=_headers(reply, always))
    response.content_length = len(reply.content)
    return response


async def _cut(request: web.BaseRequest, reply: Answer, always: Mapping[str, str]) -> web.StreamResponse:
    half = reply.content[: len(reply.content) // 2]
    response = await _stream(request, _announced(reply, always), iter([half]), 0)
    request.protocol.force_close()
    return response


async def _stream(
    request: web.BaseRequest, response: web.StreamResponse, chunks: Iterator[bytes], pause: float
) -> web.StreamResponse:
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
        await asyncio.sleep(pause)
    return response


def _bulk(size: int) -> Iterator[bytes]:
    head, tail = b'{"access_token":"', b'"}'
    filling = max(0, size - len(head) - len(tail))
    yield head[:size]
    for start in range(0, filling, _CHUNK):
        yield b"A" * min(_CHUNK, filling - start)
    yield tail[: max(0, size - len(head))]


def _reset(request: web.BaseRequest) -> None:
    # There is a transport for as long as the handler runs: losing it cancels the handler.
    transport = cast("asyncio.Transport", request.transport)
    # With a linger time of zero, closing a socket sends RST instead of FIN.
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


async def _never() -> web.StreamResponse:
    """Wait until the client hangs up or the endpoint closes: both cancel the handler."""
    forever: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await forever
