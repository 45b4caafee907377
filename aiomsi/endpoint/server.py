"""The endpoint as its users see it: where it is, what leads to it, what it plays, and how long it lives."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .certificate import Certificate, issue_certificate
from .faults import at_least_zero
from .hosts import chosen
from .keyring import Keyring
from .listening import Sockets
from .reception import Reception
from .script import script_of
from .thread import LoopThread
from .tokens import FAKE_CLIENT_ID, FAKE_TENANT_ID, Issue, fake_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .faults import Step
    from .guard import Guard
    from .hits import Hits
    from .protocol import Host
    from .received import ReceivedRequest
    from .reception import Observer
    from .script import Rule


class IdentityEndpoint:
    """Serve the hosts' side of the managed identity protocols on loopback.

        async with IdentityEndpoint() as endpoint:
            os.environ.update(endpoint.environ("app_service"))

    `async with` serves in the event loop that runs. A plain `with`, where none does, gives it a thread and a loop of
    its own, which serve tests of every kind. All but `start` and `aclose` may be used from any thread.

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
    those among them that asked properly for a token. *observe* is called with each request, with what it asked for if
    it did so properly, and with the answer that it gets, or the status 499 if it left before that. *root* is where its
    hosts see the root of the file system.
    *domains* are those whose users "entra" knows: `endpoint.domains.federate(…)`, `.manage(…)`.
    """

    root: Path
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
        observe: Observer | None = None,
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
        self._keyring = Keyring(root, wall)
        self.domains = self._keyring.domains
        self.root = Path("/") if root is None else root
        self._certificate: Certificate | None = None
        self._certified = (self._sockets.address, *(() if guard is None else sorted(guard.names)))
        self._prepared = False
        self._thread = LoopThread()
        self._reception = Reception(
            self._rows,
            self._keyring,
            fake_tokens(wall, lifetime) if issue is None else issue,
            wall,
            guard=guard,
            names=self._sockets.names,
            remembered=remembered,
            observe=observe,
        )
        self.requests, self.token_requests = self._reception.requests, self._reception.token_requests
        self.latency = latency

    def __repr__(self) -> str:
        state = self.url if self._sockets.are_open else "closed"
        return f"<IdentityEndpoint {state} hosts={','.join(self.hosts)} requests={len(self.requests)}>"

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
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts that it plays."""
        return tuple(row.name for row in self._rows)

    @property
    def hits(self) -> Hits:
        """How often it was asked until now, by host and by resource."""
        return self._reception.tally.hits

    @property
    def latency(self) -> float:
        """How many seconds each answer takes; may be set at any time."""
        return self._reception.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        at_least_zero("latency", seconds)
        self._reception.latency = seconds

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

    def script(self, *steps: Step | Rule | None, then: Step | None = None) -> None:
        """Play one step per following token request, in order of arrival, and *then* for all after those.

        Rules among the steps, `OnRequests` and `During`, take no place in that order: the first one that applies to a
        request decides for it, instead of the step at its place. A step None answers normally.

        Each call replaces the script before it, so `script()` answers normally again. Requests that the host's own
        checks refuse are not counted and use up no step. Raises TypeError for what is not a step.
        """
        self._reception.perform(script_of(steps, then))

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
        await self._sockets.open(self._reception.handle, self._certificate.context if self._certificate else None)

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

    def __enter__(self) -> Self:
        self._thread.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.exit()

    async def _prepare(self) -> None:
        """Make the certificate and the files: they outlive a restart, as those of a real machine do."""
        if any(row.tls for row in self._rows):
            self._certificate = await asyncio.to_thread(issue_certificate, *self._certified)
            await self._keyring.publish_authority(self._certificate.authority)
        for row in self._rows:
            if row.prepare is not None:
                await row.prepare(self._keyring)
        self._prepared = True

    def _row(self, host: str) -> Host:
        for row in self._rows:
            if row.name == host:
                return row
        raise ValueError(f"unknown host {host!r}; this endpoint plays {', '.join(self.hosts)}")
