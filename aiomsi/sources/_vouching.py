"""A service that vouches for a job of its own with an OpenID Connect token, which Entra takes as a proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from aiomsi._errors import ConfigurationError, MalformedResponseError
from aiomsi.sources._entra import ASSERTION_TYPE, ATTEMPT_LIMIT, Proof, public_peer
from aiomsi.sources._messages import Request
from aiomsi.sources._redaction import shape
from aiomsi.sources._refusals import plain_refusal
from aiomsi.sources._transport import connect
from aiomsi.sources._wire import url_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi._source import TokenRequest
    from aiomsi.sources._messages import Answer
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Voucher", "vouch"]


@dataclass(frozen=True, slots=True)
class Voucher:
    """Who vouches, how it is asked, and which member of its answer is the proof."""

    source: str
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


async def vouch(voucher: Voucher, request: TokenRequest, surroundings: Surroundings) -> Proof:
    """Return the proof that the service gives for this job.

    Raises:
        ConfigurationError: the variables of the job are missing or malformed; nothing was sent.
        AiomsiError: see the subclasses.
    """
    url = _url(voucher, surroundings)
    sent = _request(voucher, url, voucher.token or surroundings.get(voucher.token_variable))
    if sent is None:
        raise ConfigurationError(
            f"{voucher.token_variable} is not set, or no token; {voucher.advice}", source=voucher.source
        )
    peer = await public_peer(url, surroundings, voucher.source)
    async with connect(url, source=voucher.source, clock=request.clock, peer=peer) as line:
        answer = await line.send(sent, min(ATTEMPT_LIMIT, request.deadline - request.clock.monotonic()))
    if not 200 <= answer.status < 300:
        what = f"{voucher.title} did not vouch for this job"
        raise plain_refusal(what, sent, answer, voucher.advice, voucher.source, request.clock.wall())
    proof = _proof(answer, voucher.member)
    if proof is None:
        raise MalformedResponseError(
            f"{voucher.title} answered without a member {voucher.member}: it was {shape(answer.body)}",
            source=voucher.source,
        )
    return proof


def _url(voucher: Voucher, surroundings: Surroundings) -> str:
    text = surroundings.get(voucher.url_variable) or ""
    problem = url_problem(text)
    if problem is None and urlsplit(text).scheme != "https":
        problem = "does not begin with https://"
    if problem is not None:
        raise ConfigurationError(f"{voucher.url_variable} {problem}; {voucher.title} sets it", source=voucher.source)
    url = urlsplit(text.rstrip("/"))
    # GitHub's has a query already.
    query = {**dict(parse_qsl(url.query, keep_blank_values=True)), **voucher.query}
    return url._replace(query=urlencode(query, quote_via=quote, safe="")).geturl()


def _request(voucher: Voucher, url: str, token: str | None) -> Request | None:
    """Return the request, or None if *token* is none; not raised here, where local variables hold it."""
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        return None
    return Request(url, {**voucher.headers, "Authorization": f"Bearer {token}"}, voucher.method, secrets=(token,))


def _proof(answer: Answer, member: str) -> Proof | None:
    assertion = answer.members.get(member)
    if not isinstance(assertion, str) or not assertion:
        return None
    return Proof({"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE})
