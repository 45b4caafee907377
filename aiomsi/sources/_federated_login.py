"""A login at the federation server of a user's own domain, with a Kerberos ticket instead of a password.

Source: Microsoft documentation, "Integrated Windows authentication" (MSAL); OASIS WS-Trust 1.3.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from aiomsi._errors import (
    AiomsiError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenRefusedError,
    without_frames,
)
from aiomsi.sources._kerberos import begin
from aiomsi.sources._messages import Request
from aiomsi.sources._proxies import proxy_for
from aiomsi.sources._redaction import redact, shape
from aiomsi.sources._refusals import plain_refusal
from aiomsi.sources._retrying import Patience, persist
from aiomsi.sources._transport import connect
from aiomsi.sources._wire import url_problem
from aiomsi.sources._ws_trust import assertion_in, fault_in, request_for, windows_transport_in

if TYPE_CHECKING:
    from aiomsi._source import TokenRequest
    from aiomsi.sources._kerberos import Handshake
    from aiomsi.sources._messages import Answer
    from aiomsi.sources._surroundings import Surroundings
    from aiomsi.sources._transport import Peer
    from aiomsi.sources._ws_trust import Assertion, WindowsTransport

__all__ = ["FederatedLogin", "Realm"]

_ATTEMPT_LIMIT = 15.0  # Seconds for one answer.
_LARGEST_DOCUMENT = 1024 * 1024  # Metadata of a federation server has some 100 KB.
_USUAL_AUDIENCE = "urn:federation:MicrosoftOnline"
# Why there is no way with tickets, by the kind of domain; in a federated one only if its server is not described.
_NO_WAY = {
    "managed": (
        "Entra itself logs {user} in, since the domain is not federated (a managed domain), and it takes no Kerberos"
        " tickets from programs; run: az login"
    ),
    "federated": (
        "the login page of {user}'s domain takes no Kerberos tickets from programs, as it does not speak WS-Trust; run:"
        " az login"
    ),
    "unknown": "Entra does not know the domain of {user}; give username, as the user is called at Entra",
}
_XML = "application/soap+xml, application/xml, text/xml"


@dataclass(frozen=True, slots=True)
class Realm:
    """What Entra knows of a federated domain: where its server describes itself, and to whom that asserts."""

    metadata_url: str
    audience: str


@dataclass(frozen=True, slots=True)
class FederatedLogin:
    """The steps of one login, each of which is one request; errors are as in `IntegratedAuth.fetch`."""

    source: str
    request: TokenRequest
    surroundings: Surroundings
    entra: Peer
    """How Entra is reached and known; the federation server is known in the same way."""

    async def realm(self, authority: str, user: str) -> Realm:
        """Ask Entra, which is at *authority*, who logs the *user* in."""
        url = f"{authority}/common/userrealm/{quote(user, safe='@')}?api-version=1.0"
        answer = await self._get(url, "Entra did not tell who logs this user in")
        said = answer.members
        kind, metadata_url, audience = (
            text if isinstance(text := said.get(name), str) else ""
            for name in ("account_type", "federation_metadata_url", "cloud_audience_urn")
        )
        kind = kind.lower()
        if kind in _NO_WAY and not (kind == "federated" and metadata_url):
            raise SourceUnavailableError(_NO_WAY[kind].format(user=user))
        if kind != "federated" or url_problem(metadata_url) is not None or not audience.isprintable():
            raise MalformedResponseError(f"Entra did not tell who logs {user} in: its answer was {shape(answer.body)}")
        return Realm(metadata_url, audience or _USUAL_AUDIENCE)

    async def transport(self, realm: Realm) -> WindowsTransport:
        """Ask the federation server where it takes tickets."""
        answer = await self._get(realm.metadata_url, "the federation server did not describe itself")
        transport = windows_transport_in(answer.body)
        if url_problem(transport.address) is not None:
            raise MalformedResponseError("the federation server's metadata names no usable URL for Kerberos tickets")
        return transport

    async def assertion(self, transport: WindowsTransport, audience: str) -> Assertion:
        """Show the federation server a ticket, and have it assert to *audience* whose that is."""
        clock, deadline = self.request.clock, self.request.deadline
        host = urlsplit(transport.address).hostname or ""
        handshake = await begin(host, self.surroundings.get("KRB5CCNAME"), clock, deadline)
        sent = _question(transport, audience, handshake)
        answer = await self._send(sent)
        if answer.status != 200:
            raise self._refusal(host, sent, answer)
        # Before anything of the answer is believed.
        await handshake.finish(answer.headers.get("www-authenticate"), clock, deadline)
        try:
            return assertion_in(answer.body, transport.version)
        except AiomsiError as error:
            raise without_frames(error) from None  # They hold what may be the assertion.

    def _refusal(self, host: str, sent: Request, answer: Answer) -> AiomsiError:
        fault = fault_in(answer.body, *sent.secrets)
        if fault is not None:  # Whatever the status: 500 may well be the fault of whoever asked.
            code, reason = fault
            return TokenRefusedError(
                f"the federation server {host} refused: {reason.rstrip('.')}; is the account allowed to log in there?",
                source=self.source,
                status=answer.status,
                code=code,
            )
        advice = f"is HTTP/{host} a name of its service account (setspn -q), and is its clock right? Else run: az login"
        what = f"the federation server {host} did not take the Kerberos ticket"
        return plain_refusal(what, sent, answer, advice, self.source, self.request.clock.wall())

    async def _get(self, url: str, failure: str) -> Answer:
        sent = Request(url, {"Accept": f"application/json, {_XML}"})

        async def attempt() -> Answer:
            answer = await self._send(sent)
            if answer.status != 200:
                advice = "redirects are not followed" if 300 <= answer.status < 400 else "see whether a browser gets it"
                raise plain_refusal(failure, sent, answer, advice, self.source, self.request.clock.wall())
            return answer

        return await persist(attempt, Patience(), clock=self.request.clock, until=self.request.deadline)

    async def _send(self, sent: Request) -> Answer:
        if urlsplit(sent.url).scheme != "https":
            raise SecurityError(f"{redact(sent.url)} is not https, so nothing was sent there")
        peer = replace(self.entra, proxy=proxy_for(sent.url, self.surroundings))
        async with connect(sent.url, source=self.source, clock=self.request.clock, peer=peer) as line:
            return await line.send(sent, _ATTEMPT_LIMIT, deadline=self.request.deadline, largest=_LARGEST_DOCUMENT)


def _question(transport: WindowsTransport, audience: str, handshake: Handshake) -> Request:
    headers = {
        "Accept": _XML,
        "Authorization": f"Negotiate {handshake.token}",
        "Content-Type": "application/soap+xml; charset=utf-8",
        "SOAPAction": transport.version.action,
    }
    envelope = request_for(transport, audience, str(uuid.uuid4()))
    return Request(transport.address, headers, "POST", envelope, (handshake.token,))
