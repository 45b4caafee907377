"""The only module with a socket: one request at a time, to nobody but the host it is meant for."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from aiomsi._clock import time_limit
from aiomsi._errors import AiomsiError, EndpointError, MalformedResponseError, SecurityError, without_frames
from aiomsi.sources._messages import Answer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aiomsi._clock import Clock
    from aiomsi.sources._messages import Request

__all__ = ["Line", "Peer", "connect"]

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


@dataclass(frozen=True, slots=True)
class Peer:
    """How to reach a host, and how to know it: by default next door, by its name and the system's authorities."""

    trust: ssl.SSLContext | aiohttp.Fingerprint | None = None
    server_name: str | None = None
    """The name that it shows in its certificate, if not the one in the URL."""
    proxy: str | None = field(default=None, repr=False)
    """The URL of the proxy on the way to it, which may hold a password."""
    remedy: str = "name its authority with SSL_CERT_FILE"
    """What to do if its certificate is not trusted."""
    connect_limit: float | None = 2.0
    """Seconds for the connection; a local host is on this machine or one hop away."""


@dataclass(frozen=True, slots=True)
class Line:
    """What the requests of one flight to one host share."""

    session: aiohttp.ClientSession
    peer: Peer
    source: str
    clock: Clock

    async def send(
        self,
        request: Request,
        limit: float,
        *,
        deadline: float = math.inf,
        beats: int = 1,
        largest: int = _LARGEST_BODY,
    ) -> Answer:
        """Send *request*, and return the whole answer if it is complete in time.

        That is within *limit* seconds (in *beats*), and by *deadline* (in monotonic seconds). *largest* is
        how many bytes its body may have.

        Raises:
            EndpointError: no answer came, or none that is complete.
            MalformedResponseError: the answer is too long, or no HTTP.
            SecurityError: the host is not the one that it should be, or its name leads across a public network.
        """
        url = yarl.URL(request.url, encoded=True)
        where = f"{url.scheme}://{url.host}:{url.port}"
        try:
            async with time_limit(self.clock, min(limit, deadline - self.clock.monotonic()), beats=beats):
                answer = await self._exchange(request, url, largest)
        except _FAILURES as error:
            kind, what = next(meaning for cause, meaning in _MEANINGS.items() if isinstance(error, cause))
            said = what.format(remedy=self.peer.remedy, status=getattr(error, "status", ""))
            raise kind(f"{where} {said}", source=self.source) from _cause(error)
        if answer is None:
            raise MalformedResponseError(
                f"{where} sent an answer of more than {largest} bytes, where a token has a few thousand",
                source=self.source,
            )
        return answer

    async def _exchange(self, request: Request, url: yarl.URL, largest: int) -> Answer | None:
        """Return the answer, or None if it is too long; not raised here, where local variables may hold a token."""
        async with self.session.request(
            request.method,
            url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            proxy=self.peer.proxy,
            ssl=self.peer.trust or True,
            server_hostname=self.peer.server_name,
        ) as response:
            body = b""
            while len(body) <= largest and (more := await response.content.read(largest)):
                body += more
            if len(body) > largest:
                return None
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, body)


@asynccontextmanager
async def connect(url: str, *, source: str, clock: Clock, peer: Peer = Peer()) -> AsyncIterator[Line]:
    """Open a line to the host of *url*, and close it at the end. Nothing is sent yet.

    Raises:
        SecurityError: *url* is plain http and leads across a public network; a name is checked when it is resolved.
    """
    connector = aiohttp.TCPConnector(resolver=_resolver(url, source), use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=peer.connect_limit),
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "aiomsi"},
        auto_decompress=False,
        trust_env=False,  # A proxy from the environment would see the secret.
    ) as opened:
        yield Line(opened, peer, source, clock)


_Meaning = tuple[type[AiomsiError], str]
_MEANINGS: dict[type[Exception], _Meaning] = {
    TimeoutError: (EndpointError, "gave no complete answer in time"),
    aiohttp.ServerFingerprintMismatch: (
        SecurityError,
        "showed another certificate than the one that the platform has named; nothing was sent to it",
    ),
    aiohttp.ClientConnectorCertificateError: (
        SecurityError,
        "showed a certificate that is not trusted, so nothing was sent; {remedy}",
    ),
    aiohttp.ClientHttpProxyError: (
        EndpointError,
        "could not be reached, since the proxy on the way refused (HTTP {status})",
    ),
    aiohttp.ClientConnectorError: (EndpointError, "refused the connection or could not be reached"),
    aiohttp.ClientResponseError: (MalformedResponseError, "answered with something that is not HTTP"),
    aiohttp.ClientError: (EndpointError, "broke the connection off"),
    OSError: (EndpointError, "broke the connection off"),
}
_FAILURES = tuple(_MEANINGS)


def _cause(error: Exception) -> BaseException | None:
    """Return what may be shown of *error*, without frames: some keep the headers, or the password of the proxy."""
    if isinstance(error, aiohttp.ClientResponseError):
        return None
    cause = error.__cause__ if isinstance(error, aiohttp.ClientConnectorError) else error
    return None if cause is None else without_frames(cause)


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
