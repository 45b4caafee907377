"""Service Fabric, Azure ML and Cloud Shell: what is peculiar to each."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from support import PacedClock

from aiomsi import (
    AccessToken,
    AiomsiError,
    ConfigurationError,
    EndpointError,
    SecurityError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer, IdentityEndpoint
from aiomsi.sources import ManagedIdentity, Surroundings, TokenRequest
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
OTHER_ID = "11111111-aaaa-4bbb-8ccc-000000000002"
OBJECT_ID = "22222222-aaaa-4bbb-8ccc-000000000002"


@pytest.fixture
def paced() -> PacedClock:
    return PacedClock()


@pytest.fixture
async def endpoint(paced: PacedClock) -> AsyncIterator[IdentityEndpoint]:
    hosts = ("app_service", "service_fabric", "azure_ml", "cloud_shell")
    async with IdentityEndpoint(hosts=hosts, wall=paced.wall) as opened:
        yield opened


async def fetched(source: ManagedIdentity, clock: PacedClock) -> tuple[AccessToken | BaseException, list[float]]:
    request = TokenRequest(VAULT, clock=clock, deadline=clock.monotonic() + 90)
    fetching = asyncio.ensure_future(source.fetch(request))
    waits = await clock.pace(fetching)
    return fetching.exception() or fetching.result(), waits


async def refused(source: ManagedIdentity, clock: PacedClock, *secrets: str) -> AiomsiError:
    """Return the error that a fetch ends with, having seen that none of *secrets* is in it."""
    outcome, _ = await fetched(source, clock)
    assert isinstance(outcome, AiomsiError), outcome
    said = "".join(traceback.TracebackException.from_exception(outcome, capture_locals=True).format())
    assert [secret for secret in secrets if secret in said] == []
    return outcome


# Service Fabric


def in_fabric(endpoint: IdentityEndpoint, **other: str) -> Surroundings:
    return Surroundings(environ={**endpoint.environ("service_fabric"), **other})


async def test_service_fabric_is_asked_over_tls_with_its_secret(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """The certificate is the one that the platform has named, so the secret goes out and the token comes in."""
    token, waits = await fetched(ManagedIdentity(surroundings=in_fabric(endpoint)), paced)
    assert isinstance(token, AccessToken)
    assert (token.source, waits) == ("service_fabric", [])
    (request,) = endpoint.requests
    assert request.headers["secret"] == endpoint.secret
    assert request.parameters == {"api-version": "2019-07-01-preview", "resource": VAULT}


@pytest.mark.parametrize("style", ["{}", " {}\n", "upper", "colons"])
async def test_a_thumbprint_is_read_in_every_style(endpoint: IdentityEndpoint, paced: PacedClock, style: str) -> None:
    """Colons, blanks and capitals do not matter."""
    digest = endpoint.environ("service_fabric")["IDENTITY_SERVER_THUMBPRINT"]
    written = {
        "upper": digest.upper(),
        "colons": ":".join(digest[start : start + 2] for start in range(0, 40, 2)),
    }.get(style) or style.format(digest)
    source = ManagedIdentity(surroundings=in_fabric(endpoint, IDENTITY_SERVER_THUMBPRINT=written))
    outcome, _ = await fetched(source, paced)
    assert isinstance(outcome, AccessToken)


@pytest.mark.parametrize("thumbprint", ["abcd", "0" * 39, "0" * 41, "g" * 40, "0" * 64])
async def test_a_thumbprint_that_is_none_is_told(
    endpoint: IdentityEndpoint, paced: PacedClock, thumbprint: str
) -> None:
    """Without a digest to compare with, nothing is opened; the text is not shown, since it may be the secret."""
    source = ManagedIdentity(surroundings=in_fabric(endpoint, IDENTITY_SERVER_THUMBPRINT=thumbprint))
    error = await refused(source, paced)
    assert isinstance(error, ConfigurationError)
    assert "40 hexadecimal digits" in str(error)
    assert thumbprint not in str(error)
    assert endpoint.requests == []


@asynccontextmanager
async def wiretap(authority: trustme.CA) -> AsyncIterator[tuple[int, bytearray]]:
    """Yield the port of a TLS server with a certificate of *authority*, and every byte that clients sent to it."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1000):
                heard.extend(chunk)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        finally:
            writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


