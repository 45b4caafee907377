"""The hosts that the endpoint can play: one row each, and the few functions that tell them apart.

Sources: App Service REST protocol 2019-08-01 and 2017-09-01; Microsoft documentation: IMDS, "How to use managed
identities on a VM to acquire an access token".
"""

from __future__ import annotations

import hmac
import math
import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from .faults import Answer
from .tokens import IdentityKind, IssueRefused, TokenAsked, TokenGiven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .received import ReceivedRequest

Body: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True)
class Host:
    """One row: how a host is found and called, what it refuses, and what its answers look like.

    *path* and *version* (where several hosts share a path) say which requests are its own; *variables* are templates
    of what a process must set; *selectors* map its query parameters to kinds of identity; *door* looks at everything
    but the question itself and returns a refusal or None; *headers* are those of all of its answers.
    """

    name: str
    path: str
    version: str | None
    variables: Mapping[str, str]
    selectors: Mapping[str, IdentityKind]
    door: Callable[[ReceivedRequest, str], Answer | None]
    body: Callable[[Host, TokenAsked, TokenGiven, float], Body]
    refusal: Callable[[IssueRefused], Answer]
    headers: Mapping[str, str] = field(default_factory=dict)


def chosen(names: Iterable[str], *, date_text: bool) -> tuple[Host, ...]:
    """Return the rows called *names*; with *date_text* the 2017 protocol writes expiry as a date.

    Raises ValueError for a name that is not in the table, and for none at all.
    """
    known = {row.name: row for row in _TABLE}
    rows = []
    for name in names:
        if name not in known:
            raise ValueError(f"unknown host {name!r}; known are {', '.join(known)}")
        rows.append(known[name])
    if not rows:
        raise ValueError(f"hosts must not be empty; known are {', '.join(known)}")
    return tuple(replace(row, body=_app_service_2017_body) if date_text and row is _2017 else row for row in rows)


def recognise(rows: Iterable[Host], path: str, version: str | None) -> Host | Answer:
    """Return the host that serves *path* in this api-version, or how to turn the request away."""
    here = [row for row in rows if path in (row.path, f"{row.path}/")]
    for row in here:
        if row.version in (None, version):
            return row
    if not here:
        return Answer(404)
    message = f"The HTTP resource that matches the request URI does not support the API version {version!r}."
    return Answer(400, {"error": {"code": "UnsupportedApiVersion", "message": message, "innerError": None}})


def admit(host: Host, received: ReceivedRequest, secret: str) -> TokenAsked | Answer:
    """Return what *received* asks for, or the refusal if it does not ask as *host* wants to be asked."""
    closed = host.door(received, secret)
    if closed is not None:
        return closed
    try:
        return _question(host, received)
    except IssueRefused as refused:
        return host.refusal(refused)


def _question(host: Host, received: ReceivedRequest) -> TokenAsked:
    given = received.parameters
    if len(given) < len(received.query):
        raise IssueRefused(400, "invalid_request", "A query parameter was sent twice.")
    if received.resource is None:
        raise IssueRefused(400, "invalid_request", "Required query parameter 'resource' is missing.")
    selected = [name for name in host.selectors if given.get(name)]
    if len(selected) > 1:
        message = f"At most one identity may be selected, not {' and '.join(selected)}."
        raise IssueRefused(400, "invalid_request", message)
    if not selected:
        return TokenAsked(host.name, received.resource)
    return TokenAsked(host.name, received.resource, host.selectors[selected[0]], given[selected[0]])


def _secret_door(header: str, refused: int) -> Callable[[ReceivedRequest, str], Answer | None]:
    """Return a door that wants GET and the secret in *header*, and answers *refused* without it."""

    def door(received: ReceivedRequest, secret: str) -> Answer | None:
        if received.method != "GET":
            return Answer(405, headers={"Allow": "GET"})
        sent = received.headers.get(header, "").encode(errors="surrogateescape")
        return None if hmac.compare_digest(sent, secret.encode()) else Answer(refused)

    return door


def _app_service_body(_host: Host, asked: TokenAsked, given: TokenGiven, _now: float) -> Body:
    body = {
        "access_token": given.token,
        "expires_on": str(int(given.expires_on)),
        "resource": asked.resource,
        "token_type": "Bearer",
    }
    client_id = _client_id(asked, given)
    return body | _refresh_in(given) | ({"client_id": client_id.upper()} if client_id else {})


