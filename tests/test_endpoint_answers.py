"""What a script makes every host say: refusals in its own shape, tokens that are no good, and wrong times."""

from __future__ import annotations

import base64
import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
from questions import EVERY_HOST, NOW, VAULT, Client, claims, client_of

from aiomsi.endpoint import Answer, Expired, IdentityEndpoint, Refused, Skewed, TokenAsked, TokenGiven
from aiomsi.endpoint.tokens import fake_tokens, shifted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

LIFETIME = 86_400
FAKE_HEADER = json.dumps({"alg": "none", "typ": "JWT"}, separators=(",", ":")).encode()
EACH = pytest.mark.parametrize("host", EVERY_HOST)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with client_of(tmp_path) as client:
        yield client


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[IdentityEndpoint]:
    """An emulator of every host, whose clock stands still."""
    async with IdentityEndpoint(hosts=EVERY_HOST, root=tmp_path, wall=lambda: NOW) as endpoint:
        yield endpoint


def told_expiry(body: Mapping[str, Any]) -> float:
    """Return the Unix time at which an answer says that its token ends."""
    return float(body["expires_on"]) if "expires_on" in body else NOW + body["expires_in"]


@EACH
@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 503])
async def test_a_refusal_is_one_line_for_each_host(
    endpoint: IdentityEndpoint, client: Client, host: str, status: int
) -> None:
    """The status comes with a body that is neither empty nor a token, and without Retry-After."""
    endpoint.script(Refused(status))
    reply = await client.ask(endpoint, host)
    assert (reply.status, "Retry-After" in reply.headers) == (status, False)
    assert reply.content
    assert b"access_token" not in reply.content
    assert (await client.ask(endpoint, host)).status == 200


@pytest.mark.parametrize(
    ("host", "body"),
    [
        ("imds", {"error": "too_many_requests", "error_description": "slow down"}),
        ("cloud_shell", {"error": {"code": "too_many_requests", "message": "slow down"}}),
    ],
)
async def test_a_refusal_has_the_hosts_shape(
    endpoint: IdentityEndpoint, client: Client, host: str, body: Mapping[str, Any]
) -> None:
    """The usual code of the status is put where the host puts it, with the message."""
    endpoint.script(Refused(429, message="slow down"))
    assert (await client.ask(endpoint, host)).body == body


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "invalid_request"), (401, "unauthorized_client"), (418, "invalid_request"), (502, "server_error")],
)
async def test_a_refusal_without_a_code_has_the_usual_one(
    endpoint: IdentityEndpoint, client: Client, status: int, error: str
) -> None:
    """What IMDS calls its errors follows from the status, and the message tells who made it up."""
    endpoint.script(Refused(status), Refused(599))
    body = (await client.ask(endpoint, "imds")).body
    assert body["error"] == error
    assert "emulator" in body["error_description"]
    assert str(status) in body["error_description"]
    assert "599" in (await client.ask(endpoint, "imds")).body["error_description"]


async def test_entra_is_throttled_in_its_own_words(endpoint: IdentityEndpoint, client: Client) -> None:
    """What other hosts call too many requests, Entra calls temporarily unavailable, and numbers it."""
    endpoint.script(Refused(429), Refused(400, "AADSTS700016"))
    body = (await client.ask(endpoint, "entra")).body
    assert (body["error"], body["error_codes"]) == ("temporarily_unavailable", [50196])
    assert (await client.ask(endpoint, "entra")).body["error"] == "unauthorized_client"


@EACH
async def test_retry_after_comes_in_both_forms(endpoint: IdentityEndpoint, client: Client, host: str) -> None:
    """Seconds are rounded up; a date is that many seconds from now by the endpoint's clock, be it in the past."""
    endpoint.script(
        Refused(429, retry_after=1.2),
        Refused(429, retry_after=1.2, as_date=True),
        Refused(503, retry_after=-60, as_date=True),
    )
    told = [(await client.ask(endpoint, host)).headers["Retry-After"] for _ in range(3)]
    assert told[0] == "2"
    assert [parsedate_to_datetime(date).timestamp() for date in told[1:]] == [NOW + 2, NOW - 60]
    assert told[2].endswith(" GMT")


@EACH
@pytest.mark.parametrize(("step", "ago"), [(Expired(), 60), (Expired(3600), 3600)])
async def test_a_token_may_have_expired(
    endpoint: IdentityEndpoint, client: Client, host: str, step: Expired, ago: int
) -> None:
    """The answer and the fake token agree that its end is past; where only a rest is told, there is none."""
    endpoint.script(step)
    body = (await client.ask(endpoint, host)).body
    found = claims(body["access_token"])
    assert told_expiry(body) == (NOW if host == "entra" else NOW - ago)
    assert (found["exp"], found["iat"]) == (NOW - ago, NOW - ago - LIFETIME)


