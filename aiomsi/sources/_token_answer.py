"""The token in an answer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiomsi._token import AccessToken, token_problem, unverified_claims
from aiomsi.sources._expiry import read_moment, read_seconds

if TYPE_CHECKING:
    from aiomsi.sources._messages import Answer

__all__ = ["token_in"]


def token_in(answer: Answer, resource: str, source: str, now: float) -> AccessToken | str:
    """Return the token in *answer*, or what is wrong with it; not raised here, where local variables hold a token."""
    members = answer.members
    token = members.get("access_token")
    expires_on = _expiry(members, now)
    problem = token_problem(token, expires_on, now)
    if problem is not None or expires_on is None or not isinstance(token, str):
        return str(problem)
    refresh_in = read_seconds(members.get("refresh_in"))
    refresh_on = None if refresh_in is None else now + refresh_in
    return AccessToken(token, expires_on, refresh_on, resource, source)


def _expiry(members: dict[str, Any], now: float) -> float | None:
    # `expires_in` counts from the issuance of a token that the host may have cached, so it comes second (IMDS docs).
    expires_on = read_moment(members.get("expires_on"), now)
    if expires_on is None:
        expires_in = read_seconds(members.get("expires_in"))
        expires_on = None if expires_in is None else now + expires_in
    if expires_on is None:
        claims = unverified_claims(str(members.get("access_token"))) or {}
        expires_on = read_moment(claims.get("exp"), now)
    return expires_on