def _app_service_2017_body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    expires_on = datetime.fromtimestamp(given.expires_on, UTC).strftime("%m/%d/%Y %H:%M:%S +00:00")
    return _app_service_body(host, asked, given, now) | {"expires_on": expires_on}


def _app_service_refusal(refused: IssueRefused) -> Answer:
    correlation = str(uuid.uuid4())
    body: dict[str, object] = {"statusCode": refused.status, "message": refused.message, "correlationId": correlation}
    if refused.code == "invalid_resource":
        codes = re.findall(r"AADSTS(\d+)", refused.message)
        body |= {"exceptionMessage": refused.message, "errorCode": refused.code, "serviceErrorCodes": codes}
        body["message"] = None
    return Answer(refused.status, body, {"X-CORRELATION-ID": correlation} | _retry_after(refused))


def _imds_door(received: ReceivedRequest, _secret: str) -> Answer | None:
    if received.method != "GET":
        return _imds_refusal(IssueRefused(405, "method_not_allowed", "Only GET is allowed."))
    if "x-forwarded-for" in received.headers:
        return _imds_refusal(IssueRefused(400, "invalid_request", "A forwarded request (X-Forwarded-For) is refused."))
    if received.headers.get("metadata") != "true":
        return _imds_refusal(IssueRefused(400, "invalid_request", "Required metadata header not specified"))
    version = received.parameters.get("api-version", "")
    if not (re.fullmatch(r"\d{4}-\d\d-\d\d", version) and _OLDEST <= version <= _NEWEST):
        error = "Bad request. api-version is invalid or was not specified in the request."
        return Answer(400, {"error": error, "newest-versions": [_NEWEST]})
    return None


def _imds_body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    lifetime = str(max(0, int(given.expires_on) - int(now)))
    body = {
        "access_token": given.token,
        "refresh_token": "",
        "expires_in": lifetime,
        "expires_on": str(int(given.expires_on)),
        "ext_expires_in": lifetime,
        "not_before": str(int(now)),
        "resource": asked.resource,
        "token_type": "Bearer",
    }
    client_id = _client_id(asked, given)
    echo = {
        name: asked.identity for name, kind in host.selectors.items() if kind == asked.identity_kind and asked.identity
    }
    return body | _refresh_in(given) | ({"client_id": client_id} if client_id else {}) | echo


def _imds_refusal(refused: IssueRefused) -> Answer:
    body = {"error": refused.code, "error_description": refused.message}
    return Answer(refused.status, body, _retry_after(refused))


def _client_id(asked: TokenAsked, given: TokenGiven) -> str | None:
    return given.client_id or (asked.identity if asked.identity_kind == "client_id" else None)


def _refresh_in(given: TokenGiven) -> Body:
    return {} if given.refresh_in is None else {"refresh_in": str(int(given.refresh_in))}


def _retry_after(refused: IssueRefused) -> dict[str, str]:
    return {} if refused.retry_after is None else {"Retry-After": str(math.ceil(refused.retry_after))}


# The api-versions of IMDS's REST specification that know tokens; as ISO dates they compare as text.
_OLDEST, _NEWEST = "2018-02-01", "2023-07-01"

_2019 = Host(
    name="app_service",
    path="/msi/token",
    version="2019-08-01",
    variables={"IDENTITY_ENDPOINT": "{url}/msi/token", "IDENTITY_HEADER": "{secret}"},
    selectors={
        "client_id": "client_id",
        "principal_id": "object_id",
        "object_id": "object_id",
        "mi_res_id": "resource_id",
    },
    door=_secret_door("x-identity-header", 403),
    body=_app_service_body,
    refusal=_app_service_refusal,
)
_2017 = Host(
    name="app_service_2017",
    path="/msi/token",
    version="2017-09-01",
    variables={"MSI_ENDPOINT": "{url}/msi/token", "MSI_SECRET": "{secret}"},
    selectors={"clientid": "client_id"},
    door=_secret_door("secret", 401),
    body=_app_service_body,
    refusal=_app_service_refusal,
)
_IMDS = Host(
    name="imds",
    path="/metadata/identity/oauth2/token",
    version=None,
    variables={"AZURE_POD_IDENTITY_AUTHORITY_HOST": "{url}"},
    selectors={"client_id": "client_id", "object_id": "object_id", "msi_res_id": "resource_id"},
    door=_imds_door,
    body=_imds_body,
    refusal=_imds_refusal,
    headers={"Server": "IMDS/150.870.65.1853"},
)
_TABLE = (_2019, _2017, _IMDS)
