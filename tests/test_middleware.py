"""The middleware between an aiohttp session and real sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import logging
import os
import ssl
import threading
import traceback
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from support import internet
from yarl import URL

from aiomsi import (
    AccessToken,
    AiomsiError,
    BearerAuth,
    EndpointError,
    ProviderClosedError,
    RefreshPolicy,
    SecurityError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse
    from aiohttp.abc import ResolveResult

    from aiomsi.sources import TokenRequest

RESOURCE = "https://vault.azure.net"
FIRST, SECOND = "Bearer token-1", "Bearer token-2"
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}'
CLAIMS_CHALLENGE = f'Bearer error="insufficient_claims", claims="{base64.b64encode(CLAIMS.encode()).decode()}"'
ENTRA = "https://login.microsoftonline.com"
HOME, ABROAD, ELSEWHERE = (f"{number * 8}-aaaa-4bbb-8ccc-000000000004" for number in "123")
IN_TIME = aiohttp.ClientTimeout(total=20)  # Seconds, after which what hangs fails.


def jwt(tenant_id: str, number: int = 1) -> str:
    """Return a token that says which tenant it is of."""
    parts = ({"alg": "none"}, {"tid": tenant_id, "jti": number})
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts), "secret"])


def claims_in(authorization: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(authorization.split(".")[1] + "=="))
    return claims


class Seen(NamedTuple):
    """A request as it arrived."""

    url: str
    authorization: str | None
    body: bytes


@dataclass
class Service:
    """A service that answers 401 to the Authorization headers in *refused*, with *challenges* and the body *refusal*.

    With *hasty* set it does so without having read the request. *route* may answer in its place.
    """

    origin: str = ""
    refused: set[str | None] = field(default_factory=set)
    challenges: list[str] = field(default_factory=list)
    refusal: bytes = b"no"
    hasty: bool = False
    route: Callable[[web.Request], web.StreamResponse | None] = lambda _: None
    seen: list[Seen] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        refused = authorization in self.refused
        body = b"" if refused and self.hasty else await request.read()
        self.seen.append(Seen(str(request.url), authorization, body))
        answer = self.route(request)
        if answer is not None:
            return answer
        if refused:
            headers = CIMultiDict([("WWW-Authenticate", challenge) for challenge in self.challenges])
            return web.Response(status=401, body=self.refusal, headers=headers)
        if request.headers.get("Upgrade") == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(authorization or "nobody")
            return socket
        return web.Response(text=authorization or "nobody")

    @property
    def authorizations(self) -> list[str | None]:
        return [seen.authorization for seen in self.seen]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service on loopback, in plain http."""
    opened = Service()
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", opened.handle)
    async with TestServer(application) as server:
        opened.origin = f"http://127.0.0.1:{server.port}"
        yield opened


@pytest.fixture
def auth(provider: TokenProvider, service: Service) -> BearerAuth:
    return BearerAuth(provider, {service.origin: RESOURCE}, allow_http_on_loopback=True)


@pytest.fixture
async def session(auth: BearerAuth) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with one connection, so that one that is not given back is missed."""
    async with opened(auth) as session:
        yield session


def opened(*middlewares: ClientMiddlewareType, limit: int = 1, **options: Any) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=limit)
    return aiohttp.ClientSession(connector=connector, middlewares=middlewares, timeout=IN_TIME, **options)


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until *condition* holds."""
    while not condition():  # noqa: ASYNC110  (of the outside world, or of a source, neither of which sets an event)
        await asyncio.sleep(0)


# Names and TLS.

LOOK_ALIKES = {
    "https://evilvault.azure.net/": "without the dot",
    "https://vault.azure.net/": "the resource itself",
    "https://a.b.vault.azure.net/": "two labels",
    "https://myvault.vault.azure.net.evil.example/": "below another domain",
    "https://myvault.vault.azure.net./": "a dot at the end",
    "https://myvault.vault.azure.net:8443/": "another port",
    "https://myvault.v\u0430ult.azure.net/": "a Cyrillic letter",
    "https://myvault.vault.azure.net\u3002evil.example/": "an ideographic full stop",
    "https://myvault.vault.azure.net@evil.example/": "a user",
    "https://evil.example/myvault.vault.azure.net": "a path",
    "http://myvault.vault.azure.net/": "plain http",
}
NAMES = (
    *("myvault.vault.azure.net", "other.vault.azure.net", "myhsm.managedhsm.azure.net"),
    *("account.blob.core.windows.net", "evil.example", "login.microsoftonline.com"),
    *("evilvault.azure.net", "vault.azure.net", "a.b.vault.azure.net", "myvault.vault.azure.net.evil.example"),
    "myvault.v\u0430ult.azure.net".encode("idna").decode(),
)


