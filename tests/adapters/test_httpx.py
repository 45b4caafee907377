"""Tokens for httpx, over real sockets and TLS: a proxy on loopback leads all host names to one server."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import sys
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support import internet

from aiomsi import EndpointError, TokenProvider, TokenRefusedError
from aiomsi.adapters.httpx import BearerAuth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from support import Internet

    from aiomsi.testing import ManualClock, ScriptedSource

VAULT = "https://vault.azure.net"
MINE = "https://mine.vault.azure.net"
THEIRS = "https://theirs.example"
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1760000000"}}}'
CLAIMS_CHALLENGE = (
    'Bearer realm="", authorization_uri="https://login.example/common", error="insufficient_claims", '
    f'claims="{base64.b64encode(CLAIMS.encode()).decode()}"'
)


class Service:
    """What answers: *script* maps paths to answers used up in order, everything else is 200; *seen* is what came."""

    def __init__(self) -> None:
        self.script: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.seen: list[tuple[str, str, str | None]] = []
        self.bodies: list[bytes] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            (request.method, str(request.url.origin()) + request.path, request.headers.get("Authorization"))
        )
        self.bodies.append(await request.read())
        planned = self.script.get(request.path)
        status, headers = planned.pop(0) if planned else (200, {})
        return web.Response(status=status, headers=headers, text="x" * 100_000 if status == 401 else "")

    @property
    def sent(self) -> list[str | None]:
        """The Authorization headers, in order."""
        return [header for _, _, header in self.seen]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def net(tmp_path: Path, service: Service) -> AsyncIterator[Internet]:
    names = (
        "mine.vault.azure.net",
        "a.b.vault.azure.net",
        "vault.azure.net",
        "theirs.example",
        "xn--mller-kva.example",
    )
    async with internet(tmp_path, service.answer, *names) as found:
        yield found


@asynccontextmanager
async def _client(net: Internet, auth: BearerAuth, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    trusted = ssl.create_default_context(cadata=net.authority.decode())
    async with httpx.AsyncClient(
        auth=auth, proxy=net.environ["HTTPS_PROXY"], verify=trusted, trust_env=False, **options
    ) as client:
        yield client


@pytest.fixture
async def client(net: Internet, provider: TokenProvider) -> AsyncIterator[httpx.AsyncClient]:
    """A client with one connection, that follows redirects, and sends tokens to any vault."""
    auth = BearerAuth(provider, {"https://*.vault.azure.net": VAULT})
    limits = httpx.Limits(max_connections=1)
    async with _client(net, auth, follow_redirects=True, limits=limits) as opened:
        yield opened


# Where tokens go


async def test_requests_to_an_origin_of_the_mapping_get_its_token(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """The token is fetched once, and each request carries it."""
    for _ in range(3):
        assert (await client.get(f"{MINE}/secrets/x")).status_code == 200
    assert service.sent == ["Bearer token-1"] * 3
    assert [request.resource for request in source.requests] == [VAULT]


@pytest.mark.parametrize(
    "url",
    [
        THEIRS,
        "https://vault.azure.net",
        "https://a.b.vault.azure.net",
        "https://mine.vault.azure.net:8443",
        "https://user@mine.vault.azure.net",
        "https://user:password@mine.vault.azure.net",
    ],
)
async def test_no_other_request_gets_one(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource, url: str
) -> None:
    """Another host, the parent, a host two labels below, another port, and any URL with a user in it stay untouched."""
    await client.get(url)
    assert service.sent == [None]
    assert source.requests == []


@pytest.mark.parametrize("url", [f"{MINE}:443/", "https://MINE.vault.azure.net/"])
async def test_origins_are_compared_as_origins(client: httpx.AsyncClient, service: Service, url: str) -> None:
    """Capital letters and the default port make no other origin."""
    await client.get(url)
    assert service.sent == ["Bearer token-1"]


async def test_an_internationalised_host_is_known_by_its_name_in_ascii(
    net: Internet, provider: TokenProvider, service: Service
) -> None:
    """The mapping has the name that DNS has, the request the one that people read."""
    async with _client(net, BearerAuth(provider, {"https://xn--mller-kva.example": VAULT})) as client:
        await client.get("https://müller.example/")
    assert service.sent == ["Bearer token-1"]


async def test_plain_http_is_for_loopback_and_only_if_allowed(provider: TokenProvider, service: Service) -> None:
    """A local service gets a token by plain http if the caller says so; otherwise the origin is refused at once."""
    application = web.Application()
    application.router.add_get("/", service.answer)
    async with TestServer(application) as server:
        origin = f"http://127.0.0.1:{server.port}"
        with pytest.raises(ValueError, match="plain http"):
            BearerAuth(provider, {origin: VAULT})
        with pytest.raises(ValueError, match="plain http"):
            BearerAuth(provider, {"http://theirs.example": VAULT}, allow_http_on_loopback=True)
        for auth in (
            BearerAuth(provider, {origin: VAULT}, allow_http_on_loopback=True),
            BearerAuth(provider, {f"https://127.0.0.1:{server.port}": VAULT}),
        ):
            async with httpx.AsyncClient(auth=auth, trust_env=False) as client:
                await client.get(origin)
    assert service.sent == ["Bearer token-1", None]


async def test_a_header_of_the_caller_s_stays(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """Who sets Authorization himself, or other credentials, gets his way, and his own 401."""
    service.script["/"] = [(401, {"WWW-Authenticate": CLAIMS_CHALLENGE})] * 3
    answers = [
        await client.get(MINE, headers={"authorization": "Basic aGk="}),
        await client.get(MINE, auth=("user", "password")),
        await client.get(MINE, auth=None),
    ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert service.sent == ["Basic aGk=", "Basic dXNlcjpwYXNzd29yZA==", None]
    assert source.requests == []


async def test_a_request_sent_anew_gets_the_token_of_that_time(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource, clock: ManualClock
) -> None:
    """The header that an earlier sending left in it is not the caller's own; nor is that of a redirect he follows."""
    service.script["/"] = [(307, {"Location": "/new"})]
    request = client.build_request("GET", MINE)
    answer = await client.send(request, follow_redirects=False)
    assert answer.next_request is not None
    await clock.advance(source.lifetime - 1)
    await client.send(request)
    await client.send(answer.next_request)
    assert service.sent == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]


