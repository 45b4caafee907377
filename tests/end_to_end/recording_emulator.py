"""The endpoint in a process of its own, which writes down what it is asked and what it gives.

    python recording_emulator.py ROOT

prints one JSON object, the variables that lead to it by host, and then, for each line that it reads, another one: all
requests and all tokens so far. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiomsi.endpoint import IdentityEndpoint
from aiomsi.endpoint.tokens import fake_tokens

if TYPE_CHECKING:
    from aiomsi.endpoint import ReceivedRequest, TokenAsked, TokenGiven

HOSTS = ("app_service", "app_service_2017", "imds", "azure_ml", "azure_arc", "cloud_shell", "service_fabric")
LIFETIME = 18_000.0  # Seconds, which no client assumes by itself.


async def serve(root: Path) -> None:
    """Serve until standard input ends."""
    fake_token, given = fake_tokens(time.time, LIFETIME), []

    async def issue(asked: TokenAsked) -> TokenGiven:
        token = await fake_token(asked)
        given.append({"resource": asked.resource, "token": token.token, "expires_on": token.expires_on})
        return token

    async with IdentityEndpoint(issue, hosts=HOSTS, root=root) as endpoint:
        say({host: endpoint.environ(host) for host in HOSTS})
        while await asyncio.to_thread(sys.stdin.readline):
            say({"requests": [written(request) for request in endpoint.requests], "given": given})


def written(request: ReceivedRequest) -> dict[str, Any]:
    """Return what can be told of *request*."""
    return {
        "host": request.host,
        "method": request.method,
        "resource": request.resource,
        "parameters": dict(request.query + request.form),
    }


def say(value: object) -> None:
    """Print *value* on a line of its own."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
