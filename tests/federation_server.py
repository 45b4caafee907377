"""A federation server (AD FS) on loopback, as far as its clients see it; it really looks into Kerberos tickets."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme
from aiohttp import web
from saml import TOKEN_TYPES, signed_assertion
from ws_trust import TRUSTS, fault, metadata, objections, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ws_trust import Trust

__all__ = ["AUDIENCE", "FederationServer", "Login", "federation_server"]

AUDIENCE = "urn:federation:MicrosoftOnline"


@dataclass(frozen=True)
class Login:
    """Who a ticket is of, and the proof for its owner that it came to the right server."""

    principal: str
    proof: str


class FederationServer:
    """A federation server that asserts of each owner of a ticket who that is at Entra, as *people* says.

    *authority* is the certificate of its authority, as PEM. *issued* are the assertions that it has given, and of whom;
    *requests* is where it was asked, *shown* what it was shown, and *objections* what was wrong with the questions.

    What it does differently is for a test to say: *metadata* is its MEX document; *token_type* what it calls its
    assertions; *proof* makes the header WWW-Authenticate out of the right one; *before_answer* is called before each
    answer; *instead* is what it answers to whoever shows a good ticket. If *takes_tickets* is False, it refuses each of
    them, and *challenge* is what it wants instead.
    """

    url: str
    metadata: bytes

    def __init__(self, authority: bytes, people: dict[str, str]) -> None:
        self.authority = authority
        self.people = people
        self.issued: dict[bytes, str] = {}
        self.requests: list[str] = []
        self.shown: list[str] = []
        self.objections: list[str] = []
        self.token_type = next(iter(TOKEN_TYPES))
        self.proof: Callable[[str], str | None] = lambda right: right
        self.before_answer: Callable[[str], Awaitable[object]] | None = None
        self.instead: Callable[[], web.Response] | None = None
        self.takes_tickets = True
        self.challenge: str | None = "Negotiate"

    @property
    def metadata_url(self) -> str:
        return f"{self.url}/adfs/services/trust/mex"

    def refusal(self, code: str, reason: str) -> web.Response:
        """Return how it refuses, be it its own fault or that of whoever asks."""
        body = fault(TRUSTS["13"], code, reason)
        return web.Response(status=500, body=body, content_type="application/soap+xml", charset="utf-8")

    async def describe(self, request: web.Request) -> web.Response:
        """Answer with the MEX document."""
        await self._notice(request)
        return web.Response(body=self.metadata, content_type="text/xml", charset="utf-8")

    async def assert_owner(self, request: web.Request) -> web.Response:
        """Answer whoever shows a ticket with an assertion of who that is."""
        await self._notice(request)
        self.shown.append(request.headers.get("Authorization", ""))
        login = await asyncio.to_thread(_login, self.shown[-1])
        if login is None or not self.takes_tickets:
            return self._unauthorized()
        trust = TRUSTS[request.match_info["version"]]
        url = f"{request.scheme}://{request.host}{request.path}"
        wrong = objections(trust, url, AUDIENCE, request.headers, await request.read())
        self.objections += wrong
        if wrong:
            return self.refusal("InvalidRequest", "; ".join(wrong))
        response = self._granted(trust, self.people[login.principal]) if self.instead is None else self.instead()
        proof = self.proof(f"Negotiate {login.proof}")
        if proof is not None:
            response.headers["WWW-Authenticate"] = proof
        return response

    async def assert_anybody(self, _request: web.Request) -> web.Response:
        """Answer with an assertion of somebody, whoever asks: for those who measure what tickets cost."""
        return self._granted(TRUSTS["13"], next(iter(self.people.values())))

    async def _notice(self, request: web.Request) -> None:
        self.requests.append(f"{request.method} {request.path}")
        if self.before_answer is not None:
            await self.before_answer(request.path)

    def _granted(self, trust: Trust, user: str) -> web.Response:
        assertion = signed_assertion(TOKEN_TYPES[self.token_type], user, AUDIENCE)
        self.issued[assertion] = user
        body = reply(trust, AUDIENCE, self.token_type, assertion)
        return web.Response(body=body, content_type="application/soap+xml", charset="utf-8")

    def _unauthorized(self) -> web.Response:
        headers = {} if self.challenge is None else {"WWW-Authenticate": self.challenge}
        text = "<html><body>401 - Unauthorized: Access is denied due to invalid credentials.</body></html>"
        return web.Response(status=401, headers=headers, text=text, content_type="text/html")


def _login(authorization: str) -> Login | None:
    """Return whose ticket *authorization* shows, or None if it is no good."""
    import spnego
    from spnego.exceptions import SpnegoError

    scheme, _, shown = authorization.partition(" ")
    if scheme != "Negotiate":
        return None
    context = spnego.server(hostname="localhost", service="HTTP", protocol="negotiate")
    try:
        proof = context.step(base64.b64decode(shown, validate=True))
    except (binascii.Error, SpnegoError):
        return None
    if not context.complete or context.client_principal is None or proof is None:
        return None
    return Login(context.client_principal, base64.b64encode(proof).decode())


@asynccontextmanager
async def federation_server(people: dict[str, str]) -> AsyncIterator[FederationServer]:
    """Yield a federation server; the process must have KRB5_CONFIG and KRB5_KTNAME set as the realm says."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    found = FederationServer(authority.cert_pem.bytes(), people)
    application = web.Application()
    application.router.add_get("/adfs/services/trust/mex", found.describe)
    application.router.add_post("/adfs/services/trust/{version:13|2005}/windowstransport", found.assert_owner)
    application.router.add_post("/anybody", found.assert_anybody)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        found.url = f"https://localhost:{runner.addresses[0][1]}"
        found.metadata = metadata(found.url)
        yield found
    finally:
        await runner.cleanup()