# Redirects


async def test_a_redirect_within_the_origin_keeps_the_token(client: httpx.AsyncClient, service: Service) -> None:
    """It goes to where the token may go."""
    service.script["/old"] = [(307, {"Location": "/new"})]
    await client.post(f"{MINE}/old", content=b"body")
    assert service.seen == [("POST", f"{MINE}/old", "Bearer token-1"), ("POST", f"{MINE}/new", "Bearer token-1")]
    assert service.bodies == [b"body"] * 2


@pytest.mark.parametrize("target", [THEIRS, f"{MINE}:8443", "https://a.b.vault.azure.net"])
async def test_a_redirect_to_another_origin_carries_no_token(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource, target: str
) -> None:
    """Neither at first, nor when that origin answers 401 and asks for one, with claims of its own choice."""
    service.script["/old"] = [(302, {"Location": f"{target}/new"})]
    service.script["/new"] = [(401, {"WWW-Authenticate": CLAIMS_CHALLENGE})]
    assert (await client.get(f"{MINE}/old")).status_code == 401
    assert service.sent == ["Bearer token-1", None]
    assert len(source.requests) == 1


async def test_a_redirect_to_another_origin_of_the_mapping_carries_no_token_either(
    net: Internet, provider: TokenProvider, service: Service, source: ScriptedSource
) -> None:
    """Redirects are httpx's affair: what it takes off stays off."""
    auth = BearerAuth(provider, {MINE: VAULT, THEIRS: VAULT})
    service.script["/old"] = [(302, {"Location": f"{THEIRS}/new"})]
    service.script["/new"] = [(401, {})]
    async with _client(net, auth, follow_redirects=True) as client:
        assert (await client.get(f"{MINE}/old")).status_code == 401
    assert service.sent == ["Bearer token-1", None]
    assert len(source.requests) == 1


