"""One contender in a process of its own, so that nobody pays for what another one does, or left behind.

It says that it is ready, then obeys one line of JSON after the other, until there are no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from _calls import load
from _contenders import aiomsi_token, bearer_token_provider, get_token, parked, shielded
from _memory import forget_peak, peak_memory
from _rivals import AIOMSI, BEARER, CONTROL, FLOOR, GET_TOKEN, THREADS
from _support import stay_on_loopback, without_collector
from _waiting import all_at_once, cancel, thin, weigh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from _contenders import Contender

_T = TypeVar("_T")

_CONTENDERS: Mapping[str, Contender] = {
    AIOMSI: aiomsi_token,
    CONTROL: shielded,
    FLOOR: parked,
    BEARER: bearer_token_provider,
    GET_TOKEN: get_token,
}

# azure-core puts a refresh off by up to a minute, which is beyond the end of any run here, but changes nothing else.
_JITTER = "azure.core.pipeline.policies._authentication_async.MAX_REFRESH_JITTER_SECONDS"


def main() -> None:
    """Obey until standard input ends."""
    stay_on_loopback()
    for name in ("aiomsi", "azure", "urllib3"):
        logging.getLogger(name).addHandler(logging.NullHandler())  # Failures here are staged, and counted.
        logging.getLogger(name).propagate = False
    name = sys.argv[1]
    subject = None if name == THREADS else _Coroutines(_CONTENDERS[name])
    with asyncio.Runner() as runner, _without_jitter(name):
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            order, details = json.loads(line)
            print(json.dumps(_obey(subject, runner, order, details)), flush=True)


def _without_jitter(name: str) -> AbstractContextManager[object]:
    return patch(_JITTER, 0) if name in {BEARER, GET_TOKEN} else nullcontext()


def _obey(subject: _Coroutines | None, runner: asyncio.Runner, order: str, details: dict[str, Any]) -> object:
    match order:
        case "race":
            forget_peak()
            return _race(subject, runner, details) | {"peak": peak_memory()}
        case "thin" if subject is not None:
            forget_peak()
            return runner.run(subject.crowd(thin, **details)) | {"peak": peak_memory()}
        case "cancel" if subject is not None:
            return runner.run(subject.crowd(cancel, **details))
        case "weigh" if subject is not None:
            return runner.run(subject.crowd(weigh, **details))
        case "hold" | "load" | "drop" if subject is not None:
            return runner.run(getattr(subject, order)(**details))
        case _:
            raise ValueError(f"unknown order {order!r}")


def _race(subject: _Coroutines | None, runner: asyncio.Runner, details: dict[str, Any]) -> dict[str, float]:
    if subject is not None:
        return runner.run(subject.race(**details))
    from _threads import race  # noqa: PLC0415  (nobody's process holds what is another's)

    return race(**details)


class _Coroutines:
    """A contender of this event loop."""

    def __init__(self, contender: Contender) -> None:
        self.environ = dict(os.environ)
        self._contender = contender
        self._opened = AsyncExitStack()

    async def race(self, callers: int, resources: Sequence[str]) -> dict[str, float]:
        """Let all of them ask at once, for the first time, and return when the last one had a token."""
        async with self._contender(self, resources) as calls:
            with without_collector():
                began, worked = time.perf_counter(), time.process_time()
                tasks = all_at_once(calls, callers)
                for task in tasks:
                    await task
                return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}

    async def crowd(self, happening: Callable[..., Awaitable[_T]], **details: Any) -> _T:
        """Start anew, and let something happen to callers who wait."""
        async with self._contender(self, ["https://resource.example"]) as calls:
            return await happening(calls, **details)

    async def hold(self, resource: str) -> None:
        """Start anew, and get a first token."""
        (self._call,) = await self._opened.enter_async_context(self._contender(self, [resource]))
        await self._call()

    async def load(self, rate: int, seconds: float) -> dict[str, Any]:
        """Call at that pace, and return what came of it."""
        return (await load(self._call, rate, seconds)).summary()

    async def drop(self) -> None:
        """Let go of all that is held."""
        await self._opened.aclose()


if __name__ == "__main__":
    main()
