"""Entra's token endpoint, as an application asks it: what is sent, what the answers mean, and whom it believes."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pods import CLIENT_ID, ISSUER, SUBJECT, TENANT_ID, VAULT, Pod, assertion, pod, refusal

from aiomsi import (
    AccessToken,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer, Gate, Huge, IdentityEndpoint, Reset, Truncated
from aiomsi.sources import ClientSecret, Surroundings, WorkloadIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiomsi.endpoint import Step

SECRET = "s3~cret&with=+/signs, %and blanks"
CLOUDS = ("login.microsoftonline.us", "login.chinacloudapi.cn", "login.contoso.example")
CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1760000000"}},"id_token":{"x":null}}'


@pytest.fixture
async def entra(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Pod]:
    """A pod whose secrets may not be logged either."""
    caplog.set_level(logging.DEBUG)
    async with pod(tmp_path, *CLOUDS) as opened:
        yield opened
        assert [secret for secret in opened.secrets if secret in caplog.text] == []


def workload(entra: Pod, **options: Any) -> WorkloadIdentity:
    return WorkloadIdentity(**options, surroundings=entra.surroundings)


def application(entra: Pod, secret: str = SECRET) -> ClientSecret:
    entra.secrets += [secret, quote_plus(secret)]
    return ClientSecret(tenant_id=TENANT_ID, client_id=CLIENT_ID, client_secret=secret, surroundings=entra.surroundings)


# What is sent


async def test_the_request(entra: Pod) -> None:
    """The application proves itself in the form of a POST to its tenant's endpoint, and nothing is in the URL."""
    token = await entra.token()
    assert (token.token, token.resource, token.source) == ("entra-gave-this", VAULT, "workload_identity")
    (request,) = entra.requests
    assert (request.method, request.path_qs) == ("POST", f"/{TENANT_ID}/oauth2/v2.0/token")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert {"Authorization", "Cookie", "Proxy-Authorization"} & set(request.headers) == set()
    assert entra.internet.hosts == ["login.microsoftonline.com:443"]
    assert entra.forms == [
        {
            "client_id": CLIENT_ID,
            "grant_type": "client_credentials",
            "scope": "https://vault.azure.net/.default",
            "client_assertion": assertion(),
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }
    ]


async def test_a_secret_of_any_characters_arrives_whole(entra: Pod) -> None:
    """A client secret is any text, and sent as the form's encoding has it."""
    await entra.token(application(entra))
    assert entra.forms[0]["client_secret"] == SECRET
    assert "client_assertion" not in entra.forms[0]


@pytest.mark.parametrize(
    ("resource", "scope"),
    [
        (VAULT, "https://vault.azure.net/.default"),
        ("https://management.azure.com/", "https://management.azure.com//.default"),
        ("2ff814a6-3304-4ab8-85cb-cd0e6f879c1d", "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"),
        ("api://shop/Orders?a=b&c", "api://shop/Orders?a=b&c/.default"),
    ],
)
async def test_the_scope_is_the_resource_and_its_defaults(entra: Pod, resource: str, scope: str) -> None:
    """A slash at the end of a resource is part of its name, so the scope then has two."""
    token = await entra.token(resource=resource)
    assert token.resource == resource
    assert entra.forms[0]["scope"] == scope


# Where it is sent


@pytest.mark.parametrize(
    ("given", "variable", "host"),
    [
        (None, "", "login.microsoftonline.com:443"),
        (None, "https://login.microsoftonline.us/", "login.microsoftonline.us:443"),
        (None, "login.contoso.example:8443", "login.contoso.example:8443"),
        ("https://login.chinacloudapi.cn", "https://login.microsoftonline.us/", "login.chinacloudapi.cn:443"),
    ],
)
async def test_the_authority_is_the_host_that_is_asked(entra: Pod, given: str | None, variable: str, host: str) -> None:
    """It is given, or else in the environment, or else that of the public cloud."""
    entra.environ["AZURE_AUTHORITY_HOST"] = variable
    await entra.token(workload(entra, authority=given))
    assert entra.internet.hosts == [host]
    assert entra.requests[0].path == f"/{TENANT_ID}/oauth2/v2.0/token"


