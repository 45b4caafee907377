"""What Entra means by an answer that holds no token. Pure.

Source: Microsoft documentation, "Microsoft Entra authentication and authorization error codes".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiomsi._errors import AiomsiError, EndpointError, TokenRefusedError
from aiomsi._token import unverified_claims
from aiomsi.sources._refusals import error_in, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi._source import TokenRequest
    from aiomsi.sources._messages import Answer

__all__ = ["STALE_ASSERTION", "entra_refusal"]

STALE_ASSERTION = "AADSTS700024"

_TRANSIENT = {"AADSTS50196", "AADSTS90033", "temporarily_unavailable"}
_UNKNOWN_FEDERATION = {"AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213"}
_RESOURCE = "check the spelling of the resource, its trailing slash, and the tenant"
_CLIENT = "check the client id, the tenant, and the cloud (AZURE_AUTHORITY_HOST)"
_ADVICE = {
    "AADSTS50001": _RESOURCE,
    "AADSTS500011": _RESOURCE,
    "AADSTS70011": _RESOURCE,
    "AADSTS1002012": _RESOURCE,
    "AADSTS700016": _CLIENT,
    "AADSTS90002": _CLIENT,
    "AADSTS900023": _CLIENT,
    "AADSTS700027": "the certificate is not that of the application: az ad app credential reset --append --cert …",
    STALE_ASSERTION: "the proof was out of date: is this machine's clock right, and is the token file being renewed?",
    "AADSTS7000215": "the secret is not the application's; its value is wanted, not its id",
    "AADSTS7000222": "the secret has expired; make another: az ad app credential reset --append",
}
_LONGEST_CLAIM = 400
_DEFAULT = "look the code up at https://aka.ms/aaderrorcodes"


def entra_refusal(
    answer: Answer, proof: Mapping[str, str], source: str, request: TokenRequest, now: float
) -> AiomsiError:
    """Return the error that *answer*, which is no success, means; *proof* is what was sent to prove who asks."""
    error, text = error_in(answer, tuple(proof.values()))
    code = _aadsts(answer, text) or error
    transient = answer.status in (408, 429) or answer.status >= 500 or bool({code, error} & _TRANSIENT)
    kind = EndpointError if transient else TokenRefusedError
    named = f" ({code})" if code and code not in text else ""
    said = f": {text.rstrip('.')}" if text else ""
    advice = "it will be asked again" if transient else _advice(answer.status, code, proof)
    return kind(
        f"Entra answered a request for {request.resource!r} with HTTP {answer.status}{named}{said}; {advice}",
        resource=request.resource,
        source=source,
        status=answer.status,
        code=code,
        retry_after=retry_after(answer.headers, now) if transient else None,
    )


def _aadsts(answer: Answer, text: str) -> str | None:
    match = re.search(r"AADSTS[0-9]+", text)
    if match is not None:
        return match[0]
    codes = answer.members.get("error_codes")
    first = codes[0] if isinstance(codes, list) and codes else None
    return f"AADSTS{first}" if isinstance(first, int) and not isinstance(first, bool) else None


def _advice(status: int, code: str | None, proof: Mapping[str, str]) -> str:
    if code in _UNKNOWN_FEDERATION:
        return (
            f"the application has no federated credential for {_who(proof)}; add one (az identity"
            " federated-credential create, az ad app federated-credential create); it counts after some minutes"
        )
    if 300 <= status < 400:
        return "redirects are not followed: they could lead the proof elsewhere"
    return _ADVICE.get(code or "", _DEFAULT)


def _who(proof: Mapping[str, str]) -> str:
    """Return what an assertion says of its owner, which has to match a federated credential and is no secret."""
    claims = unverified_claims(proof.get("client_assertion", "")) or {}
    named = {"issuer": claims.get("iss"), "subject": claims.get("sub"), "audience": claims.get("aud")}
    parts = [f"{what} {_shown(value)!r}" for what, value in named.items() if value]
    return ", ".join(parts) if parts else "it"


def _shown(value: object) -> str:
    return ", ".join(map(str, value if isinstance(value, list) else [value]))[:_LONGEST_CLAIM]
