"""Applications with a secret or a certificate of their own: what is sent, to whom, and what is told if it fails."""

from __future__ import annotations

import html
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import jwt
import pytest
from applications import PASSWORD, Paper, abandoned, cancelled, certificate, crowded, paper, threads_of
from cryptography.hazmat.primitives.asymmetric import rsa
from pods import CLIENT_ID, TENANT_ID, VAULT, Pod, check_silence, pod, refusal

from aiomsi import ConfigurationError, EndpointError, SourceUnavailableError, TokenRefusedError
from aiomsi.endpoint import Answer
from aiomsi.sources import ClientCertificate, ClientSecret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from aiomsi.sources import Source

SECRET = "8Q~hunter2&with=+/%signs"
APPLICATION, RENEWED = paper(), paper("renewed")
GOVERNMENT, CHINA = "login.microsoftonline.us", "login.chinacloudapi.cn"
PEM = APPLICATION.pem()


@pytest.fixture
async def entra(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Pod]:
    """A machine where nothing but the way to Entra is in the environment, and where no secret may be logged."""
    caplog.set_level(logging.DEBUG)
    async with pod(tmp_path, GOVERNMENT, CHINA) as opened:
        opened.environ = dict(opened.internet.environ)
        opened.secrets += [SECRET, quote_plus(SECRET), PASSWORD, *APPLICATION.secrets, *RENEWED.secrets]
        yield opened
        assert [secret for secret in opened.secrets if secret in caplog.text] == []


def with_secret(entra: Pod, client_secret: str = SECRET, **options: Any) -> ClientSecret:
    entra.secrets += [client_secret, quote_plus(client_secret), repr(client_secret)[1:-1]]
    given = {"tenant_id": TENANT_ID, "client_id": CLIENT_ID, **options}
    return ClientSecret(client_secret=client_secret, surroundings=entra.surroundings, **given)


def with_certificate(
    entra: Pod, certificate: str | os.PathLike[str] | bytes = PEM, **options: Any
) -> ClientCertificate:
    given = {"tenant_id": TENANT_ID, "client_id": CLIENT_ID, **options}
    return ClientCertificate(certificate=certificate, surroundings=entra.surroundings, **given)


both = pytest.mark.parametrize("make", [with_secret, with_certificate])


def assertions(entra: Pod) -> list[dict[str, Any]]:
    """Return what the assertions that were sent say."""
    return [jwt.decode(form["client_assertion"], options={"verify_signature": False}) for form in entra.forms]


def thumbprints(entra: Pod) -> list[str]:
    return [jwt.get_unverified_header(form["client_assertion"])["x5t#S256"] for form in entra.forms]


# A secret


async def test_a_secret_is_shown_to_entra_alone(entra: Pod) -> None:
    """It is in the form of one POST to the authority, over TLS, and in nothing else that is sent."""
    token = await entra.token(with_secret(entra))
    assert (token.token, token.resource, token.source) == ("entra-gave-this", VAULT, "client_secret")
    (request,) = entra.requests
    assert (request.method, request.path_qs, request.secure) == ("POST", f"/{TENANT_ID}/oauth2/v2.0/token", True)
    assert entra.internet.hosts == ["login.microsoftonline.com:443"]
    assert {"Authorization", "Cookie", "Proxy-Authorization"} & set(request.headers) == set()
    assert entra.forms == [
        {
            "client_id": CLIENT_ID,
            "grant_type": "client_credentials",
            "scope": "https://vault.azure.net/.default",
            "client_secret": SECRET,
        }
    ]


@pytest.mark.parametrize(
    "secret",
    [
        "a&b=c&client_id=another",
        "1+1=2",
        "100%25",
        "'single' and \"double\"",
        "\\n;#?/",
        "  blanks  ",
        "ünï\u20ac\U0001f511",
    ],
)
async def test_a_secret_may_be_of_any_characters(entra: Pod, secret: str) -> None:
    """What means something in a form, and what is not ASCII, arrives as it is."""
    await entra.token(with_secret(entra, secret))
    assert entra.forms[0]["client_secret"] == secret
    assert entra.forms[0]["client_id"] == CLIENT_ID


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (7000215, "the secret is not the application's; its value is wanted, not its id"),
        (7000222, "the secret has expired; make another"),
    ],
)
@pytest.mark.parametrize("tenant_id", [TENANT_ID, "contoso.onmicrosoft.com"])
async def test_a_secret_that_is_refused(entra: Pod, tenant_id: str, code: int, advice: str) -> None:
    """A wrong secret and one that has expired are told apart, with what to do; it is asked once only."""
    entra.answers.append(refusal(code, f"Invalid client secret provided: {SECRET}.", status=401))
    error = await entra.error(TokenRefusedError, with_secret(entra, tenant_id=tenant_id))
    assert (error.status, error.code) == (401, f"AADSTS{code}")
    assert advice in str(error)
    assert "<redacted>" in str(error)
    assert [request.path for request in entra.requests] == [f"/{tenant_id}/oauth2/v2.0/token"]


