"""Who is turned away from an endpoint that gives out real tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from aiomsi.endpoint import Guard, IdentityEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VAULT = "https://vault.azure.net"


@pytest.fixture
async def endpoint() -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint(guard=Guard(["Host.Docker.Internal"])) as opened:
        yield opened


async def ask(endpoint: IdentityEndpoint, host: str = "app_service", **headers: str) -> int:
    """Ask properly but for *headers*, with _ for -, and return the status."""
    path, shown = {
        "app_service": (f"/msi/token?api-version=2019-08-01&resource={VAULT}", {"X-IDENTITY-HEADER": endpoint.secret}),
        "imds": (f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT}", {"Metadata": "true"}),
    }[host]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(endpoint.url + path, headers=shown | named) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("host", ["app_service", "imds"])
@pytest.mark.parametrize(
    "telltale",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate"},
        {"sec_fetch_dest": "image"},
        {"Sec_Fetch_User": "?1"},
        {"Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Of_Tomorrow": "?1"},
        {"X_Forwarded_For": "10.0.0.1"},
        {"X_Forwarded_Host": "localhost"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy.contoso.com"},
    ],
    ids="".join,
)
async def test_pages_and_proxies_get_no_token(endpoint: IdentityEndpoint, host: str, telltale: dict[str, str]) -> None:
    """What a browser or a proxy adds to a request gives it away, even if it knows the secret."""
    assert await ask(endpoint, host, **telltale) == 403
    assert endpoint.token_requests == []
    assert await ask(endpoint, host) == 200


async def test_who_asks_nowhere_is_not_told_about_secrets(endpoint: IdentityEndpoint) -> None:
    """A mistyped path is another mistake than a wrong secret, and the words say which one it is."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{endpoint.url}/msi/tokens") as response:
            assert (response.status, "path" in (await response.json())["message"]) == (404, True)
        async with session.get(f"{endpoint.url}/msi/token?api-version=2019-08-01&resource=r") as response:
            assert (response.status, "secret" in (await response.json())["message"]) == (403, True)


async def test_node_is_no_page(endpoint: IdentityEndpoint) -> None:
    """Node's own fetch, on which msal-node builds, sends one of the headers of browsers, but none that counts."""
    assert await ask(endpoint, Sec_Fetch_Mode="cors") == 200


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "127.0.0.1:80", "localhost", "LocalHost:12345", "host.docker.internal", "HOST.docker.internal:4141"],
)
async def test_it_answers_to_its_own_names(endpoint: IdentityEndpoint, name: str) -> None:
    """The address, localhost and the names that it was told are its own, at any port and in any case."""
    assert await ask(endpoint, Host=name) == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost.",
        "localhost:80:80",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "[::1]",
        "::1",
        "",
        "localhost, evil.example",
        "localhost@evil.example",
    ],
)
async def test_a_name_that_was_made_to_lead_here_gets_no_token(endpoint: IdentityEndpoint, name: str) -> None:
    """A page whose name resolves to loopback (DNS rebinding) is found out by that name."""
    assert await ask(endpoint, Host=name) == 403
    assert endpoint.token_requests == []


async def test_two_host_headers_are_none() -> None:
    """Whoever sends two names may mean either, so neither counts."""
    async with IdentityEndpoint(guard=Guard()) as endpoint:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.url.rpartition(":")[2]))
        writer.write(
            b"GET /msi/token?api-version=2019-08-01&resource=r HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n"
            b"X-IDENTITY-HEADER: " + endpoint.secret.encode() + b"\r\nConnection: close\r\n\r\n"
        )
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.split()[1] in (b"403", b"400")  # Some versions of aiohttp refuse it themselves.
    assert endpoint.token_requests == []


async def test_without_a_guard_there_is_none() -> None:
    """The emulator of a test answers as its host does, whoever asks."""
    async with IdentityEndpoint() as endpoint:
        assert await ask(endpoint, Host="anything.example", Origin="https://anything.example") == 200


async def test_an_address_of_version_6_is_a_name_too() -> None:
    """In a Host header it stands in brackets."""
    async with IdentityEndpoint(host="::1", guard=Guard()) as endpoint:
        assert [await ask(endpoint), await ask(endpoint, Host="[::1]"), await ask(endpoint, Host="::1")] == [
            200,
            200,
            403,
        ]


@pytest.mark.parametrize("name", ["", "host:80", "a/b", "a b", "user@host", "a,b"])
def test_a_name_that_is_none_is_told(name: str) -> None:
    """A name for the guard is one that a Host header can hold, without a port."""
    with pytest.raises(ValueError, match="host name"):
        Guard([name])


def test_a_guard_shows_its_names() -> None:
    """There is no secret in it."""
    assert repr(Guard(["B.example", "a.example"])) == "Guard(['a.example', 'b.example'])"
