"""The server itself: it listens, remembers what it was asked, and answers as the hosts' table and the script say."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
import traceback
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Self, get_args

from aiohttp import web

from .faults import Answer, Step, at_least_zero, play, respond
from .hosts import Host, admit, chosen, recognise
from .received import ReceivedRequest, receive
from .tokens import Issue, IssueRefused, TokenAsked, fake_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# How long, in seconds, an issuer that swallows its cancellation may hold up the closing.
_GRACE = 0.5

_log = logging.getLogger("aiomsi.endpoint")


class IdentityEndpoint:
    """Serve the hosts' side of the managed identity protocols on loopback.

        async with IdentityEndpoint() as endpoint:
            os.environ.update(endpoint.environ("app_service"))

    Without *issue* it hands out fake, unsigned tokens that live for *lifetime* seconds; with it, what that function
    returns, or the refusal that it raises as `IssueRefused`. *host* is a loopback address, and *port* 0 takes a free
    port. *hosts* are the protocols to speak: "app_service", "app_service_2017", "imds". *latency* is how many seconds
    each answer takes. *date_text* makes the 2017 protocol write expiry as it does on Linux, `06/20/2019 02:57:58
    +00:00`. *wall* tells the Unix time in seconds, UTC.

    Raises ValueError for arguments that make no sense. A closed endpoint may be started again, on the port it had.

    *secret* is what clients of App Service must send; assign another one to rotate it. *requests* are all requests in
    the order in which they came; *token_requests* are those among them that asked properly for a token.
    """

    secret: str
    requests: list[ReceivedRequest]
    token_requests: list[ReceivedRequest]

    def __init__(  # One subject, and options by name.
        self,
        issue: Issue | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        hosts: Iterable[str] = ("app_service", "app_service_2017", "imds"),
        lifetime: float = 86_400.0,
        latency: float = 0.0,
        date_text: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < lifetime < float("inf"):
            raise ValueError(f"lifetime must be more than 0 seconds, not {lifetime!r}")
        self._address, self._port = _loopback(host), _port(port)
        self._rows = chosen(hosts, date_text=date_text)
        self._issue = fake_tokens(wall, lifetime) if issue is None else issue
        self._wall = wall
        self.latency = latency
        self.secret = secrets.token_urlsafe(32)
        self.requests, self.token_requests = [], []
        self._listener: asyncio.Server | None = None
        self._server: web.Server | None = None
        self.script()

    def __repr__(self) -> str:
        state = self.url if self._listener is not None else "closed"
        names = ",".join(row.name for row in self._rows)
        return f"<IdentityEndpoint {state} hosts={names} requests={len(self.requests)}>"

    @property
    def url(self) -> str:
        """Where it listens, such as "http://127.0.0.1:50123"; RuntimeError until it has a port."""
        if not self._port:
            raise RuntimeError("the endpoint has no address yet: start it, or use it with `async with`")
        return f"http://{f'[{self._address}]' if ':' in self._address else self._address}:{self._port}"

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

        Raises ValueError for a host that this endpoint does not play.
        """
        for row in self._rows:
            if row.name == host:
                return {name: text.format(url=self.url, secret=self.secret) for name, text in row.variables.items()}
        raise ValueError(f"unknown host {host!r}; this endpoint plays {', '.join(row.name for row in self._rows)}")

    def script(self, *steps: Step | None, then: Step | None = None) -> None:
        """Play one step per following token request, in order of arrival, and *then* for all after those.

        A step None answers normally. Each call replaces the script before it, so `script()` answers normally again.
        Requests that the host's own checks refuse use up no step. Raises TypeError for what is not a step.
        """
        for step in (*steps, then):
            if step is not None and not isinstance(step, get_args(Step)):
                raise TypeError(f"{step!r} is not a step; did you mean to call it?")
        self._steps, self._then = deque(steps), then

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken and RuntimeError if it listens already."""
        if self._listener is not None:
            raise RuntimeError("the endpoint was started already")
        # aiohttp logs the offending line of a malformed request, and that may hold the secret.
        mute = logging.Logger(_log.name, logging.CRITICAL + 1)  # noqa: LOG001  # Nobody can find it and switch it on.
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None, logger=mute)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, self._address, self._port, backlog=1024)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and cut all connections, those of requests that hang too; closing twice does no harm."""
        listener, self._listener = self._listener, None
        server, self._server = self._server, None
        if listener is None or server is None:
            return
        listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await _cut_all(server)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        found = recognise(self._rows, request.path, request.rel_url.query.get("api-version"))
        received = await receive(request, found.name if isinstance(found, Host) else None, self._wall())
        self.requests.append(received)
        if isinstance(found, Answer):
            return await self._refuse(found, {})
        verdict = admit(found, received, self.secret)
        if isinstance(verdict, Answer):
            return await self._refuse(verdict, found.headers)
        self.token_requests.append(received)
        step = self._steps.popleft() if self._steps else self._then
        await asyncio.sleep(self._latency)
        return await play(step, request, partial(self._answer, found, verdict), found.headers)

    async def _refuse(self, refusal: Answer, always: Mapping[str, str]) -> web.Response:
        await asyncio.sleep(self._latency)
        return respond(refusal, always)

    async def _answer(self, host: Host, asked: TokenAsked) -> Answer:
        try:
            given = await self._issue(asked)
            return Answer(body=host.body(host, asked, given, self._wall()))
        except IssueRefused as refused:
            return host.refusal(refused)
        except Exception as error:  # noqa: BLE001  # Whatever an issuer raises, its caller gets an answer.
            # The text of a foreign exception may hold a token, so only its kind and place are told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("the issuer raised %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            message = f"The issuer of this endpoint raised {type(error).__name__}."
            return host.refusal(IssueRefused(500, "server_error", message))


async def _cut_all(server: web.Server) -> None:
    """Abort the connections of *server*, which cancels their handlers, and wait until the handlers are gone."""
    await asyncio.sleep(0)  # A connection that was accepted this moment reaches the server one turn later.
    while connections := server.connections:
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)


def _loopback(host: str) -> str:
    # Real tokens may pass here in plain http, so nobody else's machine gets to ask.
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ValueError(f"host must be a loopback address such as 127.0.0.1, not {host!r}")


def _port(port: int) -> int:
    if not 0 <= port <= 65_535:  # noqa: PLR2004  # TCP has no others.
        raise ValueError(f"port must be 0 to 65535, not {port!r}")
    return port
