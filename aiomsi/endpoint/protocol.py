"""What makes a host, and how a request is taken through it.

`hosts_at` and `recognise` find the host that was asked. Then `admit` has its *door* check what the request shows, and
its *question* say what it asks for. In the end its *body* or its *refusal* is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from .faults import Answer
from .keyring import Keyring
from .received import ReceivedRequest, first_of
from .tokens import IdentityKind, IssueRefused, TokenAsked, TokenGiven

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Body: TypeAlias = dict[str, str | int]
Door: TypeAlias = Callable[[ReceivedRequest, Keyring], Awaitable[Answer | None]]
Page: TypeAlias = Callable[[ReceivedRequest, Keyring], Answer]


def named_identity(host: Host, received: ReceivedRequest, _keyring: Keyring) -> TokenAsked:
    """Return the question of the managed identity protocols: a resource, and at most one selector of an identity."""
    given = fields(host, received)
    if not given.get("resource"):
        raise IssueRefused(400, "invalid_request", "Required parameter 'resource' is missing.")
    selected = [name for name in host.selectors if given.get(name)]
    if len(selected) > 1:
        message = f"At most one identity may be selected, not {' and '.join(selected)}."
        raise IssueRefused(400, "invalid_request", message)
    if not selected:
        return TokenAsked(host.name, given["resource"])
    return TokenAsked(host.name, given["resource"], host.selectors[selected[0]], given[selected[0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One row of the table: how a host is found and called, what it refuses, and what its answers look like.

    A *door*, a *question*, or an issuer may raise `IssueRefused`, which takes the shape of the host's *refusal*.
    Times are Unix times in seconds, UTC.
    """

    name: str
    path: str
    """Where it is asked; a segment "*" stands for any one."""
    version: str | None = None
    """The api-version that is its own; None if it takes what no other host on its path does."""
    variables: Mapping[str, str]
    """What a process must set to find it. `IdentityEndpoint.environ` knows {url}, {tls_url}, {secret}, {thumbprint},
    {tenant_id}, {client_id}, {federated_token_file} and {authorities_file}."""
    method: Literal["GET", "POST"] = "GET"
    """How it is asked: by query, or by form."""
    tls: bool = False
    """Whether it is asked over TLS, and only there."""
    selectors: Mapping[str, IdentityKind] = field(default_factory=dict)
    """Its parameters that name an identity."""
    prepare: Callable[[Keyring], Awaitable[None]] | None = None
    """Makes its files before it is first asked; such a host is not played without a root to put them below."""
    door: Door
    """Looks at everything but the question; returns an answer of its own to turn the request away, or None."""
    question: Callable[[Host, ReceivedRequest, Keyring], TokenAsked] = named_identity
    body: Callable[[Host, TokenAsked, TokenGiven, float], Body]
    """Writes what is given at that time."""
    refusal: Callable[[IssueRefused, float], Answer]
    """Writes what is refused at that time."""
    pages: Mapping[str, Page] = field(default_factory=dict)
    """What it tells by GET to whoever asks, by path; a segment "*" stands for any one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers of all of its answers."""


def hosts_at(rows: Iterable[Host], path: str, *, tls: bool) -> tuple[Host, ...]:
    """Return the hosts that are asked at *path*; those that share one differ in their versions."""
    path = path.removesuffix("/")
    return tuple(row for row in rows if row.tls == tls and any(_matches(own, path) for own in (row.path, *row.pages)))


def recognise(here: Sequence[Host], version: str | None, now: float) -> Host | Answer:
    """Return which host of those *here* speaks that *version*, or how to turn the request away at the moment *now*."""
    if not here:
        return Answer(404)
    # A host without a version of its own shares its path with one that has.
    for wanted in (version, None):
        for row in here:
            if row.version == wanted:
                return row
    named = "a request without an api-version" if version is None else f"the API version {version!r}"
    message = f"The HTTP resource that matches the request URI does not support {named}."
    return here[0].refusal(IssueRefused(400, "UnsupportedApiVersion", message), now)


async def admit(host: Host, received: ReceivedRequest, keyring: Keyring) -> TokenAsked | Answer:
    """Return what *received* asks for, or the answer if that is no token, or not asked as *host* wants to be asked."""
    now = received.received_at
    page = next((page for path, page in host.pages.items() if _matches(path, received.path)), None)
    method = host.method if page is None else "GET"
    if received.method != method:
        refusal = host.refusal(IssueRefused(405, "method_not_allowed", f"Only {method} is allowed."), now)
        return replace(refusal, headers={**refusal.headers, "Allow": method})
    if page is not None:
        return page(received, keyring)
    try:
        return await host.door(received, keyring) or host.question(host, received, keyring)
    except IssueRefused as refused:
        return host.refusal(refused, now)


def fields(host: Host, received: ReceivedRequest) -> dict[str, str]:
    """Return the parameters of a question by name; raises IssueRefused if one of them came twice."""
    pairs = received.form if host.method == "POST" else received.query
    given = first_of(pairs)
    if len(given) < len(pairs):
        raise IssueRefused(400, "invalid_request", "A parameter was sent twice.")
    return given


def client_id(asked: TokenAsked, given: TokenGiven) -> dict[str, str]:
    """Return the member of a body that tells the client id, where it is known."""
    known = given.client_id or (asked.identity if asked.identity_kind == "client_id" else None)
    return {"client_id": known} if known else {}


def seconds_left(given: TokenGiven, now: float) -> int:
    """Return for how many whole seconds the token is good."""
    return max(0, int(given.expires_on) - int(now))


def refresh_in(given: TokenGiven) -> dict[str, int]:
    """Return the member of a body that tells when to refresh, where the issuer did."""
    return {} if given.refresh_in is None else {"refresh_in": int(given.refresh_in)}


def retry_after(refused: IssueRefused) -> dict[str, str]:
    """Return the header that tells how long to wait, where the issuer did."""
    return {} if refused.retry_after is None else {"Retry-After": str(math.ceil(refused.retry_after))}


def _matches(own: str, path: str) -> bool:
    wanted, asked = own.split("/"), path.split("/")
    return len(wanted) == len(asked) and all(
        want == segment or (want == "*" and segment) for want, segment in zip(wanted, asked, strict=True)
    )