class Resolver(AbstractResolver):
    """Leads every name to loopback: port 80 to *plain*, all others to *secure*; *asked* are the names."""

    def __init__(self, secure: int, plain: int) -> None:
        self.secure = secure
        self.plain = plain
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        self.asked.append(host)
        there = self.plain if port == 80 else self.secure
        return [{"hostname": host, "host": "127.0.0.1", "port": there, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@dataclass
class World(Service):
    """All of the internet: the same service behind every name, in https, and at port 80 in http."""

    resolver: Resolver = field(default_factory=lambda: Resolver(0, 0))
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    proxy: str = ""
    tunnels: list[str] = field(default_factory=list)

    def session(self, *middlewares: ClientMiddlewareType, **options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(resolver=self.resolver, use_dns_cache=False, ssl=self.context)
        return aiohttp.ClientSession(connector=connector, middlewares=middlewares, timeout=IN_TIME, **options)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", found.handle)
    async with TestServer(application) as plain, internet(tmp_path, found.handle, *NAMES) as net:
        found.resolver = Resolver(net.port, plain.port or 0)
        found.context = ssl.create_default_context(cafile=net.environ["SSL_CERT_FILE"])
        found.proxy, found.tunnels = net.environ["HTTPS_PROXY"], net.hosts
        yield found


# Where tokens go.


async def test_a_request_to_a_mapped_origin_gets_its_token(world: World, provider: TokenProvider) -> None:
    """Each origin gets the token of its own resource, and a wildcard stands for one label."""
    resources = {"https://*.vault.azure.net": RESOURCE, "https://account.blob.core.windows.net": "https://storage"}
    async with world.session(BearerAuth(provider, resources)) as session:
        for url in ("https://myvault.vault.azure.net", "https://other.vault.azure.net:443/a?b", *resources):
            if "*" not in url:
                await (await session.get(url)).read()
    assert world.authorizations == [FIRST, FIRST, SECOND]


async def test_a_header_is_put_together_once_for_each_token(
    auth: BearerAuth, service: Service, clock: ManualClock
) -> None:
    """The same one serves until the token is replaced, and those of former tokens are not kept for ever."""
    sent: list[str] = []

    async def note(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        sent.append(request.headers["Authorization"])
        return await handler(request)

    async with opened(auth, note) as session:
        for _ in range(70):
            await session.get(service.origin)
            await session.get(service.origin)
            await clock.advance(3 * 86_400)
    assert all(first is second for first, second in zip(sent[::2], sent[1::2], strict=True))
    assert service.authorizations == sent
    assert len(set(sent)) == 70
    assert 1 <= len(auth._headers) <= 64
    assert "token-" not in repr(auth._headers)  # A debugger or a reporter of errors may show it.


@pytest.mark.parametrize("url", LOOK_ALIKES, ids=LOOK_ALIKES.values())
async def test_a_request_to_another_origin_passes_untouched(world: World, provider: TokenProvider, url: str) -> None:
    """Whatever it looks like, another origin gets no token, and none is fetched."""
    async with world.session(BearerAuth(provider, {"https://*.vault.azure.net": RESOURCE})) as session:
        assert (await session.get(url)).status == 200
    assert [authorization for authorization in world.authorizations if "token" in str(authorization)] == []
    assert provider.statistics().tokens == 0


async def test_an_origin_that_is_not_mapped_is_told_to_who_looks_for_it(
    provider: TokenProvider, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that goes without a token by mistake can be found in the log; nothing but its origin is there."""
    caplog.set_level("DEBUG", "aiomsi.middleware")
    mapped = BearerAuth(provider, {"http://localhost": RESOURCE}, allow_http_on_loopback=True)
    async with opened(mapped) as session, session.get(f"{service.origin}/private?signature=secret"):
        assert caplog.messages == [f"no token for {service.origin}, which is not mapped"]


async def test_a_token_goes_through_a_proxy_s_tunnel_and_not_to_the_proxy(
    world: World, provider: TokenProvider
) -> None:
    """A session with a proxy sends the token in TLS to the service."""
    auth = BearerAuth(provider, {"https://*.vault.azure.net": RESOURCE})
    connector = aiohttp.TCPConnector(ssl=world.context)
    async with aiohttp.ClientSession(connector=connector, proxy=world.proxy, middlewares=[auth]) as session:
        assert await (await session.get("https://myvault.vault.azure.net/")).text() == FIRST
    assert world.tunnels == ["myvault.vault.azure.net:443"]


async def test_plain_http_through_a_proxy_gets_no_token(provider: TokenProvider, service: Service) -> None:
    """Where loopback is allowed, a proxy would still read the token, and pass it on to its own loopback."""
    auth = BearerAuth(provider, {"http://localhost:8080": RESOURCE}, allow_http_on_loopback=True)
    async with opened(auth) as session:
        await (await session.get("http://localhost:8080/", proxy=service.origin)).read()
    assert service.authorizations == [None]


async def test_an_authorization_of_the_caller_s_own_stays(session: aiohttp.ClientSession, service: Service) -> None:
    """A header and a user in the URL go before ours, and their 401 is the caller's."""
    basic = f"Basic {base64.b64encode(b'user:word').decode()}"
    service.refused = {"Bearer mine", basic}
    await (await session.get(service.origin, headers={"authorization": "Bearer mine"})).read()
    await (await session.get(service.origin.replace("//", "//user:word@"))).read()
    assert service.authorizations == ["Bearer mine", basic]


async def test_a_session_s_own_authorization_stays(auth: BearerAuth, service: Service) -> None:
    """Headers that a session has for all its requests count as the caller's."""
    async with opened(auth, headers={"Authorization": "Bearer mine"}) as session:
        await (await session.get(service.origin)).read()
    assert service.authorizations == ["Bearer mine"]


async def test_a_websocket_on_loopback_gets_a_token(session: aiohttp.ClientSession, service: Service) -> None:
    """The request that begins a WebSocket is a request to the origin; if it is refused, it is sent again."""
    service.refused = {FIRST}
    async with session.ws_connect(service.origin.replace("http", "ws")) as socket:
        assert await socket.receive_str() == SECOND
    assert service.authorizations == [FIRST, SECOND]


async def test_a_websocket_over_tls_gets_a_token(world: World, provider: TokenProvider) -> None:
    """An origin with https counts for wss too, and not for ws."""
    async with world.session(BearerAuth(provider, {"https://*.vault.azure.net": RESOURCE})) as session:
        async with session.ws_connect("wss://myvault.vault.azure.net/") as socket:
            assert await socket.receive_str() == FIRST
        async with session.ws_connect("ws://myvault.vault.azure.net/") as socket:
            assert await socket.receive_str() == "nobody"


async def test_it_works_per_request(auth: BearerAuth, provider: TokenProvider, service: Service) -> None:
    """The middlewares of a request replace those of its session: by another one, or by none."""
    other = BearerAuth(provider, {service.origin: "https://other.example"}, allow_http_on_loopback=True)
    async with opened(auth) as session:
        for options in ({}, {"middlewares": [other]}, {"middlewares": ()}):
            await (await session.get(service.origin, **options)).read()
    async with opened() as session:
        await (await session.get(service.origin, middlewares=[auth])).read()
    assert service.authorizations == [FIRST, SECOND, None, FIRST]


# Other middlewares, and the way through this one.


async def test_the_warm_path_does_not_wait(auth: BearerAuth, session: aiohttp.ClientSession, service: Service) -> None:
    """While a token is held, the middleware comes to the sending without giving up the event loop."""
    await (await session.get(service.origin)).read()
    sent: list[str] = []

    async def send(request: ClientRequest) -> ClientResponse:
        sent.append(request.headers["Authorization"])
        return answer

    async with session.get(service.origin, middlewares=()) as answer:
        way = auth(asked(service.origin), send)
        with pytest.raises(StopIteration):
            way.send(None)
    assert sent == [FIRST]


def asked(url: str) -> ClientRequest:
    return aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())


class Watcher:
    """A middleware that notes the Authorization of each request before and after it, and sends it *times* times."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.noted: list[str | None] = []

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        for _ in range(self.times - 1):
            (await self.send(request, handler)).release()
        return await self.send(request, handler)

    async def send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        self.noted.append(request.headers.get("Authorization"))
        response = await handler(request)
        self.noted.append(request.headers.get("Authorization"))
        return response


async def test_middlewares_before_it_never_see_a_token(auth: BearerAuth, service: Service) -> None:
    """The token is in the request only while that is being sent, so that those before see none, and those after do."""
    before, after = Watcher(), Watcher()
    async with opened(before, auth, after) as session:
        response = await session.get(service.origin)
    assert before.noted == [None, None]
    assert after.noted == [FIRST, FIRST]
    assert "Authorization" not in response.request_info.headers


async def test_a_middleware_before_it_may_send_again(auth: BearerAuth, service: Service) -> None:
    """Each time it gets the token of that time, and a 401 is answered as for the first."""
    refused = iter((False, True, False, False))
    service.route = lambda _: refusal("Bearer") if next(refused) else None
    async with opened(Watcher(times=3), auth) as session:
        assert (await session.get(service.origin)).status == 200
    assert service.authorizations == [FIRST, FIRST, SECOND, SECOND]


async def test_a_middleware_after_it_may_authorise_in_another_way(
    auth: BearerAuth, service: Service, source: ScriptedSource
) -> None:
    """What it has put in place of the token is not replaced when it is refused."""

    async def other(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["Authorization"] = "Other scheme"
        return await handler(request)

    service.refused = {"Other scheme"}
    async with opened(auth, other) as session:
        assert (await session.get(service.origin)).status == 401
    assert service.authorizations == ["Other scheme"]
    assert len(source.requests) == 1


@pytest.mark.parametrize("last", [True, False])
async def test_it_goes_together_with_digest_authentication(auth: BearerAuth, service: Service, last: bool) -> None:
    """In either order, what answers the service's challenge gets through."""

    def route(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").startswith("Digest "):
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})

    service.route = route
    digest = aiohttp.DigestAuthMiddleware("user", "word")
    async with opened(*((digest, auth) if last else (auth, digest)), limit=3) as session:
        response = await session.get(service.origin)
        assert (response.status, (await response.text()).split()[0]) == (200, "Digest")


# Redirects.


def redirecting(*locations: str) -> Callable[[web.Request], web.Response | None]:
    """Return a route that leads from each of *locations* to the next, the first being any."""
    left = iter(locations)

    def route(_: web.Request) -> web.Response | None:
        location = next(left, None)
        return None if location is None else web.Response(status=307, headers={"Location": location})

    return route


async def test_a_redirect_within_the_origin_keeps_the_token(session: aiohttp.ClientSession, service: Service) -> None:
    """Every hop is a request to the origin, whatever its path."""
    service.route = redirecting("/b", f"{service.origin}/c")
    assert (await session.post(f"{service.origin}/a", data=b"body")).status == 200
    assert [seen[1:] for seen in service.seen] == [(FIRST, b"body")] * 3


@pytest.mark.parametrize("url", LOOK_ALIKES, ids=LOOK_ALIKES.values())
async def test_a_redirect_to_another_origin_leaves_the_token_behind(
    world: World, provider: TokenProvider, url: str
) -> None:
    """Whatever an answer of the service points to, only its own origin gets the token."""
    world.route = redirecting(url)
    async with world.session(BearerAuth(provider, {"https://*.vault.azure.net": RESOURCE})) as session:
        response = await session.get("https://myvault.vault.azure.net/")
        assert (response.status, len(response.history)) == (200, 1)
    assert world.authorizations[0] == FIRST
    assert len(world.seen) == 2
    assert "token" not in str(world.authorizations[1])


async def test_a_redirect_between_mapped_origins_changes_the_token(world: World, provider: TokenProvider) -> None:
    """Each hop gets the token of its own resource."""
    world.route = redirecting(
        "https://account.blob.core.windows.net/", "https://evil.example/", "https://other.vault.azure.net/"
    )
    resources = {"https://*.vault.azure.net": RESOURCE, "https://account.blob.core.windows.net": "https://storage"}
    async with world.session(BearerAuth(provider, resources)) as session:
        await (await session.get("https://myvault.vault.azure.net/")).read()
    assert world.authorizations == [FIRST, SECOND, None, FIRST]


async def test_a_caller_s_own_authorization_does_not_follow_a_redirect(world: World, provider: TokenProvider) -> None:
    """It is taken off, and the next origin gets a token only if it is mapped."""
    world.route = redirecting("https://evil.example/", "https://myvault.vault.azure.net/")
    async with world.session(BearerAuth(provider, {"https://*.vault.azure.net": RESOURCE})) as session:
        await (await session.get("https://other.vault.azure.net/", headers={"Authorization": "Bearer mine"})).read()
    assert world.authorizations == ["Bearer mine", None, FIRST]


# A service that answers 401.


async def test_a_rejected_token_is_replaced(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """The source learns which token was refused, and the request is sent once more with another one."""
    service.refused = {FIRST}
    assert await (await session.get(service.origin)).text() == SECOND
    assert [bool(request.rejected_sha256) for request in source.requests] == [False, True]
    assert service.authorizations == [FIRST, SECOND]


async def test_a_claims_challenge_is_passed_on(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """The source is asked for a token with the decoded claims."""
    service.refused, service.challenges = {FIRST}, ["PoP nonce=n1", f"Basic, {CLAIMS_CHALLENGE}"]
    assert await (await session.get(service.origin)).text() == SECOND
    assert [request.claims for request in source.requests] == [None, CLAIMS]


@pytest.mark.parametrize(
    "challenges",
    [
        [],
        ["Bearer"],
        ['Bearer error="invalid_token"'],
        ['Bearer error="insufficient_claims", claims="%%%"'],
        ['Bearer error="insufficient_claims", claims="bm8ganNvbg=="'],
        ['Bearer error="insufficient_claims", claims="W10="'],
        ["Bearer authorization_uri=https://login.microsoftonline.com/t/oauth2 resource_id=https://storage.azure.com"],
        [f'Bearer authorization="{ENTRA}/{ABROAD}", resource="https://evil.example"'],
        ["Bearer, " * 100] * 100,
        ["\x80\xff"],
    ],
)
async def test_any_other_challenge_is_an_ordinary_401(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource, challenges: list[str]
) -> None:
    """What cannot be read, or asks for nothing that a service of this kind may, means that the token was refused."""
    service.refused, service.challenges = {FIRST}, challenges
    assert (await session.get(service.origin)).status == 200
    assert [request.claims for request in source.requests] == [None, None]


async def test_a_token_that_did_not_change_is_not_sent_again(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """An endpoint with a cache of its own gives back the refused token, and the caller gets the 401."""
    source.script("token-1", "token-1")
    service.refused = {FIRST}
    response = await session.get(service.origin)
    assert (response.status, await response.read()) == (401, b"no")
    assert service.authorizations == [FIRST]
    assert len(source.requests) == 2


async def test_a_401_for_ever_causes_no_storm(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource, clock: ManualClock
) -> None:
    """No request is sent more than twice, and every 5 s there is one fetch at the most."""
    service.refused = {f"Bearer token-{number}" for number in range(100)}
    for _ in range(10):
        assert (await session.get(service.origin)).status == 401
    assert (len(service.seen), len(source.requests)) == (11, 2)
    await clock.advance(5)
    for _ in range(10):
        assert (await session.get(service.origin)).status == 401
    assert (len(service.seen), len(source.requests)) == (22, 3)


async def test_claims_for_ever_cause_no_storm(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """Neither do claims that are new each time."""
    numbers = iter(range(1_000))

    def route(_: web.Request) -> web.Response:
        claims = base64.b64encode(json.dumps({"number": next(numbers)}).encode()).decode()
        challenge = f'Bearer error="insufficient_claims", claims="{claims}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    service.route = route
    for _ in range(10):
        assert (await session.get(service.origin)).status == 401
    assert (len(service.seen), len(source.requests)) == (11, 2)


async def test_no_request_is_sent_three_times(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """Even if each 401 brings another token, and asks for claims."""
    service.route = lambda _: refusal(CLAIMS_CHALLENGE)
    policy = RefreshPolicy(rejected_interval=0)
    auth = BearerAuth(TokenProvider(source, policy=policy), {service.origin: RESOURCE}, allow_http_on_loopback=True)
    assert (await session.get(service.origin, middlewares=[auth])).status == 401
    assert service.authorizations == [FIRST, SECOND]


async def test_the_first_401_is_let_go_before_the_request_is_sent_again(
    session: aiohttp.ClientSession, service: Service
) -> None:
    """A session with one connection does not wait for itself, however long the body of the 401 is."""
    service.refused, service.refusal = {FIRST}, bytes(5_000_000)
    assert (await session.get(service.origin)).status == 200


async def test_a_401_that_is_given_back_can_be_read(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """The caller gets the answer as it came, and its connection is free when he has read it."""
    source.script("token-1", "token-1")
    service.refused, service.refusal = {FIRST}, os.urandom(1_000_000)
    for _ in range(2):
        async with session.get(service.origin) as response:
            assert (response.status, await response.read()) == (401, service.refusal)


async def test_a_token_that_is_newer_than_the_refused_one_is_sent_without_a_fetch(
    session: aiohttp.ClientSession, service: Service, provider: TokenProvider, source: ScriptedSource
) -> None:
    """Where another request has had the token replaced meanwhile, its successor is at hand."""

    def route(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=401) if request.headers["Authorization"] == FIRST else None

    async def replaced(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if response.status == 401:
            await provider.access_token(RESOURCE, rejected="token-1")
        return response

    service.route = route
    auth = BearerAuth(provider, {service.origin: RESOURCE}, allow_http_on_loopback=True)
    assert await (await session.get(service.origin, middlewares=[auth, replaced])).text() == SECOND
    assert len(source.requests) == 2


# Bodies.

WHOLE = bytes(range(256)) * 4_000
TEXT = "text" * 10_000


class Files:
    """Files with `WHOLE` or `TEXT` in them, which are closed in the end: aiohttp leaves those open that are spent."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self.path = folder / "file"
        self.path.write_bytes(WHOLE)
        self.path.with_suffix(".txt").write_text(TEXT)
        self.closing = closing

    def binary(self, position: int = 0) -> io.BufferedReader:
        file = self.closing.enter_context(self.path.open("rb"))
        file.seek(position)
        return file

    def text(self) -> io.TextIOWrapper:
        return self.closing.enter_context(self.path.with_suffix(".txt").open())

    def pipe(self) -> io.BufferedReader:
        """Return one in which nobody can go back."""
        reader, writer = os.pipe()

        def write() -> None:
            with os.fdopen(writer, "wb") as file:
                file.write(WHOLE)

        threading.Thread(target=write).start()
        return self.closing.enter_context(os.fdopen(reader, "rb"))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with ExitStack() as closing:
        yield Files(tmp_path, closing)


async def generated() -> AsyncIterator[bytes]:
    yield WHOLE
    yield WHOLE


def in_parts(*contents: Any) -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("mixed")
    for content in contents:
        writer.append(content)
    return writer


def form(content: Any) -> aiohttp.FormData:
    data = aiohttp.FormData({"name": "value"})
    data.add_field("file", content, filename="file")
    return data


REPEATABLE: dict[str, Callable[[Files], dict[str, Any]]] = {
    "none": lambda _: {},
    "bytes": lambda _: {"data": WHOLE},
    "text": lambda _: {"data": TEXT},
    "json": lambda _: {"json": {"a": [1]}},
    "fields": lambda _: {"data": {"a": "b"}},
    "BytesIO": lambda _: {"data": io.BytesIO(WHOLE)},
    "StringIO": lambda _: {"data": io.StringIO(TEXT)},
    "file": lambda files: {"data": files.binary()},
    "text file": lambda files: {"data": files.text()},
    "rest of a file": lambda files: {"data": files.binary(1_000)},
    "form with a file": lambda files: {"data": form(files.binary())},
    "form with bytes": lambda _: {"data": form(WHOLE)},
    "parts": lambda files: {"data": in_parts(WHOLE, in_parts("text", files.binary()))},
    "compressed": lambda _: {"data": WHOLE, "compress": "deflate"},
    "chunked": lambda _: {"data": WHOLE, "chunked": True},
}
SPENT: dict[str, Callable[[Files], Any]] = {
    "generator": lambda _: generated(),
    "pipe": lambda files: files.pipe(),
    "generator in a part": lambda _: in_parts("text", in_parts(generated())),
    "pipe in a part": lambda files: in_parts(files.pipe()),
    "pipe in a form": lambda files: form(files.pipe()),
}


@pytest.mark.parametrize("body", REPEATABLE.values(), ids=REPEATABLE)
async def test_a_body_is_sent_again_whole(
    session: aiohttp.ClientSession, service: Service, files: Files, body: Callable[[Files], dict[str, Any]]
) -> None:
    """What is in memory or in a file arrives the second time as it did the first."""
    service.refused = {FIRST}
    sent = body(files)
    assert (await session.put(service.origin, **sent)).status == 200
    first, second = service.seen
    assert first.body == second.body
    assert bool(second.body) is bool(sent)


@pytest.mark.parametrize("body", REPEATABLE.values(), ids=REPEATABLE)
async def test_a_body_is_sent_again_whole_if_the_401_came_before_its_end(
    session: aiohttp.ClientSession, service: Service, files: Files, body: Callable[[Files], dict[str, Any]]
) -> None:
    """A service that refuses at the headers gets all of it with the next token."""
    await (await session.put(service.origin, middlewares=(), **body(files))).read()
    service.refused, service.hasty = {FIRST}, True
    assert (await session.put(service.origin, **body(files))).status == 200
    alone, _, second = service.seen
    assert len(alone.body) == len(second.body)


@pytest.mark.parametrize("body", SPENT.values(), ids=SPENT)
async def test_a_body_that_is_spent_is_not_sent_again(
    session: aiohttp.ClientSession, service: Service, files: Files, body: Callable[[Files], Any]
) -> None:
    """The caller gets the 401, since aiohttp would send what is left, and his next request gets the next token."""
    service.refused = {FIRST}
    async with session.put(service.origin, data=body(files)) as response:
        assert (response.status, await response.read()) == (401, b"no")
    async with session.put(service.origin, data=body(files)) as response:
        assert response.status == 200
    assert service.authorizations == [FIRST, SECOND]
    assert len(service.seen[0].body) == len(service.seen[1].body) >= len(WHOLE)


async def test_a_generator_that_was_interrupted_is_not_sent_again(
    session: aiohttp.ClientSession, service: Service
) -> None:
    """Nor is what is left of a stream when the 401 comes before its end."""
    more = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield WHOLE
        await more.wait()
        yield WHOLE

    service.refused, service.hasty = {FIRST}, True
    async with session.put(service.origin, data=stuck()) as response:
        assert response.status == 401
    assert service.authorizations == [FIRST]


@pytest.mark.parametrize("hasty", [True, False], ids=["before the body", "after the body"])
async def test_a_body_that_waits_to_be_asked_for_waits_each_time(provider: TokenProvider, *, hasty: bool) -> None:
    """A service that answers 401 to `Expect: 100-continue` at once, as it may, gets the body with the next token."""
    seen: list[tuple[str, bytes]] = []

    async def ask_for_the_body(request: web.Request) -> web.StreamResponse | None:
        if hasty and request.headers["Authorization"] == FIRST:
            return web.Response(status=401)
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers["Authorization"], await request.read()))
        return web.Response(status=401 if seen[-1][0] == FIRST else 200)

    application = web.Application()
    application.router.add_put("/", answer, expect_handler=ask_for_the_body)
    async with TestServer(application) as server:
        origin = f"http://127.0.0.1:{server.port}"
        auth = BearerAuth(provider, {origin: RESOURCE}, allow_http_on_loopback=True)
        async with opened(auth) as session, session.put(origin, data=WHOLE, expect100=True) as response:
            assert response.status == 200
    assert seen == [(FIRST, WHOLE), (SECOND, WHOLE)][hasty:]


# Trouble while a 401 is answered.


async def test_a_source_that_fails_while_a_401_is_answered(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource, clock: ManualClock
) -> None:
    """The caller gets our error, the service one request, and the connection is free for the next."""
    source.script("old", EndpointError("it is down", retry_after=30))
    service.refused, service.refusal = {"Bearer old"}, bytes(1_000_000)
    with pytest.raises(EndpointError, match="it is down"):
        await session.get(service.origin)
    await clock.advance(60)
    assert (await session.get(service.origin)).status == 200
    assert service.authorizations == ["Bearer old", "Bearer old", FIRST]


async def test_a_source_that_fails_at_first(
    session: aiohttp.ClientSession, auth: BearerAuth, service: Service, source: ScriptedSource
) -> None:
    """Nothing is sent without a token, and our error is raised once: aiohttp takes it for nothing to be repeated."""
    watcher = Watcher()
    source.script(EndpointError("it is down"))
    with pytest.raises(EndpointError, match="it is down"):
        await session.get(service.origin, middlewares=[watcher, auth])
    assert watcher.noted == [None]
    assert service.seen == []
    assert not issubclass(AiomsiError, (OSError, aiohttp.ClientError))


async def test_a_caller_who_is_cancelled_between_a_401_and_the_next_request(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource
) -> None:
    """Nothing more is sent for him, and the connection is free for others."""
    await (await session.get(service.origin)).read()
    service.refused, service.refusal, source.held = {FIRST}, bytes(5_000_000), True
    waiting = asyncio.ensure_future(session.get(service.origin))
    await until(lambda: len(source.requests) == 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    source.release()
    assert (await session.get(service.origin)).status == 200
    assert service.authorizations.count(SECOND) == 1
    assert caught.tb is not None  # What it keeps alive has not been given back by being forgotten.


@pytest.mark.parametrize("number", [0, 3, 6])
async def test_a_caller_among_many_who_is_cancelled(
    auth: BearerAuth, service: Service, source: ScriptedSource, number: int
) -> None:
    """The first, one in the middle and the last leave the others what they wait for."""
    async with opened(auth, limit=7) as session:
        await (await session.get(service.origin)).read()
        service.refused, source.held = {FIRST}, True
        callers = [asyncio.ensure_future(session.get(service.origin)) for _ in range(7)]
        await until(lambda: len(service.seen) == 8 and len(source.requests) == 2)
        callers.pop(number).cancel()
        source.release()
        assert [(await caller).status for caller in callers] == [200] * 6
    assert len(source.requests) == 2


@pytest.mark.parametrize("warm", [True, False])
async def test_a_timeout_covers_the_wait_for_a_token(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource, warm: bool
) -> None:
    """The time that the caller gives to all of a request goes on while a token is fetched, at first and after a 401."""
    if warm:
        await (await session.get(service.origin)).read()
    service.refused, source.held = {FIRST}, True
    with pytest.raises(TimeoutError):
        await session.get(service.origin, timeout=aiohttp.ClientTimeout(total=0.05))
    source.release()
    assert (await session.get(service.origin)).status == 200


async def test_a_thousand_requests_while_the_token_is_revoked(
    auth: BearerAuth, service: Service, source: ScriptedSource
) -> None:
    """All succeed with one fetch, and none is sent more than twice."""
    async with opened(auth, limit=100) as session:
        await (await session.get(service.origin)).read()
        service.refused = {FIRST}
        answers = await asyncio.gather(*(session.get(f"{service.origin}/{number}") for number in range(1_000)))
        assert [answer.status for answer in answers] == [200] * 1_000
    assert len(source.requests) == 2
    sent = [seen.url for seen in service.seen]
    assert max(map(sent.count, sent)) == 2


# Key vaults.

VAULT, OTHER, HSM = (f"https://{name}" for name in NAMES[:3])
VAULTS = {"https://*.vault.azure.net": RESOURCE, "https://*.managedhsm.azure.net": "https://managedhsm.azure.net"}


@dataclass
class Directory:
    """A source that has tokens of every tenant, numbered, and HOME's unless it is asked for another's."""

    name: str = "directory"
    chooses_tenant: bool = True
    requests: list[TokenRequest] = field(default_factory=list)
    failing: dict[str | None, Exception] = field(default_factory=dict)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        self.requests.append(request)
        if request.tenant_id in self.failing:
            raise self.failing[request.tenant_id]
        token = jwt(request.tenant_id or HOME, len(self.requests))
        return AccessToken(token, request.clock.wall() + 86_400, None, request.resource, self.name)

    @property
    def tenants(self) -> list[str | None]:
        return [request.tenant_id for request in self.requests]


@dataclass
class Tenancy:
    """What vaults, each in a tenant, answer: 401 to tokens of another one, or with a number below *least*."""

    tenants: dict[str, str]
    resource: str = RESOURCE
    least: int = 0
    challenge: str = CLAIMS_CHALLENGE

    def __call__(self, request: web.Request) -> web.Response | None:
        token = claims_in(request.headers["Authorization"])
        tenant = self.tenants[f"https://{request.host}"]
        if token["tid"] != tenant.lower():
            return refusal(f'Bearer authorization="{ENTRA}/{tenant}", resource="{self.resource}"')
        return refusal(self.challenge) if token["jti"] < self.least else None


def refusal(challenge: str) -> web.Response:
    return web.Response(status=401, headers={"WWW-Authenticate": challenge})


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def tenants(directory: Directory, clock: ManualClock) -> AsyncIterator[TokenProvider]:
    """A provider that has tokens of every tenant."""
    async with TokenProvider(directory, clock=clock) as opened:
        yield opened


@asynccontextmanager
async def vault_session(
    world: World, provider: TokenProvider, *allowed: str, least: int = 0, **tenants: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session to vaults in *tenants*, which must turn to no other host."""
    hosts = {"vault": VAULT, "other": OTHER, "hsm": HSM}
    world.route = Tenancy({hosts[name]: tenant for name, tenant in tenants.items()}, least=least)
    async with world.session(BearerAuth(provider, VAULTS, allowed_tenants=allowed)) as session:
        yield session
    assert {f"https://{host}" for host in world.resolver.asked} <= set(hosts.values())


@pytest.mark.parametrize("allowed", [(), (HOME,)])
@pytest.mark.parametrize("named", [HOME, HOME.upper()])
async def test_a_vault_of_the_token_s_own_tenant(
    world: World, tenants: TokenProvider, directory: Directory, allowed: tuple[str, ...], named: str
) -> None:
    """Its challenge means that the token was refused, and the same tenant is asked for another."""
    challenge = f'Bearer authorization="{ENTRA}/{named}", resource="{RESOURCE}"'
    async with vault_session(world, tenants, *allowed, vault=HOME, least=2) as session:
        world.route = Tenancy({VAULT: HOME}, least=2, challenge=challenge)
        assert (await session.get(VAULT)).status == 200
    assert directory.tenants == [None, None]
    assert directory.requests[1].rejected_sha256 is not None


@pytest.mark.parametrize("allowed", [ABROAD, ABROAD.upper()])
@pytest.mark.parametrize("named", [ABROAD, ABROAD.upper()])
async def test_a_vault_of_another_tenant_that_is_allowed(
    world: World, tenants: TokenProvider, directory: Directory, allowed: str, named: str
) -> None:
    """It gets a token of its tenant, and from then on at once."""
    async with vault_session(world, tenants, allowed, vault=named, other=HOME) as session:
        for url in (VAULT, VAULT, OTHER, VAULT):
            assert (await session.get(url)).status == 200
    assert directory.tenants == [None, ABROAD]
    home, abroad = f"Bearer {jwt(HOME, 1)}", f"Bearer {jwt(ABROAD, 2)}"
    assert world.authorizations == [home, abroad, abroad, home, abroad]


async def test_a_managed_hsm_is_as_a_vault(world: World, tenants: TokenProvider, directory: Directory) -> None:
    """Its own resource is below which its hosts are."""
    async with vault_session(world, tenants, ABROAD, hsm=ABROAD) as session:
        world.route = Tenancy({HSM: ABROAD}, resource="https://managedhsm.azure.net")
        assert (await session.get(HSM)).status == 200
    assert directory.tenants == [None, ABROAD]


async def test_a_vault_that_moves(world: World, tenants: TokenProvider, directory: Directory) -> None:
    """The remembered tenant is forgotten with the 401 that it leads to, and the new one is asked and remembered."""
    async with vault_session(world, tenants, ABROAD, ELSEWHERE, vault=ABROAD) as session:
        await session.get(VAULT)
        world.route = Tenancy({VAULT: ELSEWHERE})
        assert [(await session.get(VAULT)).status for _ in range(2)] == [200, 200]
        world.route = Tenancy({VAULT: HOME})
        assert [(await session.get(VAULT)).status for _ in range(2)] == [401, 200]
    assert directory.tenants == [None, ABROAD, ELSEWHERE]
    assert len(world.seen) == 2 + 3 + 2


async def test_a_remembered_tenant_that_gives_no_token_is_forgotten(
    world: World, tenants: TokenProvider, directory: Directory, clock: ManualClock
) -> None:
    """The caller gets the error, and the next request finds out anew where the vault is."""
    async with vault_session(world, tenants, ABROAD, vault=ABROAD) as session:
        await session.get(VAULT)
        directory.failing[ABROAD] = TokenRefusedError("no such application here")
        await clock.advance(90_000)
        with pytest.raises(TokenRefusedError):
            await session.get(VAULT)
        world.route = Tenancy({VAULT: HOME})
        assert (await session.get(VAULT)).status == 200


async def test_many_requests_to_a_vault_of_another_tenant(
    world: World, tenants: TokenProvider, directory: Directory
) -> None:
    """None is sent more than twice, and the tenant is asked once."""
    async with vault_session(world, tenants, ABROAD, vault=ABROAD) as session:
        answers = await asyncio.gather(*(session.get(VAULT) for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20
        await session.get(VAULT)
    assert directory.tenants == [None, ABROAD]
    assert len(world.seen) <= 41


async def test_a_request_that_was_late_forgets_no_tenant(tenants: TokenProvider) -> None:
    """A 401 to a token of home says nothing about the tenant that another request has found out meanwhile."""
    auth = BearerAuth(tenants, VAULTS, allowed_tenants=[ABROAD])
    sent, late = asyncio.Event(), asyncio.Event()

    async def send_late(_: ClientRequest) -> Any:
        sent.set()
        await late.wait()
        return Answer(401, "Bearer")

    async def send(request: ClientRequest) -> Any:
        tokens.append(request.headers["Authorization"])
        status = 200 if claims_in(tokens[-1])["tid"] == ABROAD else 401
        return Answer(status, f'Bearer authorization="{ENTRA}/{ABROAD}", resource="{RESOURCE}"')

    tokens: list[str] = []
    waiting = asyncio.ensure_future(auth(asked(VAULT), send_late))
    await sent.wait()
    await auth(asked(VAULT), send)
    late.set()
    assert (await waiting).status == 401
    await auth(asked(VAULT), send)
    assert [claims_in(token)["tid"] for token in tokens] == [HOME, ABROAD, ABROAD]


async def test_a_vault_that_names_its_tenant_and_then_asks_for_claims(
    world: World, tenants: TokenProvider, directory: Directory
) -> None:
    """There are two rounds, and the claims are asked for in the vault's tenant."""
    async with vault_session(world, tenants, ABROAD, vault=ABROAD, least=3) as session:
        assert (await session.get(VAULT)).status == 200
    assert [(request.tenant_id, request.claims) for request in directory.requests] == [
        (None, None),
        (ABROAD, None),
        (ABROAD, CLAIMS),
    ]
    assert len(world.seen) == 3


async def test_a_vault_that_names_its_tenant_and_asks_for_claims_at_once(
    world: World, tenants: TokenProvider, directory: Directory
) -> None:
    """Both are in the one token that is fetched."""
    async with vault_session(world, tenants, ABROAD) as session:
        both = f'{CLAIMS_CHALLENGE}, authorization="{ENTRA}/{ABROAD}", resource="{RESOURCE}"'
        world.route = Tenancy({VAULT: HOME}, least=2, challenge=both)
        world.route = lambda request: refusal(both) if jwt(HOME) in request.headers["Authorization"] else None
        assert (await session.get(VAULT)).status == 200
    assert [(request.tenant_id, request.claims) for request in directory.requests] == [(None, None), (ABROAD, CLAIMS)]


@pytest.mark.parametrize(
    "second", [CLAIMS_CHALLENGE, "Bearer", f'Bearer authorization="{ENTRA}/{ELSEWHERE}", resource="{RESOURCE}"']
)
async def test_there_is_no_third_round(world: World, tenants: TokenProvider, directory: Directory, second: str) -> None:
    """After the tenant only claims are answered, once; anything else is given back."""
    async with vault_session(world, tenants, ABROAD, ELSEWHERE, vault=ABROAD) as session:
        world.route = Tenancy({VAULT: ABROAD}, least=100, challenge=second)
        assert (await session.get(VAULT)).status == 401
    rounds = 3 if second == CLAIMS_CHALLENGE else 2
    assert (len(world.seen), len(directory.requests)) == (rounds, rounds)


async def test_a_vault_that_always_names_another_tenant(tenants: TokenProvider, directory: Directory) -> None:
    """There is no third round either if it asks for claims of another allowed tenant each time."""
    auth = BearerAuth(tenants, VAULTS, allowed_tenants=[ABROAD, ELSEWHERE])
    named = itertools.cycle([ABROAD, ELSEWHERE])
    sent: list[str] = []

    async def send(request: ClientRequest) -> Any:
        sent.append(claims_in(request.headers["Authorization"])["tid"])
        return Answer(401, f'{CLAIMS_CHALLENGE}, authorization="{ENTRA}/{next(named)}", resource="{RESOURCE}"')

    assert (await auth(asked(VAULT), send)).status == 401
    assert sent == [HOME, ABROAD, ELSEWHERE]
    assert directory.tenants == [None, ABROAD, ELSEWHERE]


async def test_a_vault_of_a_tenant_that_is_not_allowed(
    world: World, tenants: TokenProvider, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets the 401, no other token is fetched, and one warning says which tenant it is."""
    async with vault_session(world, tenants, ELSEWHERE, vault=ABROAD) as session:
        response = await session.get(f"{VAULT}/secrets/hidden?query=hidden")
        assert (response.status, await response.read()) == (401, b"")
    assert directory.tenants == [None]
    assert [(record.name, record.levelname) for record in caplog.records] == [("aiomsi.middleware", "WARNING")]
    assert f"myvault.vault.azure.net wants a token of the tenant {ABROAD}" in caplog.text
    assert "secret" not in caplog.text
    assert "hidden" not in caplog.text


async def test_a_source_that_cannot_choose_tenants_is_asked_for_its_own(
    world: World, tenants: TokenProvider, directory: Directory
) -> None:
    """A managed identity has tokens of one tenant; it is asked once more, and the same token is not sent again."""
    directory.chooses_tenant = False
    async with vault_session(world, tenants, ABROAD, vault=ABROAD) as session:
        assert (await session.get(VAULT)).status == 401
        assert (await session.get(VAULT)).status == 401
    assert directory.tenants == [None, None]


async def test_a_token_that_names_no_tenant(
    world: World, provider: TokenProvider, source: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    """It may well be the vault's, so it is replaced by another of the same tenant."""
    challenge = f'Bearer authorization="{ENTRA}/{ABROAD}", resource="{RESOURCE}"'
    world.refused, world.challenges = {FIRST}, [challenge]
    async with world.session(BearerAuth(provider, VAULTS, allowed_tenants=[ELSEWHERE])) as session:
        assert (await session.get(VAULT)).status == 200
    assert [request.tenant_id for request in source.requests] == [None, None]
    assert caplog.records == []


@pytest.mark.parametrize(
    "challenge",
    [
        f'Bearer authorization="{ENTRA}/{HOME}", resource="https://evil.example"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="https://storage.azure.com"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="https://net"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="https://azure.net"',
        f'Bearer authorization="{ENTRA}/{HOME}", scope="https://azure.net/.default"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="https://vault.azure.net/other"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="https://vault.azure.net:8443"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="http://vault.azure.net"',
        f'Bearer authorization="{ENTRA}/{HOME}", resource="vault"',
        f'{CLAIMS_CHALLENGE}, authorization="{ENTRA}/{HOME}", resource="https://azure.net"',
        f'Bearer authorization="{ENTRA}/../{HOME}", resource="{RESOURCE}"',
        f'Bearer authorization="{ENTRA}/..%2f{HOME}", resource="{RESOURCE}"',
        f'Bearer authorization="{ENTRA}/tenant?a@b", resource="https://user@vault.azure.net"',
        f'Bearer authorization="http://login.microsoftonline.com/{HOME}", resource="{RESOURCE}"',
        f'Bearer resource="{RESOURCE}"',
    ],
)
async def test_a_vault_that_asks_for_something_else(
    world: World, tenants: TokenProvider, directory: Directory, challenge: str
) -> None:
    """The caller gets a SecurityError, no token is fetched for it or sent anywhere, and its connection is free."""
    async with vault_session(world, tenants, ABROAD, HOME) as session:
        world.route = lambda _: refusal(challenge)
        with pytest.raises(SecurityError) as caught:
            await session.get(VAULT)
        world.route = lambda _: None
        assert (await session.get(VAULT)).status == 200
    assert len(directory.requests) == 1
    assert world.authorizations == [f"Bearer {jwt(HOME)}"] * 2
    assert "myvault.vault.azure.net" in str(caught.value)


async def test_no_more_than_so_many_tenants_are_remembered(tenants: TokenProvider, directory: Directory) -> None:
    """Whoever goes through thousands of vaults pays with a request more, and not with memory."""
    auth = BearerAuth(tenants, VAULTS, allowed_tenants=[ABROAD])
    sent = 0

    async def send(request: ClientRequest) -> Any:
        nonlocal sent
        sent += 1
        abroad = jwt(ABROAD, 2) in request.headers["Authorization"]
        return Answer(200 if abroad else 401, f'Bearer authorization="{ENTRA}/{ABROAD}", resource="{RESOURCE}"')

    for number in (*range(256), 0, 256, 0, 0):
        await auth(asked(f"https://vault{number}.vault.azure.net"), send)
    assert sent == 2 * 256 + 1 + 2 + 2 + 1
    assert len(directory.requests) == 2


class Answer:
    """As much of a response as the middleware looks at."""

    def __init__(self, status: int, challenge: str) -> None:
        self.status = status
        self.headers = CIMultiDict({"WWW-Authenticate": challenge})

    def release(self) -> None:
        pass


async def test_a_header_of_ten_megabytes_does_not_reach_us(
    provider: TokenProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP library refuses it, and its error shows no token."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: " + b"Bearer, " * 1_250_000)
        writer.write(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with opened(BearerAuth(provider, {origin: RESOURCE}, allow_http_on_loopback=True)) as session:
            with pytest.raises(aiohttp.ClientError) as caught:
                await session.get(origin)
    assert "token-1" not in shown(caught.value) + caplog.text


# Secrets.


def shown(error: BaseException) -> str:
    """Return all that error reports show: texts, and of our frames the variables too."""
    texts = []
    rest: list[BaseException | None] = [error]
    while rest:
        step = rest.pop()
        if step is None:
            continue
        rest += [step.__cause__, step.__context__]
        texts += [str(step), repr(step)]
        for frame, _ in traceback.walk_tb(step.__traceback__):
            if f"{os.sep}aiomsi{os.sep}" in frame.f_code.co_filename:
                texts += map(repr, frame.f_locals.values())
    return "\n".join(texts)


@asynccontextmanager
async def hanging_up() -> AsyncIterator[str]:
    """Yield the origin of a server that answers nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_error_on_the_way_shows_no_token(provider: TokenProvider, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a connection that breaks nor one that is refused does."""
    caplog.set_level(logging.DEBUG)
    async with opened() as session:
        async with hanging_up() as origin:
            auth = BearerAuth(provider, {origin: RESOURCE}, allow_http_on_loopback=True)
            with pytest.raises(aiohttp.ServerDisconnectedError) as broken:
                await session.post(origin, middlewares=[auth])
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.post(origin, middlewares=[auth])
    assert provider.peek(RESOURCE) == "token-1"
    assert "token-1" not in shown(broken.value) + shown(refused.value) + caplog.text


@pytest.mark.parametrize("answered", [True, False])
async def test_a_cancelled_request_shows_no_token(
    session: aiohttp.ClientSession, auth: BearerAuth, service: Service, source: ScriptedSource, answered: bool
) -> None:
    """Whatever it waits for: an answer, or another token."""
    gate = asyncio.Event()

    async def wait(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if not answered:
            await gate.wait()
        return response

    await (await session.get(service.origin)).read()
    service.refused, source.held = {FIRST}, True
    waiting = asyncio.ensure_future(session.get(service.origin, middlewares=[auth, wait]))
    await until(lambda: len(service.seen) == 2 and len(source.requests) == 1 + answered)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    source.release()
    assert "token-1" not in shown(caught.value)


@pytest.mark.parametrize("failure", [None, EndpointError("it is down"), OSError("broken")])
async def test_an_error_after_a_401_shows_no_token(
    session: aiohttp.ClientSession, service: Service, source: ScriptedSource, failure: Exception | None
) -> None:
    """Neither what aiohttp makes of the answer does, nor what the source raises."""
    source.script("token-1", *([] if failure is None else [failure]))
    service.refused = {FIRST, SECOND}
    with pytest.raises((aiohttp.ClientError, AiomsiError)) as caught:
        await session.get(service.origin, raise_for_status=True)
    assert "token-" not in shown(caught.value)


async def test_a_security_error_shows_no_token(
    world: World, tenants: TokenProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """It is raised where the token is not, and its text names no more than hosts."""
    caplog.set_level(logging.DEBUG, "aiomsi")
    async with vault_session(world, tenants) as session:
        world.route = lambda _: refusal(f'Bearer authorization="{ENTRA}/{HOME}", resource="https://azure.net/hidden"')
        with pytest.raises(SecurityError) as caught:
            await session.get(f"{VAULT}/?query=hidden")
    everything = shown(caught.value) + caplog.text
    assert jwt(HOME) not in everything
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("aiomsi")]
    assert "hidden" not in str(caught.value) + str(ours)


async def test_tracing_sees_the_token_where_headers_are_sent_and_nowhere_else(
    auth: BearerAuth, service: Service
) -> None:
    """A trace is shown the headers that are sent; what else a trace sees, and keeps, has no token in it."""
    told: dict[str, str] = {}
    kept: list[Any] = []
    tracing = aiohttp.TraceConfig()

    def note(name: str) -> Callable[..., Any]:
        async def callback(session: aiohttp.ClientSession, context: object, parameters: Any) -> None:  # noqa: ARG001
            told[name] = told.get(name, "") + repr(parameters)
            kept.append(parameters)

        return callback

    signals = [name for name in dir(tracing) if name.startswith("on_")]
    for name in signals:
        getattr(tracing, name).append(note(name))
    service.route = lambda request: None if request.headers["Authorization"] == FIRST else web.Response(text="yes")
    service.refused = {FIRST}
    async with opened(auth, trace_configs=[tracing]) as session:
        await (await session.get(service.origin)).read()
    assert {"on_request_start", "on_request_end", "on_request_headers_sent"} <= set(told)
    assert [name for name, text in told.items() if "token-" in text] == ["on_request_headers_sent"]
    assert "token-" not in repr(kept)


# Its life.


async def test_one_serves_several_sessions(auth: BearerAuth, service: Service, source: ScriptedSource) -> None:
    """They share the tokens, at the same time and one after another."""
    async with opened(auth) as one, opened(auth) as other:
        for session in (one, other):
            await (await session.get(service.origin)).read()
    async with opened(auth) as third:
        await (await third.get(service.origin)).read()
    assert service.authorizations == [FIRST] * 3
    assert len(source.requests) == 1


def test_one_serves_several_event_loops() -> None:
    """Made before there is any, it goes on with the next where a former one has ended."""
    source = ScriptedSource()
    origin = "http://127.0.0.1:8765"
    auth = BearerAuth(TokenProvider(source), {origin: RESOURCE}, allow_http_on_loopback=True)
    sent: list[str] = []

    async def once() -> None:
        async def send(request: ClientRequest) -> Any:
            sent.append(request.headers["Authorization"])
            return Answer(200, "")

        await auth(asked(origin), send)

    asyncio.run(once())
    asyncio.run(once())
    assert (sent, len(source.requests)) == ([FIRST] * 2, 1)


async def test_it_serves_two_providers(service: Service, source: ScriptedSource) -> None:
    """Two of them, each with a provider and origins of its own, share a session."""
    async with TokenProvider(source) as one, TokenProvider(Directory()) as other:
        first = BearerAuth(one, {service.origin: RESOURCE}, allow_http_on_loopback=True)
        second = BearerAuth(
            other, {service.origin.replace("127.0.0.1", "localhost"): RESOURCE}, allow_http_on_loopback=True
        )
        async with opened(first, second) as session:
            for url in (service.origin, service.origin.replace("127.0.0.1", "localhost")):
                await (await session.get(url)).read()
    assert service.authorizations == [FIRST, f"Bearer {jwt(HOME)}"]


async def test_a_closed_provider_is_told(
    session: aiohttp.ClientSession, service: Service, provider: TokenProvider
) -> None:
    """After its provider was closed, a request that would need a token is not sent."""
    await (await session.get(service.origin)).read()
    await provider.aclose()
    with pytest.raises(ProviderClosedError):
        await session.get(service.origin)
    assert len(service.seen) == 1


def test_its_text_says_whose_tokens_it_gives(provider: TokenProvider) -> None:
    """And nothing of the tokens."""
    assert repr(BearerAuth(provider, {})) == "<BearerAuth <TokenProvider source=scripted tokens=0 in_flight=0>>"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "why"),
    [
        (("token", {}), {}, TypeError, "a TokenProvider, not str"),
        ((None, {}), {}, TypeError, "a TokenProvider, not NoneType"),
        ((TokenProvider(ScriptedSource()), RESOURCE), {}, TypeError, "not str"),
        ((TokenProvider(ScriptedSource()), {"a.example": RESOURCE}), {}, ValueError, "begin with https"),
        ((TokenProvider(ScriptedSource()), {}), {"allowed_tenants": HOME}, TypeError, "a collection of tenants"),
    ],
)
def test_wrong_arguments_are_told_at_once(
    arguments: tuple[Any, Any], options: dict[str, Any], error: type[Exception], why: str
) -> None:
    """What is no provider, mapping or collection is told when the middleware is made."""
    with pytest.raises(error, match=why):
        BearerAuth(*arguments, **options)
