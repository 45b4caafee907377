"""One contender who measures whenever it is told to, in the process that runs this."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeAlias

from _support import stay_on_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    Measure: TypeAlias = Callable[[], Coroutine[Any, Any, dict[str, float]]]

__all__ = ["measure_on_demand"]


def measure_on_demand(
    opened: AbstractAsyncContextManager[Measure], factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Say that all is *opened*, then measure once for every line, until standard input ends."""
    stay_on_loopback()
    with asyncio.Runner(loop_factory=factory) as runner:
        stack = AsyncExitStack()
        measure = runner.run(stack.enter_async_context(opened))
        print(json.dumps("ready"), flush=True)
        for _ in sys.stdin:
            print(json.dumps(runner.run(measure())), flush=True)
        runner.run(stack.aclose())
