"""A token, what it says about its owner, and what a token may be asked for."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiomsi import AccessToken, Principal
from aiomsi._resource import resource_of
from aiomsi._token import unverified_claims


def jwt(**claims: object) -> str:
    return "e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".c2ln"


def principal(token: str) -> Principal | None:
    return AccessToken(token, 0, None, "r", "s").principal


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (
            {"appid": "a", "oid": "o", "tid": "t", "idtyp": "app"},
            Principal("App", app_id="a", object_id="o", tenant_id="t", user_principal_name=None),
        ),
        (
            {"azp": "a", "oid": "o", "tid": "t"},
            Principal("App", app_id="a", object_id="o", tenant_id="t", user_principal_name=None),
        ),
        (
            {"appid": "cli", "oid": "o", "tid": "t", "upn": "ada@contoso.com", "scp": "user_impersonation"},
            Principal("User", app_id="cli", object_id="o", tenant_id="t", user_principal_name="ada@contoso.com"),
        ),
        (
            {"idtyp": "user", "preferred_username": "ada@contoso.com"},
            Principal("User", app_id=None, object_id=None, tenant_id=None, user_principal_name="ada@contoso.com"),
        ),
        (
            {"scp": "user_impersonation", "oid": 7, "tid": ""},
            Principal("User", app_id=None, object_id=None, tenant_id=None, user_principal_name=None),
        ),
    ],
)
def test_the_principal_is_what_the_claims_say(claims: dict[str, object], expected: Principal) -> None:
    """Applications and users are told apart, in tokens of both versions."""
    assert principal(jwt(**claims)) == expected


@pytest.mark.parametrize(
    "token", ["opaque", "a.b", "a.!.c", "a.bm90IGpzb24.c", "a.WzFd.c", "a.b.c.d", "a.W1tb.c", "..", "é.é.é"]
)
def test_an_opaque_token_has_no_principal(token: str) -> None:
    """What is no JWT is nobody's."""
    assert principal(token) is None


@given(st.text())
def test_no_text_breaks_the_reading_of_claims(text: str) -> None:
    """Whatever a host sends as a token, reading it raises nothing."""
    assert unverified_claims(text) is None or isinstance(unverified_claims(text), dict)


def test_a_token_does_not_show_itself() -> None:
    """The repr has everything but the token."""
    assert repr(AccessToken("secret", 2.0, 1.0, "r", "imds")) == (
        "AccessToken(expires_on=2.0, refresh_on=1.0, resource='r', source='imds', token_type='Bearer')"
    )


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("https://vault.azure.net", "https://vault.azure.net"),
        ("https://vault.azure.net/.default", "https://vault.azure.net"),
        ("https://management.azure.com//.default", "https://management.azure.com/"),
        ("https://x/.default/y/.default", "https://x/.default/y"),
        ("https://Vault.Azure.net", "https://Vault.Azure.net"),
        ("2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default", "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"),
    ],
)
def test_a_scope_loses_one_suffix_and_nothing_else(text: str, resource: str) -> None:
    """Case, slashes and inner suffixes are kept."""
    assert resource_of(text) == resource