@pytest.mark.parametrize("status", [400, 500])
async def test_a_secret_that_comes_back_is_not_shown(entra: Pod, status: int) -> None:
    """Whatever the answer repeats of what was sent, the error does not."""
    secret = 'a "quoted" s\u20accret'
    for told in (secret, quote_plus(secret), quote(secret, safe=""), html.escape(secret)):
        entra.answers.extend([Answer(status, {"error": "invalid_client", "error_description": f"Got {told}."})] * 4)
        kind = EndpointError if status == 500 else TokenRefusedError
        assert "Got <redacted>" in str(await entra.error(kind, with_secret(entra, secret)))
        entra.answers.clear()


# Both of them


@both
async def test_another_tenant_can_be_asked_for(entra: Pod, make: Callable[[Pod], Source]) -> None:
    """A request's tenant goes before the application's own, for where an application is known in several."""
    source = make(entra)
    await entra.token(source, tenant_id="contoso.onmicrosoft.com")
    assert entra.requests[0].path == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert source.chooses_tenant  # type: ignore[attr-defined]


@both
@pytest.mark.parametrize("tenant_id", ["../common", "a/b", "a?b", "a b"])
async def test_a_tenant_that_is_none_is_not_asked(entra: Pod, make: Callable[..., Source], tenant_id: str) -> None:
    """Neither a tenant that was given nor one that was asked for leads anywhere else."""
    await entra.error(ConfigurationError, make(entra, tenant_id=tenant_id))
    await entra.error(ConfigurationError, make(entra), tenant_id=tenant_id)
    assert entra.internet.hosts == []


@both
@pytest.mark.parametrize(
    ("given", "variable", "host"),
    [
        (None, "", "login.microsoftonline.com"),
        (None, f"https://{GOVERNMENT}/", GOVERNMENT),
        (f"https://{CHINA}", f"https://{GOVERNMENT}", CHINA),
        (GOVERNMENT, "", GOVERNMENT),
    ],
)
async def test_the_authority(
    entra: Pod, make: Callable[..., Source], given: str | None, variable: str, host: str
) -> None:
    """It is given, or else in the environment, which may change, or else that of the public cloud."""
    source = make(entra, authority=given)
    entra.environ["AZURE_AUTHORITY_HOST"] = variable
    await entra.token(source)
    assert entra.internet.hosts == [f"{host}:443"]


@both
async def test_an_authority_that_is_none_is_not_asked(entra: Pod, make: Callable[..., Source]) -> None:
    """No proof is sent in the clear, or where user information hides the host."""
    for authority in (f"http://{GOVERNMENT}", f"https://{GOVERNMENT}@evil.example"):
        await entra.error(ConfigurationError, make(entra, authority=authority))
    assert entra.internet.hosts == []


@both
async def test_the_environment_s_application_is_another_one(entra: Pod, make: Callable[[Pod], Source]) -> None:
    """Who gives a client and a tenant gets no token of those that the platform has named."""
    entra.environ |= {"AZURE_CLIENT_ID": "another", "AZURE_TENANT_ID": "another.example"}
    await entra.token(make(entra))
    assert (entra.forms[0]["client_id"], entra.requests[0].path.split("/")[1]) == (CLIENT_ID, TENANT_ID)


@both
async def test_claims_and_capabilities_are_sent(entra: Pod, make: Callable[..., Source]) -> None:
    """What a challenge asks for goes along with what the client can do."""
    await entra.token(make(entra, client_capabilities=["CP1"]), claims='{"access_token":{"nbf":{"value":"1"}}}')
    assert entra.forms[0]["claims"] == '{"access_token":{"nbf":{"value":"1"},"xms_cc":{"values":["CP1"]}}}'


@both
async def test_an_outage_is_waited_for(entra: Pod, make: Callable[[Pod], Source]) -> None:
    """While Entra cannot serve it is asked again, and then the error is raised."""
    entra.answers.extend([Answer(503, "")] * 4)
    outcome, waits = await entra.fetched(make(entra))
    assert type(outcome) is EndpointError
    assert waits == [1.0, 2.0, 4.0]