async def test_an_authority_may_have_a_path(entra: Pod) -> None:
    """Private clouds have their token endpoints somewhere below."""
    entra.environ["AZURE_AUTHORITY_HOST"] = "https://login.contoso.example/adfs/"
    await entra.token()
    assert entra.requests[0].path == f"/adfs/{TENANT_ID}/oauth2/v2.0/token"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AZURE_AUTHORITY_HOST", "http://login.contoso.example"),
        ("AZURE_AUTHORITY_HOST", "https://login.contoso.example/?"),
        ("AZURE_AUTHORITY_HOST", "https://user:password@login.contoso.example"),
        ("AZURE_CLIENT_ID", ""),
        ("AZURE_TENANT_ID", ""),
        ("AZURE_TENANT_ID", "../common"),
    ],
)
async def test_nothing_is_sent_where_it_should_not_go(entra: Pod, variable: str, text: str) -> None:
    """A wrong environment is told before a connection is made."""
    entra.environ[variable] = text
    error = await entra.error(ConfigurationError)
    assert variable in str(error)
    assert entra.internet.hosts == []


async def test_arguments_win_over_the_environment(entra: Pod) -> None:
    """Who names a client and a tenant gets a token of theirs, whatever the pod is labelled with."""
    await entra.token(workload(entra, client_id="another-client", tenant_id="contoso.onmicrosoft.com"))
    assert entra.forms[0]["client_id"] == "another-client"
    assert entra.requests[0].path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"


async def test_a_request_may_choose_the_tenant(entra: Pod) -> None:
    """A token of another tenant is asked for there, with the same proof."""
    await entra.token(tenant_id="contoso.onmicrosoft.com")
    assert entra.requests[0].path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert WorkloadIdentity.chooses_tenant


@pytest.mark.parametrize("tenant_id", ["../common", "..", "a b", "a/b", "a?b", "a\n"])
async def test_a_request_for_a_tenant_that_is_none_is_not_sent(entra: Pod, tenant_id: str) -> None:
    """The tenant of a challenge comes from outside, and does not lead anywhere else."""
    error = await entra.error(ConfigurationError, tenant_id=tenant_id)
    assert "the tenant is neither a GUID nor a domain" in str(error)
    assert entra.internet.hosts == []


# Claims


@pytest.mark.parametrize(
    ("claims", "capabilities", "sent"),
    [
        (None, (), None),
        (None, ("CP1",), {"access_token": {"xms_cc": {"values": ["CP1"]}}}),
        (None, ["CP1", "X_1", "CP1"], {"access_token": {"xms_cc": {"values": ["CP1", "X_1"]}}}),
        ("{}", (), {"access_token": {"xms_cc": {"values": ["CP1"]}}}),
        ("{}", ("CP1", "X_1"), {"access_token": {"xms_cc": {"values": ["CP1", "X_1"]}}}),
        ('{"access_token":{"xms_cc":{"values":["X_2"]}}}', (), {"access_token": {"xms_cc": {"values": ["CP1"]}}}),
        (
            CHALLENGE,
            ("X_1",),
            {
                "access_token": {
                    "nbf": {"essential": True, "value": "1760000000"},
                    "xms_cc": {"values": ["X_1", "CP1"]},
                },
                "id_token": {"x": None},
            },
        ),
        ('{"id_token":{"name":"Zo\\u00eb & \\ud83d\\ude00"}}', (), None),
    ],
)
async def test_claims_go_along_with_what_the_client_can_do(
    entra: Pod, claims: str | None, capabilities: tuple[str, ...], sent: dict[str, Any] | None
) -> None:
    """A challenge's claims are kept; who answers challenges says so; and where there is nothing, nothing is sent."""
    await entra.token(workload(entra, client_capabilities=capabilities), claims=claims)
    given = entra.forms[0].get("claims")
    if sent is None and claims is not None:
        sent = {**json.loads(claims), "access_token": {"xms_cc": {"values": ["CP1"]}}}
    assert (None if given is None else json.loads(given)) == sent


