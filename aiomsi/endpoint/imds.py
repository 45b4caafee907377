"""The Instance Metadata Service, and those who talk like it: Azure Arc's agent and Cloud Shell.

Sources: Microsoft documentation, "How to use managed identities on a VM to acquire an access token", "Authenticate
against Azure resources with Azure Arc-enabled servers"; REST specification of IMDS.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from .faults import Answer
from .protocol import client_id, refresh_in, retry_after, seconds_left
from .tokens import IssueRefused

if TYPE_CHECKING:
    from .keyring import Keyring
    from .protocol import Body, Host
    from .received import ReceivedRequest
    from .tokens import TokenAsked, TokenGiven

# The api-versions of IMDS's REST specification that know tokens; as ISO dates they compare as text.
_OLDEST, _NEWEST = "2018-02-01", "2023-07-01"


async def door(received: ReceivedRequest, _keyring: Keyring) -> Answer | None:
    """Want the Metadata header and an api-version, and name one that would do if there is none."""
    _demand_metadata(received)
    version = received.parameters.get("api-version", "")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", version) and _OLDEST <= version <= _NEWEST:
        return None
    error = "Bad request. api-version is invalid or was not specified in the request."
    return Answer(400, {"error": error, "newest-versions": [_NEWEST]})


async def cloud_shell_door(received: ReceivedRequest, _keyring: Keyring) -> Answer | None:
    """Want the Metadata header."""
    _demand_metadata(received)
    return None


async def azure_arc_door(received: ReceivedRequest, keyring: Keyring) -> Answer | None:
    """Want the Metadata header, and what is in a file that only the right users can read."""
    _demand_metadata(received)
    scheme, _, shown = received.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic" and await keyring.spend_key(shown):
        return None
    refused = IssueRefused(401, "unauthorized_client", "A valid Basic authorization header is missing.")
    challenge = {"WWW-Authenticate": f"Basic realm={await keyring.issue_key()}"}
    return replace(refusal(refused, received.received_at), headers=challenge)


def body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    """Write texts only, and echo the identity that was selected."""
    lifetime = str(seconds_left(given, now))
    echo = {name: asked.identity for name, kind in host.selectors.items() if kind == asked.identity_kind}
    return {
        "access_token": given.token,
        "refresh_token": "",
        "expires_in": lifetime,
        "expires_on": str(int(given.expires_on)),
        "ext_expires_in": lifetime,
        "not_before": str(int(now)),
        "resource": asked.resource,
        "token_type": "Bearer",
        **{name: str(seconds) for name, seconds in refresh_in(given).items()},
        **client_id(asked, given),
        **{name: value for name, value in echo.items() if value},
    }


def cloud_shell_body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    """Write a refresh token too, as a user's sign-in brings one."""
    return body(host, asked, given, now) | {"refresh_token": "not-a-refresh-token"}


def refusal(refused: IssueRefused, _now: float) -> Answer:
    """Write the flat error of OAuth (RFC 6749)."""
    error = {"error": refused.code, "error_description": refused.message}
    return Answer(refused.status, error, retry_after(refused))


def cloud_shell_refusal(refused: IssueRefused, _now: float) -> Answer:
    """Write a nested error."""
    error = {"code": refused.code, "message": refused.message}
    return Answer(refused.status, {"error": error}, retry_after(refused))


def _demand_metadata(received: ReceivedRequest) -> None:
    if "x-forwarded-for" in received.headers:
        raise IssueRefused(400, "invalid_request", "A forwarded request (X-Forwarded-For) is refused.")
    if received.headers.get("metadata") != "true":
        raise IssueRefused(400, "invalid_request", "Required metadata header not specified")