KINDS: dict[type, dict[str, Any]] = {
    ClientSecret: {"tenant_id": TENANT_ID, "client_id": CLIENT_ID, "client_secret": SECRET},
    ClientCertificate: {
        "tenant_id": TENANT_ID,
        "client_id": CLIENT_ID,
        "certificate": APPLICATION.pem(PASSWORD),
        "password": PASSWORD,
    },
}
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tenant_id": ""}, ValueError, "tenant_id is empty"),
    ({"client_id": ""}, ValueError, "client_id is empty"),
    ({"authority": ""}, ValueError, "authority is empty"),
    ({"tenant_id": None}, TypeError, "tenant_id is a string, not NoneType"),
    ({"client_id": b"c"}, TypeError, "client_id is a string, not bytes"),
    ({"authority": 7}, TypeError, "authority is a string, not int"),
    ({"client_capabilities": "CP1"}, TypeError, "client_capabilities is a sequence of strings"),
    ({"client_capabilities": ["CP 1"]}, ValueError, "is no client capability"),
]
WRONG_SECRETS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"client_secret": ""}, ValueError, "client_secret is empty"),
    ({"client_secret": None}, TypeError, "client_secret is a string, not NoneType"),
    ({"client_secret": b"hunter2"}, TypeError, "client_secret is a string, not bytes"),
    ({"client_secret": "hunter2\n"}, ValueError, "client_secret holds control characters"),
    ({"client_secret": "hunter2\udc80"}, ValueError, "client_secret holds control characters"),
]
WRONG_CERTIFICATES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"certificate": ""}, ValueError, "certificate is empty"),
    ({"certificate": b""}, ValueError, "certificate is empty"),
    ({"certificate": None}, TypeError, "certificate is a path, or content as bytes, not NoneType"),
    ({"certificate": bytearray(b"hunter2")}, TypeError, "certificate is a path, or content as bytes, not bytearray"),
    ({"certificate": "-----BEGIN hunter2"}, ValueError, "certificate is the path of a file if it is a string"),
    ({"certificate": "hunter2" * 999}, ValueError, "certificate is the path of a file if it is a string"),
    ({"password": ("hunter2",)}, TypeError, "password is a string or bytes, not tuple"),
    ({"password": "hunter2\0"}, ValueError, "password holds a NUL"),
    ({"algorithm": "HS256"}, ValueError, "algorithm is 'PS256' or 'RS256', not 'HS256'"),
]


@pytest.mark.parametrize(
    ("kind", "wrong", "error", "said"),
    [
        *((kind, *row) for kind in KINDS for row in WRONG),
        *((ClientSecret, *row) for row in WRONG_SECRETS),
        *((ClientCertificate, *row) for row in WRONG_CERTIFICATES),
    ],
)
def test_wrong_arguments_are_told_at_once(kind: type, wrong: dict[str, Any], error: type[Exception], said: str) -> None:
    """Nothing is tried with them, and neither the error nor its traceback shows what is secret."""
    with pytest.raises(error, match=said) as caught:
        kind(**{**KINDS[kind], **wrong})
    assert type(caught.value) is error
    shown = caught.value.with_traceback(caught.tb.tb_next)  # Without this very frame.
    check_silence(shown, ["hunter2", SECRET, PASSWORD, *APPLICATION.secrets])


def test_a_source_shows_no_secret(tmp_path: Path) -> None:
    """Its text says which application it is, and neither with what nor where that is kept."""
    with_secret = ClientSecret(tenant_id="t", client_id="c", client_secret=SECRET)
    assert repr(with_secret) == "ClientSecret(tenant_id='t', client_id='c')"
    for found in (PEM, str(tmp_path / "hunter2"), tmp_path / "hunter2"):
        source = ClientCertificate(tenant_id="t", client_id="c", certificate=found, password=PASSWORD)
        assert repr(source) == "ClientCertificate(tenant_id='t', client_id='c')"


@both
async def test_a_crowd_makes_one_request(entra: Pod, make: Callable[[Pod], Source]) -> None:
    """However many want a token at once, it is asked for once."""
    assert await crowded(entra, make(entra)) == 1


@both
@pytest.mark.parametrize("victim", [0, 1, 2, None], ids=["first", "middle", "last", "all"])
async def test_a_cancelled_caller_takes_nobody_along(
    entra: Pod, make: Callable[[Pod], Source], victim: int | None
) -> None:
    """Whoever leaves while Entra answers, the others get their token, and nothing is left behind."""
    await cancelled(entra, make(entra), 1, victim)


