"""The emulator's Entra towards federated users, over a real socket: where they log in, and whose word is taken."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from questions import NOW, VAULT, Client, Question, claims, client_of
from saml import is_intact, signed_assertion

from aiomsi.endpoint import IdentityEndpoint, TokenAsked, TokenGiven

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALICE = "alice@contoso.com"
MEX = "https://sts.contoso.com/adfs/services/trust/mex"
AUDIENCE = "urn:federation:MicrosoftOnline"
CLIENT = "11111111-aaaa-4bbb-8ccc-000000000001"
EACH_KIND = pytest.mark.parametrize("kind", ["saml1_1", "saml2"])
ABOUT_THE_CLOUD = {"cloud_instance_name": "microsoftonline.com", "cloud_audience_urn": AUDIENCE}


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint(hosts=["entra"], root=tmp_path, wall=lambda: NOW) as opened:
        yield opened


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with client_of(tmp_path) as opened:
        yield opened


@pytest.fixture
def issued(endpoint: IdentityEndpoint) -> dict[bytes, str]:
    """What the federation server of contoso.com has issued."""
    found: dict[bytes, str] = {}
    endpoint.domains.federate("contoso.com", MEX, found)
    return found


def realm_of(endpoint: IdentityEndpoint, user: str) -> Question:
    return Question(f"{endpoint.tls_url}/common/userrealm/{user}", {"api-version": "1.0"})


def showing(endpoint: IdentityEndpoint, kind: str, assertion: bytes) -> Question:
    """Return the question of a user for whom somebody vouches."""
    form = {
        "client_id": CLIENT,
        "grant_type": f"urn:ietf:params:oauth:grant-type:{kind}-bearer",
        "scope": f"{VAULT}/.default openid offline_access profile",
        "assertion": base64.b64encode(assertion).decode(),
    }
    return Question(f"{endpoint.tls_url}/organizations/oauth2/v2.0/token", form=form)


# Where users log in


@pytest.mark.parametrize("user", [ALICE, "alice%40contoso.com", "Alice@Contoso.COM"])
async def test_a_federated_user(
    endpoint: IdentityEndpoint, client: Client, issued: dict[bytes, str], user: str
) -> None:
    """User realm discovery tells where the federation server describes itself, in whatever way the name is written."""
    assert issued == {}
    reply = await client.send(realm_of(endpoint, user))
    assert (reply.status, reply.body) == (
        200,
        {
            "ver": "1.0",
            "account_type": "Federated",
            "domain_name": "contoso.com",
            "federation_protocol": "WSTrust",
            "federation_metadata_url": MEX,
            "federation_active_auth_url": "https://sts.contoso.com/adfs/services/trust/2005/usernamemixed",
            **ABOUT_THE_CLOUD,
        },
    )


async def test_managed_and_unknown_users(endpoint: IdentityEndpoint, client: Client) -> None:
    """Who is managed logs in at Entra itself; of whom it does not know, it says so with the same status."""
    endpoint.domains.manage("Fabrikam.com")
    managed, unknown = [
        await client.send(realm_of(endpoint, user)) for user in ("bob@fabrikam.com", "bob@fabrikam.org")
    ]
    assert managed.body == {
        "ver": "1.0",
        "account_type": "Managed",
        "domain_name": "fabrikam.com",
        **ABOUT_THE_CLOUD,
    }
    assert unknown.body == {"ver": "1.0", "account_type": "Unknown", **ABOUT_THE_CLOUD}
    assert (managed.status, unknown.status) == (200, 200)


async def test_the_last_word_on_a_domain_counts(endpoint: IdentityEndpoint, issued: dict[bytes, str]) -> None:
    """A domain may change sides while the endpoint runs; its former federation server's word is good no more."""
    issued[b"an assertion"] = ALICE
    assert endpoint.domains.user_of(b"an assertion") == ALICE
    endpoint.domains.manage("contoso.com")
    assert endpoint.domains.user_of(b"an assertion") is None
    assert repr(endpoint.domains) == "<Domains contoso.com>"


