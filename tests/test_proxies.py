"""The proxy that leads to a public service: which one, and what it gets to see."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import trustme
from pods import Pod, pod
from support import nowhere

from aiomsi import AccessToken, ConfigurationError, EndpointError, SecurityError
from aiomsi.sources import Surroundings, WorkloadIdentity
from aiomsi.sources._proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENTRA = "https://login.microsoftonline.com"
PASSWORD = "hunter2%3A%2F"
BASIC = base64.b64encode(b"user:hunter2:/").decode()


@pytest.fixture
async def shop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Pod]:
    """A pod whose secrets, the proxy's password among them, may not be logged either."""
    caplog.set_level(logging.DEBUG)
    async with pod(tmp_path) as opened:
        opened.secrets += ["hunter2", BASIC]
        yield opened
        assert [secret for secret in opened.secrets if secret in caplog.text] == []


class Proxy:
    """A proxy that remembers what it was asked, and gives *answer*, or else passes everything on to another one."""

    def __init__(self, onward: str, answer: bytes | None) -> None:
        self.onward = onward
        self.answer = answer
        self.port = 0
        self.heads: list[str] = []
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            self.asked.set()
            if self.answer is None:
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.onward).port)
                with contextlib.closing(there_writer):
                    there_writer.write(head)
                    await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
            elif self.answer:
                writer.write(self.answer)
                await writer.drain()
            else:
                await reader.read()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy(shop: Pod, answer: bytes | None = None, context: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Yield a proxy that passes everything on, unless it has an *answer* of its own: an empty one never comes."""
    opened = Proxy(shop.environ["HTTPS_PROXY"], answer)
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(opened.serve(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    opened.port = server.sockets[0].getsockname()[1]
    shop.environ["HTTPS_PROXY"] = f"http://user:{PASSWORD}@127.0.0.1:{opened.port}"
    try:
        yield opened
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


# Which one


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://a:1", "http_proxy": "http://a:1"}, None),
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:1"}, "http://b:1"),
        ({"all_proxy": "http://c:1", "ALL_PROXY": "http://d:1"}, "http://c:1"),
        ({"ALL_PROXY": "http://d:1"}, "http://d:1"),
        ({"HTTPS_PROXY": "http://b:1", "all_proxy": "http://c:1"}, "http://b:1"),
        ({"HTTPS_PROXY": "http://b:1", "ALL_PROXY": "socks5://c:1"}, "http://b:1"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "user:password@proxy.example"}, "http://user:password@proxy.example"),
        ({"HTTPS_PROXY": "https://proxy.example/"}, "https://proxy.example/"),
        ({"HTTPS_PROXY": "HTTP://Proxy_1.Example.:3128"}, "HTTP://Proxy_1.Example.:3128"),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, "http://[::1]:3128"),
        ({"HTTPS_PROXY": "http://user:p%40ss@word@10.0.0.1:8080"}, "http://user:p%40ss@word@10.0.0.1:8080"),
    ],
)
def test_which_proxy(environ: dict[str, str], expected: str | None) -> None:
    """Small letters win over capitals, and the scheme's own variable over the one for all; http's does not count."""
    assert proxy_for(ENTRA, Surroundings(environ=environ)) == expected


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [
        ("", False),
        ("*", True),
        ("login.microsoftonline.com", True),
        ("LOGIN.MicrosoftOnline.com", True),
        ("microsoftonline.com", True),
        (".microsoftonline.com", True),
        ("localhost, 10.0.0.0/8, .microsoftonline.com", True),
        ("login.microsoftonline.com:443", False),
        ("online.com", False),
        ("login", False),
        ("login.microsoftonline.com.evil.example", False),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_who_is_asked_without_a_proxy(exceptions: str, variable: str, *, direct: bool) -> None:
    """A name in the list stands for itself and for all names below it, and a star for every name."""
    environ = {"HTTPS_PROXY": "http://a:1", variable: exceptions}
    assert (proxy_for(ENTRA, Surroundings(environ=environ)) is None) is direct


def test_the_exceptions_may_name_a_port() -> None:
    """Then they are for that port."""
    environ = Surroundings(environ={"HTTPS_PROXY": "http://a:1", "no_proxy": "host.example:8443", "NO_PROXY": "*"})
    assert proxy_for("https://host.example:8443", environ) is None
    assert proxy_for("https://host.example:8444", environ) == "http://a:1"


def test_a_proxy_that_is_not_used_may_be_wrong() -> None:
    """What is asked without a proxy does not care what the variable says."""
    environ = {"HTTPS_PROXY": "socks5://a:1", "NO_PROXY": "*"}
    assert proxy_for(ENTRA, Surroundings(environ=environ)) is None


@pytest.mark.parametrize(
    "text",
    [
        "socks5://user:hunter2@proxy.example:1080",
        "socks5h://user:hunter2@proxy.example",
        "ftp://user:hunter2@proxy.example",
        "http://",
        "http://user:hunter2@",
        "http://user:hunter2@:3128",
        "http://user:hunter2@proxy.example:99999",
        "http://user:hunter2@proxy.example:0",
        "http://user:hunter2@proxy.example:port",
        "http://user:hunter2@proxy.example/path",
        "http://user:hunter2@proxy.example?query",
        "http://user:hunter2@proxy.example#fragment",
        "http://user:hunter2@proxy .example",
        "http://user:hunter2@proxy.example\n",
        "http://user:hunter2@proxy\t.example",
        "http://user:hunter2@[::1",
        "http://user:hunter2@[proxy]:3128",
        f"http://user:hunter2@{'a' * 64}.example:3128",
        "http://user:hunter2@.proxy.example",
        "http://user:hunter2@pr\u00f6xy.example",
        "http://us%3Aer:hunter2@proxy.example",
        "http://user:hunter2%E2%82%AC@proxy.example",
        "http://user:hunter2%FF@proxy.example",
        "http://user:hunter2\u20ac@proxy.example",
        "http://user:hunter2/@proxy.example",
        "http://user:hunter2#@proxy.example",
        "http://user:3128?hunter2@proxy.example",
    ],
)
@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
async def test_a_proxy_that_cannot_be_used(shop: Pod, text: str, variable: str) -> None:
    """It is told which variable is wrong, but not its text, which may hold a password; and nothing is sent past it."""
    del shop.environ["HTTPS_PROXY"]
    shop.environ[variable] = text
    error = await shop.error(ConfigurationError)
    assert str(error).startswith(f"{variable} holds no URL of an http proxy")
    assert shop.requests == []


# What it gets to see


async def test_the_proxy_is_asked_for_a_tunnel(shop: Pod) -> None:
    """Its user's name and password are for the proxy, and what goes to Entra is not for the proxy."""
    async with proxy(shop) as opened:
        await shop.token()
    (head,) = opened.heads
    assert head.startswith("CONNECT login.microsoftonline.com:443 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {BASIC}\r\n" in head
    assert not {"Proxy-Authorization", "Authorization"} & set(shop.requests[0].headers)
    assert not any(secret in head for secret in shop.secrets if secret != BASIC)


async def test_each_attempt_goes_through_the_proxy(shop: Pod) -> None:
    """A retry does not find a way past it."""
    async with proxy(shop, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as opened:
        fetching = shop.asking()
        while await shop.clock.next_alarm(fetching) != 1.0:
            pass
        opened.answer = None
        await shop.clock.advance(1)
        token = await fetching
    assert isinstance(token, AccessToken)
    assert len(opened.heads) == 2


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
async def test_a_proxy_that_refuses(shop: Pod, status: str) -> None:
    """The error says that it was the proxy, and shows nothing of what it was sent."""
    async with proxy(shop, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()):
        error = await shop.error(EndpointError)
    assert f"the proxy on the way refused (HTTP {status[:3]})" in str(error)
    assert shop.requests == []


@pytest.mark.parametrize("answer", [b"220 smtp.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\n\r\nno TLS here"])
async def test_a_proxy_that_makes_no_sense(shop: Pod, answer: bytes) -> None:
    """Whatever else listens there gets no proof, and shows nothing of what it was sent."""
    async with proxy(shop, answer):
        outcome, _ = await shop.fetched()
    assert not isinstance(outcome, AccessToken)
    assert shop.requests == []


async def test_a_proxy_that_nobody_is_behind(shop: Pod) -> None:
    """A proxy that is down is waited for, and then told."""
    with nowhere() as shop.environ["HTTPS_PROXY"]:
        outcome, waits = await shop.fetched()
    assert type(outcome) is EndpointError
    assert waits == [1.0, 2.0, 4.0]


async def test_a_proxy_that_hangs_ends_in_time(shop: Pod) -> None:
    """Silence of the proxy is no longer than that of a host may be."""
    async with proxy(shop, b"") as opened:
        fetching = shop.asking(limit=30.5)
        assert await shop.clock.next_alarm(fetching) == 30.0
        await opened.asked.wait()
        await shop.clock.advance(30)
        with pytest.raises(EndpointError, match="no complete answer in time"):
            await fetching


async def test_a_host_behind_the_proxy_proves_itself_all_the_same(shop: Pod) -> None:
    """Who intercepts the tunnel is found out before the proof is sent, and the error shows nothing of the proxy's."""
    async with proxy(shop):
        await shop.error(
            SecurityError, WorkloadIdentity(authority="login.evil.example", surroundings=shop.surroundings)
        )
    assert shop.requests == []


async def test_a_proxy_over_tls(shop: Pod) -> None:
    """The way to the proxy may be encrypted too, and then the proxy has to prove itself before it gets the password."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with proxy(shop, context=context) as opened:
        shop.environ["HTTPS_PROXY"] = f"https://user:{PASSWORD}@localhost:{opened.port}"
        await shop.error(SecurityError)
        assert opened.heads == []
        both = shop.folder / "both.pem"
        both.write_bytes(shop.internet.authority + authority.cert_pem.bytes())
        shop.environ["SSL_CERT_FILE"] = str(both)
        await shop.token()
        assert f"Basic {BASIC}" in opened.heads[0]


async def test_who_is_excepted_is_asked_directly(shop: Pod) -> None:
    """A private authority that NO_PROXY names is not asked through the proxy."""
    shop.environ["NO_PROXY"] = "localhost"
    authority = f"https://localhost:{shop.internet.port}"
    await shop.token(WorkloadIdentity(authority=authority, surroundings=shop.surroundings))
    assert (len(shop.requests), shop.internet.hosts) == (1, [])


async def test_the_proxy_for_plain_http_is_not_for_https(shop: Pod) -> None:
    """HTTP_PROXY is for http alone, as everywhere else."""
    authority = f"https://localhost:{shop.internet.port}"
    shop.environ["HTTP_PROXY"] = shop.environ["http_proxy"] = shop.environ.pop("HTTPS_PROXY")
    await shop.token(WorkloadIdentity(authority=authority, surroundings=shop.surroundings))
    assert (len(shop.requests), shop.internet.hosts) == (1, [])