@both
async def test_a_fetch_that_is_cancelled_leaves_nothing(entra: Pod, make: Callable[[Pod], Source]) -> None:
    """Its connection is closed with it."""
    await abandoned(entra, make(entra), 1)


# A certificate


@pytest.mark.parametrize(("algorithm", "name"), [("PS256", "x5t#S256"), ("RS256", "x5t")])
async def test_a_certificate_proves_itself_with_a_signature(entra: Pod, algorithm: str, name: str) -> None:
    """Entra gets an assertion that it can verify with the certificate, and nothing of the key."""
    token = await entra.token(with_certificate(entra, algorithm=algorithm))
    assert (token.token, token.source) == ("entra-gave-this", "client_certificate")
    (form,) = entra.forms
    assertion = form.pop("client_assertion")
    assert form == {
        "client_id": CLIENT_ID,
        "grant_type": "client_credentials",
        "scope": "https://vault.azure.net/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    key = APPLICATION.certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    audience = f"https://login.microsoftonline.com/{TENANT_ID}/oauth2/v2.0/token"
    unchecked: Any = {"verify_exp": False}  # It is a manual clock's.
    claims = jwt.decode(assertion, key, algorithms=[algorithm], audience=audience, options=unchecked)
    assert (claims["iss"], claims["sub"]) == (CLIENT_ID, CLIENT_ID)
    now = int(entra.clock.wall())
    assert (claims["nbf"], claims["iat"], claims["exp"]) == (now, now, now + 600)
    header = jwt.get_unverified_header(assertion)
    assert set(header) == {"alg", "typ", name}
    assert header["alg"] == algorithm


async def test_a_certificate_is_signed_with_for_the_endpoint_that_is_asked(entra: Pod) -> None:
    """The audience is the token endpoint of that tenant in that cloud, so that no other can use the assertion."""
    await entra.token(with_certificate(entra, authority=f"https://{CHINA}/"), tenant_id="contoso.onmicrosoft.com")
    assert assertions(entra)[0]["aud"] == f"https://{CHINA}/contoso.onmicrosoft.com/oauth2/v2.0/token"


async def test_each_attempt_has_an_assertion_of_its_moment(entra: Pod) -> None:
    """No assertion is sent twice, and none is older than its attempt."""
    entra.answers.extend([Answer(503, ""), refusal(700024, status=401)])
    start = int(entra.clock.wall())
    await entra.token(with_certificate(entra))
    said = assertions(entra)
    assert [claims["iat"] - start for claims in said] == [0, 1, 2]
    assert len({claims["jti"] for claims in said}) == 3


@pytest.mark.parametrize("send_certificate_chain", [True, False])
async def test_the_chain_is_sent_where_it_is_wanted(entra: Pod, *, send_certificate_chain: bool) -> None:
    """For an application that trusts a subject name and issuer, all certificates go along."""
    own = certificate("application", issuer="root")
    content = Paper(APPLICATION.key, certificate("root"), (own,)).pem()
    await entra.token(with_certificate(entra, content, send_certificate_chain=send_certificate_chain))
    header = jwt.get_unverified_header(entra.forms[0]["client_assertion"])
    assert len(header.get("x5c", ())) == 2 * send_certificate_chain


@pytest.mark.parametrize("password", [None, PASSWORD, PASSWORD.encode()], ids=["plain", "text", "bytes"])
@pytest.mark.parametrize("form", ["PEM", "PKCS#12"])
@pytest.mark.parametrize("how", ["content", "text", "path", "relative"])
async def test_where_a_certificate_comes_from(
    entra: Pod, monkeypatch: pytest.MonkeyPatch, how: str, form: str, password: str | bytes | None
) -> None:
    """It is given as bytes, or as the path of a file, in either form, encrypted or not."""
    plain = None if password is None else PASSWORD
    content = APPLICATION.pem(plain) if form == "PEM" else APPLICATION.pkcs12(plain)
    file = entra.folder / "application.pem"
    file.write_bytes(content)
    monkeypatch.chdir(entra.folder)
    ways: dict[str, str | Path | bytes] = {
        "content": content,
        "text": str(file),
        "path": file,
        "relative": file.name,
    }
    await entra.token(with_certificate(entra, ways[how], password=password))
    assert len(thumbprints(entra)) == 1


async def test_a_renewed_file_counts_at_the_next_fetch(entra: Pod) -> None:
    """Whoever renews the certificate does not have to restart the service."""
    file = entra.folder / "application.pem"
    source = with_certificate(entra, file)
    for content in (APPLICATION.pem(), RENEWED.pem(), RENEWED.pkcs12()):
        file.write_bytes(content)
        await entra.token(source)
    first, second, third = thumbprints(entra)
    assert first != second == third


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "cannot be read: No such file or directory"),
    "a folder": (lambda file: file.mkdir(), "is no regular file"),
    "a pipe": (os.mkfifo, "is no regular file"),
    "huge": (lambda file: file.write_bytes(APPLICATION.pem() + b"\n" * 256 * 1024), "has more than 262144 bytes"),
    "empty": (lambda file: file.touch(), "is neither PEM nor PKCS#12"),
    "garbage": (lambda file: file.write_bytes(b"hunter2" * 99), "is neither PEM nor PKCS#12"),
    "encrypted": (lambda file: file.write_bytes(APPLICATION.pem("hunter2")), "with this password"),
}


