"""The identity that the platform gives to a machine, an app or a function."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from aiomsi._errors import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenRefusedError,
    about,
)
from aiomsi.sources._arc import agent_is_here, key_for
from aiomsi.sources._entra_application import check_capabilities, check_retry_timeout
from aiomsi.sources._firmware import is_azure
from aiomsi.sources._hosts import ARC_AGENT, IMDS, WORKLOAD_IDENTITY, Host, half_name, host_named_by
from aiomsi.sources._messages import Request
from aiomsi.sources._retrying import persist
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._tls import Sha1Pin
from aiomsi.sources._transport import Peer, connect
from aiomsi.sources._wire import is_guid, is_imds, pin_of, read_token, token_request, token_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._hosts import Selector, SelectorKind
    from aiomsi.sources._messages import Answer
    from aiomsi.sources.workload_identity import WorkloadIdentity

__all__ = ["ManagedIdentity"]

_ATTEMPT_LIMIT = 15.0  # Seconds for one answer; the Instance Metadata Service may take 10.
_PROBE_LIMIT = 1.0
_PROBE_BEATS = 10  # A program that is busy while it starts must not overlook its host, and become somebody else.

_RESOURCE_ID = re.compile(
    r"/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/\s]+",
    re.IGNORECASE,
)


class ManagedIdentity:
    """The identity that the platform gives to this machine, app, container or function.

    The environment and the machine tell which platform it is: Service Fabric, App Service and its family, Azure Arc,
    Azure ML, Cloud Shell, workload identity, or a virtual machine (IMDS); see the README's table. They are looked at
    on each fetch, since platforms rotate the secrets.

    Without arguments it is the system-assigned identity; a user-assigned one is named by exactly one of *client_id*,
    *object_id* (both GUIDs) and *resource_id* (its path in Azure Resource Manager). *client_capabilities*, such as
    "CP1", are declared to the platforms that take them: Service Fabric and workload identity. *retry_timeout* is for
    how many seconds a fetch is retried (0: not at all; None: as the platform's documentation says).

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: more than one identity is named, one is misspelt, or *retry_timeout* is negative.
    """

    name = "managed_identity"
    chooses_tenant = False

    def __init__(
        self,
        *,
        client_id: str | None = None,
        object_id: str | None = None,
        resource_id: str | None = None,
        client_capabilities: Sequence[str] = (),
        retry_timeout: float | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._selector = _selector(client_id, object_id, resource_id)
        self._client_capabilities = check_capabilities(client_capabilities)
        self._retry_timeout = check_retry_timeout(retry_timeout)
        self._surroundings = surroundings or Surroundings()
        # Once it has answered here its silence is an outage, and once it has given a token its refusal is final: no
        # reason to become somebody else.
        self._seen = False
        self._served = False

    def __repr__(self) -> str:
        return "ManagedIdentity()" if self._selector is None else "ManagedIdentity({}={!r})".format(*self._selector)

    @property
    def time_limit(self) -> float:
        """Seconds after which a fetch is given up: IMDS may be upgraded for more than a minute."""
        return (host_named_by(self._surroundings) or IMDS).time_limit

    @property
    def max_parallel(self) -> int | None:
        """How many requests this host takes at the same time."""
        return (host_named_by(self._surroundings) or IMDS).max_parallel

    @property
    def is_final(self) -> bool:
        """Whether nobody is asked in its place: it has given a token, or a variable names a host whose no is final."""
        host = host_named_by(self._surroundings)
        return self._served or not (host is None or host.gives_way)

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Fetch one token from the host that the environment or the machine names, or else from IMDS.

        Raises:
            SourceUnavailableError: there is no host, or this machine has no identity.
            AiomsiError: see the subclasses.
        """
        host = await self._host()
        try:
            with about(request.resource, host.name):
                token = await self._fetch(host, request)
        except EndpointError as error:
            if error.status is not None or host is WORKLOAD_IDENTITY:
                raise
            raise await self._silence(host, error, request) from error
        except SourceUnavailableError as error:
            if not self._served:
                raise
            raise TokenRefusedError(
                f"this machine has lost its identity: {error}", resource=request.resource, source=host.name
            ) from error
        self._seen = self._served = True
        return token

    async def _silence(self, host: Host, error: EndpointError, request: TokenRequest) -> AiomsiError:
        """Return what it means that no answer came from *host*."""
        if await self.here():
            return EndpointError(
                f"{host.title} gave no token for {request.resource!r}: {error}; is its identity endpoint up?",
                resource=request.resource,
                source=host.name,
            )
        return SourceUnavailableError(
            f"no managed identity was found: {self.unnamed}, and {error}; on Azure, switch the identity on for this"
            " resource",
            resource=request.resource,
            source=host.name,
        )

    async def _host(self) -> Host:
        named = host_named_by(self._surroundings)
        if named is not None:
            return named
        return ARC_AGENT if await agent_is_here(self._surroundings) else IMDS

    async def here(self) -> bool | None:
        """Return whether there is a managed identity, as far as can be told without asking the network; None if not."""
        if self._seen or host_named_by(self._surroundings) or await agent_is_here(self._surroundings):
            return True
        return await is_azure(self._surroundings)

    @property
    def unnamed(self) -> str:
        """Why the environment names no host, where it names none."""
        return half_name(self._surroundings) or "no variable names a host"

    async def probe(self, request: TokenRequest) -> bool:
        """Return whether IMDS answers within a second to a request that no imitation of it takes for a real one."""
        url = token_url(IMDS, self._surroundings)
        try:
            async with connect(url, source=IMDS.name, clock=request.clock, peer=Peer(connect_limit=None)) as line:
                answer = await line.send(Request(url, headers={}), _PROBE_LIMIT, beats=_PROBE_BEATS)
        except (EndpointError, MalformedResponseError):
            return False
        self._seen = self._seen or is_imds(answer)
        return self._seen

    async def _fetch(self, host: Host, request: TokenRequest) -> AccessToken:
        if host is WORKLOAD_IDENTITY:
            # Its tenant is the platform's choice, as that of every managed identity.
            return await self._workload(request).fetch(replace(request, tenant_id=None))
        # All that can be wrong with the environment is found out before anything is opened.
        sent = token_request(host, self._surroundings, request, self._selector, self._client_capabilities)
        pin = pin_of(host, self._surroundings)
        peer = Peer() if pin is None else Peer(trust=Sha1Pin(pin))
        async with connect(sent.url, source=host.name, clock=request.clock, peer=peer) as line:

            async def attempt() -> AccessToken:
                said = sent
                answer = await line.send(said, _ATTEMPT_LIMIT, deadline=request.deadline)
                if host.challenges and answer.status == 401:  # Once: another challenge is a refusal.
                    said = await self._with_key(sent, answer)
                    answer = await line.send(said, _ATTEMPT_LIMIT, deadline=request.deadline)
                return read_token(host, said, answer, request.resource, self._selector, request.clock.wall())

            return await persist(
                attempt, host.patience, clock=request.clock, until=request.deadline, limit=self._retry_timeout
            )

    async def _with_key(self, sent: Request, challenge: Answer) -> Request:
        key = await key_for(challenge, self._surroundings)
        return replace(sent, headers={**sent.headers, "Authorization": f"Basic {key}"}, secrets=(key,))

    def _workload(self, request: TokenRequest) -> WorkloadIdentity:
        from aiomsi.sources.workload_identity import WorkloadIdentity  # noqa: PLC0415  (loaded only where it is one)

        kind, client_id = self._selector or ("client_id", None)
        if kind != "client_id":
            raise ConfigurationError(
                f"{WORKLOAD_IDENTITY.title} cannot select a user-assigned identity by {kind}; use client_id",
                resource=request.resource,
                source=WORKLOAD_IDENTITY.name,
            )
        return WorkloadIdentity(
            client_id=client_id,
            client_capabilities=self._client_capabilities,
            retry_timeout=self._retry_timeout,
            surroundings=self._surroundings,
        )


def _selector(client_id: str | None, object_id: str | None, resource_id: str | None) -> Selector | None:
    kinds: tuple[tuple[SelectorKind, str | None], ...] = (
        ("client_id", client_id),
        ("object_id", object_id),
        ("resource_id", resource_id),
    )
    given = [(kind, value) for kind, value in kinds if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise ValueError(f"name an identity in one way only, not by {' and '.join(kind for kind, _ in given)}")
    kind, value = given[0]
    if not isinstance(value, str):
        raise TypeError(f"{kind} is a string, not {value!r}")
    if kind == "resource_id":
        if not _RESOURCE_ID.fullmatch(value):
            raise ValueError(
                f"resource_id is {value!r}, but should be like /subscriptions/<id>/resourceGroups/<group>/providers/"
                "Microsoft.ManagedIdentity/userAssignedIdentities/<name>"
            )
    elif not is_guid(value):
        raise ValueError(f"{kind} is {value!r}, but should be a GUID such as 11111111-aaaa-4bbb-8ccc-000000000001")
    return kind, value
