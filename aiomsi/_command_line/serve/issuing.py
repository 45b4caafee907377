"""How a provider's tokens get to the clients of an endpoint, and its errors too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi import AiomsiError, EndpointError, MalformedResponseError, TokenRefusedError
from aiomsi._resource import resource_of
from aiomsi.endpoint import IssueRefused, TokenGiven

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiomsi import TokenProvider
    from aiomsi.endpoint import TokenAsked
    from aiomsi.endpoint.tokens import Issue

__all__ = ["only", "tokens_of"]

_MOST = 64  # Resources whose last token is remembered, of those that clients choose.


def tokens_of(provider: TokenProvider, *, tenant_id: str | None = None) -> Issue:
    """Return an issuer of the tokens of *provider*, whichever identity a client selects."""
    last: dict[str, TokenGiven] = {}

    async def issue(asked: TokenAsked) -> TokenGiven:
        given = last.get(asked.resource)
        # The provider's shortest way, which knows the default tenant alone.
        if given is not None and provider.peek(asked.resource) is given.token:
            return given
        try:
            token = await provider.access_token(asked.resource, tenant_id=tenant_id)
        except ValueError as error:
            raise IssueRefused(400, "invalid_resource", str(error)) from None
        except AiomsiError as error:
            raise IssueRefused(_status(error), _code(error), str(error), error.retry_after) from None
        given = TokenGiven(token.token, token.expires_on)
        if tenant_id is None:
            if len(last) >= _MOST:
                last.clear()
            last[asked.resource] = given
        return given

    return issue


def only(resources: Iterable[str], issue: Issue) -> Issue:
    """Return *issue*, for *resources* alone, each with or without one slash at its end."""
    stems = [resource_of(resource).removesuffix("/") for resource in resources]
    allowed = {*stems, *(f"{stem}/" for stem in stems)}

    async def issue_if_allowed(asked: TokenAsked) -> TokenGiven:
        if asked.resource.removesuffix("/.default") not in allowed:
            message = f"This endpoint gives out tokens for {', '.join(stems)} alone, as its --allow says."
            raise IssueRefused(403, "resource_not_allowed", message)
        return await issue(asked)

    return issue_if_allowed


def _status(error: AiomsiError) -> int:
    """Return the HTTP status for *error*: 5xx only where it may help to ask again, since clients do."""
    if isinstance(error, EndpointError):
        return 503
    return 502 if isinstance(error, MalformedResponseError) else 400


def _code(error: AiomsiError) -> str:
    return "access_denied" if isinstance(error, TokenRefusedError) else "unavailable"