@pytest.mark.parametrize(("make", "problem"), UNFIT.values(), ids=UNFIT)
async def test_a_file_that_cannot_be_used_is_named(entra: Pod, make: Callable[[Path], object], problem: str) -> None:
    """It is told which file it is and what is wrong with it; nothing is sent, and nothing of it is shown."""
    file = entra.folder / "application.pem"
    make(file)
    entra.secrets.append("hunter2")
    error = await entra.error(ConfigurationError, with_certificate(entra, file, password=PASSWORD))
    assert str(error).startswith(f"the certificate {str(file)!r} ")
    assert problem in str(error)
    assert entra.internet.hosts == []


async def test_a_secret_in_the_place_of_a_file_is_not_shown(entra: Pod) -> None:
    """What is no absolute path may be the password, by mistake."""
    entra.secrets.append("hunter2")
    error = await entra.error(ConfigurationError, with_certificate(entra, "hunter2"))
    assert "the certificate, whose path is relative, cannot be read: No such file" in str(error)
    assert entra.internet.hosts == []


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (APPLICATION.pem(PASSWORD), None),
        (APPLICATION.pem(PASSWORD), "hunter2"),
        (APPLICATION.pem(), PASSWORD),
        (APPLICATION.pkcs12(PASSWORD), "hunter2"),
        (APPLICATION.key_pem(), None),
        (APPLICATION.key_pem() + RENEWED.certificates_pem, None),
        (APPLICATION.certificates_pem, None),
        (b"hunter2", None),
    ],
    ids=["no password", "wrong password", "not encrypted", "PKCS#12", "no certificate", "another's", "no key", "odd"],
)
async def test_content_that_cannot_be_used(entra: Pod, content: bytes, password: str | None) -> None:
    """Nothing is sent, and neither the key nor the password is in the error or the frames of its traceback."""
    entra.secrets.append("hunter2")
    error = await entra.error(ConfigurationError, with_certificate(entra, content, password=password))
    assert str(error).startswith("the certificate that was given ")
    assert entra.internet.hosts == []


@pytest.mark.parametrize("module", ["cryptography", "jwt"])
async def test_without_the_extra_the_next_source_is_asked(
    entra: Pod, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Who lacks one of its packages has no such source, and is told what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    error = await entra.error(SourceUnavailableError, with_certificate(entra))
    assert "pip install 'aiomsi[certificate]'" in str(error)
    assert entra.internet.hosts == []


async def test_a_certificate_that_entra_does_not_know(entra: Pod) -> None:
    """It is told how to make it known."""
    entra.answers.append(refusal(700027, "Certificate with thumbprint was not found.", status=401))
    error = await entra.error(TokenRefusedError, with_certificate(entra))
    assert error.code == "AADSTS700027"
    assert "az ad app credential reset" in str(error)


async def test_the_loop_is_not_held_up_by_cryptography(entra: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a key, which may have to be decrypted, and signing with it are done in threads."""
    threads = threads_of(monkeypatch, ClientCertificate, "load_certificate", "sign")
    await entra.token(with_certificate(entra))
    assert len(threads) == 2
    assert threading.current_thread() not in threads


def test_cryptography_is_imported_only_when_it_is_used() -> None:
    """Having a source with a certificate, or using one with a secret, needs none of the extra."""
    script = (
        "import sys; from aiomsi.sources import ClientCertificate, ClientSecret;"
        "ClientCertificate(tenant_id='t', client_id='c', certificate=b'x');"
        "ClientSecret(tenant_id='t', client_id='c', client_secret='x');"
        "import aiomsi.sources.key_vault_certificate;"
        "print(sorted({'cryptography', 'jwt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
