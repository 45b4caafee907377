"""The server itself: it remembers what it was asked, and answers as the hosts' table and the script say."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias, get_args

from .certificate import Certificate, issue_certificate
from .faults import Answer, Step, at_least_zero, play, respond
from .hosts import chosen
from .keyring import Keyring
from .listening import Sockets
from .protocol import Host, admit, recognise
from .received import ReceivedRequest, receive
from .tokens import FAKE_CLIENT_ID, FAKE_TENANT_ID, Issue, IssueRefused, TokenAsked, fake_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from aiohttp import web

    from .guard import Guard

Observer: TypeAlias = "Callable[[ReceivedRequest, TokenAsked | None, int], object]"
"""Told of each answer: the request, what it asked for if it did so properly, and the HTTP status."""

_log = logging.getLogger("aiomsi.endpoint")


class IdentityEndpoint:
    """Serve the hosts' side of the managed identity protocols on loopback.

        async with IdentityEndpoint() as endpoint:
            os.environ.update(endpoint.environ("app_service"))

    Without *issue* it hands out fake, unsigned tokens that live for *lifetime* seconds; with it, what that function
    returns, or the refusal that it raises as `IssueRefused`. *hosts* are the protocols to speak:

    * "app_service", "app_service_2017", "imds", "azure_ml" and "cloud_shell";
    * "azure_arc" and "entra", whose clients read files: *root* is the folder that stands for the root of the file
      system, and is this endpoint's alone. Arc's key files are put there, and Entra's federated token and `ca.pem`;
    * "service_fabric" and "entra", which are asked over TLS and need `pip install 'aiomsi[testing]'`.

    *host* is a loopback address, or any with *beyond_loopback*; *port* and, for TLS, *tls_port* 0 take a free port.
    With *unix_socket* it listens there instead, for its own user only. A *guard* turns away what web pages and proxies
    send. *latency* is how many seconds each answer takes. *wall* tells the Unix time in seconds, UTC. *date_text* makes
    the 2017 protocol write expiry as it does on Linux, `06/20/2019 02:57:58 +00:00`. *arc_ignores_selectors* makes Arc
    give out the system-assigned identity whoever was asked for, as old agents do.

    Raises ValueError for arguments that make no sense. A closed endpoint may be started again, on the ports it had.

    *requests* are all requests in the order in which they came, or the last *remembered* of them; *token_requests* are
    those among them that asked properly for a token. *observe* is called after each answer with the request, with what
    it asked for if it did so properly, and with the HTTP status of the answer.
    """

    requests: list[ReceivedRequest]
    token_requests: list[ReceivedRequest]

    def __init__(  # noqa: PLR0913  # One subject, and options by name.
        self,
        issue: Issue | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_port: int = 0,
        unix_socket: Path | None = None,
        beyond_loopback: bool = False,
        guard: Guard | None = None,
        hosts: Iterable[str] = ("app_service", "app_service_2017", "imds"),
        root: Path | None = None,
        lifetime: float = 86_400.0,
        latency: float = 0.0,
        date_text: bool = False,
        arc_ignores_selectors: bool = False,
        wall: Callable[[], float] = time.time,
        remembered: int | None = None,
        observe: Observer = lambda _received, _asked, _status: None,
    ) -> None:
        if not 0 < lifetime < float("inf"):
            raise ValueError(f"lifetime must be more than 0 seconds, not {lifetime!r}")
        if remembered is not None and remembered < 0:
            raise ValueError(f"remembered must be at least 0, not {remembered!r}")
        self._sockets = Sockets(host, port, tls_port, path=unix_socket, beyond_loopback=beyond_loopback)
        self._rows = chosen(
            hosts, date_text=date_text, arc_ignores_selectors=arc_ignores_selectors, has_root=root is not None
        )
        if unix_socket is not None and any(row.tls for row in self._rows):
            raise ValueError("unix_socket must be None to play a host that is asked over TLS")
        self._guard = guard
        self._remembered = remembered
        self._observe = observe
        self._issue = fake_tokens(wall, lifetime) if issue is None else issue
        self._wall = wall
        self._keyring = Keyring(root, wall)
        self._certificate: Certificate | None = None
        self._prepared = False
        self.latency = latency
        self.requests, self.token_requests = [], []
        self.script()

    def __repr__(self) -> str:
        state = self.url if self._sockets.are_open else "closed"
        names = ",".join(row.name for row in self._rows)
        return f"<IdentityEndpoint {state} hosts={names} requests={len(self.requests)}>"

    @property
    def url(self) -> str:
        """Where it listens, such as "http://127.0.0.1:50123"; RuntimeError until it has a port."""
        if self._sockets.url is None:
            raise RuntimeError("the endpoint has no address yet: start it, or use it with `async with`")
        return self._sockets.url

    @property
    def tls_url(self) -> str:
        """Where it listens over TLS, such as "https://localhost:50124".

        Raises RuntimeError until it has been started, and if it plays no host that is asked over TLS.
        """
        if self._certificate is None or self._sockets.tls_url is None:
            raise RuntimeError("the endpoint has no address for TLS: start it, with a host that is asked over TLS")
        return self._sockets.tls_url

    @property
    def secret(self) -> str:
        """What clients must show where a host wants a secret; assign another one to rotate it."""
        return self._keyring.secret

    @secret.setter
    def secret(self, secret: str) -> None:
        self._keyring.secret = secret

    @property
    def latency(self) -> float:
        """How many seconds each answer takes; may be set at any time."""
        return self._latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        at_least_zero("latency", seconds)
        self._latency = seconds

    def environ(self, host: str) -> dict[str, str]:
        """Return the variables that a process must set to find this endpoint as *host*.

        Raises ValueError for a host that this endpoint does not play, and RuntimeError until it has an address.
        """
        row = self._row(host)
        facts = {"url": self.url, "secret": self.secret, "client_id": FAKE_CLIENT_ID, "tenant_id": FAKE_TENANT_ID}
        facts |= self._keyring.files
        if row.tls:
            facts["tls_url"] = self.tls_url
        if self._certificate is not None:
            facts["thumbprint"] = self._certificate.thumbprint
        return {name: text.format_map(facts) for name, text in row.variables.items()}

    def script(self, *steps: Step | None, then: Step | None = None) -> None:
        """Play one step per following token request, in order of arrival, and *then* for all after those.

        A step None answers normally. Each call replaces the script before it, so `script()` answers normally again.
        Requests that the host's own checks refuse use up no step. Raises TypeError for what is not a step.
        """
        for step in (*steps, then):
            if step is not None and not isinstance(step, get_args(Step)):
                raise TypeError(f"{step!r} is not a step; did you mean to call it?")
        self._steps, self._then = deque(steps), then

    async def rotate_federated_token(self) -> None:
        """Replace Entra's federated token file, as a cluster does; its own older tokens are refused from now on.

        Raises ValueError if this endpoint does not play "entra".
        """
        self._row("entra")
        await self._keyring.rotate_federated_token()

    async def start(self) -> None:
        """Write the files that the hosts need, and listen.

        Raises OSError where a port is taken or the root cannot be written to, RuntimeError if it listens already, and
        ImportError if TLS is wanted and trustme is missing.
        """
        if self._sockets.are_open:
            raise RuntimeError("the endpoint was started already")
        if not self._prepared:
            await self._prepare()
        await self._sockets.open(self._handle, self._certificate.context if self._certificate else None)

    async def aclose(self, *, grace: float = 0.0) -> None:
        """Stop listening, give the requests under way *grace* seconds to be answered, and cut all connections.

        Closing twice does no harm.
        """
        await self._sockets.close(grace)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _prepare(self) -> None:
        """Make the certificate and the files: they outlive a restart, as those of a real machine do."""
        if any(row.tls for row in self._rows):
            self._certificate = await asyncio.to_thread(issue_certificate, self._sockets.address)
            await self._keyring.publish_authority(self._certificate.authority)
        for row in self._rows:
            if row.prepare is not None:
                await row.prepare(self._keyring)
        self._prepared = True

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        received = await receive(request, self._wall())
        host = self._objection(received, request) or recognise(self._rows, received)
        if isinstance(host, Answer):
            self._remember(self.requests, received)
            return await self._refuse(received, host, {})
        received = replace(received, host=host.name)
        self._remember(self.requests, received)
        verdict = await admit(host, received, self._keyring)
        if isinstance(verdict, Answer):
            return await self._refuse(received, verdict, host.headers)
        self._remember(self.token_requests, received)
        step = self._steps.popleft() if self._steps else self._then
        await asyncio.sleep(self._latency)
        response = await play(step, request, partial(self._answer, host, verdict), host.headers)
        self._observe(received, verdict, response.status)
        return response

    def _objection(self, received: ReceivedRequest, request: web.BaseRequest) -> Answer | None:
        if not request.content.at_eof():
            return _forbidden(413, "The body is longer than that of any request for a token.")
        said = None if self._guard is None else self._guard.objection(received, self._sockets.names)
        return None if said is None else _forbidden(403, said)

    def _remember(self, record: list[ReceivedRequest], received: ReceivedRequest) -> None:
        record.append(received)
        if self._remembered is not None and len(record) > self._remembered:
            del record[0]

    async def _refuse(self, received: ReceivedRequest, refusal: Answer, always: Mapping[str, str]) -> web.Response:
        await asyncio.sleep(self._latency)
        self._observe(received, None, refusal.status)
        return respond(refusal, always)

    async def _answer(self, host: Host, asked: TokenAsked) -> Answer:
        try:
            given = await self._issue(asked)
            return Answer(body=host.body(host, asked, given, self._wall()))
        except IssueRefused as refused:
            return host.refusal(refused, self._wall())
        except Exception as error:  # noqa: BLE001  # Whatever an issuer raises, its caller gets an answer.
            # The text of a foreign exception may hold a token, so only its kind and place are told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("the issuer raised %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            message = f"The issuer of this endpoint raised {type(error).__name__}."
            return host.refusal(IssueRefused(500, "server_error", message), self._wall())

    def _row(self, host: str) -> Host:
        for row in self._rows:
            if row.name == host:
                return row
        raise ValueError(f"unknown host {host!r}; this endpoint plays {', '.join(row.name for row in self._rows)}")


def _forbidden(status: int, message: str) -> Answer:
    return Answer(status, {"error": {"code": "Forbidden", "message": message}})