@pytest.mark.usefixtures("issued")
async def test_a_discovery_is_no_request_for_a_token(endpoint: IdentityEndpoint, client: Client) -> None:
    """It is remembered, but no step of a script is used up for it; and only GET is taken."""
    question = realm_of(endpoint, ALICE)
    await client.send(question)
    assert (len(endpoint.requests), endpoint.token_requests, endpoint.hits.refused) == (1, [], 1)
    posted = await client.send(replace(question, form={"a": "b"}))
    assert (posted.status, posted.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/common/userrealm", "/common/userrealm/a/b", "/organizations/userrealm/a"])
async def test_discovery_has_one_path(endpoint: IdentityEndpoint, client: Client, path: str) -> None:
    """Nothing is told at others."""
    assert (await client.send(Question(endpoint.tls_url + path))).status == 404


# Whose word is taken


@EACH_KIND
async def test_a_token_for_an_assertion(
    endpoint: IdentityEndpoint, client: Client, issued: dict[bytes, str], kind: str
) -> None:
    """It is the user's, not the application's, and says what it may be used for."""
    assertion = signed_assertion(kind, ALICE, AUDIENCE)
    issued[assertion] = ALICE
    reply = await client.send(showing(endpoint, kind, assertion))
    found = claims(reply.body["access_token"])
    assert {name: found[name] for name in ("idtyp", "upn", "appid", "aud", "scp")} == {
        "idtyp": "user",
        "upn": ALICE,
        "appid": CLIENT,
        "aud": VAULT,
        "scp": "user_impersonation",
    }
    assert found["oid"] == found["sub"]
    assert reply.body["scope"] == f"{VAULT}/user_impersonation {VAULT}/.default"
    assert endpoint.token_requests[0].resource == VAULT


async def test_each_user_has_an_object_id(endpoint: IdentityEndpoint, client: Client, issued: dict[bytes, str]) -> None:
    """It is the same for every token, however the name is written, and nobody else's."""
    ids = []
    for user in (ALICE, "ALICE@contoso.com", "bob@contoso.com"):
        assertion = signed_assertion("saml2", user, AUDIENCE)
        issued[assertion] = user
        reply = await client.send(showing(endpoint, "saml2", assertion))
        ids.append(claims(reply.body["access_token"])["oid"])
    assert ids[0] == ids[1] != ids[2]
    assert all(each.startswith("fa4efa4e-") for each in ids)


async def test_the_issuer_learns_whose_token_is_wanted(client: Client, tmp_path: Path) -> None:
    """The question names the user beside the application."""
    asked = []

    async def issue(question: TokenAsked) -> TokenGiven:
        asked.append(question)
        return TokenGiven("opaque", NOW + 60)

    assertion = signed_assertion("saml1_1", ALICE, AUDIENCE)
    async with IdentityEndpoint(issue, hosts=["entra"], root=tmp_path, wall=lambda: NOW) as endpoint:
        endpoint.domains.federate("contoso.com", MEX, {assertion: ALICE})
        await client.send(showing(endpoint, "saml1_1", assertion))
    assert asked == [TokenAsked("entra", VAULT, "client_id", CLIENT, "organizations", ALICE)]


@EACH_KIND
async def test_a_changed_assertion_is_refused(
    endpoint: IdentityEndpoint, client: Client, issued: dict[bytes, str], kind: str
) -> None:
    """A blank more is enough, as it is for a signature."""
    assertion = signed_assertion(kind, ALICE, AUDIENCE)
    issued[assertion] = ALICE
    changed = assertion.replace(b"<!--", b"<!-- ")
    assert (is_intact(assertion), is_intact(changed)) == (True, False)
    reply = await client.send(showing(endpoint, kind, changed))
    assert (reply.status, reply.body["error"], reply.body["error_codes"]) == (400, "invalid_grant", [50008])
    assert endpoint.token_requests == []


async def test_entra_without_federated_domains_knows_no_issuer(endpoint: IdentityEndpoint, client: Client) -> None:
    """Where no domain is federated, the refusal has the number for a federation that does not exist."""
    endpoint.domains.manage("contoso.com")
    reply = await client.send(showing(endpoint, "saml2", signed_assertion("saml2", ALICE, AUDIENCE)))
    assert (reply.body["error"], reply.body["error_codes"]) == ("invalid_request", [50107])


@EACH_KIND
async def test_the_grant_must_be_that_of_the_assertion(
    endpoint: IdentityEndpoint, client: Client, issued: dict[bytes, str], kind: str
) -> None:
    """A SAML 2.0 assertion in the grant of SAML 1.1, or the other way round, cannot be read."""
    assertion = signed_assertion(kind, ALICE, AUDIENCE)
    issued[assertion] = ALICE
    other = {"saml1_1": "saml2", "saml2": "saml1_1"}[kind]
    reply = await client.send(showing(endpoint, other, assertion))
    assert (reply.body["error"], reply.body["error_codes"]) == ("invalid_grant", [50008])
    assert "Cannot read SecurityToken" in reply.body["error_description"]


@pytest.mark.parametrize(
    ("changes", "error", "number"),
    [
        ({"assertion": None}, "invalid_request", 900144),
        ({"assertion": ""}, "invalid_request", 900144),
        ({"assertion": "PGE-Pg_="}, "invalid_grant", 50008),
        ({"assertion": "PGEv"}, "invalid_grant", 50008),
        ({"assertion": base64.b64encode(b"no XML").decode()}, "invalid_grant", 50008),
        ({"client_id": None}, "invalid_request", 900144),
        ({"scope": None}, "invalid_request", 900144),
        ({"scope": "openid"}, "invalid_scope", 70011),
        ({"scope": f"{VAULT}/.default https://other/.default"}, "invalid_scope", 70011),
        (
            {"grant_type": "urn:ietf:params:oauth:grant-type:saml3-bearer", "client_secret": "a"},
            "invalid_client",
            7000215,
        ),
    ],
)
async def test_a_wrong_question(
    endpoint: IdentityEndpoint,
    client: Client,
    issued: dict[bytes, str],
    changes: dict[str, Any],
    error: str,
    number: int,
) -> None:
    """Each mistake has Entra's number."""
    assertion = signed_assertion("saml2", ALICE, AUDIENCE)
    issued[assertion] = ALICE
    reply = await client.send(showing(endpoint, "saml2", assertion).but(**changes))
    assert (reply.body["error"], reply.body["error_codes"]) == (error, [number])
    assert endpoint.token_requests == []


async def test_what_is_issued_meanwhile_counts(endpoint: IdentityEndpoint, issued: dict[bytes, str]) -> None:
    """The mapping is looked at whenever an assertion is shown, from whatever thread."""
    assertion = signed_assertion("saml2", ALICE, AUDIENCE)
    assert await asyncio.to_thread(endpoint.domains.user_of, assertion) is None
    issued[assertion] = ALICE
    assert await asyncio.to_thread(endpoint.domains.user_of, assertion) == ALICE
