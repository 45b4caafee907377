"""The hosts beside App Service and IMDS, over a real socket: what each one accepts, answers and refuses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import ssl
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
import pytest
from questions import EVERY_HOST, METADATA_PATH, NOW, VAULT, Client, Question, claims, client_of, proper

from aiomsi.endpoint import (
    Answer,
    Guard,
    IdentityEndpoint,
    IssueRefused,
    Reset,
    TokenAsked,
    TokenGiven,
    Truncated,
)
from aiomsi.endpoint.listening import Sockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from questions import Reply

    from aiomsi.endpoint.tokens import IdentityKind

CLIENT = "11111111-aaaa-4bbb-8ccc-000000000001"
TENANT = "44444444-AAAA-4bbb-8ccc-000000000004"
KEYS = "var/opt/azcmagent/tokens"

HOSTS = ("azure_ml", "cloud_shell", "azure_arc", "service_fabric", "entra")
EACH = pytest.mark.parametrize("host", HOSTS)
EACH_OVER_TLS = pytest.mark.parametrize("host", ["service_fabric", "entra"])


def with_secret(question: Question, secret: str) -> Question:
    """Return a question for Entra that shows a secret instead of an assertion."""
    return question.but(client_assertion=None, client_assertion_type=None, client_secret=secret)


def unverified() -> ssl.SSLContext:
    """Return what a client uses that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def connect(
    endpoint: IdentityEndpoint, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection over TLS, for what an HTTP client would not say or show."""
    port = int(endpoint.tls_url.rpartition(":")[2])
    return await asyncio.open_connection("127.0.0.1", port, ssl=context or unverified())


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def jwt(payload: bytes) -> str:
    """Return something that looks like a signed JWT with that payload."""
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


def private_text(path: str | Path) -> str:
    """Return what is in the file *path*, which nobody but its owner can read."""
    file = Path(path)
    assert sys.platform == "win32" or stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_text()


def names_below(folder: Path) -> set[str]:
    """Return the names of the files in *folder*."""
    return {path.name for path in folder.iterdir()}


def refuse(error: Exception) -> Any:
    """Return an issuer that raises *error*."""

    async def issue(_: TokenAsked) -> TokenGiven:
        raise error

    return issue


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Return a client that does not reuse connections."""
    async with client_of(tmp_path) as client:
        yield client


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[IdentityEndpoint]:
    """Return an emulator of every host, whose clock stands still."""
    async with IdentityEndpoint(hosts=EVERY_HOST, root=tmp_path, wall=lambda: NOW) as endpoint:
        yield endpoint


# --- What each host answers ---------------------------------------------------------------------------------------


async def test_azure_ml_answers_with_a_number(endpoint: IdentityEndpoint, client: Client) -> None:
    """Azure ML tells expiry as a JSON number, and the rest as App Service does, on a path of its own."""
    reply = await client.ask(endpoint, "azure_ml")
    body = reply.body
    client_id = claims(body.pop("access_token"))["appid"].upper()
    assert reply.status == 200
    assert body == {"expires_on": 1_760_086_400, "resource": VAULT, "token_type": "Bearer", "client_id": client_id}
    assert endpoint.environ("azure_ml")["MSI_ENDPOINT"] != endpoint.environ("app_service_2017")["MSI_ENDPOINT"]


async def test_cloud_shell_answers_with_texts(endpoint: IdentityEndpoint, client: Client) -> None:
    """Cloud Shell answers as IMDS does, with a refresh token, but knows no client id, and is not IMDS."""
    reply = await client.ask(endpoint, "cloud_shell")
    body = reply.body
    assert body.pop("access_token")
    assert (reply.status, "IMDS" in reply.headers["Server"]) == (200, False)
    assert body == {
        "refresh_token": "not-a-refresh-token",
        "expires_in": "86400",
        "expires_on": "1760086400",
        "ext_expires_in": "86400",
        "not_before": "1760000000",
        "resource": VAULT,
        "token_type": "Bearer",
    }


async def test_the_token_of_cloud_shell_is_a_users(endpoint: IdentityEndpoint, client: Client) -> None:
    """The fake token of Cloud Shell claims a person with delegated permissions, and no application."""
    found = claims((await client.ask(endpoint, "cloud_shell")).body["access_token"])
    assert (found["idtyp"], found["scp"], found["aud"]) == ("user", "user_impersonation", VAULT)
    assert "@" in found["upn"]
    assert "appid" not in found
    application = claims((await client.ask(endpoint, "imds")).body["access_token"])
    assert found["oid"] == found["sub"] != application["oid"]


async def test_azure_arc_answers_like_imds_and_is_not_imds(endpoint: IdentityEndpoint, client: Client) -> None:
    """The agent of Arc answers with texts, and does not claim to be IMDS."""
    reply = await client.ask(endpoint, "azure_arc")
    body = reply.body
    assert (reply.status, "IMDS" in reply.headers["Server"]) == (200, False)
    assert (body["expires_in"], body["expires_on"], body["refresh_token"]) == ("86400", "1760086400", "")
    assert body["client_id"] == claims(body["access_token"])["appid"]


async def test_service_fabric_answers_with_a_number(endpoint: IdentityEndpoint, client: Client) -> None:
    """Service Fabric tells expiry as a JSON number, and nothing about the identity."""
    reply = await client.ask(endpoint, "service_fabric")
    body = reply.body
    assert claims(body.pop("access_token"))["aud"] == VAULT
    assert (reply.status, body) == (200, {"expires_on": 1_760_086_400, "resource": VAULT, "token_type": "Bearer"})


@pytest.mark.parametrize("version", ["2019-07-01-preview", "2020-05-01"])
async def test_service_fabric_knows_two_versions_and_two_options(
    endpoint: IdentityEndpoint, client: Client, version: str
) -> None:
    """Both api-versions in use are served, with the capabilities and the token to refresh that libraries send."""
    options = {"xms_cc": "CP1", "token_sha256_to_refresh": "cc0a"}
    assert (await client.ask(endpoint, "service_fabric", **{"api-version": version}, **options)).status == 200
    assert endpoint.token_requests[0].parameters["xms_cc"] == "CP1"


async def test_entra_answers_with_numbers(endpoint: IdentityEndpoint, client: Client) -> None:
    """Entra tells how long the token is good in numbers, and that nobody may store the answer."""
    reply = await client.ask(endpoint, "entra")
    body = reply.body
    assert body.pop("access_token")
    assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
    assert body == {"token_type": "Bearer", "expires_in": 86_400, "ext_expires_in": 86_400}


@pytest.mark.parametrize(("tenant", "known"), [(TENANT, True), ("contoso.onmicrosoft.com", False)])
async def test_entra_serves_any_tenant(client: Client, tmp_path: Path, tenant: str, *, known: bool) -> None:
    """The fake token claims the application that asked, and the tenant that was asked if it is a GUID."""
    async with IdentityEndpoint(hosts=["entra"], root=tmp_path) as endpoint:
        question = proper(endpoint, "entra").but(client_id=CLIENT)
        variables = endpoint.environ("entra")
        url = question.url.replace(variables["AZURE_TENANT_ID"], tenant)
        found = claims((await client.send(replace(question, url=url))).body["access_token"])
    assert (found["appid"], found["aud"], found["idtyp"]) == (CLIENT, VAULT, "app")
    assert found["tid"] == (tenant if known else variables["AZURE_TENANT_ID"])
    assert found["iss"] == f"https://sts.windows.net/{found['tid']}/"


async def test_the_issuer_learns_who_asks_entra(client: Client, tmp_path: Path) -> None:
    """The question names host, resource, client id and tenant; of the scope, only one suffix is taken away."""
    asked = []

    async def issue(question: TokenAsked) -> TokenGiven:
        asked.append(question)
        return TokenGiven("opaque", NOW + 60)

    async with IdentityEndpoint(issue, hosts=["entra"], root=tmp_path, wall=lambda: NOW) as endpoint:
        await client.ask(endpoint, "entra", client_id=CLIENT, scope="https://management.azure.com//.default")
        tenant = endpoint.environ("entra")["AZURE_TENANT_ID"]
    assert asked == [TokenAsked("entra", "https://management.azure.com/", "client_id", CLIENT, tenant)]
    assert endpoint.requests[0].resource == "https://management.azure.com/"


@pytest.mark.parametrize(
    ("host", "parameter", "kind"),
    [
        ("azure_ml", "clientid", "client_id"),
        ("azure_arc", "client_id", "client_id"),
        ("azure_arc", "object_id", "object_id"),
        ("azure_arc", "msi_res_id", "resource_id"),
    ],
)
async def test_an_identity_is_selected_by_the_hosts_own_parameter(
    client: Client, tmp_path: Path, host: str, parameter: str, kind: IdentityKind
) -> None:
    """The issuer is told which identity was meant, and the agent of Arc echoes it."""
    asked = []

    async def issue(question: TokenAsked) -> TokenGiven:
        asked.append(question)
        return TokenGiven("opaque", NOW + 60)

    async with IdentityEndpoint(issue, hosts=[host], root=tmp_path) as endpoint:
        body = (await client.ask(endpoint, host, **{parameter: CLIENT})).body
    assert asked == [TokenAsked(host, VAULT, kind, CLIENT)]
    assert host != "azure_arc" or body[parameter] == CLIENT


@pytest.mark.parametrize(
    ("host", "parameter"),
    [
        ("azure_ml", "client_id"),
        ("cloud_shell", "client_id"),
        ("azure_arc", "mi_res_id"),
        ("service_fabric", "client_id"),
    ],
)
async def test_a_parameter_that_selects_nothing_is_ignored(
    endpoint: IdentityEndpoint, client: Client, host: str, parameter: str
) -> None:
    """Where a host does not know a parameter, the token is that of its own identity, and nothing is echoed."""
    usual = (await client.ask(endpoint, host)).body
    body = (await client.ask(endpoint, host, **{parameter: "/subscriptions/x"})).body
    assert body.keys() == usual.keys()
    assert claims(body["access_token"])["oid"] == claims(usual["access_token"])["oid"]
    assert "xms_mirid" not in claims(body["access_token"])


@pytest.mark.parametrize("parameter", ["client_id", "object_id", "msi_res_id"])
async def test_an_old_agent_of_arc_ignores_the_selector(client: Client, tmp_path: Path, parameter: str) -> None:
    """An agent without the feature gives out the system-assigned identity, and echoes nothing of what was chosen."""
    async with IdentityEndpoint(hosts=["azure_arc"], root=tmp_path, arc_ignores_selectors=True) as endpoint:
        usual = (await client.ask(endpoint, "azure_arc")).body
        body = (await client.ask(endpoint, "azure_arc", **{parameter: CLIENT})).body
    assert body.keys() == usual.keys()
    assert body["client_id"] == usual["client_id"] != CLIENT
    assert claims(body["access_token"])["oid"] == claims(usual["access_token"])["oid"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("azure_ml", {"expires_on": 1_760_000_060, "refresh_in": 30, "client_id": CLIENT.upper()}),
        ("cloud_shell", {"expires_on": "1760000060", "refresh_in": "30", "client_id": CLIENT}),
        ("azure_arc", {"expires_on": "1760000060", "refresh_in": "30", "client_id": CLIENT}),
        ("service_fabric", {"expires_on": 1_760_000_060, "refresh_in": 30}),
        ("entra", {"expires_in": 60, "refresh_in": 30}),
    ],
)
async def test_what_the_issuer_gives_is_handed_out(
    client: Client, tmp_path: Path, host: str, expected: dict[str, Any]
) -> None:
    """Token, expiry, refresh_in and client id come from the issuer, in whole seconds, as the host writes them."""

    async def issue(_: TokenAsked) -> TokenGiven:
        return TokenGiven("opaque", NOW + 60.9, refresh_in=30.9, client_id=CLIENT)

    async with IdentityEndpoint(issue, hosts=[host], root=tmp_path, wall=lambda: NOW) as endpoint:
        body = (await client.ask(endpoint, host)).body
    assert body["access_token"] == "opaque"
    assert {name: body.get(name) for name in expected} == expected
    assert ("client_id" in body) is ("client_id" in expected)


