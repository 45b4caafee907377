"""The identity of a machine, against the emulator of its hosts over real sockets."""

from __future__ import annotations

import asyncio
import html
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support import PacedClock

from aiomsi import (
    AccessToken,
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.endpoint import (
    Answer,
    Drip,
    Gate,
    Hang,
    Huge,
    IdentityEndpoint,
    IssueRefused,
    Reset,
    TokenAsked,
    TokenGiven,
    Truncated,
)
from aiomsi.sources import ManagedIdentity, Surroundings, TokenRequest
from aiomsi.sources._hosts import host_named_by
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
OBJECT_ID = "22222222-aaaa-4bbb-8ccc-000000000002"
RESOURCE_ID = (
    "/subscriptions/33333333-0000-4000-8000-000000000003/resourceGroups/rg/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/ida"
)
NOWHERE = Path("/nowhere")
HOSTS = ["app_service", "app_service_2017", "imds"]


@pytest.fixture
def paced() -> PacedClock:
    return PacedClock()


@pytest.fixture
async def endpoint(paced: PacedClock) -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint(wall=paced.wall) as opened:
        yield opened


def on(endpoint: IdentityEndpoint, host: str, **extra: str) -> Surroundings:
    """Return the surroundings of a process on *host*."""
    return Surroundings(environ={**endpoint.environ(host), **extra}, root=NOWHERE, imds_url="http://127.0.0.1:1")


def bare(
    imds_url: str = "http://127.0.0.1:1", *, root: Path = NOWHERE, environ: dict[str, str] | None = None
) -> Surroundings:
    return Surroundings(environ=environ or {}, root=root, imds_url=imds_url)


def with_app_service(url: str, secret: str = "s3cret") -> Surroundings:  # noqa: S107  (nobody's)
    return bare(environ={"IDENTITY_ENDPOINT": url, "IDENTITY_HEADER": secret})


async def fetched(
    source: ManagedIdentity, clock: PacedClock, *, limit: float = 90
) -> tuple[AccessToken | BaseException, list[float]]:
    """Fetch a token, moving the clock over every wait; return what came of it, and the waits."""
    request = TokenRequest(VAULT, clock=clock, deadline=clock.monotonic() + limit)
    fetching = asyncio.ensure_future(source.fetch(request))
    waits = await clock.pace(fetching)
    return fetching.exception() or fetching.result(), waits


async def refused(source: ManagedIdentity, clock: PacedClock) -> AiomsiError:
    outcome, _ = await fetched(source, clock)
    assert isinstance(outcome, AiomsiError)
    return outcome


# The request


@pytest.mark.parametrize("host", HOSTS)
async def test_the_system_assigned_identity(endpoint: IdentityEndpoint, paced: PacedClock, host: str) -> None:
    """Each host gives its system-assigned identity's token to a source without arguments."""
    token, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, host)), paced)
    assert isinstance(token, AccessToken)
    named = "azure_ml" if host == "app_service_2017" else host  # Which nothing in the environment tells apart.
    assert (token.resource, token.source, waits) == (VAULT, named, [])
    assert token.expires_on == paced.wall() + 86_400
    assert token.principal is not None
    (request,) = endpoint.token_requests
    assert (request.host, request.resource) == (host, VAULT)


@pytest.mark.parametrize(
    ("host", "selector", "parameter"),
    [
        ("app_service", {"client_id": CLIENT_ID}, "client_id"),
        ("app_service", {"object_id": OBJECT_ID}, "object_id"),
        ("app_service", {"resource_id": RESOURCE_ID}, "mi_res_id"),
        ("app_service_2017", {"client_id": CLIENT_ID}, "clientid"),
        ("imds", {"client_id": CLIENT_ID}, "client_id"),
        ("imds", {"object_id": OBJECT_ID}, "object_id"),
        ("imds", {"resource_id": RESOURCE_ID}, "msi_res_id"),
    ],
)
async def test_a_user_assigned_identity(
    endpoint: IdentityEndpoint, paced: PacedClock, host: str, selector: dict[str, Any], parameter: str
) -> None:
    """Each host has its own spelling for each way of naming an identity."""
    await fetched(ManagedIdentity(**selector, surroundings=on(endpoint, host)), paced)
    (request,) = endpoint.token_requests
    assert request.parameters[parameter] == next(iter(selector.values()))
    assert len(request.query) == 3