@pytest.mark.parametrize(
    "claims",
    [
        "",
        "claims",
        "eyJhY2Nlc3NfdG9rZW4iOnt9fQ==",
        "[]",
        "null",
        '"{}"',
        '{"access_token":[]}',
        '{"access_token":null}',
        "[" * 100_000,
        "1" * 5_000,
    ],
    ids=lambda claims: claims[:20],
)
async def test_claims_that_are_none_are_not_sent(entra: Pod, claims: str) -> None:
    """What is no JSON object, such as claims that are still encoded, is told before anything is sent."""
    error = await entra.error(ConfigurationError, workload(entra, client_capabilities=["CP1"]), claims=claims)
    assert "pass its decoded text" in str(error)
    assert entra.internet.hosts == []


# A token comes back


@pytest.mark.parametrize(
    ("members", "expires_in", "refresh_in"),
    [
        ({"expires_in": 3599}, 3599, None),
        ({"expires_in": 86_399, "refresh_in": 43_199}, 86_399, 43_199),
        ({"expires_in": "3599", "refresh_in": "1800"}, 3599, 1800),
        ({"expires_in": 3599.9, "refresh_in": 0}, 3599, None),
        ({"expires_in": 3599, "refresh_in": True}, 3599, None),
        ({"expires_in": 3599, "expires_on": 1_760_000_100}, 100, None),
    ],
)
async def test_how_long_a_token_is_good(
    entra: Pod, members: dict[str, Any], expires_in: int, refresh_in: int | None
) -> None:
    """Entra writes numbers, counted from now; a time of refresh is taken over."""
    entra.answers.append(Answer(body={"token_type": "Bearer", "access_token": "t", **members}))
    token = await entra.token()
    now = entra.clock.wall()
    assert token.expires_on == now + expires_in
    assert token.refresh_on == (None if refresh_in is None else now + refresh_in)


HTML = "<html><body>Sign in with a-most-secret-token</body></html>"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "an empty body"),
        (HTML, "HTML"),
        ("a-most-secret-token", "not JSON"),
        ('["a-most-secret-token"]', "an array"),
        ('"a-most-secret-token"', "text"),
        ({"token_type": "Bearer", "expires_in": 3599}, "no token"),
        ({"access_token": "", "expires_in": 3599}, "no token"),
        ({"access_token": ["a-most-secret-token"], "expires_in": 3599}, "no token"),
        ({"access_token": "a-most-secret-token\n", "expires_in": 3599}, "no HTTP header"),
        ({"access_token": "a-most-secret-token"}, "without a time"),
        ({"access_token": "a-most-secret-token", "expires_in": True}, "without a time"),
        ({"access_token": "a-most-secret-token", "expires_in": 10**400}, "without a time"),
        ({"access_token": "a-most-secret-token", "expires_in": -1}, "without a time"),
        ({"access_token": "a-most-secret-token", "expires_in": "soon"}, "without a time"),
        ({"access_token": "a-most-secret-token", "expires_on": 1_700_000_000}, "expired"),
        ({"error": "invalid_client"}, "no token"),
    ],
)
async def test_a_success_without_a_token_that_can_be_used(entra: Pod, body: dict[str, Any] | str, said: str) -> None:
    """It is told what was wrong with the answer, but nothing of what it held; and it is not asked for again."""
    entra.secrets.append("a-most-secret-token")
    entra.answers.append(Answer(body=body))
    outcome, waits = await entra.fetched()
    assert type(outcome) is MalformedResponseError
    assert said in str(outcome)
    assert waits == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(entra: Pod, status: int) -> None:
    """A proof goes where it was meant to go, and nowhere that an answer names."""
    location = {"Location": "https://login.contoso.example/collect"}
    entra.answers.append(Answer(status, "", location))
    error = await entra.error(TokenRefusedError)
    assert "redirects are not followed" in str(error)
    assert len(entra.requests) == 1