@EACH
async def test_a_trailing_slash_makes_no_difference(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """Both spellings of the path are served, since variables are set with and without a slash."""
    question = proper(endpoint, host)
    if host == "azure_arc":
        question = question.with_headers(Authorization=f"Basic {await client.new_key(endpoint)}")
    assert (await client.send(replace(question, url=f"{question.url}/"))).status == 200


# --- What each host refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["azure_ml", "azure_arc", "service_fabric"])
async def test_only_get_is_allowed(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """A POST is refused with 405, whatever it holds."""
    reply = await client.send(replace(proper(endpoint, host), form={"resource": VAULT}))
    assert (reply.status, reply.headers["Allow"], endpoint.token_requests) == (405, "GET", [])


@pytest.mark.parametrize("host", ["cloud_shell", "entra"])
async def test_only_post_is_allowed(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """A GET is refused with 405, even if its query holds everything."""
    question = proper(endpoint, host)
    reply = await client.send(replace(question, query=question.form or {}, form=None))
    assert (reply.status, reply.headers["Allow"], endpoint.token_requests) == (405, "POST", [])


@pytest.mark.parametrize("sent", [None, "wrong", "wr\u00f6ng"])
async def test_azure_ml_refuses_a_wrong_secret_without_a_word(
    endpoint: IdentityEndpoint, client: Client, sent: str | None
) -> None:
    """Azure ML refuses a missing or wrong secret with 401 and an empty body."""
    reply = await client.send(replace(proper(endpoint, "azure_ml"), headers={"secret": sent} if sent else {}))
    assert (reply.status, reply.content, endpoint.token_requests) == (401, b"", [])


async def test_azure_ml_refuses_in_the_flat_shape(endpoint: IdentityEndpoint, client: Client) -> None:
    """A request without a resource, or with two of them, gets App Service's error."""
    assert (await client.ask(endpoint, "azure_ml", resource=None)).body["statusCode"] == 400
    twice = replace(proper(endpoint, "azure_ml"), url=f"{endpoint.environ('azure_ml')['MSI_ENDPOINT']}?resource=x")
    assert (await client.send(twice)).body["statusCode"] == 400


async def test_azure_ml_refuses_other_versions(endpoint: IdentityEndpoint, client: Client) -> None:
    """An api-version of App Service is unknown on the path of Azure ML."""
    reply = await client.ask(endpoint, "azure_ml", **{"api-version": "2019-08-01"})
    assert (reply.status, reply.body["error"]["code"]) == (400, "UnsupportedApiVersion")


@pytest.mark.parametrize("host", ["cloud_shell", "azure_arc"])
@pytest.mark.parametrize("headers", [{}, {"Metadata": "True"}, {"Metadata": "true", "X-Forwarded-For": "10.0.0.4"}])
async def test_the_metadata_header_is_wanted_and_nobody_in_between(
    endpoint: IdentityEndpoint, client: Client, host: str, headers: dict[str, str]
) -> None:
    """Without `Metadata: true`, or forwarded, a request is refused in the host's shape, and Arc issues no key."""
    reply = await client.send(replace(proper(endpoint, host), headers=headers))
    error = reply.body["error"]
    assert (reply.status, error["code"] if host == "cloud_shell" else error) == (400, "invalid_request")
    assert not list(client.root.glob(f"{KEYS}/*"))


@pytest.mark.parametrize("form", [{}, {"resource": ""}])
async def test_cloud_shell_wants_its_resource_in_the_form(
    endpoint: IdentityEndpoint, client: Client, form: dict[str, str]
) -> None:
    """A resource in the query alone is none, and the error is nested."""
    question = replace(proper(endpoint, "cloud_shell"), form=form, query={"resource": VAULT})
    reply = await client.send(question)
    assert (reply.status, reply.body["error"]["code"], endpoint.token_requests) == (400, "invalid_request", [])


async def test_a_form_must_say_that_it_is_one(endpoint: IdentityEndpoint, client: Client) -> None:
    """A body of another type is not read as a form, and one that holds a field twice is refused."""
    url, headers = endpoint.environ("cloud_shell")["MSI_ENDPOINT"], {"Metadata": "true"}
    for content_type, body, status in [
        ("application/json", b"resource=x", 400),
        ("Application/X-WWW-Form-URLEncoded; charset=utf-8", b"resource=x", 200),
        ("application/x-www-form-urlencoded", b"resource=x&resource=y", 400),
    ]:
        sent = {**headers, "Content-Type": content_type}
        async with client.session.post(url, headers=sent, data=body) as response:
            assert response.status == status
    assert [request.form for request in endpoint.requests] == [
        (),
        (("resource", "x"),),
        (("resource", "x"), ("resource", "y")),
    ]
    assert endpoint.requests[1].parameters == {}
    assert [request.resource for request in endpoint.requests] == [None, "x", "x"]


@pytest.mark.parametrize("sent", [None, "wrong"])
async def test_service_fabric_refuses_a_wrong_secret(
    endpoint: IdentityEndpoint, client: Client, sent: str | None
) -> None:
    """A missing or wrong secret is told with a code of its own, and a correlation id."""
    reply = await client.send(replace(proper(endpoint, "service_fabric"), headers={"Secret": sent} if sent else {}))
    error = reply.body["error"]
    assert (reply.status, error["code"], endpoint.token_requests) == (400, "SecretHeaderNotFound", [])
    assert error.keys() == {"correlationId", "code", "message"}


@pytest.mark.parametrize("version", [None, "2018-02-01", "2020-06-01"])
async def test_service_fabric_refuses_other_versions(
    endpoint: IdentityEndpoint, client: Client, version: str | None
) -> None:
    """An api-version that it does not know is told with a code of its own."""
    reply = await client.ask(endpoint, "service_fabric", **{"api-version": version})
    assert (reply.status, reply.body["error"]["code"]) == (400, "InvalidApiVersion")


async def test_service_fabric_wants_a_resource(endpoint: IdentityEndpoint, client: Client) -> None:
    """A missing resource is told in the host's own words."""
    reply = await client.ask(endpoint, "service_fabric", resource=None)
    assert (reply.status, reply.body["error"]["code"]) == (400, "ArgumentNullOrEmpty")


@pytest.mark.parametrize(
    ("changes", "status", "error", "number"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"scope": VAULT}, 400, "invalid_scope", 70011),
        ({"scope": "/.default"}, 400, "invalid_scope", 70011),
        ({"scope": f"{VAULT}/.default openid"}, 400, "invalid_scope", 70011),
        ({"scope": f"openid {VAULT}/.default"}, 400, "invalid_scope", 70011),
        ({"scope": None}, 400, "invalid_request", 900144),
        ({"client_id": None}, 400, "invalid_request", 900144),
        ({"grant_type": ""}, 400, "invalid_request", 900144),
        ({"claims": "{"}, 400, "invalid_request", 9002313),
        ({"client_assertion": None}, 401, "invalid_client", 7000218),
        ({"client_assertion": "two.parts"}, 401, "invalid_client", 50027),
        ({"client_assertion": "a.b.c\n"}, 401, "invalid_client", 50027),
        ({"client_assertion_type": None}, 400, "invalid_request", 9002313),
        ({"client_assertion_type": "urn:saml"}, 400, "invalid_request", 9002313),
        ({"client_secret": "a"}, 400, "invalid_request", 9002313),
    ],
)
async def test_entra_refuses_with_a_number(
    endpoint: IdentityEndpoint, client: Client, changes: dict[str, str | None], status: int, error: str, number: int
) -> None:
    """Every mistake is told as OAuth tells it, together with Entra's own number."""
    reply = await client.ask(endpoint, "entra", **changes)
    body = reply.body
    assert (reply.status, body["error"], body["error_codes"]) == (status, error, [number])
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert endpoint.token_requests == []


async def test_an_error_of_entra_has_all_its_members(endpoint: IdentityEndpoint, client: Client) -> None:
    """The time is that of the endpoint's clock, and there are ids to quote."""
    body = (await client.ask(endpoint, "entra", scope=VAULT)).body
    assert body.keys() == {
        "error",
        "error_description",
        "error_codes",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    }
    assert body["timestamp"] == "2025-10-09 08:53:20Z"
    assert body["error_uri"].endswith("?code=70011")


async def test_entra_refuses_a_field_that_came_twice(endpoint: IdentityEndpoint, client: Client) -> None:
    """A form that says the same thing twice is ambiguous."""
    question = proper(endpoint, "entra")
    fields = [*(question.form or {}).items(), ("scope", "https://other/.default")]
    trusted = ssl.create_default_context(cafile=client.root / "ca.pem")
    async with client.session.post(question.url, data=fields, ssl=trusted) as response:
        assert (response.status, (await response.json())["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["//oauth2/v2.0/token", "/a/b/oauth2/v2.0/token", "/a/oauth2/token"])
async def test_entra_is_on_one_path_per_tenant(endpoint: IdentityEndpoint, client: Client, path: str) -> None:
    """A path without a tenant, or with more than one segment for it, is not found."""
    assert (await client.send(replace(proper(endpoint, "entra"), url=endpoint.tls_url + path))).status == 404


# --- What the issuer refuses --------------------------------------------------------------------------------------


async def refused(client: Client, host: str, error: IssueRefused) -> Reply:
    async with IdentityEndpoint(refuse(error), hosts=[host], root=client.root) as endpoint:
        return await client.ask(endpoint, host)


async def test_a_failure_of_azure_ml_is_plain_text(client: Client) -> None:
    """What is 500 or more is no JSON; what is less is App Service's error."""
    reply = await refused(client, "azure_ml", IssueRefused(500, "server_error", "404", 2))
    assert (reply.status, reply.content, reply.headers["Retry-After"]) == (500, b"InternalError - :{404}", "2")
    assert reply.headers["Content-Type"] == "text/plain"
    assert (await refused(client, "azure_ml", IssueRefused(400, "invalid_request", "no"))).body["message"] == "no"


async def test_a_refusal_takes_the_shape_of_cloud_shell(client: Client) -> None:
    """Cloud Shell nests code and message."""
    reply = await refused(client, "cloud_shell", IssueRefused(400, "AudienceNotSupported", "odd", 7))
    assert (reply.status, reply.headers["Retry-After"]) == (400, "7")
    assert reply.body == {"error": {"code": "AudienceNotSupported", "message": "odd"}}


async def test_a_refusal_takes_the_shape_of_azure_arc(client: Client) -> None:
    """The agent of Arc tells error and error_description, without a challenge."""
    reply = await refused(client, "azure_arc", IssueRefused(404, "not_found", "not assigned"))
    assert (reply.status, "WWW-Authenticate" in reply.headers) == (404, False)
    assert reply.body == {"error": "not_found", "error_description": "not assigned"}


@pytest.mark.parametrize(
    ("code", "expected"), [("not_found", "ManagedIdentityNotFound"), ("TooManyRequests", "TooManyRequests")]
)
async def test_a_refusal_takes_the_shape_of_service_fabric(client: Client, code: str, expected: str) -> None:
    """Service Fabric nests its own code, a message and a correlation id."""
    reply = await refused(client, "service_fabric", IssueRefused(404, code, "which?", 1))
    error = reply.body["error"]
    assert (reply.status, reply.headers["Retry-After"]) == (404, "1")
    assert (error["code"], error["message"]) == (expected, "which?")


@pytest.mark.parametrize(
    ("error", "name", "number", "description"),
    [
        (IssueRefused(401, "AADSTS700213", "no match"), "invalid_client", 700213, "no match"),
        (IssueRefused(400, "AADSTS70021", "no match"), "invalid_client", 70021, "no match"),
        (IssueRefused(400, "AADSTS700016", "AADSTS700016: who?"), "unauthorized_client", 700016, "who?"),
        (IssueRefused(400, "AADSTS500011", "which?"), "invalid_resource", 500011, "which?"),
        (IssueRefused(401, "AADSTS7000222", "expired"), "invalid_client", 7000222, "expired"),
        (IssueRefused(400, "AADSTS90002", "no tenant"), "invalid_request", 90002, "no tenant"),
        (IssueRefused(503, "AADSTS90033", "again"), "server_error", 90033, "again"),
        (IssueRefused(429, "AADSTS50196", "loop", 3), "temporarily_unavailable", 50196, "loop"),
        (IssueRefused(400, "invalid_resource", "AADSTS500011: which?"), "invalid_resource", 500011, "which?"),
        (IssueRefused(429, "too_many_requests", "slow down", 3), "temporarily_unavailable", 50196, "slow down"),
        (IssueRefused(502, "bad_gateway", "see AADSTS1: x"), "bad_gateway", 90033, "see AADSTS1: x"),
        (IssueRefused(401, "invalid_client", "no"), "invalid_client", 50012, "no"),
    ],
)
async def test_a_refusal_takes_the_shape_of_entra(
    client: Client, error: IssueRefused, name: str, number: int, description: str
) -> None:
    """A number is taken from code or message; without one it is the usual one of the status, and so is the name."""
    reply = await refused(client, "entra", error)
    body = reply.body
    assert (reply.status, body["error"], body["error_codes"]) == (error.status, name, [number])
    assert body["error_description"] == f"AADSTS{number}: {description}"
    assert reply.headers.get("Retry-After") == ("3" if error.status == 429 else None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("azure_ml", b"InternalError"),
        ("cloud_shell", b'"server_error"'),
        ("azure_arc", b'"server_error"'),
        ("service_fabric", b'"InternalServerError"'),
        ("entra", b'"server_error"'),
    ],
)
async def test_an_issuer_that_breaks_is_told_without_its_words(
    client: Client, tmp_path: Path, host: str, expected: bytes
) -> None:
    """A bug in the issuer becomes a 500 in the host's shape, without its text, which may hold a token."""
    async with IdentityEndpoint(refuse(KeyError("a-token")), hosts=[host], root=tmp_path) as endpoint:
        reply = await client.ask(endpoint, host)
    assert (reply.status, expected in reply.content, b"a-token" in reply.content) == (500, True, False)


# --- Azure Arc: the key file --------------------------------------------------------------------------------------


async def test_arc_challenges_with_a_file(endpoint: IdentityEndpoint, client: Client) -> None:
    """The first request is answered with the path, inside the root, of a new key file that its owner alone can read."""
    reply = await client.send(proper(endpoint, "azure_arc"))
    assert (reply.status, reply.body["error"]) == (401, "unauthorized_client")
    guid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert re.fullmatch(rf"Basic realm=/{KEYS}/{guid}\.key", reply.headers["WWW-Authenticate"])
    file = client.key_file(reply.headers)
    assert 40 < len(private_text(file)) <= 4096
    assert names_below(file.parent) == {file.name}


async def test_a_key_of_arc_is_good_once(endpoint: IdentityEndpoint, client: Client) -> None:
    """A key opens one time, then its file is gone, and who shows it again is challenged anew."""
    challenge = await client.send(proper(endpoint, "azure_arc"))
    file = client.key_file(challenge.headers)
    question = proper(endpoint, "azure_arc").with_headers(Authorization=f"Basic {file.read_text()}")
    assert (await client.send(question)).status == 200
    assert not file.exists()
    again = await client.send(question)
    assert again.status == 401
    assert client.key_file(again.headers).exists()
    assert again.headers["WWW-Authenticate"] != challenge.headers["WWW-Authenticate"]


async def test_a_key_file_may_be_gone_already(endpoint: IdentityEndpoint, client: Client) -> None:
    """A client that clears up after itself gets its token all the same."""
    file = client.key_file((await client.send(proper(endpoint, "azure_arc"))).headers)
    question = proper(endpoint, "azure_arc").with_headers(Authorization=f"basic {file.read_text()}")
    file.unlink()
    assert (await client.send(question)).status == 200


@pytest.mark.parametrize(
    "shown", ["Basic {encoded}", "Bearer {key}", "{key}", "Basic", "Basic unknown", "Basic {key}x"]
)
async def test_arc_takes_the_raw_key_alone(endpoint: IdentityEndpoint, client: Client, shown: str) -> None:
    """A key that was encoded again, belongs to another scheme, or was never issued, is challenged anew."""
    key = await client.new_key(endpoint)
    text = shown.format(key=key, encoded=base64.b64encode(key.encode()).decode())
    assert (await client.send(proper(endpoint, "azure_arc").with_headers(Authorization=text))).status == 401
    good = proper(endpoint, "azure_arc").with_headers(Authorization=f"Basic {key}")
    assert (await client.send(good)).status == 200


async def test_a_crowd_at_arc_has_a_key_each(endpoint: IdentityEndpoint, client: Client) -> None:
    """Challenges in the air at the same time do not disturb each other, and no key is left behind."""
    replies = await asyncio.gather(*(client.ask(endpoint, "azure_arc") for _ in range(5)))
    assert [reply.status for reply in replies] == [200] * 5
    assert not list(client.root.glob(f"{KEYS}/*"))


async def test_a_challenge_is_no_token_request(endpoint: IdentityEndpoint, client: Client) -> None:
    """A challenge uses up no step of the script; the authorised request does, even if the key is used up by it."""
    endpoint.script(Answer(500))
    key = await client.new_key(endpoint)
    assert (endpoint.token_requests, endpoint.requests[0].host) == ([], "azure_arc")
    question = proper(endpoint, "azure_arc").with_headers(Authorization=f"Basic {key}")
    assert [(await client.send(question)).status for _ in range(2)] == [500, 401]
    assert [request.resource for request in endpoint.token_requests] == [VAULT]


async def test_a_key_outlives_a_restart(client: Client, tmp_path: Path) -> None:
    """The endpoint is down for a moment, and the client that holds a key goes on where it was."""
    endpoint = IdentityEndpoint(hosts=["azure_arc"], root=tmp_path)
    async with endpoint:
        key = await client.new_key(endpoint)
    async with endpoint:
        question = proper(endpoint, "azure_arc").with_headers(Authorization=f"Basic {key}")
        assert (await client.send(question)).status == 200


async def test_arc_and_imds_share_a_path(endpoint: IdentityEndpoint, client: Client) -> None:
    """On one endpoint they are told apart by the api-version: Arc's own, and everything else."""
    assert (await client.send(proper(endpoint, "imds"))).status == 200
    assert (await client.send(proper(endpoint, "imds").but(**{"api-version": "2020-06-01"}))).status == 401
    probe = await client.send(Question(endpoint.url + METADATA_PATH))
    assert (probe.status, "IMDS" in probe.headers["Server"]) == (400, True)
    assert [request.host for request in endpoint.requests] == ["imds", "azure_arc", "imds"]


async def test_either_of_arc_and_imds_may_be_alone(client: Client, tmp_path: Path) -> None:
    """IMDS alone knows Arc's version too, since it is one of its own; Arc alone knows no other."""
    async with IdentityEndpoint(hosts=["imds"]) as endpoint:
        assert (await client.ask(endpoint, "imds", **{"api-version": "2020-06-01"})).status == 200
    async with IdentityEndpoint(hosts=["azure_arc"], root=tmp_path) as endpoint:
        reply = await client.send(proper(endpoint, "azure_arc").but(**{"api-version": "2018-02-01"}))
    assert (reply.status, reply.body["error"]) == (400, "UnsupportedApiVersion")


# --- Entra: the proofs --------------------------------------------------------------------------------------------


async def test_entra_takes_the_secret(endpoint: IdentityEndpoint, client: Client) -> None:
    """The endpoint's secret is a client secret, and can be rotated; another one is refused with a number."""
    question = proper(endpoint, "entra")
    old = endpoint.secret
    assert (await client.send(with_secret(question, old))).status == 200
    endpoint.secret = "another"
    reply = await client.send(with_secret(question, old))
    assert (reply.status, reply.body["error"], reply.body["error_codes"]) == (401, "invalid_client", [7000215])
    assert (await client.send(with_secret(question, "another"))).status == 200


async def test_the_federated_token_is_that_of_a_service_account(endpoint: IdentityEndpoint) -> None:
    """The file is there from the start: an unsigned JWT for Entra, good for an hour, that its owner alone can read."""
    token = private_text(endpoint.environ("entra")["AZURE_FEDERATED_TOKEN_FILE"])
    found = claims(token)
    assert (found["sub"], found["aud"]) == ("system:serviceaccount:default:demo", ["api://AzureADTokenExchange"])
    assert (found["iat"], found["exp"], found["iss"][:8]) == (NOW, NOW + 3600, "https://")
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "==")) == {"alg": "none", "typ": "JWT"}


