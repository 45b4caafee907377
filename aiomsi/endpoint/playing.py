"""How each step of a script is played on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import TYPE_CHECKING, cast

from aiohttp import web

from .faults import Answer, Drip, Hang, Huge, Reset, Slow, Step, Truncated
from .gate import Gate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

_CHUNK = 65_536


async def play(
    step: Step, request: web.BaseRequest, answer: Callable[[], Awaitable[Answer]], always: Mapping[str, str]
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
    for number, chunk in enumerate(chunks):
        if number:  # After the last one the client may be gone, and all is said.
            await asyncio.sleep(pause)
        await response.write(chunk)
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