@pytest.mark.parametrize("host", HOSTS)
async def test_a_client_id_of_the_environment_names_no_identity_of_the_machine(
    endpoint: IdentityEndpoint, paced: PacedClock, host: str
) -> None:
    """`AZURE_CLIENT_ID` may be an application's; only the default source takes it for the machine's."""
    await fetched(ManagedIdentity(surroundings=on(endpoint, host, AZURE_CLIENT_ID=CLIENT_ID)), paced)
    (request,) = endpoint.token_requests
    assert set(request.parameters) == {"api-version", "resource"}


async def test_imds_gets_no_secret(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """A secret that is there without its endpoint is not for IMDS, which is asked over plain http."""
    environ = {"IDENTITY_HEADER": "s3cret", "MSI_SECRET": "s3cret", "IDENTITY_SERVER_THUMBPRINT": "0" * 40}
    await fetched(ManagedIdentity(surroundings=bare(endpoint.url, environ=environ)), paced)
    (request,) = endpoint.token_requests
    assert "s3cret" not in request.headers.values()


async def test_an_endpoint_may_have_a_query(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """What is asked is merged into it: there is one question mark, and no name comes twice."""
    environ = endpoint.environ("app_service")
    environ["IDENTITY_ENDPOINT"] += "?site=demo&api-version=2017-09-01&empty="
    await fetched(ManagedIdentity(surroundings=bare(environ=environ)), paced)
    (request,) = endpoint.requests
    assert sorted(request.query) == [
        ("api-version", "2019-08-01"),
        ("empty", ""),
        ("resource", VAULT),
        ("site", "demo"),
    ]


@pytest.mark.parametrize("selector", [{"object_id": OBJECT_ID}, {"resource_id": RESOURCE_ID}])
async def test_what_a_host_cannot_select_by_is_told_before_anything_is_sent(
    endpoint: IdentityEndpoint, paced: PacedClock, selector: dict[str, Any]
) -> None:
    """The 2017 protocol knows client ids only; sending another would silently give the system's token."""
    error = await refused(ManagedIdentity(**selector, surroundings=on(endpoint, "app_service_2017")), paced)
    assert isinstance(error, ConfigurationError)
    assert "use client_id" in str(error)
    assert endpoint.requests == []


async def test_a_rotated_secret_is_read_anew(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """The platform rotates the secret in the environment of a running process."""
    environ = endpoint.environ("app_service")
    source = ManagedIdentity(surroundings=Surroundings(environ=environ))
    await fetched(source, paced)
    endpoint.secret = "another"
    assert isinstance((await fetched(source, paced))[0], TokenRefusedError)
    environ.update(endpoint.environ("app_service"))
    assert isinstance((await fetched(source, paced))[0], AccessToken)


async def test_the_real_surroundings_are_the_process_s_own(
    endpoint: IdentityEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without other surroundings a source reads this process's environment, live."""
    source = ManagedIdentity()
    for name, value in endpoint.environ("app_service").items():
        monkeypatch.setenv(name, value)
    async with TokenProvider(source, clock=ManualClock()) as provider:
        assert (await provider.access_token(VAULT)).source == "app_service"


async def test_no_proxy_cookie_or_compression_is_involved(
    endpoint: IdentityEndpoint, paced: PacedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request goes straight to the host, with nothing that it did not ask for."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://10.1.2.3:3128")
    await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    (request,) = endpoint.requests
    expected = {"accept", "accept-encoding", "connection", "host", "metadata", "user-agent", "x-identity-header"}
    assert set(request.headers) == expected
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["metadata"] == "true"
    assert endpoint.secret not in repr(request)


@pytest.mark.parametrize(
    ("host", "time_limit", "max_parallel"), [("app_service", 30, None), ("app_service_2017", 30, None), ("imds", 90, 4)]
)
async def test_each_host_has_its_limits(
    endpoint: IdentityEndpoint, host: str, time_limit: float, max_parallel: int | None
) -> None:
    """IMDS may be away for more than a minute, and takes few requests at the same time."""
    source = ManagedIdentity(surroundings=on(endpoint, host))
    assert (source.time_limit, source.max_parallel) == (time_limit, max_parallel)


async def test_imds_is_asked_by_four_at_most(endpoint: IdentityEndpoint) -> None:
    """Ten resources at once are ten requests, never more than four of them at the same time."""
    gate = Gate()
    endpoint.script(then=gate)
    most = 0
    async with TokenProvider(ManagedIdentity(surroundings=on(endpoint, "imds")), clock=ManualClock()) as provider:
        fetching = [asyncio.create_task(provider.token(f"https://{number}.example")) for number in range(10)]
        for wave in (4, 4, 2):
            async with asyncio.timeout(10):
                await gate.reached(wave)
            most = max(most, gate.held)
            gate.open()
        assert len(set(await asyncio.gather(*fetching))) == 10
    assert (most, len(endpoint.token_requests)) == (4, 10)


# Wrong environments and arguments


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("not-a-url", "does not begin with http"),
        ("ftp://127.0.0.1/x", "does not begin with http"),
        ("http://", "names no host"),
        ("http://:80/x", "names no host"),
        ("http://127.0.0.1:0/x", "wrong port"),
        ("http://127.0.0.1:99999/x", "is not a URL"),
        ("http://[::1/x", "is not a URL"),
        ("http://a b/", "blanks"),
        ("http://127.0.0.1/\n", "control characters"),
        ("http://user:pass@127.0.0.1/x", "user information"),
        ("http://127.0.0.1/x#y", "fragment"),
        ("http://134744072/x", "ordinary IP address"),
        ("http://010.010.010.010/x", "ordinary IP address"),
        ("http://8.8.2056/x", "ordinary IP address"),
        ("http://8\u0668.8.8.8/x", "ordinary IP address"),
        ("http://a..b/x", "neither a name"),
        ("http://b\u00fccher.example/x", "neither a name"),
        (f"http://{'a' * 64}.example/x", "neither a name"),
        ("http://-/x", "neither a name"),
    ],
)
@pytest.mark.parametrize(
    ("variable", "others"),
    [
        ("IDENTITY_ENDPOINT", {"IDENTITY_HEADER": "s3cret"}),
        ("MSI_ENDPOINT", {"MSI_SECRET": "s3cret"}),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", {}),
    ],
)
async def test_a_wrong_endpoint_is_named_before_anything_is_sent(
    paced: PacedClock, variable: str, others: dict[str, str], value: str, complaint: str
) -> None:
    """A variable that holds no URL is named, with what is wrong and what to do, but without its value."""
    error = await refused(ManagedIdentity(surroundings=bare(environ={**others, variable: value})), paced)
    assert isinstance(error, ConfigurationError)
    for part in (variable, complaint, "unset it"):
        assert part in str(error)
    for secret in ("s3cret", "not-a-url", "pass@"):
        assert secret not in str(error)


@pytest.mark.parametrize("secret", ["a\nb", "é", " padded ", "a\x00b"])
async def test_a_secret_that_no_header_can_carry_is_named(paced: PacedClock, secret: str) -> None:
    """A broken secret is told by its variable, never by its value."""
    surroundings = with_app_service("http://127.0.0.1:1/msi/token", secret)
    error = await refused(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith("IDENTITY_HEADER holds characters")
    assert secret not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "http://8.8.8.8/msi/token",
        "http://[2001:4860:4860::8888]/x",
        "http://[::ffff:8.8.8.8]/x",
        "http://[2002:808:808::1]/x",
        "http://100.64.0.1/x",
    ],
)
async def test_plain_http_to_a_public_address_is_refused(paced: PacedClock, url: str) -> None:
    """A secret never crosses a public network in plain text; nothing is connected."""
    surroundings = with_app_service(url)
    error = await refused(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(error, SecurityError)
    assert "public address" in str(error)


async def test_a_name_that_leads_to_a_public_address_is_refused(
    paced: PacedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is judged by the addresses that would be connected to."""

    def resolve(*_arguments: object, **_options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", _resolved_abroad, raising=False)
    surroundings = with_app_service("http://harmless.example/x")
    assert isinstance(await refused(ManagedIdentity(surroundings=surroundings), paced), SecurityError)


async def _resolved_abroad(*_arguments: object, **_options: object) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]


async def test_localhost_is_near_enough(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """A name for loopback is fine."""
    environ = endpoint.environ("app_service")
    environ["IDENTITY_ENDPOINT"] = environ["IDENTITY_ENDPOINT"].replace("127.0.0.1", "localhost")
    assert isinstance((await fetched(ManagedIdentity(surroundings=bare(environ=environ)), paced))[0], AccessToken)


async def test_localhost_is_tried_at_all_of_its_addresses(
    endpoint: IdentityEndpoint, paced: PacedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may lead to ::1 first, where nobody listens."""
    port = urlsplit(endpoint.url).port
    addresses = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    loop = asyncio.get_running_loop().__class__
    resolve = loop.getaddrinfo

    async def resolve_oddly(self: asyncio.AbstractEventLoop, host: str, *arguments: Any, **options: Any) -> list[Any]:
        return addresses if host == "localhost" else await resolve(self, host, *arguments, **options)

    monkeypatch.setattr(loop, "getaddrinfo", resolve_oddly, raising=False)
    environ = endpoint.environ("app_service")
    environ["IDENTITY_ENDPOINT"] = environ["IDENTITY_ENDPOINT"].replace("127.0.0.1", "localhost")
    token, waits = await fetched(ManagedIdentity(surroundings=bare(environ=environ)), paced)
    assert isinstance(token, AccessToken)
    assert waits == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.1.1"])
async def test_an_address_that_stands_for_another_is_judged_by_that(address: str) -> None:
    """An IPv4 address in the form of IPv6, as some resolvers return it, is as near as it is otherwise."""
    from aiomsi.sources._transport import _resolver

    assert _resolver(f"http://[::ffff:{address}]/x", "a_host") is not None


def test_https_may_lead_anywhere() -> None:
    """Only plain http is limited to addresses nearby."""
    from aiomsi.sources._transport import _resolver

    assert _resolver("https://8.8.8.8/", "test") is None


@pytest.mark.parametrize(
    ("wrong", "error", "complaint"),
    [
        ({"client_id": CLIENT_ID, "object_id": OBJECT_ID}, ValueError, "not by client_id and object_id"),
        ({"client_id": "my-app"}, ValueError, "client_id is 'my-app', but should be a GUID"),
        ({"object_id": ""}, ValueError, "object_id is ''"),
        ({"resource_id": "/subscriptions/x"}, ValueError, "resource_id is '/subscriptions/x'"),
        ({"client_id": 7}, TypeError, "client_id is a string, not 7"),
    ],
)
def test_a_wrong_identity_is_told_at_once(wrong: dict[str, Any], error: type[Exception], complaint: str) -> None:
    """An identity is named in exactly one way, and spelt right."""
    with pytest.raises(error, match=complaint):
        ManagedIdentity(**wrong)


@pytest.mark.parametrize("name", ["mi_res_id", "msi_res_id", "clientid", "principal_id", "identity_config"])
def test_a_way_of_naming_that_is_none_is_an_error(name: str) -> None:
    """A name that only a host or another library knows does not silently mean the system-assigned identity."""
    wrong: dict[str, Any] = {name: CLIENT_ID}
    with pytest.raises(TypeError, match=name):
        ManagedIdentity(**wrong)


def test_the_repr_names_the_identity() -> None:
    """Identities are no secrets."""
    assert repr(ManagedIdentity()) == "ManagedIdentity()"
    assert repr(ManagedIdentity(client_id=CLIENT_ID)) == f"ManagedIdentity(client_id='{CLIENT_ID}')"


# Errors and retries


@pytest.mark.parametrize(
    ("status", "host", "waits"),
    [
        (500, "app_service", [1, 2, 4]),
        (503, "imds", [1, 2, 4, 8]),
        (429, "app_service", [1, 2, 4]),
        (408, "imds", [1, 2, 4, 8]),
        (404, "imds", [1, 2, 4, 8]),
        (410, "imds", [10, 10, 10, 10, 10, 10, 10]),
        (404, "app_service", []),
        (410, "app_service", []),
        (400, "imds", []),
        (405, "app_service_2017", []),
    ],
)
async def test_how_often_each_status_is_retried(
    endpoint: IdentityEndpoint, paced: PacedClock, status: int, host: str, waits: list[float]
) -> None:
    """Transient answers are retried with growing waits, an upgrade of IMDS for 70 s, and a refusal not at all."""
    endpoint.script(then=Answer(status))
    error, waited = await fetched(ManagedIdentity(surroundings=on(endpoint, host)), paced)
    assert waited == waits
    assert isinstance(error, EndpointError if waits else TokenRefusedError)
    assert error.status == status
    assert len(endpoint.token_requests) == len(waits) + 1


async def test_an_outage_that_ends_during_the_retries_is_not_seen(
    endpoint: IdentityEndpoint, paced: PacedClock
) -> None:
    """Whoever waits gets a token when the host has recovered."""
    endpoint.script(Answer(410), Answer(503), Answer(410), Answer(500))
    token, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, "imds")), paced)
    assert isinstance(token, AccessToken)
    assert waits == [10, 1, 10, 2]


