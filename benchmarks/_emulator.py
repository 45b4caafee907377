"""The identity endpoint in a process of its own, so that it takes no time from the event loop that is measured.

It prints the environment variables that lead to it, then obeys one line of JSON after the other, until there are no
more.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from _support import stay_on_loopback

from aiomsi.endpoint import Answer, IdentityEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = 86_400


def main() -> None:
    """Serve until standard input ends."""
    stay_on_loopback()
    asyncio.run(_serve())


async def _serve() -> None:
    async with IdentityEndpoint() as endpoint:
        _say(endpoint.environ("app_service"))
        while line := await asyncio.to_thread(sys.stdin.readline):
            order, value = json.loads(line)
            _say(_obey(endpoint, order, value))


def _obey(endpoint: IdentityEndpoint, order: str, value: Any) -> object:
    match order:
        case "latency":
            endpoint.latency = value
        case "fail":
            endpoint.script(then=Answer(500) if value else None)
        case "tokens":
            endpoint.script(*_tokens(**value))
        case "count":
            counted = Counter(request.resource for request in endpoint.requests)
            endpoint.requests.clear()
            endpoint.token_requests.clear()
            return counted
        case _:
            raise ValueError(f"unknown order {order!r}")
    return None


def _tokens(resource: str, refresh_in: list[int]) -> Iterator[Answer]:
    # Not by an issuer: as hosts do, the endpoint writes refresh_in as a text, on which azure-identity raises TypeError.
    expires_on = int(time.time()) + _DAY
    for number, seconds in enumerate(refresh_in):
        body = {"access_token": f"token-{number}", "token_type": "Bearer", "resource": resource}
        yield Answer(body=body | {"expires_on": str(expires_on), "refresh_in": seconds})


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