# A refusal comes back


@pytest.mark.parametrize(
    ("answer", "code", "advice"),
    [
        (
            refusal(700016, error="unauthorized_client"),
            "AADSTS700016",
            "check the client id, the tenant, and the cloud",
        ),
        (refusal(90002, error="invalid_request"), "AADSTS90002", "check the client id, the tenant, and the cloud"),
        (refusal(900023, error="invalid_request"), "AADSTS900023", "check the client id, the tenant, and the cloud"),
        (refusal(70011, error="invalid_scope"), "AADSTS70011", "check the spelling of the resource"),
        (refusal(500011, error="invalid_resource"), "AADSTS500011", "check the spelling of the resource"),
        (refusal(7000215, status=401), "AADSTS7000215", "its value is wanted, not its id"),
        (refusal(7000222, status=401), "AADSTS7000222", "the secret has expired"),
        (refusal(700027, status=401), "AADSTS700027", "the certificate is not that of the application"),
        (refusal(53003, status=403), "AADSTS53003", "https://aka.ms/aaderrorcodes"),
        (Answer(400, {"error": "invalid_client", "error_codes": [700016]}), "AADSTS700016", "check the client id"),
        (Answer(400, {"error": "invalid_client", "error_codes": [True]}), "invalid_client", "aka.ms"),
        (Answer(400, {"error": "invalid_client", "error_codes": []}), "invalid_client", "aka.ms"),
        (Answer(400, {"error_codes": 700016}), None, "aka.ms"),
        (Answer(404, "<html>Not here</html>"), None, "aka.ms"),
        (Answer(400, ""), None, "aka.ms"),
    ],
)
async def test_a_refusal_says_what_to_do(entra: Pod, answer: Answer, code: str | None, advice: str) -> None:
    """Entra's number is the error's code, the advice fits it, and it is asked once only."""
    entra.answers.append(answer)
    outcome, waits = await entra.fetched()
    assert type(outcome) is TokenRefusedError
    assert (outcome.status, outcome.code, outcome.retry_after) == (answer.status, code, None)
    assert advice in str(outcome)
    assert (code or "HTTP") in str(outcome)
    assert f"{VAULT!r} with HTTP {answer.status}" in str(outcome)
    assert waits == []


@pytest.mark.parametrize("code", [70021, 700211, 700212, 700213])
async def test_a_missing_federated_credential_is_described(entra: Pod, code: int) -> None:
    """What the credential has to match is told, which is no secret; the assertion that says it is not."""
    entra.answers.append(refusal(code, "No matching federated identity record found."))
    error = await entra.error(TokenRefusedError)
    assert error.code == f"AADSTS{code}"
    expected = (
        f"no federated credential for issuer {ISSUER!r}, subject {SUBJECT!r}, audience 'api://AzureADTokenExchange'"
    )
    assert expected in str(error)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("opaque", "for it;"),
        ("a-head.no-claims.a-signature", "for it;"),
        (assertion(iss=None, sub="", aud=[]), "for it;"),
        (assertion(iss=7, sub={"a": 1}, aud="one"), "for issuer '7', subject \"{'a': 1}\", audience 'one';"),
        (assertion(iss="x" * 5_000, sub=None, aud=["a", "b\n"]), f"for issuer '{'x' * 400}', audience 'a, b\\n';"),
    ],
    ids=["opaque", "no JWT", "silent", "odd", "long"],
)
async def test_an_odd_assertion_is_described_as_far_as_it_goes(entra: Pod, token: str, expected: str) -> None:
    """What is not there is not told, and nothing is told at any length."""
    entra.hold(token)
    entra.answers.append(refusal(70021))
    assert expected in str(await entra.error(TokenRefusedError))


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize("frame", ['{{"error":"x","error_description":"You sent {0}."}}', "<p>You sent {0}</p>", "{0}"])
async def test_a_proof_that_comes_back_is_not_shown(entra: Pod, status: int, frame: str) -> None:
    """Some hosts repeat in an error what they were sent, as it is or as it was encoded."""
    source = application(entra)
    for secret in (SECRET, quote_plus(SECRET)):
        entra.answers.extend([Answer(status, frame.format(secret))] * 4)
        error = await entra.error(EndpointError if status > 400 else TokenRefusedError, source)
        assert "<redacted>" in str(error)
        entra.answers.clear()
    entra.answers.extend([Answer(status, frame.format(assertion()))] * 4)
    assert "<redacted>" in str((await entra.fetched())[0])


