"""One first token, got in a process of its own by the library and class that are named, and how long it took.

The time has two parts: the imports of this library, and then all that leads to the token, from making the object on a
running event loop to the token in hand. What both libraries build on and the interpreter itself are not in it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from _support import IMDS, imds_is_lost, stay_on_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    Call: TypeAlias = Callable[[], Coroutine[Any, Any, str]]
    Opening: TypeAlias = Callable[[], AbstractAsyncContextManager[Call]]

_RESOURCE = "https://vault.azure.net"


def main() -> None:
    """Get the token, and print it with the times and with how often IMDS was called."""
    library, name, root, imds_url = sys.argv[1:]
    if not imds_is_lost() and (library == "azure" or IMDS in imds_url):
        sys.exit(f"what is sent to {IMDS} from here may reach somebody, so nothing is")
    stay_on_loopback()
    calls = _Calls(imds_url)
    sys.addaudithook(calls.hear)
    began = time.perf_counter()
    opening = _aiomsi(name, Path(root), imds_url) if library == "aiomsi" else _azure(name)
    imported = time.perf_counter()
    token, seconds = asyncio.run(_first_token(opening))
    print(json.dumps({"token": token, "seconds": seconds, "imports": imported - began, "imds": calls.count}))


class _Calls:
    """Counts the connections that are tried to the host of *url*, as nobody else does who is never reached."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port or 80
        self.count = 0

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what the interpreter is about to do."""
        if event == "socket.connect" and arguments[1][:2] == self._address:
            self.count += 1


def _aiomsi(name: str, root: Path, imds_url: str) -> Opening:
    provider_type = import_module("aiomsi").TokenProvider
    sources = import_module("aiomsi.sources")
    make_source, surroundings_type = getattr(sources, name), sources.Surroundings

    @asynccontextmanager
    async def opened() -> AsyncIterator[Call]:
        source = make_source(surroundings=surroundings_type(root=root, imds_url=imds_url))
        async with provider_type(source) as provider:
            yield partial(provider.token, _RESOURCE)

    return opened


def _azure(name: str) -> Opening:
    credential_type = getattr(import_module("azure.identity.aio"), name)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Call]:
        async with credential_type() as credential:

            async def token() -> str:
                given: str = (await credential.get_token(f"{_RESOURCE}/.default")).token
                return given

            yield token

    return opened


async def _first_token(opening: Opening) -> tuple[str, float]:
    began = time.perf_counter()
    async with opening() as call:
        token = await call()
        return token, time.perf_counter() - began


if __name__ == "__main__":
    main()
