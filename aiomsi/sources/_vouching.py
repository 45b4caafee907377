"""A service that vouches for a job of its own with an OpenID Connect token, which Entra takes as a proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from aiomsi._errors import ConfigurationError, MalformedResponseError
from aiomsi.sources._entra import ASSERTION_TYPE, ATTEMPT_LIMIT, Proof, entra_token, public_peer
from aiomsi.sources._messages import Request
from aiomsi.sources._redaction import shape
from aiomsi.sources._refusals import plain_refusal
from aiomsi.sources._transport import connect
from aiomsi.sources._wire import url_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._entra import Application
    from aiomsi.sources._messages import Answer
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Voucher", "vouched_token"]


@dataclass(frozen=True, slots=True)
class Voucher:
    """Who vouches, how it is asked, and which member of its answer is the proof."""

    title: str
    method: Literal["GET", "POST"]
    url_variable: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    token_variable: str
    token: str | None = field(repr=False)
    """The token that the job is known by, if not the one in the variable."""
    member: str
    advice: str
    """What to do if it does not know the job."""


async def vouched_token(
    voucher: Voucher, app: Application, request: TokenRequest, surroundings: Surroundings
) -> AccessToken:
    """Fetch one token for *app*, for which *voucher* vouches anew for each attempt.

    Raises:
        ConfigurationError: the variables of the job are missing or malformed; nothing was sent.
        AiomsiError: see the subclasses.
    """

    async def prove() -> Proof:
        return await _vouch(voucher, request, surroundings, app.source)

    return await entra_token(app, request, prove, surroundings=surroundings)


async def _vouch(voucher: Voucher, request: TokenRequest, surroundings: Surroundings, source: str) -> Proof:
    problem = _url_problem(surroundings.get(voucher.url_variable) or "")
    if problem is not None:
        raise ConfigurationError(f"{voucher.url_variable} {problem}; {voucher.title} sets it")
    url = _url(surroundings.get(voucher.url_variable) or "", voucher.query)
    sent = _request(voucher, url, voucher.token or surroundings.get(voucher.token_variable))
    if sent is None:
        raise ConfigurationError(f"{voucher.token_variable} is not set, or holds no token; {voucher.advice}")
    peer = await public_peer(url, surroundings, source)
    async with connect(url, source=source, clock=request.clock, peer=peer) as line:
        answer = await line.send(sent, ATTEMPT_LIMIT, deadline=request.deadline)
    if not 200 <= answer.status < 300:
        what = f"{voucher.title} did not vouch for this job"
        raise plain_refusal(what, sent, answer, voucher.advice, source, request.clock.wall())
    proof = _proof(answer, voucher.member)
    if proof is None:
        raise MalformedResponseError(
            f"{voucher.title} answered without a token as {voucher.member}: it was {shape(answer.body)}"
        )
    return proof


def _url_problem(text: str) -> str | None:
    """Return what is wrong with *text*, which may be another variable's; not raised here, where a variable holds it."""
    problem = url_problem(text)
    if problem is None and urlsplit(text).scheme != "https":
        problem = "does not begin with https://"
    return problem


def _url(text: str, query: Mapping[str, str]) -> str:
    url = urlsplit(text)
    # GitHub's has a query already, and no parameter may come twice.
    parameters = [(name, value) for name, value in parse_qsl(url.query, keep_blank_values=True) if name not in query]
    parameters += query.items()
    return url._replace(path=url.path.rstrip("/"), query=urlencode(parameters, quote_via=quote, safe="")).geturl()


def _request(voucher: Voucher, url: str, token: str | None) -> Request | None:
    """Return the request, or None if *token* is none; not raised here, where local variables hold it."""
    if token is None or not _can_be_sent(token):
        return None
    return Request(url, {**voucher.headers, "Authorization": f"Bearer {token}"}, voucher.method, secrets=(token,))


def _proof(answer: Answer, member: str) -> Proof | None:
    assertion = answer.members.get(member)
    if not isinstance(assertion, str) or not _can_be_sent(assertion):
        return None
    return Proof({"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE})


def _can_be_sent(token: str) -> bool:
    return token != "" and token.isascii() and token.isprintable() and " " not in token