async def test_what_httpx_takes_for_the_same_origin_is_not_answered(
    provider: TokenProvider, source: ScriptedSource
) -> None:
    """From http to https, at their own ports, httpx leaves the header on; a 401 from there fetches nothing."""
    seen: list[tuple[str, str | None]] = []

    # At ports of its own choice, which a test cannot have, there is no server.
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers.get("Authorization")))
        if request.url.scheme == "http":
            return httpx.Response(302, headers={"Location": "https://localhost/"})
        return httpx.Response(401, headers={"WWW-Authenticate": CLAIMS_CHALLENGE})

    auth = BearerAuth(provider, {"http://localhost": VAULT}, allow_http_on_loopback=True)
    async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(answer), follow_redirects=True) as client:
        assert (await client.get("http://localhost/")).status_code == 401
    assert seen == [("http://localhost/", "Bearer token-1"), ("https://localhost/", "Bearer token-1")]
    assert len(source.requests) == 1


async def test_what_was_refused_is_sent_again_and_not_what_led_to_it(
    client: httpx.AsyncClient, service: Service
) -> None:
    """A POST that had its effect and led to a page that is refused is not sent twice."""
    service.script["/orders"] = [(303, {"Location": "/orders/1"})]
    service.script["/orders/1"] = [(401, {})]
    assert (await client.post(f"{MINE}/orders", content=b"one")).status_code == 200
    assert service.seen == [
        ("POST", f"{MINE}/orders", "Bearer token-1"),
        ("GET", f"{MINE}/orders/1", "Bearer token-1"),
        ("GET", f"{MINE}/orders/1", "Bearer token-2"),
    ]


# Challenges


