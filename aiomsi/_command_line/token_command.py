"""`aiomsi token`: one token, in the form that is wanted."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiomsi import AccessToken

__all__ = ["FORMATS", "fetch"]


async def fetch(resource: str, *, client_id: str | None, tenant: str | None) -> AccessToken:
    """Fetch a token from what is detected, or as the user-assigned managed identity *client_id*."""
    # Not at the top: an HTTP library comes along, which `aiomsi --help` has no use for.
    from aiomsi import TokenProvider  # noqa: PLC0415
    from aiomsi.sources import ManagedIdentity  # noqa: PLC0415

    source = None if client_id is None else ManagedIdentity(client_id=client_id)
    async with TokenProvider(source) as provider:
        return await provider.access_token(resource, tenant_id=tenant)


def _as_json(token: AccessToken) -> str:
    principal = token.principal
    return json.dumps(
        {
            "token": token.token,
            "expires_on": token.expires_on,
            "refresh_on": token.refresh_on,
            "resource": token.resource,
            "source": token.source,
            "token_type": token.token_type,
            "principal": None if principal is None else asdict(principal),
        }
    )


FORMATS: Mapping[str, Callable[[AccessToken], str]] = {
    "token": lambda token: token.token,
    "json": _as_json,
    "header": lambda token: f"Authorization: {token.token_type} {token.token}",
}