async def test_another_certificate_hears_no_byte_of_the_secret(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """Whoever squats on the port shows his certificate, and that is the end of it."""
    async with wiretap(trustme.CA()) as (port, heard):
        url = f"https://localhost:{port}/metadata/identity/oauth2/token"
        source = ManagedIdentity(surroundings=in_fabric(endpoint, IDENTITY_ENDPOINT=url))
        error = await refused(source, paced, endpoint.secret)
        await asyncio.sleep(0)
    assert isinstance(error, SecurityError)
    assert "showed another certificate" in str(error)
    assert heard == b""


async def test_a_valid_chain_does_not_replace_the_pin(
    endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path
) -> None:
    """A certificate that the system trusts is another one all the same."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    async with wiretap(authority) as (port, heard):
        other = {"IDENTITY_ENDPOINT": f"https://localhost:{port}/token", "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        error = await refused(ManagedIdentity(surroundings=in_fabric(endpoint, **other)), paced, endpoint.secret)
    assert isinstance(error, SecurityError)
    assert heard == b""


async def test_service_fabric_in_plain_http_is_refused(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """The secret never goes where no certificate can be shown."""
    source = ManagedIdentity(surroundings=in_fabric(endpoint, IDENTITY_ENDPOINT=f"{endpoint.url}/msi/token"))
    error = await refused(source, paced, endpoint.secret)
    assert isinstance(error, ConfigurationError)
    assert "does not begin with https://" in str(error)
    assert endpoint.requests == []


@pytest.mark.parametrize("selector", [{"client_id": CLIENT_ID}, {"object_id": OBJECT_ID}])
async def test_service_fabric_takes_no_selection(
    endpoint: IdentityEndpoint, paced: PacedClock, selector: dict[str, str]
) -> None:
    """Who asks for a particular identity is told that the manifest decides, rather than given another one."""
    source = ManagedIdentity(**selector, surroundings=in_fabric(endpoint))  # type: ignore[arg-type]
    error = await refused(source, paced)
    assert isinstance(error, ConfigurationError)
    assert "the application's manifest says" in str(error)
    assert endpoint.requests == []


async def test_throttling_in_service_fabric_is_waited_out(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """A 429 is answered by waits of 1, 2, 4, 8 and 16 s, another failure by three."""
    endpoint.script(*[Answer(429)] * 5)
    outcome, waits = await fetched(ManagedIdentity(surroundings=in_fabric(endpoint)), paced)
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    endpoint.script(then=Answer(500, {"error": {"code": "InternalServerError", "message": "no such resource"}}))
    outcome, waits = await fetched(ManagedIdentity(surroundings=in_fabric(endpoint)), paced)
    assert isinstance(outcome, EndpointError)
    assert waits == [1.0, 2.0, 4.0]


async def test_an_application_without_identity_is_told_at_once(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """A 404 is permanent in Service Fabric."""
    message = {"error": {"code": "ManagedIdentityNotFound", "message": "none"}}
    endpoint.script(then=Answer(404, message))
    error = await refused(ManagedIdentity(surroundings=in_fabric(endpoint)), paced)
    assert isinstance(error, TokenRefusedError)
    assert "map it in the application's manifest" in str(error)
    assert len(endpoint.token_requests) == 1


async def test_a_secret_that_is_not_taken_is_told(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """A rotated secret is answered with a 400 of its own kind."""
    stale = in_fabric(endpoint)
    endpoint.secret = "rotated"
    error = await refused(ManagedIdentity(surroundings=stale), paced, stale.environ["IDENTITY_HEADER"])
    assert isinstance(error, TokenRefusedError)
    assert "restart the app" in str(error)


async def test_what_service_fabric_is_told_of_a_refused_token(endpoint: IdentityEndpoint) -> None:
    """Capabilities, and the digest of the token to be replaced, go to Service Fabric; the claims themselves do not."""
    source = ManagedIdentity(client_capabilities=["CP1", "cp2"], surroundings=in_fabric(endpoint))
    async with TokenProvider(source, clock=ManualClock()) as provider:
        await provider.access_token(VAULT)
        await provider.access_token(VAULT, claims='{"access_token":{}}')
    first, second = endpoint.token_requests
    assert first.parameters["xms_cc"] == second.parameters["xms_cc"] == "CP1,cp2"
    assert "token_sha256_to_refresh" not in first.parameters
    assert len(second.parameters["token_sha256_to_refresh"]) == 64
    assert "claims" not in second.parameters


@pytest.mark.parametrize("host", ["app_service", "azure_ml", "cloud_shell"])
async def test_nobody_else_is_told(endpoint: IdentityEndpoint, host: str) -> None:
    """Parameters that a host does not know could be an error there, so it gets none of them."""
    surroundings = Surroundings(environ=endpoint.environ(host))
    source = ManagedIdentity(client_capabilities=["CP1"], surroundings=surroundings)
    async with TokenProvider(source, clock=ManualClock()) as provider:
        await provider.access_token(VAULT)
        await provider.access_token(VAULT, claims='{"access_token":{}}')
    for request in endpoint.token_requests:
        sent = {name for name, _ in (*request.query, *request.form)}
        assert sent & {"xms_cc", "token_sha256_to_refresh", "claims"} == set()


@pytest.mark.parametrize("capabilities", ["CP1", [1], [b"CP1"]])
def test_capabilities_are_a_sequence_of_strings(capabilities: object) -> None:
    """One string would be taken for its letters."""
    with pytest.raises(TypeError, match=r"client_capabilities is a sequence of strings such as \('CP1',\)"):
        ManagedIdentity(client_capabilities=capabilities)  # type: ignore[arg-type]


@pytest.mark.parametrize("capability", ["", "a,b", "a b", "ü"])
def test_a_capability_is_a_word(capability: str) -> None:
    """A comma would make two of one."""
    with pytest.raises(ValueError, match="is no client capability"):
        ManagedIdentity(client_capabilities=[capability])


# Azure ML


def in_ml(endpoint: IdentityEndpoint, **other: str) -> Surroundings:
    return Surroundings(environ={**endpoint.environ("azure_ml"), **other})


async def test_azure_ml_names_the_identity_itself(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """Without a client id it could answer for the user who is logged in, so its own variable is passed on."""
    source = ManagedIdentity(surroundings=in_ml(endpoint, DEFAULT_IDENTITY_CLIENT_ID=CLIENT_ID))
    token, _ = await fetched(source, paced)
    assert isinstance(token, AccessToken)
    assert endpoint.token_requests[0].parameters["clientid"] == CLIENT_ID


async def test_the_identity_asked_for_goes_before_azure_ml_s_own(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """The variable is a default."""
    surroundings = in_ml(endpoint, DEFAULT_IDENTITY_CLIENT_ID=CLIENT_ID)
    outcome, _ = await fetched(ManagedIdentity(client_id=OTHER_ID, surroundings=surroundings), paced)
    assert isinstance(outcome, AccessToken)
    assert endpoint.token_requests[0].parameters["clientid"] == OTHER_ID


@pytest.mark.parametrize("text", ["clientid", "ClientId", ""])
async def test_the_placeholder_of_azure_ml_names_nobody(
    endpoint: IdentityEndpoint, paced: PacedClock, text: str
) -> None:
    """Where no identity is switched on the variable holds a word."""
    outcome, _ = await fetched(ManagedIdentity(surroundings=in_ml(endpoint, DEFAULT_IDENTITY_CLIENT_ID=text)), paced)
    assert isinstance(outcome, AccessToken)
    assert "clientid" not in endpoint.token_requests[0].parameters


async def test_any_other_text_is_not_passed_on(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """What is no GUID would silently give the token of the logged-in user."""
    text = "what-may-be-another-variables-secret"
    error = await refused(ManagedIdentity(surroundings=in_ml(endpoint, DEFAULT_IDENTITY_CLIENT_ID=text)), paced)
    assert isinstance(error, ConfigurationError)
    assert "DEFAULT_IDENTITY_CLIENT_ID is no GUID" in str(error)
    assert text not in str(error)
    assert endpoint.requests == []


@pytest.mark.parametrize(("answered", "kind"), [(CLIENT_ID.upper(), AccessToken), (OTHER_ID, SecurityError)])
async def test_a_token_of_somebody_else_is_dropped(
    endpoint: IdentityEndpoint, paced: PacedClock, answered: str, kind: type
) -> None:
    """The protocol of 2017 answers for the system-assigned identity where it does not know the one asked for."""
    body = {"access_token": "a-token", "expires_on": str(paced.wall() + 3600), "client_id": answered}
    endpoint.script(Answer(200, body))
    outcome, _ = await fetched(ManagedIdentity(client_id=CLIENT_ID, surroundings=in_ml(endpoint)), paced)
    assert type(outcome) is kind
    assert "a-token" not in repr(outcome)


async def test_azure_ml_writes_its_errors_as_text(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """An error that is no JSON is shown all the same."""
    endpoint.script(then=Answer(400, "InternalError - :{something}", content_type="text/plain"))
    error = await refused(ManagedIdentity(surroundings=in_ml(endpoint)), paced)
    assert isinstance(error, TokenRefusedError)
    assert "InternalError - :{something}" in str(error)


# Cloud Shell


def in_shell(endpoint: IdentityEndpoint) -> Surroundings:
    return Surroundings(environ=endpoint.environ("cloud_shell"))


async def test_cloud_shell_gives_the_user_s_token(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """It is asked by a form, and whose token it is can be seen."""
    token, _ = await fetched(ManagedIdentity(surroundings=in_shell(endpoint)), paced)
    assert isinstance(token, AccessToken)
    assert token.source == "cloud_shell"
    assert token.principal is not None
    assert token.principal.type == "User"
    (request,) = endpoint.requests
    assert (request.method, request.query, request.form) == ("POST", (), (("resource", VAULT),))
    assert request.headers["metadata"] == "true"


async def test_cloud_shell_cannot_be_anybody_else(endpoint: IdentityEndpoint, paced: PacedClock) -> None:
    """Who asks for an identity there is told that it is the user."""
    error = await refused(ManagedIdentity(client_id=CLIENT_ID, surroundings=in_shell(endpoint)), paced)
    assert isinstance(error, ConfigurationError)
    assert "it is the user who is signed in" in str(error)
    assert endpoint.requests == []


async def test_an_audience_that_cloud_shell_does_not_give_is_told(
    endpoint: IdentityEndpoint, paced: PacedClock
) -> None:
    """It has a list of resources, and says so in an error of its own shape."""
    message = {"error": {"code": "AudienceNotSupported", "message": "Audience is not supported."}}
    endpoint.script(then=Answer(400, message))
    error = await refused(ManagedIdentity(surroundings=in_shell(endpoint)), paced)
    assert (type(error), error.code) == (TokenRefusedError, "AudienceNotSupported")
    assert "check the spelling of the resource" in str(error)


# All of them


@pytest.mark.parametrize("host", ["service_fabric", "azure_ml", "cloud_shell"])
async def test_a_redirect_is_not_followed(endpoint: IdentityEndpoint, paced: PacedClock, host: str) -> None:
    """The secret and the question stay with the host that the platform has named."""
    endpoint.script(then=Answer(302, headers={"Location": f"{endpoint.url}/msi/token"}))
    error = await refused(ManagedIdentity(surroundings=Surroundings(environ=endpoint.environ(host))), paced)
    assert isinstance(error, TokenRefusedError)
    assert "redirects are not followed" in str(error)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("host", ["service_fabric", "azure_ml", "cloud_shell"])
async def test_proxies_of_the_environment_are_ignored(
    endpoint: IdentityEndpoint, paced: PacedClock, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would see the secret, and could not reach the host anyway."""
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1"
    )
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    surroundings = Surroundings(environ={**endpoint.environ(host), **proxies})
    outcome, _ = await fetched(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(outcome, AccessToken)


@pytest.mark.parametrize("seconds", [0, 3])
async def test_retrying_can_be_limited(endpoint: IdentityEndpoint, paced: PacedClock, seconds: float) -> None:
    """With a retry timeout no attempt begins after that many seconds; 0 means one attempt."""
    endpoint.script(then=Answer(503))
    source = ManagedIdentity(retry_timeout=seconds, surroundings=Surroundings(environ=endpoint.environ("azure_ml")))
    outcome, waits = await fetched(source, paced)
    assert isinstance(outcome, EndpointError)
    assert waits == ([] if seconds == 0 else [1.0])


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (float("inf"), ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_retry_timeout_is_a_number_of_seconds(value: object, error: type[Exception]) -> None:
    """Anything else is told at once."""
    with pytest.raises(error, match="retry_timeout is a number of seconds"):
        ManagedIdentity(retry_timeout=value)  # type: ignore[arg-type]
