"""Service Fabric.

Source: Microsoft documentation, "How to leverage a Service Fabric application's managed identity to access Azure
services".
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from .faults import Answer
from .protocol import refresh_in, retry_after
from .tokens import IssueRefused

if TYPE_CHECKING:
    from .keyring import Keyring
    from .protocol import Body, Host
    from .received import ReceivedRequest
    from .tokens import TokenAsked, TokenGiven

_VERSIONS = ("2019-07-01-preview", "2020-05-01")

# Its own words for what hosts in general refuse.
_CODES = {
    "invalid_request": "ArgumentNullOrEmpty",
    "not_found": "ManagedIdentityNotFound",
    "server_error": "InternalServerError",
}


async def door(received: ReceivedRequest, keyring: Keyring) -> Answer | None:
    """Want the secret and an api-version that is known."""
    if not keyring.is_secret(received.headers.get("secret", "")):
        raise IssueRefused(400, "SecretHeaderNotFound", "The Secret header is missing or wrong.")
    if received.parameters.get("api-version") not in _VERSIONS:
        message = f"The api-version is missing or unknown; known are {' and '.join(_VERSIONS)}."
        raise IssueRefused(400, "InvalidApiVersion", message)
    return None


def body(_host: Host, asked: TokenAsked, given: TokenGiven, _now: float) -> Body:
    """Write times as numbers, and nothing about the identity, which the cluster chose."""
    return {
        "access_token": given.token,
        "expires_on": int(given.expires_on),
        "resource": asked.resource,
        "token_type": "Bearer",
        **refresh_in(given),
    }


def refusal(refused: IssueRefused, _now: float) -> Answer:
    """Write a nested error with a correlation id."""
    code = _CODES.get(refused.code, refused.code)
    error = {"correlationId": str(uuid.uuid4()), "code": code, "message": refused.message}
    return Answer(refused.status, {"error": error}, retry_after(refused))
