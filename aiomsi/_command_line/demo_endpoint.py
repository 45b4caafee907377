"""The demo's endpoint, in a process of its own so that its record of requests owes nothing to the one that asks.

It prints the environment variables that lead to it; then it obeys one JSON object per line, and answers each with the
number of requests that it has received. It ends when standard input does, so that it is never left behind.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from aiomsi._clock import SYSTEM_CLOCK
from aiomsi.endpoint import Answer, IdentityEndpoint
from aiomsi.endpoint.tokens import fake_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi.endpoint import TokenAsked, TokenGiven

__all__ = ["LIFETIME", "REFRESH_IN"]

LIFETIME = 10.0  # Seconds, instead of the usual 24 hours.
REFRESH_IN = 2.0

_fake_token = fake_tokens(SYSTEM_CLOCK.wall, LIFETIME)


def main() -> None:
    """Serve until standard input ends."""
    # Ctrl-C in a terminal goes to every process there; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve())


async def _serve() -> None:
    async with IdentityEndpoint(_issue, hosts=["app_service"]) as endpoint:
        _say(endpoint.environ("app_service"))
        async for line in anyio.wrap_file(sys.stdin):
            _say({"requests": _obey(endpoint, json.loads(line))})


async def _issue(asked: TokenAsked) -> TokenGiven:
    return replace(await _fake_token(asked), refresh_in=REFRESH_IN)


def _obey(endpoint: IdentityEndpoint, order: Mapping[str, Any]) -> int:
    if "latency" in order:
        endpoint.latency = order["latency"]
    if "failing" in order:
        endpoint.script(then=Answer(503) if order["failing"] else None)
    return len(endpoint.requests)


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201  (the parent reads it)


if __name__ == "__main__":
    main()
