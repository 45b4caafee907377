"""The endpoint over a real socket: what each host accepts, answers and refuses, and how it misbehaves on request."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import logging
import pathlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

import aiomsi.endpoint
from aiomsi.endpoint import (
    Answer,
    Drip,
    Gate,
    Hang,
    Huge,
    IdentityEndpoint,
    IssueRefused,
    Reset,
    Slow,
    TokenAsked,
    TokenGiven,
    Truncated,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiomsi.endpoint import Step
    from aiomsi.endpoint.tokens import IdentityKind

NOW = 1_760_000_000.0
VAULT = "https://vault.azure.net"
CLIENT = "11111111-aaaa-4bbb-8ccc-000000000001"
IMDS_SERVER = "IMDS/150.870.65.1853"
IMDS_PATH = "/metadata/identity/oauth2/token"


class Client:
    """Asks as each host wants to be asked; every request on a connection of its own."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def send(
        self,
        url: str,
        query: Any = (),
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        data: bytes | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        async with self.session.request(method, url, params=query, headers=headers, data=data) as response:
            return response.status, response.headers, await response.read()

    async def ask(
        self, endpoint: IdentityEndpoint, host: str = "imds", without: str = "", **extra: str
    ) -> tuple[int, Mapping[str, str], Any]:
        url, query, headers = proper(endpoint, host)
        query = {name: value for name, value in query.items() if name != without} | extra
        status, answered, body = await self.send(url, query, headers)
        return status, answered, json.loads(body) if body else None


