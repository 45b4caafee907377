"""Applications whose certificate is in a key vault: who reads it there, what is believed, and what nobody sees."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from aiohttp import web
from applications import PASSWORD, Paper, abandoned, cancelled, certificate, crowded, paper, threads_of
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pods import CLIENT_ID, TENANT_ID, Pod, check_silence, pod, refusal

from aiomsi import (
    AccessToken,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer
from aiomsi.sources import AzureCLI, ManagedIdentity
from aiomsi.sources.key_vault_certificate import KeyVaultCertificate
from aiomsi.testing import ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiomsi import AiomsiError
    from aiomsi.sources import Source

STORAGE = "https://storage.azure.com/"
HOST = "myvault.vault.azure.net"
SECRET = f"https://{HOST}/secrets/mycertificate"
ENTRA = "login.microsoftonline.com"
APPLICATION = paper()
DOMAINS = {
    "vault.azure.net": ENTRA,
    "vault.azure.cn": "login.chinacloudapi.cn",
    "vault.usgovcloudapi.net": "login.microsoftonline.us",
}


def token_of(**claims: Any) -> str:
    """Return a token that says *claims* of who reads the vault."""
    parts = ({"alg": "none"}, claims, "hunter2-signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


READER = token_of(tid=TENANT_ID, oid="somebody")


def held(content: bytes | None = None, kind: str = "application/x-pkcs12", **others: Any) -> Answer:
    """Return the vault's answer, in which a secret of *kind* has *content*."""
    content = APPLICATION.pkcs12() if content is None else content
    value = (content if kind == "application/x-pem-file" else base64.b64encode(content)).decode()
    return Answer(body={"value": value, "contentType": kind, "id": SECRET, "attributes": {}, **others})


class Reader(ScriptedSource):
    """A reader whose text does not show the tokens that it was told to give."""

    def __repr__(self) -> str:
        return "Reader()"


