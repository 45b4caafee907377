"""Entra's token endpoint, as far as applications and federated users need it.

Sources: Microsoft documentation, "OAuth 2.0 client credentials flow on the Microsoft identity platform", "Microsoft
Entra authentication and authorization error codes"; RFC 6749 and RFC 7523.
"""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .entra_users import SAML_GRANTS, user_of, without_openid
from .faults import Answer
from .protocol import fields, refresh_in, retry_after, seconds_left
from .received import first_of
from .tokens import FAKE_CLUSTER, IssueRefused, TokenAsked, claimed_issuer

if TYPE_CHECKING:
    from .keyring import Keyring
    from .protocol import Body, Host
    from .received import ReceivedRequest
    from .tokens import TokenGiven

_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT = re.compile(r"[^.\s]+\.[^.\s]+\.[^.\s]+")
_SCOPE = re.compile(r"(\S+)/\.default")
_NUMBER = re.compile(r"^AADSTS(\d+)(?:: )?")

_SERVER_ERROR = 500

# What OAuth calls Entra's errors; others are named by their status.
_NAMES = {
    "50001": "invalid_resource",
    "50008": "invalid_grant",
    "500011": "invalid_resource",
    "70003": "unsupported_grant_type",
    "70011": "invalid_scope",
    "70021": "invalid_client",
    "700016": "unauthorized_client",
    "700211": "invalid_client",
    "700213": "invalid_client",
}

# Its own words for what hosts in general refuse.
_WORDS = {
    "service_unavailable": "temporarily_unavailable",
    "too_many_requests": "temporarily_unavailable",
}


async def door(received: ReceivedRequest, keyring: Keyring) -> Answer | None:
    """Want exactly one proof of an application that is good, a secret or an assertion; a user's word is no proof."""
    form = first_of(received.form)
    if form.get("grant_type") in SAML_GRANTS:
        return None
    secret, assertion = form.get("client_secret"), form.get("client_assertion")
    if secret and assertion:
        raise IssueRefused(400, "AADSTS9002313", "Both 'client_secret' and 'client_assertion' were sent.")
    if assertion:
        _check_assertion(assertion, form.get("client_assertion_type"), keyring.federated_token)
    elif not secret:
        message = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
        raise IssueRefused(401, "AADSTS7000218", message)
    elif not keyring.is_secret(secret):
        raise IssueRefused(401, "AADSTS7000215", "Invalid client secret provided.")
    return None


def question(host: Host, received: ReceivedRequest, keyring: Keyring) -> TokenAsked:
    """Return which application asks for which resource in which tenant, and in whose name."""
    given = fields(host, received)
    for_user = given.get("grant_type") in SAML_GRANTS
    for name in ("client_id", "grant_type", "scope", *(["assertion"] if for_user else [])):
        if not given.get(name):
            message = f"The request body must contain the following parameter: '{name}'."
            raise IssueRefused(400, "AADSTS900144", message)
    if not for_user and given["grant_type"] != "client_credentials":
        raise IssueRefused(400, "AADSTS70003", f"The app requested an unsupported grant type {given['grant_type']!r}.")
    scope = _SCOPE.fullmatch(without_openid(given["scope"]) if for_user else given["scope"])
    if scope is None:
        message = f"The provided value for the input parameter 'scope' is not valid: {given['scope']!r}."
        raise IssueRefused(400, "AADSTS70011", f"{message} It must be one resource followed by '/.default'.")
    if not _is_json(given.get("claims", "{}")):
        raise IssueRefused(400, "AADSTS9002313", "The parameter 'claims' is not JSON.")
    tenant_id = received.path.split("/")[1]
    user = user_of(given, keyring) if for_user else None
    return TokenAsked(host.name, scope[1], "client_id", given["client_id"], tenant_id, user)


def body(_host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    """Write how long the token is good, as numbers; and what it may be used for, if it is a user's."""
    lifetime = seconds_left(given, now)
    return {
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        **refresh_in(given),
        **({} if asked.user is None else {"scope": f"{asked.resource}/user_impersonation {asked.resource}/.default"}),
        "access_token": given.token,
    }


def refusal(refused: IssueRefused, now: float) -> Answer:
    """Write OAuth's error and Entra's number, be it the code of *refused* or the first word of its message."""
    usual_name, usual_number = _usual(refused.status)
    own = _NUMBER.match(refused.code)
    found = own or _NUMBER.match(refused.message)
    number = found[1] if found else usual_number
    error = {
        "error": _NAMES.get(number, usual_name) if own else _WORDS.get(refused.code, refused.code),
        "error_description": f"AADSTS{number}: {_NUMBER.sub('', refused.message)}",
        "error_codes": [int(number)],
        "timestamp": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        "trace_id": str(uuid.uuid4()),
        "correlation_id": str(uuid.uuid4()),
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
    }
    return Answer(refused.status, error, retry_after(refused))


def _check_assertion(assertion: str, assertion_type: str | None, current: str | None) -> None:
    if assertion_type != _JWT_BEARER:
        raise IssueRefused(400, "AADSTS9002313", f"The parameter 'client_assertion_type' must be {_JWT_BEARER!r}.")
    if not _JWT.fullmatch(assertion):
        raise IssueRefused(401, "AADSTS50027", "The client assertion is not a JWT: it must have three parts.")
    # What others issued is for whoever tests them to verify.
    if claimed_issuer(assertion) == FAKE_CLUSTER and assertion != current:
        raise IssueRefused(401, "AADSTS700024", "Client assertion is not within its valid time range.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _usual(status: int) -> tuple[str, str]:
    """Return the error and the number of a refusal that has no number of its own, or one that is not in the table."""
    match status:
        case 401:
            return "invalid_client", "50012"
        case 429:
            return "temporarily_unavailable", "50196"
        case _ if status >= _SERVER_ERROR:
            return "server_error", "90033"
    return "invalid_request", "9002313"
