"""App Service and its family, and Azure ML, which speaks the older of its two protocols in an accent of its own.

Sources: App Service REST protocol 2019-08-01 and 2017-09-01; "InternalError - :{…}" is what Azure ML was seen to say.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .faults import Answer
from .protocol import client_id, refresh_in, retry_after

if TYPE_CHECKING:
    from .keyring import Keyring
    from .protocol import Body, Door, Host
    from .received import ReceivedRequest
    from .tokens import IssueRefused, TokenAsked, TokenGiven

_SERVER_ERROR = 500


def secret_door(header: str, refused: int) -> Door:
    """Return a door that wants the secret in *header*, and answers *refused* without a word if it is not there."""

    async def door(received: ReceivedRequest, keyring: Keyring) -> Answer | None:
        return None if keyring.is_secret(received.headers.get(header, "")) else Answer(refused)

    return door


def body(_host: Host, asked: TokenAsked, given: TokenGiven, _now: float) -> Body:
    """Write texts only, with the client id in upper case."""
    return {
        "access_token": given.token,
        "expires_on": str(int(given.expires_on)),
        "resource": asked.resource,
        "token_type": "Bearer",
        **{name: str(seconds) for name, seconds in refresh_in(given).items()},
        **{name: value.upper() for name, value in client_id(asked, given).items()},
    }


def date_text_body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    """Write expiry as Linux did in the protocol of 2017."""
    expires_on = datetime.fromtimestamp(given.expires_on, UTC).strftime("%m/%d/%Y %H:%M:%S +00:00")
    return body(host, asked, given, now) | {"expires_on": expires_on}


def azure_ml_body(host: Host, asked: TokenAsked, given: TokenGiven, now: float) -> Body:
    """Write times as numbers."""
    return body(host, asked, given, now) | {"expires_on": int(given.expires_on)} | refresh_in(given)


def refusal(refused: IssueRefused, _now: float) -> Answer:
    """Write one of the family's three shapes: flat, flat for an unknown audience, or nested for an unknown version."""
    correlation = str(uuid.uuid4())
    headers = {"X-CORRELATION-ID": correlation} | retry_after(refused)
    if refused.code == "UnsupportedApiVersion":
        error = {"code": refused.code, "message": refused.message, "innerError": None}
        return Answer(refused.status, {"error": error}, headers)
    flat: dict[str, object] = {"statusCode": refused.status, "message": refused.message, "correlationId": correlation}
    if refused.code == "invalid_resource":
        codes = re.findall(r"AADSTS(\d+)", refused.message)
        flat |= {"exceptionMessage": refused.message, "errorCode": refused.code, "serviceErrorCodes": codes}
        flat["message"] = None
    return Answer(refused.status, flat, headers)


def azure_ml_refusal(refused: IssueRefused, now: float) -> Answer:
    """Write a failure as plain text, which is no JSON."""
    if refused.status < _SERVER_ERROR:
        return refusal(refused, now)
    text = f"InternalError - :{{{refused.message}}}"
    return Answer(refused.status, text, retry_after(refused), content_type="text/plain")