class Vault:
    """A key vault that holds a certificate; its *answers* come before that, in order. *reader* may read it."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.answers: deque[Answer] = deque()
        self.holds = held()
        self.reader = Reader()
        self._answer = pod.internet.answer
        pod.internet.answer = self.answer
        pod.environ = dict(pod.internet.environ)
        pod.secrets += [*READER.split(".")[1:], "hunter2", PASSWORD, *APPLICATION.secrets]
        encoded = base64.b64encode(APPLICATION.pkcs12()).decode()
        pod.secrets += [encoded[place : place + 40] for place in range(100, 2_000, 300)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "vault" not in request.host.lower():
            return await self._answer(request)
        if self.pod.before_answer is not None:
            await self.pod.before_answer()
        answer = self.answers.popleft() if self.answers else self.holds
        return web.Response(status=answer.status, headers=answer.headers, body=answer.content)

    def source(self, secret_identifier: str = SECRET, **options: Any) -> KeyVaultCertificate:
        given: dict[str, Any] = {"client_id": CLIENT_ID, "reader": self.reader, **options}
        if not self.reader.answers:
            self.reader.script(*[READER] * 3)
        return KeyVaultCertificate(secret_identifier=secret_identifier, surroundings=self.pod.surroundings, **given)

    async def token(self, source: Source | None = None, **asked: Any) -> AccessToken:
        return await self.pod.token(source or self.source(), **{"resource": STORAGE, **asked})

    async def error(self, kind: type[AiomsiError], source: Source | None = None, **asked: Any) -> AiomsiError:
        return await self.pod.error(kind, source or self.source(), **{"resource": STORAGE, **asked})

    async def fetched(self) -> tuple[AccessToken | AiomsiError, list[float]]:
        return await self.pod.fetched(self.source(), resource=STORAGE)

    @property
    def asked(self) -> list[web.Request]:
        """What the vault was asked."""
        return [request for request in self.pod.requests if "vault" in request.host.lower()]

    @property
    def of_entra(self) -> list[dict[str, str]]:
        """What Entra was asked."""
        pairs = zip(self.pod.requests, self.pod.forms, strict=True)
        return [form for request, form in pairs if "vault" not in request.host.lower()]


@pytest.fixture
async def vault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Vault]:
    """A key vault whose secrets may not be logged either."""
    caplog.set_level(logging.DEBUG)
    async with pod(tmp_path, *(f"myvault.{domain}" for domain in DOMAINS), *DOMAINS.values()) as found:
        yield Vault(found)
        assert [secret for secret in found.secrets if secret in caplog.text] == []


# Who is asked for what


async def test_who_hears_what(vault: Vault) -> None:
    """The vault gets the reader's token, and Entra an assertion that the certificate verifies."""
    token = await vault.token()
    assert (token.token, token.resource, token.source) == ("entra-gave-this", STORAGE, "key_vault_certificate")
    (request,) = vault.reader.requests
    assert (request.resource, request.tenant_id, request.claims) == ("https://vault.azure.net", None, None)
    assert (request.clock, request.deadline) == (vault.pod.clock, 60.0)
    asked, exchanged = vault.pod.requests
    assert (asked.host, asked.method, asked.path_qs) == (HOST, "GET", "/secrets/mycertificate?api-version=7.4")
    assert (asked.headers["Authorization"], asked.secure) == (f"Bearer {READER}", True)
    assert (exchanged.host, exchanged.path) == (ENTRA, f"/{TENANT_ID}/oauth2/v2.0/token")
    assert "Authorization" not in exchanged.headers
    (form,) = vault.of_entra
    key = APPLICATION.certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    audience = f"https://{ENTRA}/{TENANT_ID}/oauth2/v2.0/token"
    unchecked: Any = {"verify_exp": False}  # It is a manual clock's.
    claims = jwt.decode(form.pop("client_assertion"), key, algorithms=["PS256"], audience=audience, options=unchecked)
    assert (claims["iss"], claims["sub"], claims["iat"]) == (CLIENT_ID, CLIENT_ID, 1_760_000_000)
    assert form == {
        "client_id": CLIENT_ID,
        "grant_type": "client_credentials",
        "scope": f"{STORAGE}/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("spelt", [str, str.upper])
async def test_each_cloud_has_its_own_vaults(vault: Vault, domain: str, spelt: type[str]) -> None:
    """The vault's domain says what the reader's token is for, and where the application asks for its own."""
    await vault.token(vault.source(spelt(f"https://myvault.{domain}/secrets/c")))
    assert vault.reader.requests[0].resource == f"https://{domain}"
    assert [host.lower() for host in vault.pod.internet.hosts] == [f"myvault.{domain}:443", f"{DOMAINS[domain]}:443"]


async def test_the_environment_may_name_another_authority(vault: Vault) -> None:
    """Who has set where tokens are asked for means it."""
    vault.pod.environ["AZURE_AUTHORITY_HOST"] = "https://login.microsoftonline.us/"
    await vault.token()
    assert vault.pod.requests[1].host == "login.microsoftonline.us"


@pytest.mark.parametrize("end", ["", "/", "/0123456789abcdef0123456789ABCDEF", "/0123/"])
async def test_a_secret_may_have_a_version(vault: Vault, end: str) -> None:
    """Without one the newest counts, and a slash at the end means nothing."""
    await vault.token(vault.source(f"{SECRET}{end}"))
    assert vault.asked[0].path == f"/secrets/mycertificate{end}".rstrip("/")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (APPLICATION.pkcs12(), "application/x-pkcs12"),
        (APPLICATION.pem(), "application/x-pem-file"),
        (
            Paper(APPLICATION.key, certificate("application", issuer="root"), (certificate("root"),)).pkcs12(),
            "application/x-pkcs12",
        ),
    ],
    ids=["PKCS#12", "PEM", "chain"],
)
async def test_a_certificate_may_be_of_either_type(vault: Vault, content: bytes, kind: str) -> None:
    """A vault keeps certificates as PKCS#12 or PEM, without a password."""
    vault.holds = held(content, kind)
    await vault.token()
    assert "x5t#S256" in jwt.get_unverified_header(vault.of_entra[0]["client_assertion"])


async def test_a_renewed_certificate_counts_at_the_next_fetch(vault: Vault) -> None:
    """It is fetched for each request, since the vault renews it."""
    source = vault.source()
    await vault.token(source)
    vault.holds = held(paper("renewed").pkcs12())
    await vault.token(source)
    headers = [jwt.get_unverified_header(form["client_assertion"]) for form in vault.of_entra]
    assert headers[0]["x5t#S256"] != headers[1]["x5t#S256"]


@pytest.mark.parametrize(
    ("given", "token", "variable", "expected"),
    [
        ("given.example", token_of(tid="read.example"), "set.example", "given.example"),
        (None, token_of(tid="read.example"), "set.example", "read.example"),
        (None, token_of(oid="nobody"), "set.example", "set.example"),
        (None, "opaque-hunter2", "set.example", "set.example"),
    ],
)
async def test_the_tenant_of_the_application(
    vault: Vault, given: str | None, token: str, variable: str, expected: str
) -> None:
    """It is given, or else the reader's, as its token says, or else the environment's."""
    vault.reader.script(token)
    vault.pod.environ["AZURE_TENANT_ID"] = variable
    await vault.token(vault.source(tenant_id=given))
    assert vault.pod.requests[1].path == f"/{expected}/oauth2/v2.0/token"