def proper(endpoint: IdentityEndpoint, host: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return URL, query and headers of a proper request, built from the variables that the endpoint hands out."""
    variables = endpoint.environ(host)
    if host == "app_service":
        version, headers = "2019-08-01", {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]}
        return variables["IDENTITY_ENDPOINT"], {"api-version": version, "resource": VAULT}, headers
    if host == "app_service_2017":
        query = {"api-version": "2017-09-01", "resource": VAULT}
        return variables["MSI_ENDPOINT"], query, {"secret": variables["MSI_SECRET"]}
    url = variables["AZURE_POD_IDENTITY_AUTHORITY_HOST"] + IMDS_PATH
    return url, {"api-version": "2018-02-01", "resource": VAULT}, {"Metadata": "true"}


async def connect(endpoint: IdentityEndpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection, for what an HTTP client would not say."""
    return await asyncio.open_connection("127.0.0.1", int(endpoint.url.rpartition(":")[2]))


def claims(token: str) -> dict[str, Any]:
    """Return the payload of *token*."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))  # type: ignore[no-any-return]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Return a client that does not reuse connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield Client(session)


@pytest.fixture
async def endpoint() -> AsyncIterator[IdentityEndpoint]:
    """Return an emulator whose clock stands still."""
    async with IdentityEndpoint(wall=lambda: NOW) as endpoint:
        yield endpoint


ALL = pytest.mark.parametrize("host", ["app_service", "app_service_2017", "imds"])


def test_imports_nothing_else_of_aiomsi() -> None:
    """Client and endpoint share no code, so that they cannot be wrong in the same way."""
    (folder,) = aiomsi.endpoint.__path__
    files = list(pathlib.Path(folder).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{file} reaches above its package"
                names = [node.module or ""] if node.level == 0 else []
            assert not [name for name in names if name.split(".")[0] == "aiomsi"], file


def test_all_names_are_there() -> None:
    """The public names are those of `__all__`, in order."""
    assert aiomsi.endpoint.__all__ == sorted(aiomsi.endpoint.__all__)
    for name in aiomsi.endpoint.__all__:
        assert hasattr(aiomsi.endpoint, name)


# --- What each host answers ---------------------------------------------------------------------------------------


async def test_app_service_answers_as_documented(endpoint: IdentityEndpoint, client: Client) -> None:
    """The 2019-08-01 answer holds strings only, its client id in upper case, and no expires_in."""
    status, headers, body = await client.ask(endpoint, "app_service")
    token = body.pop("access_token")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    client_id = claims(token)["appid"].upper()
    assert body == {"expires_on": "1760086400", "resource": VAULT, "token_type": "Bearer", "client_id": client_id}


@pytest.mark.parametrize(("date_text", "expected"), [(False, "1760086400"), (True, "10/10/2025 08:53:20 +00:00")])
async def test_app_service_2017_writes_expiry_in_either_form(client: Client, *, date_text: bool, expected: str) -> None:
    """The 2017-09-01 answer tells expiry in seconds, or as Linux did, as a date."""
    async with IdentityEndpoint(wall=lambda: NOW, date_text=date_text) as endpoint:
        assert (await client.ask(endpoint, "app_service_2017"))[2]["expires_on"] == expected
        assert (await client.ask(endpoint, "app_service"))[2]["expires_on"] == "1760086400"


async def test_imds_answers_as_documented(endpoint: IdentityEndpoint, client: Client) -> None:
    """The answer of IMDS holds strings only, both expiries, an empty refresh token, and names its server."""
    status, headers, body = await client.ask(endpoint, "imds")
    token = body.pop("access_token")
    assert (status, headers["Server"]) == (200, IMDS_SERVER)
    assert body == {
        "refresh_token": "",
        "expires_in": "86400",
        "expires_on": "1760086400",
        "ext_expires_in": "86400",
        "not_before": "1760000000",
        "resource": VAULT,
        "token_type": "Bearer",
        "client_id": claims(token)["appid"],
    }


@ALL
async def test_a_trailing_slash_makes_no_difference(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """Both spellings of the path are served, since variables are set with and without a slash."""
    url, query, headers = proper(endpoint, host)
    assert (await client.send(url + "/", query, headers))[0] == 200


@pytest.mark.parametrize(
    ("host", "parameter", "kind"),
    [
        ("app_service", "client_id", "client_id"),
        ("app_service", "principal_id", "object_id"),
        ("app_service", "object_id", "object_id"),
        ("app_service", "mi_res_id", "resource_id"),
        ("app_service_2017", "clientid", "client_id"),
        ("imds", "client_id", "client_id"),
        ("imds", "object_id", "object_id"),
        ("imds", "msi_res_id", "resource_id"),
    ],
)
async def test_an_identity_is_selected_by_the_hosts_own_parameter(
    client: Client, host: str, parameter: str, kind: IdentityKind
) -> None:
    """The issuer is told which identity was meant, whatever the host calls the parameter."""
    asked = []

    async def issue(question: TokenAsked) -> TokenGiven:
        asked.append(question)
        return TokenGiven("opaque", NOW + 60)

    async with IdentityEndpoint(issue, wall=lambda: NOW) as endpoint:
        _, _, body = await client.ask(endpoint, host, **{parameter: CLIENT})
    assert asked == [TokenAsked(host, VAULT, kind, CLIENT)]
    assert ("client_id" in body) is (kind == "client_id")
    assert host != "imds" or body[parameter] == CLIENT


async def test_a_parameter_of_another_host_selects_nothing(endpoint: IdentityEndpoint, client: Client) -> None:
    """App Service does not know IMDS's msi_res_id, and answers with the system-assigned identity."""
    _, _, body = await client.ask(endpoint, "app_service", msi_res_id="/subscriptions/x")
    assert "xms_mirid" not in claims(body["access_token"])


@ALL
async def test_what_the_issuer_gives_is_handed_out(client: Client, host: str) -> None:
    """Token, expiry, refresh_in and client id come from the issuer, in whole seconds."""

    async def issue(_: TokenAsked) -> TokenGiven:
        return TokenGiven("opaque", NOW + 60.9, refresh_in=30.9, client_id=CLIENT)

    async with IdentityEndpoint(issue, wall=lambda: NOW) as endpoint:
        _, _, body = await client.ask(endpoint, host)
    assert (body["access_token"], body["expires_on"], body["refresh_in"]) == ("opaque", "1760000060", "30")
    assert body["client_id"].lower() == CLIENT


# --- What each host refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "expected"), [("app_service", 403), ("app_service_2017", 401)])
@pytest.mark.parametrize("sent", [None, "wrong", "wr\u00f6ng"])
async def test_a_wrong_secret_is_refused_without_a_word(
    endpoint: IdentityEndpoint, client: Client, host: str, expected: int, sent: str | None
) -> None:
    """App Service refuses a missing or wrong secret with 403 (2019) or 401 (2017) and an empty body."""
    url, query, headers = proper(endpoint, host)
    status, _, body = await client.send(url, query, dict.fromkeys(headers, sent) if sent else {})
    assert (status, body, endpoint.token_requests) == (expected, b"", [])


async def test_the_secret_can_be_rotated(endpoint: IdentityEndpoint, client: Client) -> None:
    """A new secret takes effect at once, and the old one is refused."""
    url, query, headers = proper(endpoint, "app_service")
    endpoint.secret = "another"
    assert (await client.send(url, query, headers))[0] == 403
    assert (await client.ask(endpoint, "app_service"))[0] == 200


@pytest.mark.parametrize("host", ["app_service", "app_service_2017"])
async def test_app_service_refuses_in_the_flat_shape(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """A request without a resource gets statusCode, message and a correlation id that is also a header."""
    status, headers, body = await client.ask(endpoint, host, without="resource")
    assert status == body["statusCode"] == 400
    assert "resource" in body["message"]
    assert body["correlationId"] == headers["X-Correlation-Id"]


@pytest.mark.parametrize("version", ["2025-03-30", None])
async def test_app_service_refuses_other_api_versions(
    endpoint: IdentityEndpoint, client: Client, version: str | None
) -> None:
    """An api-version that nobody speaks is refused in the nested shape and belongs to no host."""
    url, _, headers = proper(endpoint, "app_service")
    status, _, body = await client.send(url, {"api-version": version} if version else {}, headers)
    assert (status, json.loads(body)["error"]["code"]) == (400, "UnsupportedApiVersion")
    assert endpoint.requests[0].host is None


async def test_a_host_that_is_off_is_not_played(client: Client) -> None:
    """An endpoint serves the hosts that it was told to serve, and no others."""
    async with IdentityEndpoint(hosts=["app_service_2017"]) as endpoint:
        url = endpoint.environ("app_service_2017")["MSI_ENDPOINT"]
        assert (await client.send(url, {"api-version": "2019-08-01"}))[0] == 400
        assert (await client.send(endpoint.url + IMDS_PATH))[0] == 404
        with pytest.raises(ValueError, match="unknown host 'imds'; this endpoint plays app_service_2017"):
            endpoint.environ("imds")


@ALL
async def test_only_get_is_allowed(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """A POST is refused with 405, whatever it holds."""
    url, query, headers = proper(endpoint, host)
    assert (await client.send(url, query, headers, method="POST", data=b"resource=x"))[0] == 405
    assert endpoint.requests[0].body == b"resource=x"


async def test_the_probe_of_imds_is_told_that_a_header_is_missing(endpoint: IdentityEndpoint, client: Client) -> None:
    """A request without the Metadata header is how clients find out that IMDS is there; it asks for no token."""
    status, headers, body = await client.send(endpoint.url + IMDS_PATH)
    assert (status, headers["Server"]) == (400, IMDS_SERVER)
    assert json.loads(body) == {
        "error": "invalid_request",
        "error_description": "Required metadata header not specified",
    }
    assert (endpoint.requests[0].host, endpoint.token_requests) == ("imds", [])


@pytest.mark.parametrize("headers", [{"Metadata": "True"}, {"Metadata": "true", "X-Forwarded-For": "10.0.0.4"}])
async def test_imds_wants_its_header_and_nobody_in_between(
    endpoint: IdentityEndpoint, client: Client, headers: dict[str, str]
) -> None:
    """The Metadata header is `true` in lower case, and a forwarded request is refused."""
    url, query, _ = proper(endpoint, "imds")
    assert (await client.send(url, query, headers))[0] == 400


@pytest.mark.parametrize("version", [None, "2017-12-01", "2019-8", "9999-01-01"])
async def test_imds_names_its_versions(endpoint: IdentityEndpoint, client: Client, version: str | None) -> None:
    """A missing or unknown api-version is refused together with a version that would do."""
    status, _, body = await client.ask(endpoint, without="api-version", **({"api-version": version} if version else {}))
    assert status == 400
    assert body["newest-versions"] == ["2023-07-01"]


@ALL
async def test_one_parameter_twice_is_refused(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """A query that says the same thing twice is ambiguous, and the record keeps both."""
    url, query, headers = proper(endpoint, host)
    status, _, _ = await client.send(url, [*query.items(), ("resource", "https://other")], headers)
    assert status == 400
    assert endpoint.requests[0].query[1:] == (("resource", VAULT), ("resource", "https://other"))
    assert endpoint.requests[0].resource == endpoint.requests[0].parameters["resource"] == VAULT


@pytest.mark.parametrize("host", ["app_service", "imds"])
async def test_two_selectors_are_refused(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """At most one identity may be selected; an empty selector selects nothing."""
    assert (await client.ask(endpoint, host, client_id=CLIENT, object_id=CLIENT))[0] == 400
    assert (await client.ask(endpoint, host, client_id=CLIENT, object_id=""))[0] == 200


async def test_an_unknown_path_is_not_found(endpoint: IdentityEndpoint, client: Client) -> None:
    """What no host serves is answered with 404, and remembered."""
    assert (await client.send(endpoint.url + "/elsewhere"))[0] == 404
    assert (endpoint.requests[0].path, endpoint.requests[0].host) == ("/elsewhere", None)


# --- What the issuer refuses --------------------------------------------------------------------------------------


def refuse(error: Exception) -> Any:
    """Return an issuer that raises *error*."""

    async def issue(_: TokenAsked) -> TokenGiven:
        raise error

    return issue


async def test_a_refusal_takes_the_shape_of_imds(client: Client) -> None:
    """IMDS tells error and error_description, and whole seconds of Retry-After."""
    async with IdentityEndpoint(refuse(IssueRefused(429, "too_many_requests", "slow down", 1.2))) as endpoint:
        status, headers, body = await client.ask(endpoint, "imds")
    assert (status, headers["Retry-After"], headers["Server"]) == (429, "2", IMDS_SERVER)
    assert body == {"error": "too_many_requests", "error_description": "slow down"}


async def test_a_refusal_takes_the_shape_of_app_service(client: Client) -> None:
    """App Service tells statusCode, message and correlationId, without Retry-After unless there is one."""
    async with IdentityEndpoint(refuse(IssueRefused(400, "invalid_request", "not assigned"))) as endpoint:
        status, headers, body = await client.ask(endpoint, "app_service")
    assert (status, body["statusCode"], body["message"]) == (400, 400, "not assigned")
    assert "Retry-After" not in headers


async def test_an_unknown_audience_takes_the_other_shape_of_app_service(client: Client) -> None:
    """App Service tells an invalid resource in exceptionMessage and errorCode, with a null message."""
    error = IssueRefused(400, "invalid_resource", "AADSTS500011: no such principal")
    async with IdentityEndpoint(refuse(error)) as endpoint:
        _, _, body = await client.ask(endpoint, "app_service")
    assert (body["errorCode"], body["serviceErrorCodes"], body["message"]) == ("invalid_resource", ["500011"], None)
    assert body["exceptionMessage"] == error.message


async def test_an_issuer_that_breaks_is_told_without_its_words(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the issuer becomes a 500 and a log line with its place, but not its text, which may hold a token."""
    async with IdentityEndpoint(refuse(KeyError("a-token"))) as endpoint:
        status, _, body = await client.ask(endpoint, "imds")
    assert (status, body["error"]) == (500, "server_error")
    assert f"KeyError at {__file__}" in caplog.text
    assert "a-token" not in caplog.text + str(body)


@pytest.mark.parametrize(("status", "retry_after"), [(200, None), (600, None), (429, -1), (429, float("nan"))])
def test_a_refusal_is_an_http_error(status: int, retry_after: float | None) -> None:
    """A refusal with a status of success or a negative delay is a mistake."""
    with pytest.raises(ValueError, match="must be"):
        IssueRefused(status, "code", "message", retry_after)
    assert str(IssueRefused(404, "not_found", "gone")) == "404 not_found: gone"


# --- Fake tokens --------------------------------------------------------------------------------------------------


async def test_fake_tokens_look_like_tokens_and_say_that_they_are_none(
    endpoint: IdentityEndpoint, client: Client
) -> None:
    """A fake token has three parts and Entra's claims, but no algorithm and no signature."""
    token = (await client.ask(endpoint))[2]["access_token"]
    header, _, signature = token.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "none", "typ": "JWT"}
    assert base64.urlsafe_b64decode(signature + "==") == b"not-a-signature"
    found = claims(token)
    assert found["iss"] == f"https://sts.windows.net/{found['tid']}/"
    assert (found["aud"], found["iat"], found["nbf"], found["exp"]) == (VAULT, NOW, NOW, NOW + 86_400)
    assert found["oid"] != found["appid"]


async def test_no_two_fake_tokens_are_the_same(endpoint: IdentityEndpoint, client: Client) -> None:
    """Each answer is a token of its own, even at the same instant."""
    tokens = {(await client.ask(endpoint))[2]["access_token"] for _ in range(3)}
    assert len(tokens) == 3


@pytest.mark.parametrize(
    ("parameter", "claim"), [("client_id", "appid"), ("object_id", "oid"), ("msi_res_id", "xms_mirid")]
)
async def test_a_fake_token_claims_the_identity_that_was_asked_for(
    endpoint: IdentityEndpoint, client: Client, parameter: str, claim: str
) -> None:
    """A selected identity is found in the claims of the token."""
    body = (await client.ask(endpoint, **{parameter: CLIENT}))[2]
    assert claims(body["access_token"])[claim] == CLIENT


# --- What is remembered, and what is not told ---------------------------------------------------------------------


async def test_every_request_is_remembered_in_order(endpoint: IdentityEndpoint, client: Client) -> None:
    """The record holds probes and refusals too, and apart from them the requests that asked properly."""
    await client.send(endpoint.url + IMDS_PATH, headers={"X-Twice": "1"})
    await client.ask(endpoint, "app_service")
    probe, asked = endpoint.requests
    assert endpoint.token_requests == [asked]
    assert (probe.method, probe.path, probe.headers["x-twice"], probe.resource) == ("GET", IMDS_PATH, "1", None)
    assert (asked.host, asked.resource, asked.received_at) == ("app_service", VAULT, NOW)
    assert asked.parameters == {"api-version": "2019-08-01", "resource": VAULT}


async def test_a_header_sent_twice_is_joined(endpoint: IdentityEndpoint, client: Client) -> None:
    """A secret that was sent twice is not the secret."""
    url, query, _ = proper(endpoint, "app_service")
    async with client.session.get(url, params=query, headers=[("x-identity-header", endpoint.secret)] * 2) as response:
        assert response.status == 403
    assert endpoint.requests[0].headers["x-identity-header"] == f"{endpoint.secret}, {endpoint.secret}"


async def test_a_long_body_is_cut(endpoint: IdentityEndpoint, client: Client) -> None:
    """No more than 64 KiB of a body is kept."""
    await client.send(endpoint.url, method="POST", data=b"x" * 200_000)
    assert endpoint.requests[0].body == b"x" * 65_536


async def test_secrets_do_not_show(
    endpoint: IdentityEndpoint, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the secret nor a token is in the repr of anything, nor in a log, even if a client speaks nonsense."""
    caplog.set_level(logging.DEBUG)
    token = (await client.ask(endpoint, "app_service"))[2]["access_token"]
    reader, writer = await connect(endpoint)
    writer.write(f"GET / HTTP/1.1\r\nbad header {endpoint.secret}\r\n\r\n".encode())
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    shown = f"{endpoint!r} {endpoint.requests!r} {TokenGiven(token, 0.0)!r} {Answer(body=token)!r} {caplog.text}"
    assert token not in shown
    assert endpoint.secret not in shown


# --- Faults -------------------------------------------------------------------------------------------------------


async def test_a_script_is_played_in_order_and_then_its_end(endpoint: IdentityEndpoint, client: Client) -> None:
    """One step per token request, None being a normal answer, then `then` for ever, until a new script comes."""
    endpoint.script(Answer(500), None, Answer(429, headers={"Retry-After": "7"}), then=Answer(503))
    answers = [await client.ask(endpoint) for _ in range(5)]
    assert [status for status, _, _ in answers] == [500, 200, 429, 503, 503]
    assert answers[2][1]["Retry-After"] == "7"
    endpoint.script()
    assert (await client.ask(endpoint))[0] == 200
    assert len(endpoint.token_requests) == 6


async def test_a_refused_request_uses_up_no_step(endpoint: IdentityEndpoint, client: Client) -> None:
    """A probe between two token requests does not disturb the script."""
    endpoint.script(Answer(500))
    await client.send(endpoint.url + IMDS_PATH)
    assert (await client.ask(endpoint))[0] == 500


@pytest.mark.parametrize(
    ("answer", "body", "content_type"),
    [
        (Answer(body={"a": 1}), b'{"a": 1}', "application/json; charset=utf-8"),
        (Answer(body="<p>", content_type="text/html"), b"<p>", "text/html"),
        (Answer(body=b"\xff", headers={"content-type": "image/png"}), b"\xff", "image/png"),
    ],
)
async def test_an_answer_is_sent_as_it_is(
    endpoint: IdentityEndpoint, client: Client, answer: Answer, body: bytes, content_type: str
) -> None:
    """Anything at all can be answered, and the host still signs it."""
    endpoint.script(answer)
    url, query, headers = proper(endpoint, "imds")
    _, answered, got = await client.send(url, query, headers)
    assert (got, answered["Content-Type"], answered["Server"]) == (body, content_type, IMDS_SERVER)


async def test_an_answer_may_come_from_another_server(endpoint: IdentityEndpoint, client: Client) -> None:
    """A header of a scripted answer wins over the host's own: a captive portal, say."""
    endpoint.script(Answer(headers={"server": "nginx"}))
    assert (await client.ask(endpoint))[1]["Server"] == "nginx"


@pytest.mark.parametrize("probe", [True, False])
async def test_latency_delays_every_answer(endpoint: IdentityEndpoint, client: Client, *, probe: bool) -> None:
    """Each answer takes as long as it was told to take, a refusal too."""
    endpoint.latency = 0.05
    clock = asyncio.get_running_loop().time
    started = clock()
    assert (await (client.send(endpoint.url + IMDS_PATH) if probe else client.ask(endpoint)))[0] in (200, 400)
    assert clock() - started >= 0.049
    assert endpoint.latency == 0.05


async def test_slow_delays_one_answer(endpoint: IdentityEndpoint, client: Client) -> None:
    """A slow answer is a normal one, later."""
    endpoint.script(Slow(0.05))
    clock = asyncio.get_running_loop().time
    started = clock()
    assert (await client.ask(endpoint))[0] == 200
    assert clock() - started >= 0.049


async def test_reset_is_a_real_reset(endpoint: IdentityEndpoint) -> None:
    """The client sees the connection reset by the peer, not closed."""
    endpoint.script(Reset())
    reader, writer = await connect(endpoint)
    query = f"api-version=2018-02-01&resource={VAULT}"
    writer.write(f"GET {IMDS_PATH}?{query} HTTP/1.1\r\nHost: imds\r\nMetadata: true\r\n\r\n".encode())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert len(endpoint.token_requests) == 1


async def test_truncated_promises_more_than_it_sends(endpoint: IdentityEndpoint, client: Client) -> None:
    """The Content-Length is that of the whole answer, and half of it comes."""
    endpoint.script(Truncated())
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.ask(endpoint)


async def test_drip_sends_byte_by_byte(endpoint: IdentityEndpoint, client: Client) -> None:
    """A dripping answer is complete in the end, and every byte of it comes alone."""
    endpoint.script(Drip(0), Drip(3600))
    assert (await client.ask(endpoint))[2]["resource"] == VAULT
    url, query, headers = proper(endpoint, "imds")
    async with client.session.get(url, params=query, headers=headers) as response:
        assert int(response.headers["Content-Length"]) > 1
        assert await response.content.readany() == b"{"


@pytest.mark.parametrize("size", [0, 1, 18, 19, 20, 200_000])
async def test_huge_sends_as_many_bytes_as_it_says(endpoint: IdentityEndpoint, client: Client, size: int) -> None:
    """The body has exactly that many bytes, without a length announced, and is JSON if there is room for it."""
    endpoint.script(Huge(size))
    url, query, headers = proper(endpoint, "imds")
    _, answered, body = await client.send(url, query, headers)
    assert (len(body), "Content-Length" in answered) == (size, False)
    assert size < 19 or set(json.loads(body)["access_token"]) <= {"A"}


async def test_a_client_may_stop_reading(endpoint: IdentityEndpoint, client: Client) -> None:
    """A client that hangs up in the middle of a huge answer leaves the endpoint as it was."""
    endpoint.script(Huge(100_000_000))
    url, query, headers = proper(endpoint, "imds")
    async with client.session.get(url, params=query, headers=headers) as response:
        assert await response.content.readexactly(1) == b"{"
    assert (await client.ask(endpoint))[0] == 200


async def test_a_gate_holds_requests_until_it_is_opened(endpoint: IdentityEndpoint, client: Client) -> None:
    """All requests at the gate wait; opening lets them through, and the next one is held again."""
    gate = Gate()
    endpoint.script(gate, gate, gate)
    pair = [asyncio.create_task(client.ask(endpoint)) for _ in range(2)]
    await gate.reached(2)
    assert repr(gate) == "<Gate held=2>"
    gate.open()
    assert [(await task)[0] for task in pair] == [200, 200]
    third = asyncio.create_task(client.ask(endpoint))
    await gate.reached()
    assert not third.done()
    gate.open()
    assert (await third)[0] == 200


async def test_a_client_may_leave_the_gate() -> None:
    """Opening the gate in the instant in which a client hangs up wakes the others and harms nobody."""
    gate = Gate()
    leaver, stayer = asyncio.create_task(gate.hold()), asyncio.create_task(gate.hold())
    await gate.reached(2)
    leaver.cancel()
    gate.open()
    await stayer
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert gate.held == 0


# --- Life ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Hang(), Gate(), Slow(3600), Drip(3600), None])
async def test_closing_does_not_wait_for_what_hangs(client: Client, step: Step | None) -> None:
    """A request that hangs, in whatever way, is cut when the endpoint closes, and no task stays behind."""
    arrived = asyncio.Event()

    def wall() -> float:
        arrived.set()
        return NOW

    async def issue(_: TokenAsked) -> TokenGiven:
        if step is None:
            await asyncio.Event().wait()
        return TokenGiven("opaque", NOW)

    async with asyncio.timeout(5):
        endpoint = IdentityEndpoint(issue, wall=wall)
        await endpoint.start()
        endpoint.script(then=step)
        arrived.clear()
        asking = asyncio.create_task(client.ask(endpoint))
        await arrived.wait()
        await endpoint.aclose()
        await endpoint.aclose()
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_does_not_wait_for_an_issuer_that_will_not_die(client: Client) -> None:
    """An issuer that swallows its cancellation holds up the closing for a moment, not for ever."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def issue(_: TokenAsked) -> TokenGiven:
        asked.set()
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()
        return TokenGiven("opaque", NOW)

    async with asyncio.timeout(5):
        async with IdentityEndpoint(issue) as endpoint:
            asking = asyncio.create_task(client.ask(endpoint))
            await asked.wait()
        with pytest.raises(aiohttp.ClientError):
            await asking
        release.set()


async def test_a_closed_endpoint_refuses_connections_and_can_come_back(client: Client) -> None:
    """An outage ends on the same port, with the same secret, and nothing is forgotten."""
    endpoint = IdentityEndpoint()
    with pytest.raises(RuntimeError, match="no address yet"):
        endpoint.environ("imds")
    await endpoint.aclose()
    async with endpoint:
        url = endpoint.url
        await client.ask(endpoint)
        assert repr(endpoint) == f"<IdentityEndpoint {url} hosts=app_service,app_service_2017,imds requests=1>"
        with pytest.raises(RuntimeError, match="started already"):
            await endpoint.start()
    assert "closed" in repr(endpoint)
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.ask(endpoint)
    async with endpoint:
        assert (endpoint.url, (await client.ask(endpoint))[0]) == (url, 200)
    assert len(endpoint.requests) == 2


async def test_a_port_that_is_taken_is_an_os_error(endpoint: IdentityEndpoint) -> None:
    """Starting on somebody else's port fails, and closing what never started does no harm."""
    second = IdentityEndpoint(port=int(endpoint.url.rpartition(":")[2]))
    with pytest.raises(OSError, match="bind on address"):
        await second.start()
    await second.aclose()


def test_an_ipv6_address_is_bracketed() -> None:
    """The URL of an IPv6 endpoint is one that clients can read."""
    assert IdentityEndpoint(host="::1", port=8080).url == "http://[::1]:8080"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": "0.0.0.0"}, "'0.0.0.0'"),  # noqa: S104  # Refused: that is the point.
        ({"host": "localhost"}, "'localhost'"),
        ({"port": -1}, "-1"),
        ({"port": 65_536}, "65536"),
        ({"hosts": ("imds", "moon")}, "'moon'"),
        ({"hosts": ()}, "hosts must not be empty"),
        ({"hosts": "imds"}, r"hosts must be a list such as \['imds'\]"),
        ({"lifetime": 0}, "lifetime"),
        ({"lifetime": float("inf")}, "inf"),
        ({"latency": -1}, "-1"),
        ({"latency": float("nan")}, "nan"),
    ],
)
def test_arguments_that_make_no_sense_are_named(options: dict[str, Any], named: str) -> None:
    """A wrong argument is refused at once, with its value in the message."""
    with pytest.raises(ValueError, match=named):
        IdentityEndpoint(**options)


@pytest.mark.parametrize(("step", "value"), [(Slow, -1), (Drip, -0.5), (Huge, -1), (Answer, 99), (Answer, 600)])
def test_steps_that_make_no_sense_are_named(step: Any, value: float) -> None:
    """A wrong number in a step is refused at once, with its value in the message."""
    with pytest.raises(ValueError, match=str(value)):
        step(value)


def test_only_steps_make_a_script() -> None:
    """A class instead of an instance is caught before the first request."""
    with pytest.raises(TypeError, match="Hang"):
        IdentityEndpoint().script(Hang)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write parse_step\('503'\)"):
        IdentityEndpoint().script("503")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="500"):
        IdentityEndpoint().script(then=500)  # type: ignore[arg-type]