async def test_retry_after_stretches_a_wait(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """The host's own wait is kept, in seconds, in milliseconds or as a date."""
    endpoint.script(
        Answer(429, headers={"Retry-After": "7"}),
        Answer(429, headers={"x-ms-retry-after-ms": "3500"}),
        Answer(429, headers={"Retry-After": "Thu, 09 Oct 2025 08:53:45 GMT"}),
    )
    _, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    assert waits == [7, 3.5, pytest.approx(14.5)]


async def test_nobody_sleeps_an_hour(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """A wait beyond the deadline ends the fetch at once, with the wait for the caller to see."""
    endpoint.script(Answer(429, headers={"Retry-After": "3600"}))
    error, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    assert isinstance(error, EndpointError)
    assert (waits, error.retry_after) == ([], 3600)


@pytest.mark.parametrize("text", ["soon", "-5", "1e400", "", "Thu, 99 Oct 2025 08:53:45 GMT", "9" * 40])
async def test_a_retry_after_that_makes_no_sense_is_ignored(
    endpoint: IdentityEndpoint, paced: PacedClock, text: str
) -> None:
    """The usual waits apply."""
    endpoint.script(Answer(429, headers={"Retry-After": text}))
    _, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    assert waits == [1]


async def test_a_refused_connection_is_retried_where_the_environment_names_the_host(paced: PacedClock) -> None:
    """The sidecar of a container app may still be starting: an outage, and never somebody else's identity."""
    surroundings = with_app_service("http://127.0.0.1:1/msi/token")
    error, waits = await fetched(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(error, EndpointError)
    assert (waits, error.status, error.resource) == ([1, 2, 4], None, VAULT)
    assert "refused the connection" in str(error)


async def test_silence_where_nothing_names_a_host_means_that_there_is_none(paced: PacedClock) -> None:
    """On a machine that is not on Azure, the lone source says what is missing."""
    error, waits = await fetched(ManagedIdentity(surroundings=bare()), paced)
    assert isinstance(error, SourceUnavailableError)
    assert "no variable names a host" in str(error)
    assert waits == [1, 2]


async def test_silence_after_a_success_is_an_outage(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """Once IMDS has answered here, it is known to be here."""
    source = ManagedIdentity(surroundings=bare(endpoint.url))
    assert isinstance((await fetched(source, paced))[0], AccessToken)
    await endpoint.aclose()
    assert isinstance((await fetched(source, paced))[0], EndpointError)


@pytest.mark.parametrize(
    ("fault", "says"),
    [(Reset(), "broke the connection off"), (Truncated(), "broke the connection off")],
    ids=["reset", "truncated"],
)
async def test_a_broken_connection_is_retried(
    endpoint: IdentityEndpoint, paced: PacedClock, fault: Reset | Truncated, says: str
) -> None:
    """A reset and an answer cut short are transient."""
    endpoint.script(then=fault)
    error, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    assert isinstance(error, EndpointError)
    assert waits == [1, 2, 4]
    assert says in str(error)


@pytest.mark.parametrize("fault", [Hang(), Drip(seconds=3600)], ids=["hang", "drip"])
async def test_an_answer_that_does_not_come_to_an_end_is_given_up(
    endpoint: IdentityEndpoint, fault: Hang | Drip
) -> None:
    """A hang, a stall and a slow drip end after 15 s, or with the deadline."""
    gate = Gate()
    clock = ManualClock()
    endpoint.script(gate, then=fault)
    request = TokenRequest(VAULT, clock=clock, deadline=12)
    fetching = asyncio.ensure_future(ManagedIdentity(surroundings=on(endpoint, "app_service")).fetch(request))
    await gate.reached()
    await clock.advance(11.9)
    assert not fetching.done()
    await clock.advance(0.1)
    with pytest.raises(EndpointError, match="no complete answer in time"):
        await fetching


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(200, b"<html>sign in</html>", content_type="text/html"), "HTML of 20 bytes"),
        (Answer(200, b'{"access_token": "abc', content_type="application/json"), "something that is not JSON"),
        (Answer(200, {"access_token": "", "expires_on": "1760003600"}), "access_token: empty text"),
        (Answer(200, {"access_token": 7, "expires_on": "1760003600"}), "access_token: a number"),
        (Answer(200, {"access_token": "abc-tok", "expires_on": True}), "expires_on: true"),
        (Answer(200, {"access_token": "abc-tok"}), "without a time that can be read"),
        (Answer(200, {"access_token": "abc-tok", "expires_on": "1759999990"}), "expired 10 s ago"),
        (Answer(200, {"access_token": "abc tok", "expires_on": "1760003600"}), "no HTTP header can carry"),
        (Answer(200, {"access_token": "abc-tok\r\nX: y", "expires_on": "1760003600"}), "no HTTP header can carry"),
        (Answer(200, [{"access_token": "abc-tok"}]), "an array instead of an object"),  # type: ignore[arg-type]
        (Answer(204, b""), "an empty body"),
        (Huge(10_000_000), "more than 65536 bytes"),
    ],
)
async def test_a_wrong_answer_is_shown_by_its_shape(
    endpoint: IdentityEndpoint, paced: PacedClock, answer: Answer | Huge, says: str
) -> None:
    """An answer that makes no sense is an error that says what came, never a token, and is not asked for again."""
    endpoint.script(answer)
    error, waits = await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    assert isinstance(error, MalformedResponseError)
    assert says in str(error)
    assert "abc" not in str(error)
    assert waits == []


@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=utf-16", "application/octet-stream"])
async def test_a_token_is_one_whatever_its_type_is_said_to_be(
    endpoint: IdentityEndpoint, paced: PacedClock, content_type: str
) -> None:
    """Hosts are careless about the type of what they send; the content decides."""
    endpoint.script(Answer(200, b'{"access_token": "a-token", "expires_in": "3600"}', content_type=content_type))
    token, _ = await fetched(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    assert isinstance(token, AccessToken)
    assert token.token == "a-token"


async def test_a_listener_that_does_not_speak_http_is_told(paced: PacedClock) -> None:
    """Something else on the port is no outage of the host."""

    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(banner, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        surroundings = with_app_service(f"http://127.0.0.1:{port}/x")
        error = await refused(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(error, MalformedResponseError)
    assert "not HTTP" in str(error)


@pytest.mark.parametrize(
    ("host", "status", "body", "kind", "code", "says"),
    [
        (
            "app_service",
            400,
            {
                "statusCode": 400,
                "message": "No User Assigned or Delegated Managed Identity found for specified ClientId",
            },
            TokenRefusedError,
            None,
            "az webapp identity assign",
        ),
        (
            "imds",
            400,
            {"error": "invalid_request", "error_description": "Identity not found"},
            SourceUnavailableError,
            "invalid_request",
            "az vm identity assign",
        ),
        (
            "imds",
            400,
            {"error": "invalid_request", "error_description": "Multiple user assigned identities exist, please …"},
            TokenRefusedError,
            "invalid_request",
            "ManagedIdentity(client_id=…)",
        ),
        (
            "imds",
            400,
            {"error": "invalid_resource", "error_description": "AADSTS500011: not found"},
            TokenRefusedError,
            "invalid_resource",
            "spelling of the resource",
        ),
        (
            "app_service",
            400,
            {"errorCode": "invalid_resource", "exceptionMessage": "AADSTS500011: no such resource", "message": None},
            TokenRefusedError,
            "invalid_resource",
            "(invalid_resource): AADSTS500011: no such resource; check the spelling of the resource",
        ),
        (
            "app_service",
            400,
            {"error": {"code": "UnsupportedApiVersion", "message": "That version is not supported."}},
            TokenRefusedError,
            "UnsupportedApiVersion",
            "(UnsupportedApiVersion): That version is not supported;",
        ),
        ("app_service", 403, b"", TokenRefusedError, None, "restart the app"),
        ("imds", 401, {"error": "unknown_source"}, TokenRefusedError, "unknown_source", "primary network interface"),
        ("app_service", 302, b"", TokenRefusedError, None, "redirects are not followed"),
        ("app_service", 418, b"I am a teapot", TokenRefusedError, None, "I am a teapot"),
        ("app_service", 400, {"message": "see AADSTS90002: no tenant"}, TokenRefusedError, "AADSTS90002", "no tenant"),
        ("imds", 403, b"connect: unreachable network", SourceUnavailableError, None, "a proxy, not Azure"),
    ],
)
async def test_a_refusal_says_what_to_do(
    endpoint: IdentityEndpoint,
    paced: PacedClock,
    host: str,
    status: int,
    body: bytes | dict[str, Any],
    kind: type[AiomsiError],
    code: str | None,
    says: str,
) -> None:
    """A no of any shape becomes the right error, with the host's words and the thing to do."""
    endpoint.script(Answer(status, body))
    error = await refused(ManagedIdentity(surroundings=on(endpoint, host)), paced)
    assert type(error) is kind
    assert (error.status, error.code, error.resource, error.source) == (status, code, VAULT, host)
    assert VAULT in str(error)
    assert says in str(error)


async def test_an_unknown_user_assigned_identity_is_named(paced: PacedClock) -> None:
    """On IMDS too, who asks for a particular identity is told that it is missing, and becomes nobody else."""

    async def issue(asked: TokenAsked) -> TokenGiven:
        raise IssueRefused(400, "invalid_request", f"Identity not found: {asked.identity}")

    async with IdentityEndpoint(issue, wall=paced.wall) as strict:
        source = ManagedIdentity(client_id=CLIENT_ID, surroundings=on(strict, "imds"))
        error = await refused(source, paced)
    assert type(error) is TokenRefusedError
    assert f"assign '{CLIENT_ID}' to it" in str(error)


async def test_a_host_that_echoes_the_secret_does_not_get_it_into_an_error(
    endpoint: IdentityEndpoint, paced: PacedClock
) -> None:
    """What a debug page shows of the request is taken out, in whatever way it is written there."""
    secret = endpoint.secret = 'a "secret" & <ours>'
    surroundings = on(endpoint, "app_service")
    for body in (
        {"message": f"no: {secret}"},
        {"error": {"code": secret, "message": "no"}},
        f"<p>{secret}</p>".encode(),
        b'{"message": "no: ' + json.dumps(secret).encode(),
        f"<p>{html.escape(secret)}</p>".encode(),
    ):
        endpoint.script(Answer(400, body))
        error = await refused(ManagedIdentity(surroundings=surroundings), paced)
        assert "ours" not in f"{error} {error.code}"


async def test_a_machine_that_lost_its_identity_becomes_nobody_else(
    endpoint: IdentityEndpoint, paced: PacedClock
) -> None:
    """Once IMDS has given a token, an identity that is not found any more is a refusal, and no way to the developer."""
    source = ManagedIdentity(surroundings=bare(endpoint.url))
    await fetched(source, paced)
    endpoint.script(then=Answer(400, {"error": "invalid_request", "error_description": "Identity not found"}))
    error = await refused(source, paced)
    assert type(error) is TokenRefusedError
    assert "lost its identity" in str(error)


@pytest.mark.parametrize(
    "fault", [Reset(), Huge(100_000), Answer(200, {"access_token": "a b"}), Answer(400, b"no")], ids=repr
)
async def test_not_even_the_source_s_own_errors_hold_frames_with_secrets(
    endpoint: IdentityEndpoint, paced: PacedClock, fault: Reset | Huge | Answer
) -> None:
    """A traceback with local variables, of an error from the source itself, shows neither secret nor token."""
    endpoint.script(then=fault)
    error: BaseException | None = await refused(ManagedIdentity(surroundings=on(endpoint, "app_service")), paced)
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "aiomsi/sources" in trace.tb_frame.f_code.co_filename or "aiohttp" in trace.tb_frame.f_code.co_filename:
                shown = {name: repr(value) for name, value in trace.tb_frame.f_locals.items()}
                assert not any(endpoint.secret in text or "a b" in text for text in shown.values()), shown
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


async def test_no_answer_puts_a_token_into_an_error(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """An error body that holds a token is shown without it."""
    token = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2ln"
    endpoint.script(Answer(400, {"error": "odd", "error_description": f"here: {token}", "access_token": token}))
    error = await refused(ManagedIdentity(surroundings=on(endpoint, "imds")), paced)
    assert "here: <redacted>" in str(error)
    assert token not in str(error)


async def test_no_traceback_of_the_provider_shows_the_secret(endpoint: IdentityEndpoint) -> None:
    """Neither the error that a caller gets nor its causes keep frames that held the secret."""
    endpoint.script(then=Reset())
    surroundings = on(endpoint, "app_service")
    async with TokenProvider(ManagedIdentity(surroundings=surroundings), clock=PacedClock()) as provider:
        clock = provider._fetcher.clock
        assert isinstance(clock, PacedClock)
        asking = asyncio.ensure_future(provider.token(VAULT))
        await clock.next_alarm(asking)  # The provider's own limit.
        await clock.pace(asking)
        error: BaseException | None = asking.exception()
    assert isinstance(error, EndpointError)
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            assert "aiomsi/sources" not in trace.tb_frame.f_code.co_filename
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


# Which host is it?

PAIR = {"IDENTITY_ENDPOINT": "https://127.0.0.1:1/token", "IDENTITY_HEADER": "s3cret"}
OLD_PAIR = {"MSI_ENDPOINT": "http://127.0.0.1:1/token", "MSI_SECRET": "s3cret"}
FABRIC = {"IDENTITY_SERVER_THUMBPRINT": "0" * 40, "IDENTITY_API_VERSION": "2019-07-01-preview"}
WORKLOAD = {"AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": "/token"}
ARC = {"IDENTITY_ENDPOINT": "http://127.0.0.1:1/token", "IMDS_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({**PAIR, **FABRIC}, "service_fabric"),
        (PAIR, "app_service"),
        ({**PAIR, **OLD_PAIR}, "app_service"),  # App Service sets both pairs.
        ({**PAIR, **WORKLOAD}, "app_service"),
        ({**ARC, **OLD_PAIR}, "azure_arc"),
        (OLD_PAIR, "azure_ml"),
        ({"MSI_ENDPOINT": "http://127.0.0.1:1/token"}, "cloud_shell"),
        (WORKLOAD, "workload_identity"),  # Which cloud it is may be left open.
        ({"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1"}, "imds"),
        ({}, None),
        ({"IDENTITY_ENDPOINT": "http://127.0.0.1:1/token"}, None),
        ({"IDENTITY_HEADER": "s3cret"}, None),
        ({"IDENTITY_HEADER": "s3cret", **FABRIC}, None),
        ({"IDENTITY_ENDPOINT": "", **OLD_PAIR}, "azure_ml"),
        ({"IDENTITY_ENDPOINT": "http://127.0.0.1:1/token", "IDENTITY_HEADER": "", **WORKLOAD}, "workload_identity"),
        (dict.fromkeys((*PAIR, *OLD_PAIR, *FABRIC, *WORKLOAD, *ARC), ""), None),
    ],
)
def test_which_host_the_environment_names(environ: dict[str, str], host: str | None) -> None:
    """The newer variables go before the older ones, half of a set names nobody, and an empty variable is none."""
    named = host_named_by(bare(environ=environ))
    assert (named and named.name) == host


async def test_what_the_environment_names_is_found_out_anew_each_time(
    endpoint: IdentityEndpoint, paced: PacedClock
) -> None:
    """Neither a source nor the process remembers a host that the environment has ceased to name."""
    environ: dict[str, str] = {}
    source = ManagedIdentity(surroundings=Surroundings(environ=environ, root=NOWHERE, imds_url=endpoint.url))
    hosts = []
    for variables in (endpoint.environ("app_service"), endpoint.environ("app_service_2017"), {}):
        environ.clear()
        environ.update(variables)
        token, _ = await fetched(source, paced)
        assert isinstance(token, AccessToken)
        hosts.append(token.source)
    assert hosts == ["app_service", "azure_ml", "imds"]


# Is it here?


@pytest.mark.parametrize(
    ("tag", "vendor", "here"),
    [
        ("7783-7084-3265-9085-8269-3286-77\n", "Microsoft Corporation\n", True),
        ("7783-7084-3265-9085-8269-3286-77", "QEMU", True),
        ("", "QEMU\n", False),
        ("None", "Microsoft Corporation\n", None),
        (None, "Dell Inc.", False),
        (None, None, None),
        (None, "", None),
    ],
)
async def test_the_firmware_tells_where_we_are(
    tmp_path: Path, tag: str | None, vendor: str | None, here: bool | None
) -> None:
    """The chassis tag says that this is an Azure VM, another maker that it is not; both are asked before anybody."""
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in (("chassis_asset_tag", tag), ("sys_vendor", vendor)):
        if text is not None:
            (folder / name).write_text(text)
    assert await ManagedIdentity(surroundings=bare(root=tmp_path)).here() is here


async def test_a_binary_firmware_text_says_nothing(tmp_path: Path) -> None:
    """What cannot be read is not there."""
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "sys_vendor").write_bytes(b"\xff\xfe")
    assert await ManagedIdentity(surroundings=bare(root=tmp_path)).here() is None


async def test_the_environment_tells_where_we_are(endpoint: IdentityEndpoint) -> None:
    """A named host is here; empty variables, and half of a pair, name none."""
    for host in HOSTS:
        assert await ManagedIdentity(surroundings=on(endpoint, host)).here()
    for environ in (
        {"IDENTITY_ENDPOINT": endpoint.url},
        {"IDENTITY_HEADER": "x"},
        {"IDENTITY_ENDPOINT": endpoint.url, "IDENTITY_HEADER": ""},
        {"AZURE_POD_IDENTITY_AUTHORITY_HOST": ""},
    ):
        assert await ManagedIdentity(surroundings=bare(environ=environ)).here() is None


@pytest.mark.parametrize(
    ("status", "headers", "body", "found"),
    [
        (400, {"Server": "IMDS/150.870.65.1853"}, "", True),
        (404, {"Server": "IMDS/150.870.65.1853"}, "", True),
        (400, {}, '{"error": "invalid_request"}', True),
        (400, {}, "Bad Request", False),
        (200, {"Server": "EC2ws"}, "", False),
        (404, {}, "<html>", False),
        (200, {}, "<html>please log in</html>", False),
    ],
)
async def test_only_imds_itself_passes_the_probe(status: int, headers: dict[str, str], body: str, found: bool) -> None:
    """Other clouds and captive portals answer at the same address."""
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(status=status, headers={"Server": "x", **headers}, text=body)

    application = web.Application()
    application.router.add_get("/metadata/identity/oauth2/token", answer)
    async with TestServer(application) as server:
        source = ManagedIdentity(surroundings=bare(str(server.make_url("")).rstrip("/")))
        assert await source.probe(TokenRequest(VAULT)) is found
    (request,) = requests
    assert (request.query_string, "Metadata" in request.headers) == ("", False)