async def test_what_is_asked_of_entra_is_not_asked_of_the_reader(vault: Vault) -> None:
    """Tenant, claims and the refused token are the application's, and mean nothing to who reads its certificate."""
    source = vault.source()
    await vault.token(source, tenant_id="contoso.example", claims='{"access_token":{}}', rejected_sha256="0" * 64)
    (request,) = vault.reader.requests
    assert (request.tenant_id, request.claims, request.rejected_sha256) == (None, None, None)
    assert vault.pod.requests[1].path == "/contoso.example/oauth2/v2.0/token"
    assert vault.of_entra[0]["claims"] == '{"access_token":{"xms_cc":{"values":["CP1"]}}}'
    assert source.chooses_tenant


# Arguments


@pytest.mark.parametrize(
    "identifier",
    [
        "mycertificate",
        "https://",
        "https://evilvault.azure.net/secrets/c",
        "https://vault.azure.net/secrets/c",
        "https://.vault.azure.net/secrets/c",
        "https://a.b.vault.azure.net/secrets/c",
        "https://myvault.vault.azure.net.evil.example/secrets/c",
        "https://myvault.vault.azure.net@evil.example/secrets/c",
        "https://evil.example/myvault.vault.azure.net/secrets/c",
        "https://evil.example#.vault.azure.net/secrets/c",
        "https://evil.example\\.vault.azure.net/secrets/c",
        "https://myvault.vaultXazure.net/secrets/c",
        "https://myvault.vault.u\u017fgovcloudapi.net/secrets/c",
        "https://my\u212aeys.vault.azure.net/secrets/c",
        "https://hunter2@myvault.vault.azure.net/secrets/c",
        "https://myvault.vault.azure.net:443/secrets/c",
        "http://myvault.vault.azure.net/secrets/c",
        "https://myvault.vault.azure.net/secrets/c?api-version=1",
        "https://myvault.vault.azure.net/secrets/c#d",
        "https://myvault.vault.azure.net/secrets/c/d/e",
        "https://myvault.vault.azure.net/secrets/../keys",
        "https://myvault.vault.azure.net/secrets/c%2F..",
        "https://myvault.vault.azure.net/secrets/",
        "https://myvault.vault.azure.net/certificates/c",
        "https://myvault.vault.azure.net/keys/c",
        "https://myvault.managedhsm.azure.net/secrets/c",
        f"{SECRET}\n",
        f" {SECRET}",
    ],
)
async def test_an_identifier_that_is_none(vault: Vault, identifier: str) -> None:
    """What is no secret of a key vault in a known cloud is told at once, and nobody is asked."""
    with pytest.raises(ValueError, match="such as https://myvault") as caught:
        vault.source(identifier)
    assert "hunter2" not in str(caught.value)
    assert (vault.reader.requests, vault.pod.internet.hosts) == ([], [])


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"secret_identifier": ""}, ValueError, "secret_identifier is empty"),
        ({"secret_identifier": b"hunter2"}, TypeError, "secret_identifier is a string, not bytes"),
        ({"client_id": ""}, ValueError, "client_id is empty"),
        ({"client_id": None}, TypeError, "client_id is a string, not NoneType"),
        ({"tenant_id": ""}, ValueError, "tenant_id is empty"),
        ({"tenant_id": 7}, TypeError, "tenant_id is a string, not int"),
        ({"reader": None}, TypeError, "a source is an object"),
        ({"reader": ManagedIdentity}, TypeError, "a source is an object"),
    ],
)
async def test_wrong_arguments_are_told_at_once(
    vault: Vault, wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Nobody is asked with them."""
    with pytest.raises(error, match=said) as caught:
        vault.source(**wrong)
    check_silence(caught.value, [PASSWORD])


async def test_what_a_source_says_of_itself(vault: Vault) -> None:
    """Its text names the application and the reader; it takes as long and as many at a time as the reader does."""
    source = KeyVaultCertificate(secret_identifier=SECRET, client_id="c", reader=ManagedIdentity())
    assert repr(source) == "KeyVaultCertificate(client_id='c', reader=ManagedIdentity())"
    assert vault.source(reader=ScriptedSource(time_limit=17.0)).time_limit == 17.0 + 30.0 + 60.0
    assert vault.source(reader=ScriptedSource(max_parallel=3)).max_parallel == 3
    assert vault.source(reader=ScriptedSource()).max_parallel is None


# Something is wrong


@pytest.mark.parametrize(
    "error",
    [SourceUnavailableError("nobody is logged in"), TokenRefusedError("no", status=400), EndpointError("not now")],
)
async def test_the_reader_s_error_is_the_answer(vault: Vault, error: AiomsiError) -> None:
    """Where the reader gets no token it says why, and nothing else is asked."""
    vault.reader.script(error)
    fetching = vault.pod.asking(vault.source(), resource=STORAGE)
    await asyncio.wait([fetching])
    assert fetching.exception() is error
    assert vault.pod.internet.hosts == []


@pytest.mark.parametrize(
    ("token", "lifetime", "problem"),
    [
        ("", 60.0, "returned no token"),
        ("hunter2\r\nX: y", 60.0, "returned a token that no HTTP header can carry"),
        (READER, -60.0, "returned a token that expired 60 s ago"),
    ],
)
async def test_a_reader_s_token_that_cannot_be_used(vault: Vault, token: str, lifetime: float, problem: str) -> None:
    """A reader is a source that anybody may write, and what it returns is not sent before it is looked at."""
    vault.reader = Reader(lifetime=lifetime)
    vault.reader.script(token)
    error = await vault.error(MalformedResponseError)
    assert str(error).startswith(f"the source 'scripted' {problem}")
    assert vault.pod.internet.hosts == []


@pytest.mark.parametrize("token", [token_of(oid="nobody"), token_of(tid="../common"), "opaque-hunter2"])
async def test_without_a_tenant_the_vault_is_not_asked(vault: Vault, token: str) -> None:
    """No certificate is fetched that could not be used."""
    vault.reader.script(token)
    assert "give tenant_id" in str(await vault.error(ConfigurationError))
    assert vault.pod.internet.hosts == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(302, None), (400, "BadParameter"), (401, "Unauthorized"), (403, "Forbidden"), (404, "SecretNotFound")],
)
async def test_a_vault_that_refuses(vault: Vault, status: int, code: str | None) -> None:
    """It is told what it said, without the token that it may repeat, and which role is needed."""
    vault.reader.script("hunter2-opaque")
    said = {"error": {"code": code, "message": "Caller hunter2-opaque may not."}} if code else ""
    vault.answers.append(Answer(status, said, {"Location": f"https://{ENTRA}/"}))
    error = await vault.error(TokenRefusedError, vault.source(tenant_id=TENANT_ID))
    assert (error.status, error.code, vault.of_entra) == (status, code, [])
    assert "may whoever reads it get secrets (role Key Vault Secrets User)?" in str(error)
    assert len(vault.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_vault_in_trouble_is_asked_again(vault: Vault, status: int) -> None:
    """What will pass is waited for, and raised if it does not."""
    vault.answers.extend([Answer(status, f"<p>{READER}</p>")] * 3)
    outcome, waits = await vault.fetched()
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 2.0, 4.0]
    vault.answers.extend([Answer(status, "")] * 4)
    outcome, waits = await vault.fetched()
    assert type(outcome) is EndpointError
    assert (outcome.status, waits, len(vault.of_entra)) == (status, [1.0, 2.0, 4.0], 1)


async def test_a_vault_that_cannot_be_reached(vault: Vault) -> None:
    """Nobody there is trouble that may pass."""
    vault.pod.environ["HTTPS_PROXY"] = "http://127.0.0.1:1"
    outcome, waits = await vault.fetched()
    assert type(outcome) is EndpointError
    assert waits == [1.0, 2.0, 4.0]


async def test_a_vault_that_does_not_answer_is_given_up(vault: Vault) -> None:
    """An attempt has half a minute, and the fetch ends where there is no time for another one."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await gate.wait()

    vault.pod.before_answer = hold
    fetching = vault.pod.asking(vault.source(), resource=STORAGE, limit=30.5)
    await reached.wait()
    assert await vault.pod.clock.next_alarm(fetching) == 30.0
    await vault.pod.clock.advance(30)
    with pytest.raises(EndpointError, match="gave no complete answer in time"):
        await fetching
    gate.set()


async def test_a_vault_that_cannot_be_trusted_hears_nothing(vault: Vault) -> None:
    """The reader's token is sent only to who proves to be the vault."""
    await vault.error(SecurityError, vault.source("https://another.vault.azure.net/secrets/c"))
    assert (vault.pod.internet.hosts, vault.pod.requests) == (["another.vault.azure.net:443"], [])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=""),
        Answer(body="<html>hunter2</html>"),
        Answer(body='"hunter2"'),
        Answer(body={"value": "hunter22"}),
        Answer(body={"value": "hunter22", "contentType": "text/plain"}),
        Answer(body={"value": "hunter22", "contentType": None}),
        Answer(body={"value": "hunter22", "contentType": ["application/x-pkcs12"]}),
        Answer(body={"contentType": "application/x-pkcs12"}),
        Answer(body={"value": "", "contentType": "application/x-pkcs12"}),
        Answer(body={"value": "", "contentType": "application/x-pem-file"}),
        Answer(body={"value": 7, "contentType": "application/x-pkcs12"}),
        Answer(body={"value": "hunter2", "contentType": "application/x-pkcs12"}),
        Answer(body={"value": "hunter2\u00e9", "contentType": "application/x-pkcs12"}),
        Answer(body={"value": "hunter2!2", "contentType": "application/x-pkcs12"}),
        Answer(201, held().content or b""),
    ],
    ids=range(15),
)
async def test_a_secret_that_is_no_certificate(vault: Vault, answer: Answer) -> None:
    """Another type of secret, or what is no base64, is told by its shape only, and goes nowhere."""
    vault.answers.append(answer)
    kind = MalformedResponseError if answer.status == 200 else TokenRefusedError
    error = await vault.error(kind)
    assert "certificate" in str(error)
    assert (len(vault.asked), vault.of_entra) == (1, [])


