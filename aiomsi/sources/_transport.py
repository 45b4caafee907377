"""The only module with a socket: one request at a time, to nobody but the host it is meant for."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from aiomsi._clock import time_limit
from aiomsi._errors import EndpointError, MalformedResponseError, SecurityError, without_frames
from aiomsi.sources._messages import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiomsi._clock import Clock
    from aiomsi.sources._messages import Request

__all__ = ["send", "session"]

_CONNECT_LIMIT = 2.0  # Seconds; the hosts are on this machine or one hop away.
_LARGEST_BODY = 64 * 1024
# Loopback, link-local and private networks, spelt out: what Python calls private differs from version to version.
_NEARBY = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8",
            "169.254.0.0/16",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fe80::/10",
            "fc00::/7",
        ),
    )
)


@asynccontextmanager
async def session(url: str, source: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Open what the requests of one flight to *url* share, and close it with the flight.

    Raises:
        SecurityError: *url* is plain http and leads across a public network; a name is checked when it is resolved.
    """
    connector = aiohttp.TCPConnector(resolver=_resolver(url, source), use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT),
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "aiomsi"},
        auto_decompress=False,
        trust_env=False,  # A proxy from the environment would see the secret.
    ) as opened:
        yield opened


async def send(opened: aiohttp.ClientSession, request: Request, *, source: str, clock: Clock, limit: float) -> Answer:
    """Send *request*, and return the whole answer if it is complete within *limit* seconds.

    Raises:
        EndpointError: no answer came, or none that is complete.
        MalformedResponseError: the answer is too long, or no HTTP.
        SecurityError: the host's name leads across a public network.
    """
    url = yarl.URL(request.url, encoded=True)
    where = f"{url.scheme}://{url.host}:{url.port}"
    try:
        async with time_limit(clock, limit):
            answer = await _exchange(opened, request, url)
    except _FAILURES as error:
        kind, what = next(meaning for cause, meaning in _MEANINGS.items() if isinstance(error, cause))
        # Without its frames: they hold the headers that were being sent.
        raise kind(f"{where} {what}", source=source) from without_frames(error)
    if answer is None:
        raise MalformedResponseError(
            f"{where} sent an answer of more than {_LARGEST_BODY} bytes, where a token has a few thousand",
            source=source,
        )
    return answer


async def _exchange(opened: aiohttp.ClientSession, request: Request, url: yarl.URL) -> Answer | None:
    """Return the answer, or None if it is too long; not raised here, where local variables may hold a token."""
    async with opened.request(request.method, url, headers=request.headers, allow_redirects=False) as response:
        body = await response.content.read(_LARGEST_BODY + 1)
        while len(body) <= _LARGEST_BODY and (more := await response.content.read(_LARGEST_BODY)):
            body += more
        if len(body) > _LARGEST_BODY:
            return None
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, body)


_MEANINGS: dict[type[Exception], tuple[type[EndpointError | MalformedResponseError], str]] = {
    TimeoutError: (EndpointError, "gave no complete answer in time"),
    aiohttp.ClientConnectorError: (EndpointError, "refused the connection or could not be reached"),
    aiohttp.ClientResponseError: (MalformedResponseError, "answered with something that is not HTTP"),
    aiohttp.ClientError: (EndpointError, "broke the connection off"),
    OSError: (EndpointError, "broke the connection off"),
}
_FAILURES = tuple(_MEANINGS)


def _resolver(url: str, source: str) -> AbstractResolver | None:
    parts = urlsplit(url)
    if parts.scheme != "http":
        return None
    with contextlib.suppress(ValueError):  # A name, to be checked when it is resolved.
        _check_near(ipaddress.ip_address(parts.hostname or ""), url, source)
    return _NearbyResolver(source)


class _NearbyResolver(AbstractResolver):
    """Resolves names to addresses that are near enough for plain http; the connection is then made to exactly those."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            _check_near(ipaddress.ip_address(result["host"]), host, self._source)
        return found

    async def close(self) -> None:
        """Close nothing: resolving holds nothing open."""


def _check_near(address: ipaddress.IPv4Address | ipaddress.IPv6Address, where: str, source: str) -> None:
    address = getattr(address, "ipv4_mapped", None) or address
    if not any(address in network for network in _NEARBY):
        raise SecurityError(
            f"{where} leads to the public address {address}, where a token must not be asked for over plain http; use"
            " https, or correct the variable that names it",
            source=source,
        )
