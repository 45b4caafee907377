"""Which tenant a token is of, and which one a key vault wants."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import SecurityError
from aiomsi._challenge import Challenge, parse_challenges
from aiomsi._tenants import tenant_of_token, tenant_of_vault, tenants_of

TENANT = "AAAAAAAA-aaaa-4bbb-8ccc-000000000004"
ORIGIN, RESOURCE = "https://my.vault.azure.net", "https://vault.azure.net"


def challenge(resource: str = RESOURCE, tenant: str = TENANT) -> list[Challenge]:
    return parse_challenges([f'Bearer authorization="https://login.example/{tenant}", resource="{resource}"'])


def token(claims: Any) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}.signature"


def test_tenants_are_compared_in_lower_case() -> None:
    """Neither a GUID nor a domain has a case."""
    assert tenants_of([TENANT, "Contoso.OnMicrosoft.com"]) == {TENANT.lower(), "contoso.onmicrosoft.com"}
    assert tenants_of(()) == frozenset()


@pytest.mark.parametrize(
    ("allowed", "error", "why"),
    [
        (TENANT, TypeError, "a collection of tenants"),
        ([None], TypeError, "a tenant is a string"),
        ([b"tenant"], TypeError, "a tenant is a string"),
        (["*"], ValueError, r"'\*' is no tenant"),
        ([""], ValueError, "'' is no tenant"),
        ([".."], ValueError, r"'\.\.' is no tenant"),
        (["a/b"], ValueError, "'a/b' is no tenant"),
        (["\u212a"], ValueError, "is no tenant"),
        ([f"https://login.microsoftonline.com/{TENANT}"], ValueError, "is no tenant"),
    ],
)
def test_what_is_no_tenant_is_refused(allowed: Any, error: type[Exception], why: str) -> None:
    """A name that no vault will ever name, an asterisk among them, is told at once."""
    with pytest.raises(error, match=why):
        tenants_of(allowed)


@pytest.mark.parametrize(
    ("text", "tenant"),
    [
        (token({"tid": TENANT}), TENANT.lower()),
        (token({"tid": 1}), None),
        (token({"tid": None}), None),
        (token({}), None),
        (token([]), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.b.c.d.e", None),
    ],
)
def test_a_token_names_its_tenant(text: str, tenant: str | None) -> None:
    """It is the claim `tid` of a JWT; an opaque token names none."""
    assert tenant_of_token(text) == tenant


@given(st.text())
def test_any_token_has_a_tenant_or_none(text: str) -> None:
    """Nothing is raised, since the token would be in the traceback."""
    assert tenant_of_token(text) is None


@pytest.mark.parametrize("origin", [ORIGIN, "https://MY.Vault.azure.net", "https://my.vault.azure.net:443"])
@pytest.mark.parametrize("resource", [RESOURCE, f"{RESOURCE}/", RESOURCE.upper().replace("HTTPS", "https")])
@pytest.mark.parametrize("named", [RESOURCE, f"{RESOURCE}/", "https://VAULT.azure.net"])
def test_a_vault_names_its_tenant(origin: str, resource: str, named: str) -> None:
    """A slash at the end of the resource and case make no difference to what is mapped."""
    assert tenant_of_vault(challenge(named), origin, resource) == TENANT.lower()


def test_a_vault_may_name_no_tenant() -> None:
    """AD FS has none, and nor has a service that names no resource."""
    assert tenant_of_vault(challenge(tenant="adfs"), ORIGIN, RESOURCE) is None
    assert tenant_of_vault(parse_challenges(["Bearer"]), ORIGIN, RESOURCE) is None


@pytest.mark.parametrize(
    ("origin", "resource"),
    [
        ("https://account.blob.core.windows.net", "https://storage.azure.com/"),
        ("https://vault.azure.net", RESOURCE),
        ("https://evilvault.azure.net", RESOURCE),
        ("https://my.vault.azure.net", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"),
        ("https://my.none", "api://none"),
        ("https://my.none", "no url"),
        ("wss://my.vault.azure.net", RESOURCE),
        ("http://my.localhost", "https://localhost"),
    ],
)
def test_what_is_no_vault_is_not_asked(origin: str, resource: str) -> None:
    """Only a host below its resource's is one; what others say in their challenges does not matter."""
    assert tenant_of_vault(challenge("https://evil.example"), origin, resource) is None


@pytest.mark.parametrize(
    "named",
    ["https://azure.net", "https://vault.azure.net/a", "https://vault.azure.net?a", "https://evil.example", "vault"],
)
def test_a_vault_asks_for_no_other_resource_than_its_own(named: str) -> None:
    """What is mapped to it decides, so that nobody gets a token for something else by asking."""
    with pytest.raises(SecurityError, match=r"no token was sent|none was sent") as caught:
        tenant_of_vault(challenge(named), ORIGIN, RESOURCE)
    assert "my.vault.azure.net" in str(caught.value)


def test_the_error_says_what_is_mapped() -> None:
    """And shows nothing of the challenge but hosts."""
    with pytest.raises(SecurityError) as caught:
        tenant_of_vault(challenge("https://vault.azure.net/hidden"), ORIGIN, RESOURCE)
    assert caught.value.resource == RESOURCE
    assert "hidden" not in str(caught.value)