# It cannot serve now


@pytest.mark.parametrize(
    "answer",
    [
        Answer(408, ""),
        Answer(500, "<html>"),
        Answer(502, ""),
        Answer(503, {"error": "temporarily_unavailable"}),
        Answer(504, ""),
        Answer(400, {"error": "temporarily_unavailable"}),
        refusal(90033, error="temporarily_unavailable"),
        refusal(90033),
        refusal(50196),
        Answer(429, ""),
    ],
)
async def test_an_answer_that_will_change_is_waited_for(entra: Pod, answer: Answer) -> None:
    """Where asking again can help it is asked again, after one second, two and four; then the error is raised."""
    entra.answers.extend([answer] * 3)
    outcome, waits = await entra.fetched()
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 2.0, 4.0]
    entra.answers.extend([answer] * 9)
    outcome, waits = await entra.fetched()
    assert type(outcome) is EndpointError
    assert (outcome.status, waits) == (answer.status, [1.0, 2.0, 4.0])
    assert len(entra.requests) == 8


@pytest.mark.parametrize("seconds", [True, False])
async def test_it_is_asked_again_when_it_says(entra: Pod, *, seconds: bool) -> None:
    """Retry-After is a number of seconds, or a date."""
    value = "17" if seconds else formatdate(entra.clock.wall() + 17, usegmt=True)
    entra.answers.append(Answer(429, "", {"Retry-After": value}))
    outcome, waits = await entra.fetched()
    assert isinstance(outcome, AccessToken)
    assert waits == [17.0]


async def test_nobody_waits_longer_than_there_is_time(entra: Pod) -> None:
    """Who is told to come back after the deadline says so at once, and when that will be."""
    entra.answers.append(Answer(429, "", {"Retry-After": "3600"}))
    outcome, waits = await entra.fetched()
    assert type(outcome) is EndpointError
    assert (outcome.status, outcome.retry_after, waits) == (429, 3600.0, [])


async def test_a_refusal_names_no_time(entra: Pod) -> None:
    """Retry-After counts only where asking again could help."""
    entra.answers.append(Answer(400, "", {"Retry-After": "17"}))
    assert (await entra.error(TokenRefusedError)).retry_after is None


@pytest.mark.parametrize(
    ("retry_timeout", "expected"), [(0, []), (1, []), (3, [1.0]), (4.0, [1.0, 2.0]), (None, [1.0, 2.0, 4.0])]
)
async def test_for_how_long_it_is_retried(entra: Pod, retry_timeout: float | None, expected: list[float]) -> None:
    """No attempt begins later after the first than `retry_timeout` allows."""
    entra.answers.extend([Answer(503, "")] * 9)
    outcome, waits = await entra.fetched(workload(entra, retry_timeout=retry_timeout))
    assert isinstance(outcome, EndpointError)
    assert waits == expected


@pytest.fixture
async def endpoint(entra: Pod) -> AsyncIterator[IdentityEndpoint]:
    """The emulator of Entra, which the pod's variables now lead to."""
    async with IdentityEndpoint(hosts=["entra"], root=entra.folder / "root", wall=entra.clock.wall) as opened:
        entra.environ = opened.environ("entra")
        yield opened


@pytest.mark.parametrize("step", [Reset(), Truncated()], ids=repr)
async def test_an_answer_that_breaks_off(entra: Pod, endpoint: IdentityEndpoint, step: Step) -> None:
    """A connection that ends too early may hold the next time, so it is asked again."""
    endpoint.script(*[step] * 3)
    outcome, waits = await entra.fetched()
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 2.0, 4.0]
    endpoint.script(then=step)
    await entra.error(EndpointError)
    assert len(endpoint.requests) == 8