async def test_only_the_newest_federated_token_is_good(endpoint: IdentityEndpoint, client: Client) -> None:
    """After a rotation the token before it is refused, as one out of its time, and the file holds a good one."""
    before = proper(endpoint, "entra")
    assert (await client.send(before)).status == 200
    await endpoint.rotate_federated_token()
    reply = await client.send(before)
    assert (reply.status, reply.body["error"], reply.body["error_codes"]) == (401, "invalid_client", [700024])
    assert proper(endpoint, "entra") != before
    assert (await client.ask(endpoint, "entra")).status == 200


async def test_a_federated_token_that_was_tampered_with_is_refused(endpoint: IdentityEndpoint, client: Client) -> None:
    """What claims to come from the endpoint's own cluster must be what it wrote."""
    token = (proper(endpoint, "entra").form or {})["client_assertion"]
    assert (await client.ask(endpoint, "entra", client_assertion=f"{token}x")).body["error_codes"] == [700024]


@pytest.mark.parametrize(
    "assertion",
    [jwt(b'{"iss": "https://elsewhere"}'), jwt(b"{}"), jwt(b"[]"), jwt(b"\xff"), jwt(b"[" * 40_000), "a.b.c"],
    ids=["other issuer", "no issuer", "no claims", "no text", "too deep", "no base64"],
)
async def test_other_assertions_are_taken_as_they_are(
    endpoint: IdentityEndpoint, client: Client, assertion: str
) -> None:
    """An assertion of another issuer is for the test to verify, whatever is in it."""
    assert (await client.ask(endpoint, "entra", client_assertion=assertion)).status == 200
    assert dict(endpoint.token_requests[0].form)["client_assertion"] == assertion


