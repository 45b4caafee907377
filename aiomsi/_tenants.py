"""Which tenant a token is of, and which one a key vault wants. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiomsi._challenge import vault_challenge
from aiomsi._errors import SecurityError
from aiomsi._resource import is_name
from aiomsi._token import unverified_claims

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from aiomsi._challenge import Challenge

__all__ = ["tenant_of_token", "tenant_of_vault", "tenants_of"]


def tenants_of(allowed: Collection[str]) -> frozenset[str]:
    """Return the tenants that a caller allows, in lower case.

    Raises:
        TypeError: *allowed* is a string, or one of them is none.
        ValueError: one is neither a GUID nor a domain.
    """
    if isinstance(allowed, str):
        raise TypeError(f"allowed_tenants is a collection of tenants, not the string {allowed!r}")
    for tenant in allowed:
        if not isinstance(tenant, str):
            raise TypeError(f"a tenant is a string, its GUID or domain, not {tenant!r}")
        if not is_name(tenant):
            raise ValueError(f"{tenant!r} is no tenant; name each by its GUID or domain")
    return frozenset(tenant.lower() for tenant in allowed)


def tenant_of_token(token: str) -> str | None:
    """Return the tenant that *token* says it is of, in lower case, or None if it is opaque."""
    tenant_id = (unverified_claims(token) or {}).get("tid")
    return tenant_id.lower() if isinstance(tenant_id, str) else None


def tenant_of_vault(challenges: Iterable[Challenge], origin: str, resource: str) -> str | None:
    """Return the tenant that the key vault at *origin* names, in lower case, or None if it is no vault or names none.

    *resource* is what tokens may be for there.

    Raises:
        SecurityError: it asks for a token of something else.
    """
    here, there = urlsplit(origin), urlsplit(resource)
    # Only where each customer has a host below that of the resource, as with key vaults.
    if {here.scheme, there.scheme} != {"https"} or not (here.hostname or "").endswith(f".{there.hostname}"):
        return None
    asked = vault_challenge(challenges, origin)
    if asked is None:
        return None
    if asked.resource.rstrip("/").lower() != resource.rstrip("/").lower():
        raise SecurityError(
            f"{here.hostname} asks for a token for something else than {resource!r}, which is mapped to it; none was"
            " sent in answer. Check the mapping, and whether something else answers in its place",
            resource=resource,
        )
    return None if asked.tenant_id is None else asked.tenant_id.lower()