@EACH
@pytest.mark.parametrize("skew", [-600, 7200])
async def test_a_hosts_clock_may_be_wrong(endpoint: IdentityEndpoint, client: Client, host: str, skew: int) -> None:
    """All times in the answer and in the fake token are off by as much, and the lifetime is not."""
    endpoint.script(Skewed(skew))
    reply = await client.ask(endpoint, host)
    body, found = reply.body, claims(reply.body["access_token"])
    assert told_expiry(body) == NOW + LIFETIME + (0 if host == "entra" else skew)
    assert [found[name] for name in ("iat", "nbf", "exp")] == [NOW + skew, NOW + skew, NOW + skew + LIFETIME]
    assert int(body.get("expires_in", LIFETIME)) == LIFETIME
    assert int(body.get("not_before", NOW + skew)) == NOW + skew
    assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == NOW + skew


async def test_what_an_issuer_gave_is_shifted_too(client: Client) -> None:
    """The end that an issuer told is off as well; its token is not ours to change."""

    async def issue(_: TokenAsked) -> TokenGiven:
        return TokenGiven("opaque", NOW + 100)

    async with IdentityEndpoint(issue, wall=lambda: NOW) as endpoint:
        endpoint.script(Skewed(30), Expired(5))
        bodies = [(await client.ask(endpoint, "imds")).body for _ in range(2)]
    assert [(body["access_token"], body["expires_on"]) for body in bodies] == [
        ("opaque", str(int(NOW + 130))),
        ("opaque", str(int(NOW - 5))),
    ]


async def test_a_shifted_token_still_says_when_its_answer_says() -> None:
    """Fractions of a second do not drive the claims of a fake token and its end apart."""
    given = await fake_tokens(lambda: NOW + 0.7, 100)(TokenAsked("imds", VAULT))
    moved = shifted(given, 0.5)
    assert (claims(moved.token)["exp"], claims(moved.token)["iat"]) == (int(moved.expires_on), NOW + 1)


@pytest.mark.parametrize("payload", [b"[]", b"no json", b'{"exp":"soon"}', b"\xff"])
def test_what_only_looks_like_a_fake_token_does_no_harm(payload: bytes) -> None:
    """A token with our header and signature and anything at all in between is shifted as far as it goes."""
    header, signature = (
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (FAKE_HEADER, b"not-a-signature")
    )
    middle = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    assert shifted(TokenGiven(f"{header}.{middle}.{signature}", NOW), 5).expires_on == NOW + 5


async def test_something_else_may_answer(endpoint: IdentityEndpoint, client: Client) -> None:
    """A page of HTML is one call, with the status of a captive portal or of a proxy in the way."""
    endpoint.script(Answer.html(), Answer.html("<p>Bad gateway", 502))
    portal, proxy = [await client.ask(endpoint, "app_service") for _ in range(2)]
    assert (portal.status, portal.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert portal.content.startswith(b"<!doctype html>")
    assert (proxy.status, proxy.content) == (502, b"<p>Bad gateway")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_client_that_follows_a_redirect_is_found_out(
    endpoint: IdentityEndpoint, client: Client, status: int
) -> None:
    """Who goes where the endpoint sends him is in the record, with what he brought."""
    endpoint.script(Answer.redirect(status=status))
    assert (await client.ask(endpoint, "app_service")).status == 404
    assert [request.path for request in endpoint.requests] == ["/msi/token", "/elsewhere"]
    assert endpoint.requests[1].headers["x-identity-header"] == endpoint.secret
    assert Answer.redirect("http://127.0.0.1:9/").headers == {"Location": "http://127.0.0.1:9/"}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Refused(399), "399"),
        (lambda: Refused(600), "600"),
        (lambda: Refused(429, retry_after=-1), "retry_after must be at least 0, not -1"),
        (lambda: Refused(429, retry_after=float("nan")), "nan"),
        (lambda: Refused(429, as_date=True), "retry_after must be a finite number, not None"),
        (lambda: Refused(429, retry_after=float("inf"), as_date=True), "inf"),
        (lambda: Expired(-1), "-1"),
        (lambda: Skewed(float("inf")), "inf"),
        (lambda: Answer.redirect(status=304), "304"),
    ],
)
def test_steps_that_make_no_sense_are_named(make: Any, named: str) -> None:
    """A wrong number is refused at once, with its value in the message."""
    with pytest.raises(ValueError, match=named):
        make()