@pytest.mark.parametrize("text", ['{"access_token": {}}', "[]"])
async def test_entra_takes_claims(endpoint: IdentityEndpoint, client: Client, text: str) -> None:
    """Claims are JSON, and remembered."""
    assert (await client.ask(endpoint, "entra", claims=text)).status == 200
    assert dict(endpoint.token_requests[0].form)["claims"] == text


async def test_rotation_needs_entra() -> None:
    """An endpoint that does not play Entra has no token to rotate, and says what it plays."""
    with pytest.raises(ValueError, match="this endpoint plays imds"):
        await IdentityEndpoint(hosts=["imds"]).rotate_federated_token()


async def test_the_federated_token_outlives_a_restart(client: Client, tmp_path: Path) -> None:
    """An outage does not rotate the token, nor does it change the certificate."""
    endpoint = IdentityEndpoint(hosts=["entra", "service_fabric"], root=tmp_path)
    async with endpoint:
        before, thumbprint = proper(endpoint, "entra"), endpoint.environ("service_fabric")["IDENTITY_SERVER_THUMBPRINT"]
    async with endpoint:
        assert endpoint.environ("service_fabric")["IDENTITY_SERVER_THUMBPRINT"] == thumbprint
        assert (await client.send(before)).status == 200


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_the_thumbprint_is_that_of_the_certificate(endpoint: IdentityEndpoint) -> None:
    """Service Fabric's pin is the SHA-1 of the certificate that the server shows."""
    _, writer = await connect(endpoint)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await hang_up(writer)
    expected = hashlib.sha1(shown, usedforsecurity=False).hexdigest()
    assert endpoint.environ("service_fabric")["IDENTITY_SERVER_THUMBPRINT"] == expected


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_the_chain_leads_to_the_authority(endpoint: IdentityEndpoint, client: Client, name: str) -> None:
    """Who trusts `ca.pem` trusts both names, through an authority in between that the server sends along."""
    question = proper(endpoint, "service_fabric")
    assert (await client.send(replace(question, url=question.url.replace("localhost", name)))).status == 200
    trusted = ssl.create_default_context(cafile=endpoint.environ("entra")["SSL_CERT_FILE"])
    (authority,) = trusted.get_ca_certs()
    _, writer = await connect(endpoint, trusted)
    issuer = writer.get_extra_info("peercert")["issuer"]
    await hang_up(writer)
    assert issuer != authority["subject"]


