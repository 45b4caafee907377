"""The demo's way to its endpoint: starts the process, and talks with it in lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from aiomsi import AiomsiError
from aiomsi.sources import Surroundings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from anyio.abc import AnyByteReceiveStream, AnyByteSendStream, Process

__all__ = ["EndpointProcess", "endpoint_process"]

_MODULE = "aiomsi._command_line.demo_endpoint"
_LONGEST_LINE = 4096
_GRACE = 2.0  # Seconds for it to end by itself.


class EndpointProcess:
    """An identity endpoint in another process; *environ* leads to it."""

    def __init__(self, orders: AnyByteSendStream, answers: AnyByteReceiveStream) -> None:
        self.environ: Mapping[str, str] = {}
        self._orders = orders
        self._answers = BufferedByteReceiveStream(answers)

    async def greet(self) -> None:
        """Wait until it listens."""
        self.environ = await self._answer()

    async def requests(self) -> int:
        """Return how many requests it has received, by its own record."""
        return await self._order({})

    async def serve(self, *, latency: float, failing: bool = False) -> int:
        """Make it answer after *latency* seconds, with HTTP 503 if *failing*; return `requests()` of that moment."""
        return await self._order({"latency": latency, "failing": failing})

    async def _order(self, order: Mapping[str, object]) -> int:
        with suppress(OSError, anyio.BrokenResourceError):  # If it is gone, there will be no answer either.
            await self._orders.send(json.dumps(order).encode() + b"\n")
        return int((await self._answer())["requests"])

    async def _answer(self) -> Any:
        try:
            return json.loads(await self._answers.receive_until(b"\n", _LONGEST_LINE))
        except (anyio.IncompleteRead, anyio.EndOfStream):
            raise AiomsiError("the demo's endpoint has ended before its time") from None


@asynccontextmanager
async def endpoint_process(module: str = _MODULE) -> AsyncIterator[EndpointProcess]:
    """Run an endpoint in a process of its own, which ends with the block.

    Raises:
        AiomsiError: it ended by itself.
    """
    process = await _open(module)
    try:
        # Pipes, since nothing else was asked for.
        endpoint = EndpointProcess(
            cast("AnyByteSendStream", process.stdin), cast("AnyByteReceiveStream", process.stdout)
        )
        await endpoint.greet()
        yield endpoint
    finally:
        with anyio.move_on_after(_GRACE, shield=True):
            await process.aclose()  # Closes its standard input, and kills it if that does not help in time.


async def _open(module: str) -> Process:
    # It finds the modules that we find, rather than whatever lies in the working folder.
    environ = {**Surroundings().environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Out of the terminal's process group, since Ctrl-C is for its parent.
    return await anyio.open_process(
        [sys.executable, "-P", "-m", module], env=environ, stderr=None, start_new_session=True
    )