ELLIPTIC = ec.derive_private_key(7, ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (held(b"hunter2" * 99), "is neither PEM nor PKCS#12"),
        (held(APPLICATION.pkcs12(PASSWORD)), "or needs a password"),
        (held(APPLICATION.key_pem(), "application/x-pem-file"), "but no certificate"),
        (held(ELLIPTIC + APPLICATION.certificates_pem, "application/x-pem-file"), "has no RSA key"),
        (held(b"", "application/x-pem-file", value="hunter2\ud800"), "is neither PEM nor PKCS#12"),
        (held(APPLICATION.key_pem() + paper("somebody").certificates_pem), "has no certificate for its key"),
    ],
)
async def test_a_certificate_that_cannot_be_used(vault: Vault, answer: Answer, problem: str) -> None:
    """It is told what is wrong with it, and nothing of it is in the error or in the frames of its traceback."""
    vault.answers.append(answer)
    error = await vault.error(ConfigurationError)
    assert str(error).startswith("the certificate in the key vault ")
    assert problem in str(error)
    assert vault.of_entra == []


async def test_the_loop_is_not_held_up_by_cryptography(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the key and signing with it are done in threads."""
    threads = threads_of(monkeypatch, KeyVaultCertificate, "load_certificate", "sign")
    await vault.token()
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_without_the_extra_the_next_source_is_asked(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks it has no such source, and is told what to install."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert "pip install 'aiomsi[certificate]'" in str(await vault.error(SourceUnavailableError))
    assert vault.of_entra == []


async def test_an_application_that_entra_refuses(vault: Vault) -> None:
    """Its error is the application's, and shows neither assertion nor certificate."""
    vault.pod.answers.append(refusal(700027, status=401))
    error = await vault.error(TokenRefusedError)
    assert (error.code, error.source) == ("AADSTS700027", "key_vault_certificate")
    check_silence(error, vault.pod.secrets)


# Many callers


async def test_a_crowd_makes_one_exchange(vault: Vault) -> None:
    """However many want a token at once, reader, vault and Entra are asked once each."""
    assert await crowded(vault.pod, vault.source()) == 2
    assert len(vault.reader.requests) == 1


@pytest.mark.parametrize("stage", [1, 2], ids=["while the vault answers", "while Entra answers"])
@pytest.mark.parametrize("victim", [0, 1, 2, None], ids=["first", "middle", "last", "all"])
async def test_a_cancelled_caller_takes_nobody_along(vault: Vault, stage: int, victim: int | None) -> None:
    """Whoever leaves while the vault or Entra answers, the others get their token, and nothing is left behind."""
    await cancelled(vault.pod, vault.source(), stage, victim)


@pytest.mark.parametrize("stage", [1, 2], ids=["while the vault answers", "while Entra answers"])
async def test_a_fetch_that_is_cancelled_leaves_nothing(vault: Vault, stage: int) -> None:
    """Its connections are closed with it."""
    await abandoned(vault.pod, vault.source(), stage)


async def test_a_reader_may_be_any_source(vault: Vault) -> None:
    """A tool that is not there is no reader, and the next source is asked."""
    vault.pod.environ["PATH"] = str(vault.pod.folder)
    tool = AzureCLI(surroundings=vault.pod.surroundings)
    fetching = vault.pod.asking(vault.source(reader=tool), resource=STORAGE)
    await asyncio.wait([fetching])
    assert type(fetching.exception()) is SourceUnavailableError