async def test_the_certificate_has_the_names_that_a_guard_was_told() -> None:
    """Containers call this machine by another name, over TLS as well."""
    async with IdentityEndpoint(hosts=["service_fabric"], guard=Guard(["host.docker.internal"])) as endpoint:
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        _, writer = await connect(endpoint, unverified)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await hang_up(writer)
    assert b"host.docker.internal" in shown


async def test_nobody_else_trusts_the_certificate(endpoint: IdentityEndpoint, client: Client) -> None:
    """A client with the system's authorities breaks off before it has sent a thing, and harms nobody."""
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await client.session.get(endpoint.tls_url, ssl=True)
    assert endpoint.requests == []
    assert (await client.ask(endpoint, "service_fabric")).status == 200


@EACH_OVER_TLS
async def test_a_host_over_tls_is_nowhere_else(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """Over plain HTTP there is no such host, nor are the others there over TLS; the record tells which it was."""
    question = proper(endpoint, host)
    plain = question.url.replace(endpoint.tls_url, endpoint.url)
    await client.send(question)
    assert (await client.send(replace(question, url=plain))).status in {400, 404}
    other = proper(endpoint, "azure_ml")
    assert (await client.send(replace(other, url=other.url.replace(endpoint.url, endpoint.tls_url)))).status == 404
    assert [request.scheme for request in endpoint.requests] == ["https", "http", "https"]
    assert [request.host for request in endpoint.token_requests] == [host]


async def test_both_ports_are_kept_over_a_restart(client: Client, tmp_path: Path) -> None:
    """An outage ends on the same ports, with the same addresses."""
    endpoint = IdentityEndpoint(hosts=["imds", "service_fabric"], root=tmp_path)
    with pytest.raises(RuntimeError, match="start it"):
        _ = endpoint.tls_url
    async with endpoint:
        before = endpoint.url, endpoint.tls_url, endpoint.environ("service_fabric")
        assert (await client.ask(endpoint, "service_fabric")).status == 200
    question = proper(endpoint, "service_fabric")
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.send(question)
    async with endpoint:
        assert (endpoint.url, endpoint.tls_url, endpoint.environ("service_fabric")) == before
        assert (await client.send(question)).status == 200
    assert len(endpoint.requests) == 2


async def test_a_port_can_be_chosen_for_tls(client: Client, tmp_path: Path) -> None:
    """TLS listens where it is told to, and where that is taken, nobody listens at all."""
    async with IdentityEndpoint(hosts=["service_fabric"], root=tmp_path) as first:
        port = int(first.tls_url.rpartition(":")[2])
        second = IdentityEndpoint(hosts=["service_fabric"], root=tmp_path, tls_port=port)
        with pytest.raises(OSError, match="bind on address"):
            await second.start()
        assert "closed" in repr(second)
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.session.get(second.url)
    async with second:
        assert second.tls_url == f"https://localhost:{port}"
        assert (await client.ask(second, "service_fabric")).status == 200


def test_the_address_over_tls_is_one_that_the_certificate_names() -> None:
    """It is localhost, unless the endpoint is at an address of loopback that nobody calls so."""
    assert Sockets("::1", 0, 8443).tls_url == "https://localhost:8443"
    assert Sockets("127.0.0.2", 0, 8443).tls_url == "https://127.0.0.2:8443"
    assert Sockets("127.0.0.1", 0, 0).tls_url is None


async def test_service_fabric_needs_no_root(client: Client, tmp_path: Path) -> None:
    """Its clients know the certificate by its thumbprint, so nothing is written anywhere."""
    async with IdentityEndpoint(hosts=["service_fabric"]) as endpoint:
        question = proper(endpoint, "service_fabric")
        async with client.session.get(
            question.url, params=question.query, headers=question.headers, ssl=False
        ) as response:
            assert response.status == 200
    assert names_below(tmp_path) == set()


async def test_tls_is_not_prepared_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no host is asked over TLS, trustme is not wanted, and there is no address for TLS."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    async with IdentityEndpoint() as endpoint:
        with pytest.raises(RuntimeError, match="asked over TLS"):
            _ = endpoint.tls_url


async def test_a_missing_trustme_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says what to install, and nobody listens; once it is there, the endpoint starts."""
    endpoint = IdentityEndpoint(hosts=["imds", "entra"], root=tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "trustme", None)
        with pytest.raises(ImportError, match=re.escape("pip install 'aiomsi[testing]'")) as caught:
            await endpoint.start()
    assert caught.value.name == "trustme"
    assert "closed" in repr(endpoint)
    async with endpoint:
        assert private_text(endpoint.environ("entra")["AZURE_FEDERATED_TOKEN_FILE"])


# --- Faults and closing -------------------------------------------------------------------------------------------


@EACH
async def test_a_script_is_played_by_every_host(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """Well-formed token requests use up the steps, one after the other, and nothing else does."""
    endpoint.script(Answer(503, headers={"Retry-After": "7"}), None)
    await client.ask(endpoint, host, resource=None, scope=None)
    replies = [await client.ask(endpoint, host) for _ in range(2)]
    assert [reply.status for reply in replies] == [503, 200]
    assert replies[0].headers["Retry-After"] == "7"
    assert [(request.host, request.resource) for request in endpoint.token_requests] == [(host, VAULT)] * 2


async def test_a_redirect_is_an_answer(endpoint: IdentityEndpoint, client: Client) -> None:
    """Where a host should send its clients elsewhere, an answer of that status does it."""
    endpoint.script(Answer(302, headers={"Location": endpoint.url}))
    question = proper(endpoint, "service_fabric")
    async with client.session.get(
        question.url, params=question.query, headers=question.headers, ssl=False, allow_redirects=False
    ) as response:
        assert (response.status, response.headers["Location"]) == (302, endpoint.url)


async def test_reset_is_a_real_reset_over_tls(endpoint: IdentityEndpoint) -> None:
    """The client sees the connection reset by the peer, not closed."""
    endpoint.script(Reset())
    question = proper(endpoint, "service_fabric")
    target = f"{METADATA_PATH}?{urlencode(question.query)}"
    reader, writer = await connect(endpoint)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nSecret: {endpoint.secret}\r\n\r\n".encode())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert len(endpoint.token_requests) == 1


@EACH_OVER_TLS
async def test_truncated_promises_more_than_it_sends_over_tls(
    endpoint: IdentityEndpoint, client: Client, host: str
) -> None:
    """The Content-Length is that of the whole answer, and half of it comes."""
    endpoint.script(Truncated())
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.ask(endpoint, host)


@EACH_OVER_TLS
async def test_closing_does_not_wait_for_what_hangs_over_tls(client: Client, tmp_path: Path, host: str) -> None:
    """A request that hangs is cut when the endpoint closes, and no task stays behind."""
    arrived = asyncio.Event()

    async def issue(_: TokenAsked) -> TokenGiven:
        arrived.set()
        await asyncio.Event().wait()
        return TokenGiven("opaque", NOW)

    async with asyncio.timeout(10):
        endpoint = IdentityEndpoint(issue, hosts=[host], root=tmp_path)
        await endpoint.start()
        asking = asyncio.create_task(client.ask(endpoint, host))
        await arrived.wait()
        await endpoint.aclose()
        await endpoint.aclose()
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_handshake_that_outlasts_the_closing_leads_nowhere(client: Client, tmp_path: Path) -> None:
    """A client that was about to say hello when the endpoint closed gets no answer any more, and is not remembered."""
    async with IdentityEndpoint(hosts=["imds", "service_fabric"], root=tmp_path) as endpoint:
        port = int(endpoint.tls_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # By the time that another one has been served, this connection has been accepted.
        await client.ask(endpoint, "service_fabric")
    trusted = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    async with asyncio.timeout(5):
        await writer.start_tls(trusted, server_hostname="localhost")
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.read() == b""
    writer.close()
    assert len(endpoint.requests) == 1


# --- Arguments, and what is not told ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["azure_arc", "entra"])
def test_a_host_with_files_needs_a_root(host: str) -> None:
    """Where to write the files is asked at once, not at the first request."""
    with pytest.raises(ValueError, match=f"root must be a folder to play '{host}'"):
        IdentityEndpoint(hosts=["imds", host])


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_for_tls_that_makes_no_sense_is_named(port: int) -> None:
    """A wrong port is refused at once, by the name of its option."""
    with pytest.raises(ValueError, match=f"tls_port must be 0 to 65535, not {port}"):
        IdentityEndpoint(tls_port=port)


@pytest.mark.parametrize("host", ["azure_arc", "entra"])
async def test_a_root_that_cannot_be_used_is_found_out_at_the_start(tmp_path: Path, host: str) -> None:
    """A root below a file is an OSError before anybody listens."""
    file = tmp_path / "file"
    file.touch()
    endpoint = IdentityEndpoint(hosts=[host], root=file / "root")
    with pytest.raises(OSError, match="file"):
        await endpoint.start()
    assert "closed" in repr(endpoint)


async def test_a_root_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Variables are for processes in other folders too, so their paths are absolute."""
    monkeypatch.chdir(tmp_path)
    endpoint = await asyncio.to_thread(IdentityEndpoint, hosts=["entra"], root=Path("below"))
    async with endpoint:
        variables = endpoint.environ("entra")
    assert (tmp_path / "below" / "ca.pem").samefile(variables["SSL_CERT_FILE"])
    assert Path(variables["AZURE_FEDERATED_TOKEN_FILE"]).is_absolute()


async def test_the_variables_are_those_of_the_host(endpoint: IdentityEndpoint, tmp_path: Path) -> None:
    """Each host hands out what its platform sets, and no more."""
    assert endpoint.environ("azure_ml") == {"MSI_ENDPOINT": f"{endpoint.url}/msi/auth", "MSI_SECRET": endpoint.secret}
    assert endpoint.environ("cloud_shell") == {"MSI_ENDPOINT": f"{endpoint.url}/oauth2/token"}
    assert endpoint.environ("azure_arc") == {
        "IDENTITY_ENDPOINT": endpoint.url + METADATA_PATH,
        "IMDS_ENDPOINT": endpoint.url,
    }
    fabric = endpoint.environ("service_fabric")
    assert len(fabric.pop("IDENTITY_SERVER_THUMBPRINT")) == 40
    assert fabric == {"IDENTITY_ENDPOINT": endpoint.tls_url + METADATA_PATH, "IDENTITY_HEADER": endpoint.secret}
    entra = endpoint.environ("entra")
    assert entra.pop("AZURE_TENANT_ID").startswith("fa4efa4e-")
    assert entra.pop("AZURE_CLIENT_ID").startswith("fa4efa4e-")
    assert entra == {
        "AZURE_AUTHORITY_HOST": f"{endpoint.tls_url}/",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "var/run/secrets/azure/tokens/azure-identity-token"),
        "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
    }


async def test_secrets_do_not_show(
    endpoint: IdentityEndpoint, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither secret nor key, assertion or token is in the repr of anything, nor in a log."""
    caplog.set_level("DEBUG")
    assertion = (proper(endpoint, "entra").form or {})["client_assertion"]
    key = await client.new_key(endpoint)
    await client.send(proper(endpoint, "azure_arc").with_headers(Authorization=f"Basic {key}"))
    tokens = [(await client.ask(endpoint, host)).body["access_token"] for host in HOSTS]
    await client.send(with_secret(proper(endpoint, "entra"), endpoint.secret))
    kept = [vars(endpoint).values(), endpoint.requests, endpoint.token_requests]
    shown = f"{endpoint!r} {[[repr(thing) for thing in things] for things in kept]} {caplog.text}"
    for secret in (endpoint.secret, key, assertion, *tokens):
        assert secret not in shown
