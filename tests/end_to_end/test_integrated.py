"""From a ticket of a real Kerberos KDC, by way of a federation server that looks into it, to a token of Entra's."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from company import DOMAIN, NAME, PRINCIPAL, servers
from federation_server import AUDIENCE, FederationServer
from kerberos_realm import Realm, lacking, realm
from pods import VAULT, check_silence
from questions import claims
from saml import TOKEN_TYPES, is_intact
from support import PacedClock
from ws_trust import BOMB, TRUSTS, metadata, reply

from aiomsi import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.sources import IntegratedAuth, Surroundings, TokenRequest
from aiomsi.sources._tls import system_trust

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from aiomsi import AccessToken
    from aiomsi.endpoint import IdentityEndpoint

pytestmark = pytest.mark.kerberos
if (LACKING := lacking()) is not None:
    pytest.skip(LACKING, allow_module_level=True)

MEX = "GET /adfs/services/trust/mex"
ASSERT = "POST /adfs/services/trust/{}/windowstransport"


@dataclass
class Company:
    """A company whose directory is the *kerberos* realm, whose own login is at *adfs*, and which uses *entra*."""

    kerberos: Realm
    adfs: FederationServer
    entra: IdentityEndpoint
    environ: dict[str, str]
    clock: PacedClock = field(default_factory=PacedClock)

    def source(self, **options: Any) -> IntegratedAuth:
        return IntegratedAuth(**options, surroundings=Surroundings(environ=self.environ))

    def asking(self, *, limit: float = 60, **options: Any) -> asyncio.Task[AccessToken]:
        """Begin to fetch a token."""
        request = TokenRequest(VAULT, clock=self.clock, deadline=self.clock.monotonic() + limit)
        return asyncio.ensure_future(self.source(**options).fetch(request))

    async def token(self, **options: Any) -> AccessToken:
        fetching = self.asking(**options)
        await self.clock.pace(fetching)
        return fetching.result()

    async def error(self, kind: type[AiomsiError], **options: Any) -> str:
        """Return what the error says, of exactly that kind, in which a fetch ends."""
        fetching = self.asking(**options)
        await self.clock.pace(fetching)
        error = fetching.exception()
        assert type(error) is kind, error
        assert (error.resource, error.source) == (VAULT, "integrated")
        check_silence(error, self.secrets)
        return str(error)

    @property
    def secrets(self) -> list[str]:
        """What nobody may see: tickets, proofs, and assertions."""
        shown = [text.partition(" ")[2] for text in self.adfs.shown]
        assertions = [base64.b64encode(assertion).decode() for assertion in self.adfs.issued]
        return [text for text in (*shown, *assertions, "<saml:Assertion", "<ds:SignatureValue>") if text]

    @property
    def forms(self) -> list[dict[str, str]]:
        """What Entra was asked for tokens with."""
        return [dict(request.form) for request in self.entra.requests if request.method == "POST"]


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    with realm(tmp_path_factory.mktemp("kerberos")) as running:
        yield running


@pytest.fixture
def kerberos(created: Realm, monkeypatch: pytest.MonkeyPatch) -> Realm:
    """A realm in which alice has just logged in."""
    for name, value in created.environ.items():
        monkeypatch.setenv(name, value)
    created.start()
    created.log_in()
    return created


@pytest.fixture
async def company(kerberos: Realm, tmp_path: Path) -> AsyncIterator[Company]:
    async with servers(kerberos, tmp_path) as found:
        yield Company(kerberos, found.adfs, found.entra, found.environ)
        assert found.adfs.objections == []


def claimed(token: str) -> dict[str, Any]:
    """Return what *token* claims about whose it is."""
    return {name: claims(token).get(name) for name in ("idtyp", "upn", "appid", "aud")}


# What is asked, and what is given


async def test_the_chain(company: Company) -> None:
    """Four requests lead from a ticket to a token of the user's, and the assertion arrives as it was signed."""
    token = await company.token()
    assert claimed(token.token) == {
        "idtyp": "user",
        "upn": NAME,
        "appid": "d7813711-9094-4ad3-a062-cac3ec74ebe8",
        "aud": VAULT,
    }
    assert (token.source, token.principal and token.principal.user_principal_name) == ("integrated", NAME)
    assert [request.path for request in company.entra.requests] == [
        f"/common/userrealm/{PRINCIPAL}",
        "/organizations/oauth2/v2.0/token",
    ]
    assert company.adfs.requests == [MEX, ASSERT.format("13")]
    (form,) = company.forms
    assertion = base64.b64decode(form["assertion"], validate=True)
    assert list(company.adfs.issued) == [assertion]
    assert is_intact(assertion)