async def test_an_answer_that_is_too_long(entra: Pod, endpoint: IdentityEndpoint) -> None:
    """An answer without an end is not read to its end, and not asked for again."""
    endpoint.script(Huge(70_000))
    await entra.error(MalformedResponseError)
    assert len(endpoint.requests) == 1


async def test_an_answer_that_does_not_come(entra: Pod, endpoint: IdentityEndpoint) -> None:
    """An attempt has half a minute, and the fetch ends where there is no time for another one."""
    gate = Gate()
    endpoint.script(then=gate)
    fetching = entra.asking(limit=50)
    assert await entra.clock.next_alarm(fetching) == 30.0
    await gate.reached()
    await entra.clock.advance(30)
    assert await entra.clock.next_alarm(fetching) == 1.0
    await entra.clock.advance(1)
    assert await entra.clock.next_alarm(fetching) == 19.0
    await gate.reached()
    await entra.clock.advance(19)
    with pytest.raises(EndpointError, match="no complete answer in time"):
        await fetching
    assert len(endpoint.requests) == 2


# Whom it believes


async def test_an_authority_that_is_not_trusted_is_not_asked(entra: Pod) -> None:
    """A certificate that nobody trusted has signed ends the connection before the proof is written."""
    del entra.environ["SSL_CERT_FILE"]
    outcome, waits = await entra.fetched()
    assert type(outcome) is SecurityError
    assert (waits, entra.requests) == ([], [])
    assert len(entra.internet.hosts) == 1


async def test_a_host_with_another_name_is_not_asked(entra: Pod) -> None:
    """Nor is a host believed whose certificate is in order, but somebody else's."""
    await entra.error(SecurityError, workload(entra, authority="https://login.evil.example"))
    assert entra.requests == []


async def test_a_host_without_tls_is_not_asked(entra: Pod) -> None:
    """Whoever does not speak TLS gets to read nothing in the clear."""
    heard: list[web.BaseRequest] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(request)
        return web.Response()

    plain = web.Application()
    plain.router.add_route("*", "/{path:.*}", hear)
    del entra.environ["HTTPS_PROXY"]
    async with TestServer(plain) as server:
        await entra.error(EndpointError, workload(entra, authority=f"https://127.0.0.1:{server.port}"))
    assert heard == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_authorities_that_cannot_be_read_are_told(entra: Pod, variable: str, content: str | None) -> None:
    """It is the variable that is wrong then, and not the host; nothing is sent."""
    file = entra.folder / "wrong.pem"
    if content is not None:
        file.write_text(content)
    del entra.environ["SSL_CERT_FILE"]
    entra.environ[variable] = str(file)
    error = await entra.error(ConfigurationError)
    assert "SSL_CERT_FILE or SSL_CERT_DIR name" in str(error)
    assert entra.internet.hosts == []


PROGRAM = """
import asyncio, json, sys
from aiomsi.sources import Surroundings, TokenRequest, WorkloadIdentity
source = WorkloadIdentity(surroundings=Surroundings(environ=json.loads(sys.argv[1])))
print(asyncio.run(source.fetch(TokenRequest("https://vault.azure.net"))).token)
"""


async def test_the_process_s_own_trust_is_used(entra: Pod) -> None:
    """Where nothing is named, whom the process believes is believed, as by everything else in it."""
    file = entra.environ.pop("SSL_CERT_FILE")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        json.dumps(entra.environ),
        env={"SSL_CERT_FILE": file, "PYTHONPATH": ":".join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "entra-gave-this"
    assert len(entra.requests) == 1


async def test_the_real_surroundings_are_the_process_s_own(entra: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other surroundings a source reads this process's environment, live."""
    source = WorkloadIdentity()
    for name, value in entra.environ.items():
        monkeypatch.setenv(name, value)
    assert (await entra.token(source)).token == "entra-gave-this"
    assert Surroundings().environ["AZURE_CLIENT_ID"] == CLIENT_ID