async def test_claims_that_a_service_asks_for_reach_the_source(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """The request is sent once more, with a token that was fetched with them."""
    service.script["/"] = [(401, {"WWW-Authenticate": CLAIMS_CHALLENGE})]
    assert (await client.get(MINE)).status_code == 200
    assert service.sent == ["Bearer token-1", "Bearer token-2"]
    assert [request.claims for request in source.requests] == [None, CLAIMS]


async def test_a_refused_token_is_replaced(client: httpx.AsyncClient, service: Service, source: ScriptedSource) -> None:
    """A 401 that asks for nothing says that the token is no good; the source learns which one."""
    service.script["/"] = [(401, {"WWW-Authenticate": "Bearer"})]
    assert (await client.get(MINE)).status_code == 200
    assert service.sent == ["Bearer token-1", "Bearer token-2"]
    assert source.requests[1].claims is None
    assert source.requests[1].rejected_sha256 is not None


async def test_a_service_that_always_refuses_causes_no_storm(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """The request is sent twice at most, and again only when there is another token."""
    service.script["/"] = [(401, {})] * 10
    assert [(await client.get(MINE)).status_code for _ in range(3)] == [401] * 3
    assert service.sent == ["Bearer token-1", "Bearer token-2", "Bearer token-2", "Bearer token-2"]
    assert len(source.requests) == 2


async def test_the_same_token_is_not_sent_again(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """Where the source gives the refused token once more, the caller gets the 401."""
    source.script("same", "same")
    service.script["/"] = [(401, {})]
    assert (await client.get(MINE)).status_code == 401
    assert service.sent == ["Bearer same"]


async def test_other_refusals_are_the_caller_s(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """A 403 is about rights, which another token does not change."""
    service.script["/"] = [(403, {"WWW-Authenticate": CLAIMS_CHALLENGE})]
    assert (await client.get(MINE)).status_code == 403
    assert len(source.requests) == 1


@pytest.mark.parametrize(
    "body", [{"content": b"abc"}, {"json": {"a": 1}}, {"data": {"a": "1"}}, {"content": "text"}], ids=str
)
async def test_a_body_that_is_held_is_sent_again(
    client: httpx.AsyncClient, service: Service, body: dict[str, Any]
) -> None:
    """The second request has the body of the first."""
    service.script["/"] = [(401, {})]
    assert (await client.put(MINE, **body)).status_code == 200
    first, second = service.bodies
    assert first == second != b""


async def _stream() -> AsyncIterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize(
    "body", [lambda: {"content": _stream()}, lambda: {"files": {"file": b"abc"}}], ids=["stream", "multipart"]
)
async def test_a_body_that_comes_from_a_stream_is_not_sent_again(
    client: httpx.AsyncClient, service: Service, body: Callable[[], dict[str, Any]]
) -> None:
    """The caller gets the 401; when he sends it anew, the new token is there."""
    service.script["/"] = [(401, {})]
    assert (await client.put(MINE, **body())).status_code == 401
    assert (await client.put(MINE, **body())).status_code == 200
    assert service.sent == ["Bearer token-1", "Bearer token-2"]


# Errors, crowds and cancellation


async def test_no_token_no_request(client: httpx.AsyncClient, service: Service, source: ScriptedSource) -> None:
    """An error of the provider comes out of the request as it is."""
    source.script(TokenRefusedError("this identity may not"))
    with pytest.raises(TokenRefusedError, match="this identity may not"):
        await client.get(MINE)
    assert service.seen == []


async def test_a_failed_renewal_leaves_the_client_whole_and_shows_no_token(
    client: httpx.AsyncClient, service: Service, source: ScriptedSource
) -> None:
    """The error is raised, the only connection is free again, and no frame of ours has the token in a variable."""
    service.script["/"] = [(401, {})]
    source.script("s3cret", EndpointError("down"))
    with pytest.raises(EndpointError, match="down") as caught:
        await client.get(MINE)
    found = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [str(frame.locals) for frame in found.stack if "aiomsi" in frame.filename and "tests" not in frame.filename]
    assert ours
    assert "s3cret" not in str(ours)
    assert (await client.get(THEIRS)).status_code == 200


async def test_a_hundred_requests_cause_one_fetch(
    net: Internet, provider: TokenProvider, service: Service, source: ScriptedSource
) -> None:
    """Also when the token they all were sent with is refused."""
    service.script["/"] = [(401, {})] * 100
    async with _client(net, BearerAuth(provider, {MINE: VAULT})) as client:
        answers = await asyncio.gather(*(client.get(MINE) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(map(str, service.sent)) == ["Bearer token-1"] * 100 + ["Bearer token-2"] * 100
    assert len(source.requests) == 2


@pytest.mark.parametrize("renewing", [False, True], ids=["fetching", "renewing"])
@pytest.mark.parametrize("victim", [0, 2, 4], ids=["first", "middle", "last"])
async def test_a_cancelled_request_takes_nobody_along(
    net: Internet,
    provider: TokenProvider,
    service: Service,
    source: ScriptedSource,
    *,
    renewing: bool,
    victim: int,
) -> None:
    """Whoever is cancelled while a token is fetched, the others are sent with it."""
    if renewing:
        await provider.token(VAULT)
        service.script["/"] = [(401, {})] * 5
    source.held = True
    async with _client(net, BearerAuth(provider, {MINE: VAULT})) as client:
        callers = [asyncio.create_task(client.get(MINE)) for _ in range(5)]
        while provider.statistics().waiting < 5:  # noqa: ASYNC110  (their requests come by sockets)
            await asyncio.sleep(0)
        callers[victim].cancel()
        await asyncio.wait([callers[victim]])
        source.release()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
    assert {outcome.status_code for outcome in outcomes if isinstance(outcome, httpx.Response)} == {200}
    assert service.sent[-4:] == [f"Bearer token-{len(source.requests)}"] * 4
    assert len(source.requests) == 1 + renewing
    assert provider.statistics().waiting == 0


# Use


def test_a_synchronous_client_is_refused(provider: TokenProvider) -> None:
    """It cannot wait for a token; the error says which client can."""
    auth = BearerAuth(provider, {MINE: VAULT})
    with (
        httpx.Client(auth=auth, trust_env=False) as client,
        pytest.raises(RuntimeError, match=r"use httpx\.AsyncClient"),
    ):
        client.get(MINE)


def test_wrong_arguments_are_told_at_once(provider: TokenProvider) -> None:
    """Not with the first request."""
    with pytest.raises(TypeError, match="provider is a TokenProvider, not dict"):
        BearerAuth({}, {MINE: VAULT})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than an origin"):
        BearerAuth(provider, {f"{MINE}/secrets": VAULT})


async def test_its_text_says_what_its_provider_does(provider: TokenProvider) -> None:
    """And nothing of any token."""
    await provider.token(VAULT)
    assert (
        repr(BearerAuth(provider, {MINE: VAULT})) == "<BearerAuth <TokenProvider source=scripted tokens=1 in_flight=0>>"
    )


def test_without_the_library_the_error_names_the_extra() -> None:
    """Importing the adapter says what to install."""
    script = "import sys; sys.modules['httpx'] = None; import aiomsi.adapters.httpx"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "ImportError: aiomsi.adapters.httpx needs" in done.stderr
    assert "pip install 'aiomsi[httpx]'" in done.stderr