async def test_the_authorities_are_read_once(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four requests of a login believe the same ones, which take time to read."""
    read: list[Surroundings] = []

    def reading(surroundings: Surroundings) -> ssl.SSLContext | None:
        read.append(surroundings)
        return system_trust(surroundings)

    monkeypatch.setattr("aiomsi.sources._entra.system_trust", reading)
    await company.token()
    assert len(read) == 1


@pytest.mark.parametrize("version", ["13", "2005"])
@pytest.mark.parametrize(("token_type", "grant"), TOKEN_TYPES.items())
async def test_each_kind_of_assertion_has_its_grant(
    company: Company, version: str, token_type: str, grant: str
) -> None:
    """Servers spell the kinds of SAML in four ways, in either version of WS-Trust."""
    company.adfs.metadata = metadata(company.adfs.url, versions=[version])
    company.adfs.token_type = token_type
    await company.token()
    assert company.adfs.requests[1] == ASSERT.format(version)
    assert company.forms[0]["grant_type"] == f"urn:ietf:params:oauth:grant-type:{grant}-bearer"


@pytest.mark.parametrize(
    "manner", [{"padding": "\n      "}, {"nested": True}, {"size": 150_000}, {"versions": ["13", "2005"]}], ids=str
)
async def test_metadata_of_all_sorts(company: Company, manner: dict[str, Any]) -> None:
    """Addresses between blanks, policies deep down, long documents: as servers have them."""
    company.adfs.metadata = metadata(company.adfs.url, **manner)
    await company.token()
    assert company.adfs.requests == [MEX, ASSERT.format("13")]


async def test_a_user_with_another_name_at_entra(company: Company) -> None:
    """The name that is given is asked for, whatever the ticket calls the user; the ticket is that of the login."""
    token = await company.token(username=NAME)
    assert company.entra.requests[0].path == f"/common/userrealm/{NAME}"
    assert claimed(token.token)["upn"] == NAME


async def test_another_tenant_and_application(company: Company) -> None:
    """Tokens may be asked of another tenant than the user's own, and for another application."""
    token = await company.token(tenant_id="fabrikam.com", client_id="11111111-aaaa-4bbb-8ccc-000000000001")
    assert company.entra.requests[1].path == "/fabrikam.com/oauth2/v2.0/token"
    assert claimed(token.token)["appid"] == "11111111-aaaa-4bbb-8ccc-000000000001"


async def test_a_tenant_that_makes_no_sense(company: Company) -> None:
    """Nobody is asked, and no ticket shown, before that is known."""
    async with TokenProvider(company.source()) as provider:
        with pytest.raises(ConfigurationError, match="neither a GUID nor a domain"):
            await provider.access_token(VAULT, tenant_id="../common")
    assert (company.entra.requests, company.adfs.requests) == ([], [])


# Tickets


async def test_no_ticket(company: Company) -> None:
    """Who is not logged in is told how to, and nobody is asked."""
    company.kerberos.log_out()
    assert "run: kinit" in await company.error(SourceUnavailableError)
    assert "run: kinit" in await company.error(SourceUnavailableError, username=NAME)
    assert company.forms == []


async def test_an_expired_ticket(company: Company) -> None:
    """It is as good as none, and the server does not see it."""
    company.kerberos.let_expire()
    assert "has expired; run: kinit" in await company.error(SourceUnavailableError)
    assert company.adfs.requests == []
    assert "has expired; run: kinit" in await company.error(SourceUnavailableError, username=NAME)
    assert company.adfs.requests == [MEX]


@pytest.mark.parametrize(
    "cache", ["KEYRING:session:nobodys", "KCM:", "DIR:/no-such", "MEMORY:", "FILE:/no-such/\udcff"]
)
async def test_no_ticket_in_a_cache_of_another_kind(company: Company, cache: str) -> None:
    """Wherever tickets are kept, to have none is not to be logged in."""
    company.environ["KRB5CCNAME"] = cache
    assert "run: kinit" in await company.error(SourceUnavailableError)
    assert "run: kinit" in await company.error(SourceUnavailableError, username=NAME)


@pytest.mark.parametrize("place", ["DIR:{}/several", "DIR::{}/several/tkt", "FILE:{}/one", "{}/one"])
async def test_caches_of_other_kinds(company: Company, place: str) -> None:
    """The tickets are those of the cache that is named, and not those of the process."""
    cache = place.format(company.kerberos.folder)
    (company.kerberos.folder / "several").mkdir(exist_ok=True)
    company.kerberos.log_in(cache=cache)
    company.kerberos.log_out()
    company.environ["KRB5CCNAME"] = cache
    assert claimed((await company.token()).token)["upn"] == NAME


async def test_a_name_that_is_no_text(company: Company) -> None:
    """Kerberos takes any bytes for a name; Entra is asked about the domain, whatever is before it."""
    company.kerberos.rename(b"alice", b"k\xe4the")
    company.entra.domains.manage(DOMAIN)
    assert "managed" in await company.error(SourceUnavailableError)
    assert company.entra.requests[0].path == "/common/userrealm/k\ufffdthe@AD.CONTOSO.TEST"


async def test_no_password_stands_in_for_a_ticket(
    company: Company, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that lies around for NTLM is not used, with which no server proves itself."""
    passwords = tmp_path / "passwords"
    passwords.write_text("CONTOSO:alice:the-password-of-alice\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(passwords))
    company.kerberos.log_out()
    del company.environ["KRB5CCNAME"]
    assert "run: kinit" in await company.error(SourceUnavailableError, username=NAME)
    assert company.adfs.shown == []


async def test_no_ticket_in_any_log(company: Company, caplog: pytest.LogCaptureFixture) -> None:
    """Who has everything logged, that of the libraries too, sees no secret."""
    caplog.set_level(logging.DEBUG)
    await company.token()
    assert [secret for secret in company.secrets if secret in caplog.text] == []


async def test_a_service_that_kerberos_does_not_know(company: Company) -> None:
    """A server whose name is not in the directory gets no ticket."""
    company.adfs.metadata = metadata(company.adfs.url.replace("localhost", "127.0.0.1"))
    assert "HTTP/127.0.0.1" in await company.error(TokenRefusedError)
    assert company.adfs.requests == [MEX]


async def test_a_kdc_that_is_gone(company: Company) -> None:
    """Without it there is no new ticket, which is an outage."""
    company.kerberos.stop()
    assert "no key distribution centre can be reached" in await company.error(EndpointError)


async def test_a_ticket_outlives_the_kdc(company: Company) -> None:
    """The ticket for the server that the cache holds is good without the KDC."""
    company.kerberos.get_ticket()
    company.kerberos.stop()
    assert claimed((await company.token()).token)["upn"] == NAME


async def longest_stall(seconds: float) -> float:
    """Return the longest time for which the loop did nothing else, of so many *seconds*."""
    longest, begun = 0.0, time.monotonic()
    last = begun
    while last < begun + seconds:
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


async def test_a_kdc_that_never_answers(company: Company) -> None:
    """The loop goes on while Kerberos waits, and the deadline is kept although nothing can end that waiting."""
    company.kerberos.fall_silent()
    fetching = company.asking(limit=10)
    await asyncio.to_thread(company.kerberos.wait_for_call)
    # The best of three, since others may be busy on this machine; if Kerberos held the loop up, it would for seconds.
    assert min([await longest_stall(0.2) for _ in range(3)]) <= 0.05
    assert not fetching.done()
    await company.clock.advance(10)
    with pytest.raises(EndpointError, match="no key distribution centre answered in time"):
        await asyncio.wait_for(fetching, 5)


PROGRAM = """
import asyncio
from aiomsi import AiomsiError
from aiomsi._clock import SYSTEM_CLOCK
from aiomsi.sources import IntegratedAuth, TokenRequest

async def main():
    deadline = SYSTEM_CLOCK.monotonic() + 1
    request = TokenRequest("https://vault.azure.net", clock=SYSTEM_CLOCK, deadline=deadline)
    try:
        await IntegratedAuth().fetch(request)
    except AiomsiError as error:
        print(type(error).__name__, flush=True)

asyncio.run(main())
"""


async def test_the_process_ends_though_kerberos_hangs(company: Company) -> None:
    """A program whose Kerberos library waits for a dead KDC ends when it has nothing more to do."""
    company.kerberos.fall_silent()
    environ = {"PATH": "/usr/bin:/bin", **company.kerberos.environ, **company.environ}
    command = (sys.executable, "-P", "-c", PROGRAM)
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await asyncio.to_thread(company.kerberos.wait_for_call)
    assert await process.stdout.readline() == b"EndpointError\n"
    async with asyncio.timeout(10):  # Kerberos waits for 25 seconds and more.
        assert await process.wait() == 0


async def test_the_process_ends_though_the_tickets_hang(company: Company, tmp_path: Path) -> None:
    """Nor does it wait for whoever keeps the tickets, be it only to tell whose they are."""
    keeper = socket.socket(socket.AF_UNIX)
    keeper.bind(str(tmp_path / "kcm"))
    keeper.listen()
    configuration = tmp_path / "kcm.conf"
    configuration.write_text(f"[libdefaults]\n    kcm_socket = {tmp_path}/kcm\n")
    environ = {"PATH": "/usr/bin:/bin", **company.kerberos.environ, **company.environ, "KRB5CCNAME": "KCM:"}
    environ["KRB5_CONFIG"] = f"{configuration}:{environ['KRB5_CONFIG']}"
    with keeper:
        command = (sys.executable, "-P", "-c", PROGRAM)
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"EndpointError\n"
            assert await process.wait() == 0


# Refusals


async def test_a_fault(company: Company) -> None:
    """AD FS says why it refuses, with status 500 even if it is not its fault."""
    company.adfs.instead = lambda: company.adfs.refusal("FailedAuthentication", "MSIS3126: Access denied.")
    said = await company.error(TokenRefusedError)
    assert "MSIS3126: Access denied" in said
    error = company.asking()
    await company.clock.pace(error)
    refused = error.exception()
    assert isinstance(refused, TokenRefusedError)
    assert (refused.status, refused.code) == (500, "FailedAuthentication")


@pytest.mark.parametrize("place", ["reason", "code"])
async def test_a_fault_that_shows_the_ticket(company: Company, place: str) -> None:
    """Who is refused may show the error to others, but not the ticket that the server gives back in it."""
    said = {"code": "FailedAuthentication", "reason": "Access denied"}
    company.adfs.instead = lambda: company.adfs.refusal(**{**said, place: company.adfs.shown[-1]})
    fetching = company.asking()
    await company.clock.pace(fetching)
    error = fetching.exception()
    assert isinstance(error, TokenRefusedError)
    pieces = [piece for piece in re.split("[/+]", company.secrets[0]) if len(piece) > 8]
    assert [piece for piece in pieces if piece in f"{error} {error.code}"] == []


@pytest.mark.parametrize("status", [500, 503])
async def test_an_error_that_is_no_fault(company: Company, status: int) -> None:
    """A page of HTML with a status of its own is an outage."""
    company.adfs.instead = lambda: web.Response(status=status, text="<html>Sorry</html>", content_type="text/html")
    await company.error(EndpointError)
    assert company.forms == []


@pytest.mark.parametrize("challenge", ["Negotiate", "NTLM", None])
async def test_a_server_that_takes_no_tickets(company: Company, challenge: str | None) -> None:
    """A 401 in answer to a good ticket is a refusal, whatever else it offers."""
    company.adfs.takes_tickets, company.adfs.challenge = False, challenge
    assert "did not take the Kerberos ticket" in await company.error(TokenRefusedError)
    assert company.forms == []


async def test_a_server_without_windowstransport(company: Company) -> None:
    """AD FS has it switched off, and its administrator can switch it on."""
    company.adfs.metadata = metadata(company.adfs.url, kinds=["usernamemixed"])
    assert "windowstransport" in await company.error(TokenRefusedError)


async def test_a_server_that_would_be_asked_over_plain_http(company: Company) -> None:
    """No ticket goes out over plain http."""
    company.adfs.metadata = metadata(company.adfs.url.replace("https", "http"))
    assert "is not https" in await company.error(SecurityError)
    assert company.adfs.shown == []


async def test_metadata_at_plain_http(company: Company) -> None:
    """Metadata that anybody on the way could have written is not even asked for."""
    company.entra.domains.federate(DOMAIN, company.adfs.metadata_url.replace("https", "http"), {})
    await company.error(SecurityError)
    assert company.adfs.requests == []


async def test_an_entity_bomb(company: Company) -> None:
    """Metadata that would grow without bounds is not read."""
    company.adfs.metadata = BOMB
    assert "document type" in await company.error(SecurityError)


async def test_an_entity_bomb_instead_of_an_assertion(company: Company) -> None:
    """Nor is such a reply."""
    company.adfs.instead = lambda: web.Response(body=BOMB, content_type="application/soap+xml")
    assert "document type" in await company.error(SecurityError)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        reply(TRUSTS["13"], AUDIENCE, next(iter(TOKEN_TYPES)), b""),
        reply(TRUSTS["13"], AUDIENCE, "urn:ietf:params:oauth:token-type:jwt", b"<a/>"),
        reply(TRUSTS["2005"], AUDIENCE, next(iter(TOKEN_TYPES)), b"<a/>"),
    ],
    ids=["html", "nothing", "no assertion", "no SAML", "another version"],
)
async def test_a_reply_without_an_assertion(company: Company, body: bytes) -> None:
    """What is no assertion of a kind that Entra takes makes no sense."""
    company.adfs.instead = lambda: web.Response(body=body, content_type="application/soap+xml")
    await company.error(MalformedResponseError)
    assert company.forms == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}"])
async def test_metadata_that_is_none(company: Company, body: bytes) -> None:
    """What is no XML describes no server."""
    company.adfs.metadata = body
    await company.error(MalformedResponseError)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (web.HTTPNotFound, TokenRefusedError),
        (web.HTTPServiceUnavailable, EndpointError),
        (lambda: web.HTTPFound("/elsewhere"), TokenRefusedError),
    ],
    ids=["not found", "unavailable", "elsewhere"],
)
async def test_metadata_that_cannot_be_had(
    company: Company, response: Callable[[], web.HTTPException], kind: type[AiomsiError]
) -> None:
    """A server that does not describe itself is not shown a ticket, and nobody follows it elsewhere."""

    async def answer(_path: str) -> None:
        raise response()

    company.adfs.before_answer = answer
    assert "did not describe itself" in await company.error(kind)
    assert set(company.adfs.requests) == {MEX}


async def test_metadata_with_a_senseless_address(company: Company) -> None:
    """Where it leads cannot be said, so no ticket goes there."""
    company.adfs.metadata = metadata(company.adfs.url.replace("localhost", "user@localhost"))
    assert "no usable URL" in await company.error(MalformedResponseError)


@pytest.mark.parametrize(
    "realm",
    [
        {},
        {"account_type": None},
        {"account_type": "Other"},
        {"account_type": "Federated", "federation_metadata_url": "no URL"},
        {"account_type": "Federated", "federation_metadata_url": "https://127.0.0.1:1", "cloud_audience_urn": "\ud800"},
        {"account_type": "Federated", "federation_metadata_url": "https://127.0.0.1:1", "cloud_audience_urn": "a\0b"},
    ],
    ids=str,
)
async def test_entra_says_nothing_about_the_user(
    company: Company, monkeypatch: pytest.MonkeyPatch, realm: dict[str, str]
) -> None:
    """Without knowing who logs the user in, nobody else is asked."""
    monkeypatch.setattr(company.entra.domains, "realm", lambda _user: realm)
    assert "did not tell who logs" in await company.error(MalformedResponseError)
    assert company.adfs.requests == []


async def test_entra_names_no_audience(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the usual one is meant."""
    realm = {"account_type": "federated", "federation_metadata_url": company.adfs.metadata_url}
    monkeypatch.setattr(company.entra.domains, "realm", lambda _user: realm)
    await company.token()


async def test_entra_does_not_take_the_assertion(company: Company) -> None:
    """An assertion that Entra knows nothing of is refused with Entra's number."""
    company.entra.domains.federate(DOMAIN, company.adfs.metadata_url, {})
    company.entra.domains.federate("contoso.com", company.adfs.metadata_url, {})
    assert "AADSTS50008" in await company.error(TokenRefusedError)


# Mutual authentication


def broken(right: str) -> str:
    """Return a proof that is wrong in its last byte."""
    proof = bytearray(base64.b64decode(right.partition(" ")[2]))
    proof[-1] ^= 1
    return f"Negotiate {base64.b64encode(proof).decode()}"


@pytest.mark.parametrize(
    "proof",
    [
        lambda _: None,
        lambda _: "Negotiate",
        lambda _: "Negotiate AAAA",
        lambda _: "Negotiate !",
        lambda right: right.replace("Negotiate", "NTLM"),
        lambda right: right[: len(right) // 2],
        broken,
        lambda _: "Negotiate oQcwBaADCgEA",
        lambda _: "Negotiate oRUwE6ADCgEAoQwGCisGAQQBgjcCAgo=",
    ],
    ids=[
        "none",
        "empty",
        "senseless",
        "no base64",
        "another scheme",
        "cut",
        "broken",
        "only SPNEGO's word",
        "NTLM, without proof",
    ],
)
async def test_a_server_that_does_not_prove_itself(company: Company, proof: Callable[[str], str | None]) -> None:
    """Who cannot read the ticket is not the federation server, and what it asserts is dropped."""
    company.adfs.proof = proof
    assert "did not prove" in await company.error(SecurityError)
    assert (len(company.adfs.issued), company.forms) == (1, [])


async def test_the_proof_of_another_login(company: Company) -> None:
    """A proof is good for its own ticket only."""
    proofs: list[str] = []

    def first(right: str) -> str:
        proofs.append(right)
        return proofs[0]

    company.adfs.proof = first
    await company.token()
    await company.error(SecurityError)
    assert (len(proofs), len(company.forms)) == (2, 1)


# Users who are not federated


async def test_a_managed_user(company: Company) -> None:
    """Entra logs the user in itself, which is no way for tickets, so the error says what is."""
    company.entra.domains.manage(DOMAIN)
    said = await company.error(SourceUnavailableError)
    assert (PRINCIPAL in said, "managed" in said, "az login" in said) == (True, True, True)
    assert company.adfs.requests == []


@pytest.mark.parametrize("named", [{}, {"federation_metadata_url": None}, {"federation_protocol": "SAML20"}], ids=str)
async def test_a_user_of_another_kind_of_login(
    company: Company, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    """Not all that domains are federated with speaks WS-Trust; then there is no metadata, and other ways are asked."""
    monkeypatch.setattr(company.entra.domains, "realm", lambda _user: {"account_type": "Federated", **named})
    said = await company.error(SourceUnavailableError)
    assert (PRINCIPAL in said, "WS-Trust" in said, "az login" in said) == (True, True, True)
    assert company.adfs.requests == []


async def test_an_unknown_user(company: Company) -> None:
    """A domain that Entra does not know is that of the directory, so the user's name at Entra has to be given."""
    assert "give username" in await company.error(SourceUnavailableError, username="alice@fabrikam.com")
    assert company.adfs.requests == []


# Crowds and cancellation


async def test_fifty_callers_make_one_chain(company: Company) -> None:
    """However many ask at once, one ticket is shown."""
    async with TokenProvider(company.source()) as provider:
        tokens = await asyncio.gather(*(provider.token(VAULT) for _ in range(50)))
    assert len(set(tokens)) == 1
    assert (len(company.entra.requests), company.adfs.requests) == (2, [MEX, ASSERT.format("13")])


async def test_many_logins_at_once(company: Company) -> None:
    """Logins that know nothing of each other do not get in each other's way."""
    tokens = await asyncio.gather(*(company.asking() for _ in range(10)))
    assert len({token.token for token in tokens}) == len(company.adfs.issued) == 10


@pytest.mark.parametrize("leaving", [[0], [1], [2], [0, 1, 2]], ids=["first", "middle", "last", "all"])
@pytest.mark.parametrize("stage", ["mex", "windowstransport"])
async def test_callers_who_leave(company: Company, leaving: list[int], stage: str) -> None:
    """Who is cancelled leaves alone; the others get the token of the one chain, and so does who comes later."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def hold(path: str) -> None:
        if path.endswith(stage):
            reached.set()
            await gate.wait()

    company.adfs.before_answer = hold
    async with TokenProvider(company.source()) as provider:
        callers = [asyncio.ensure_future(provider.token(VAULT)) for _ in range(3)]
        await reached.wait()
        for number in leaving:
            callers[number].cancel()
        await asyncio.wait([callers[number] for number in leaving])
        gate.set()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        token = await provider.token(VAULT)
        assert provider.statistics().waiting == 0
    expected = [number not in leaving for number in range(3)]
    assert [outcome == token for outcome in outcomes] == expected
    assert company.adfs.requests == [MEX, ASSERT.format("13")]


async def test_a_fetch_that_is_cancelled_while_kerberos_hangs(company: Company) -> None:
    """Cancelling does not wait for Kerberos."""
    company.kerberos.fall_silent()
    fetching = company.asking()
    await asyncio.to_thread(company.kerberos.wait_for_call)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(fetching, 5)
    assert company.adfs.shown == []
