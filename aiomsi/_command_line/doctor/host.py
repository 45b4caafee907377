"""Where this is, and whether the host that gives out tokens here can be reached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiomsi._command_line.doctor.clock import Reading, read_date
from aiomsi._command_line.doctor.platforms import VARIABLES, platform_of
from aiomsi._command_line.doctor.report import HostFacts, Reach
from aiomsi._errors import AiomsiError
from aiomsi.sources import _selection
from aiomsi.sources._arc import agent_is_here
from aiomsi.sources._entra import CONNECT_LIMIT, public_peer
from aiomsi.sources._entra_application import application
from aiomsi.sources._firmware import is_azure, vendor
from aiomsi.sources._hosts import ARC_AGENT, HOST_VARIABLES, IMDS, WORKLOAD_IDENTITY, host_named_by
from aiomsi.sources._messages import Request
from aiomsi.sources._tls import Sha1Pin
from aiomsi.sources._transport import Peer, connect
from aiomsi.sources._wire import is_imds, pin_of, token_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aiomsi._clock import Clock
    from aiomsi.sources._hosts import Host
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["ENTRA", "ENTRA_SOURCES", "Target", "host_facts", "reach", "targets"]

_LIMIT = 3.0  # Seconds for an answer of a local host, to a request that needs no work.
ENTRA = "entra"
_MACHINE_SOURCES = frozenset({"managed_identity", "key_vault_certificate"})
ENTRA_SOURCES = frozenset({"workload_identity", "client_secret", "client_certificate"})
_NAMED = (_selection.CONNECTION_STRING, *_selection.VARIABLES, "AZURE_AUTHORITY_HOST", *HOST_VARIABLES, *VARIABLES)


async def host_facts(surroundings: Surroundings) -> HostFacts:
    """Return where this is, without asking the network."""
    named = host_named_by(surroundings)
    name = None if named is None else named.name
    azure_vm, arc_agent = await is_azure(surroundings), await agent_is_here(surroundings)
    kind = platform_of(surroundings, host=name, azure_vm=azure_vm, arc_agent=arc_agent)
    return HostFacts(
        named=name,
        kind=None if kind is None else kind.name,
        variables=tuple(dict.fromkeys(filter(surroundings.get, _NAMED))),
        vendor=await vendor(surroundings),
        azure_vm=azure_vm,
        arc_agent=arc_agent,
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A host to be reached: its URL and how it is known, or why it is not to be asked."""

    what: str
    locate: Callable[[], Awaitable[tuple[str, Peer]]] | None = None
    passed: str | None = None
    limit: float = _LIMIT


def targets(facts: HostFacts, sources: Collection[str], surroundings: Surroundings) -> list[Target]:
    """Return the hosts that *sources* would ask here, and IMDS, which is not asked where it would not be."""
    named = host_named_by(surroundings) or (ARC_AGENT if facts.arc_agent else None)
    machine = not _MACHINE_SOURCES.isdisjoint(sources)
    found = []
    if machine and named is not None and named not in (WORKLOAD_IDENTITY, IMDS):
        found.append(_local(named, surroundings))
    # A connection string says itself which application and tenant it is about, and they are not to be guessed.
    by_variables = surroundings.get(_selection.CONNECTION_STRING) is None and not ENTRA_SOURCES.isdisjoint(sources)
    if by_variables or (machine and named is WORKLOAD_IDENTITY):
        found.append(_entra(surroundings))
    why_not = _why_not_imds(facts, named, machine=machine)
    return [
        *found,
        _local(IMDS, surroundings) if why_not is None else Target(IMDS.name, passed=f"not asked, {why_not}"),
    ]


def _why_not_imds(facts: HostFacts, named: Host | None, *, machine: bool) -> str | None:
    if not machine:
        return "since no managed identity is wanted"
    if named is not None and named is not IMDS:
        return f"since {named.title} goes before it"
    if named is None and facts.azure_vm is False:
        return "since the firmware says that this is no machine on Azure"
    return None


def _local(host: Host, surroundings: Surroundings) -> Target:
    async def locate() -> tuple[str, Peer]:
        pin = pin_of(host, surroundings)
        return token_url(host, surroundings), Peer() if pin is None else Peer(trust=Sha1Pin(pin))

    return Target(host.name, locate)


def _entra(surroundings: Surroundings) -> Target:
    async def locate() -> tuple[str, Peer]:
        app = application(surroundings, ENTRA, client_id=None, tenant_id=None, authority=None)
        url = f"{app.authority}/{app.tenant_id}/oauth2/v2.0/token"
        return url, await public_peer(url, surroundings, ENTRA)

    return Target(ENTRA, locate, limit=CONNECT_LIMIT)


async def reach(target: Target, clock: Clock) -> tuple[Reach, Reading | None]:
    """Ask *target* with a request that holds nothing; return what came of it, and what its clock says."""
    if target.locate is None:
        return Reach(target.what, None, asked=False, seconds=0.0, problem=target.passed), None
    began, address = clock.monotonic(), None
    try:
        url, peer = await target.locate()
        address = _origin(url)
        async with connect(url, source=target.what, clock=clock, peer=peer) as line:
            sent = clock.monotonic()
            answer = await line.send(Request(url.partition("?")[0], headers={}), target.limit)
    except AiomsiError as error:
        found = Reach(target.what, address, asked=address is not None, seconds=0.0, problem=str(error))
        return replace(found, seconds=round(clock.monotonic() - began, 3)), None
    now, took = clock.wall(), clock.monotonic() - sent
    theirs = read_date(answer.headers.get("date"))
    reading = None if theirs is None else Reading(target.what, theirs, now - took / 2, took / 2)
    expected = is_imds(answer) if target.what == IMDS.name else None
    found = Reach(target.what, address, asked=True, seconds=round(took, 3), status=answer.status, expected=expected)
    return found, reading


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
