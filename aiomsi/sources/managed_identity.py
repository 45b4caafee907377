"""The identity that the platform gives to a machine, an app or a function."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio

from aiomsi._clock import sleep
from aiomsi._errors import (
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenRefusedError,
    about,
)
from aiomsi.sources._hosts import IMDS, Host, host_named_by
from aiomsi.sources._messages import Request
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources._transport import send, session
from aiomsi.sources._wire import is_imds, read_token, token_request, token_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import TokenRequest
    from aiomsi._token import AccessToken
    from aiomsi.sources._hosts import SelectorKind

__all__ = ["ManagedIdentity"]

_ATTEMPT_LIMIT = 15.0  # Seconds for one answer; the Instance Metadata Service may take 10.
_PROBE_LIMIT = 1.0
_UPGRADE = 70.0  # Seconds in which the Instance Metadata Service is back after a 410, at the latest.
_UPGRADE_STEP = 10.0

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_RESOURCE_ID = re.compile(
    r"/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/\s]+",
    re.IGNORECASE,
)
_AZURE_CHASSIS = "7783-7084-3265-9085-8269-3286-77"
_AZURE_VENDOR = "Microsoft Corporation"


class ManagedIdentity:
    """The identity that the platform gives to this machine: App Service and its family, or IMDS on a VM.

    Without arguments the system-assigned identity; a user-assigned one is named by exactly one of *client_id*,
    *object_id* (both GUIDs) and *resource_id* (its path in Azure Resource Manager). *client_capabilities* are for hosts
    that understand them; the ones known today do not. The environment is read at each fetch, since platforms rotate
    the secret in it.

    Raises:
        TypeError: an argument is no string.
        ValueError: more than one identity is named, or one is misspelt.
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
        surroundings: Surroundings | None = None,
    ) -> None:
        self._selector = _selector(client_id, object_id, resource_id)
        self._client_capabilities = tuple(client_capabilities)
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
        return self._host.time_limit

    @property
    def max_parallel(self) -> int | None:
        """How many requests this host takes at the same time."""
        return self._host.max_parallel

    @property
    def _host(self) -> Host:
        return host_named_by(self._surroundings) or IMDS

    async def fetch(self, request: TokenRequest) -> AccessToken:
        """Fetch one token from the host that the environment names, or else from IMDS.

        Raises:
            SourceUnavailableError: there is no host, or this machine has no identity.
            AiomsiError: see the subclasses.
        """
        host = self._host
        try:
            with about(request.resource):
                token = await self._fetch(host, request)
        except EndpointError as error:
            if error.status is not None:
                raise
            if await self.here():
                raise EndpointError(
                    f"{host.title} gave no token for {request.resource!r}: {error}; is its identity endpoint up?",
                    resource=request.resource,
                    source=host.name,
                ) from error.__cause__
            raise SourceUnavailableError(
                f"no managed identity was found: no variable names a host, and {error}; on Azure, switch the identity"
                " on for this resource",
                resource=request.resource,
                source=host.name,
            ) from error
        except SourceUnavailableError as error:
            if not self._served:
                raise
            raise TokenRefusedError(
                f"this machine has lost its identity: {error}", resource=request.resource, source=host.name
            ) from error
        self._seen = self._served = True
        return token

    async def here(self) -> bool | None:
        """Return whether there is a managed identity, as far as can be told without asking the network; None if not."""
        if self._seen or host_named_by(self._surroundings):
            return True
        tag = await self._dmi("chassis_asset_tag")
        if tag == _AZURE_CHASSIS:
            return True
        vendor = await self._dmi("sys_vendor")
        return False if vendor and vendor != _AZURE_VENDOR else None

    async def probe(self, request: TokenRequest) -> bool:
        """Return whether IMDS answers within a second to a request that no imitation of it takes for a real one."""
        url = token_url(IMDS, self._surroundings)
        try:
            async with session(url, IMDS.name) as opened:
                answer = await send(
                    opened, Request(url, headers={}), source=IMDS.name, clock=request.clock, limit=_PROBE_LIMIT
                )
        except (EndpointError, MalformedResponseError):
            return False
        self._seen = self._seen or is_imds(answer)
        return self._seen

    async def _fetch(self, host: Host, request: TokenRequest) -> AccessToken:
        sent = token_request(host, self._surroundings, request.resource, self._selector)
        clock, began, failures = request.clock, request.clock.monotonic(), 0
        async with session(sent.url, host.name) as opened:
            while True:
                limit = min(_ATTEMPT_LIMIT, request.deadline - clock.monotonic())
                try:
                    answer = await send(opened, sent, source=host.name, clock=clock, limit=limit)
                    return read_token(host, sent, answer, request.resource, self._selector, clock.wall())
                except EndpointError as error:
                    failures += error.status != 410
                    wait = _wait(host, error, failures, elapsed=clock.monotonic() - began)
                    if wait is None or clock.monotonic() + wait >= request.deadline:
                        raise
                await sleep(clock, wait)

    async def _dmi(self, name: str) -> str | None:
        path = anyio.Path(self._surroundings.root) / "sys/class/dmi/id" / name
        try:
            return (await path.read_text()).strip()
        except (OSError, UnicodeDecodeError):
            return None


def _wait(host: Host, error: EndpointError, failures: int, *, elapsed: float) -> float | None:
    """Return the seconds until the next attempt, or None if there is to be none. Pure.

    Source: Microsoft documentation, "How to use managed identities on an Azure VM": exponential back-off for 404, 429
    and 5xx, with at least a second; 410 until the upgrade is over, within 70 s.
    """
    if error.status == 410:
        wait = _UPGRADE_STEP if elapsed < _UPGRADE else None
    else:
        most = host.network_retries if error.status is None else host.retries
        wait = 2.0 ** (failures - 1) if failures <= most else None
    return None if wait is None else max(wait, error.retry_after or 0.0)


def _selector(client_id: str | None, object_id: str | None, resource_id: str | None) -> tuple[SelectorKind, str] | None:
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
    elif not _GUID.fullmatch(value):
        raise ValueError(f"{kind} is {value!r}, but should be a GUID such as 11111111-aaaa-4bbb-8ccc-000000000001")
    return kind, value
