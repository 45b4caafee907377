"""What the doctor finds, as plain values: the members are the keys of `--json`, in this order.

Times are in seconds, moments are Unix times in seconds, UTC. None is what is not known.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

__all__ = [
    "Account",
    "Advice",
    "Asked",
    "AzureCLIFacts",
    "Conclusion",
    "ErrorFacts",
    "HostFacts",
    "Identity",
    "Program",
    "Proxy",
    "ProxyFacts",
    "Reach",
    "Report",
    "Skew",
    "SourceFacts",
    "Verdict",
    "as_json",
    "fix",
]

Verdict: TypeAlias = Literal["used", "works", "unavailable", "failed"]
"""What became of a source: its token is the one that is used; it has one too; nobody is there; it gave an error."""


@dataclass(frozen=True, slots=True)
class Program:
    """What was run, and where."""

    aiomsi: str
    python: str
    platform: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a token was wanted for; *chosen_by* says why the sources are those that they are."""

    resource: str
    tenant: str | None
    client_id: str | None
    chosen_by: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token was issued to, as its unverified claims say, and until when it is good."""

    source: str
    expires_on: float
    expires_in: float
    type: Literal["App", "User"] | None = None
    app_id: str | None = None
    object_id: str | None = None
    tenant_id: str | None = None
    user_principal_name: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """An error: its class, and what it carries."""

    kind: str
    message: str
    source: str | None = None
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source: what became of it, and after how many *seconds*.

    *reached* says whether a service would ask it at all, or find its token, or an error, before.
    """

    name: str
    verdict: Verdict
    reached: bool
    seconds: float
    identity: Identity | None = None
    error: ErrorFacts | None = None


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Whether a token can be had, from which source and as whom; or the error that a service would see."""

    works: bool
    exit_code: int
    source: str | None = None
    identity: Identity | None = None
    error: ErrorFacts | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Where this is.

    *named* is the host that the *variables* name, as `aiomsi` calls it; *kind* is what kind of platform it is, as far
    as any variable, the agent of Azure Arc or the firmware tells. Of variables there are the names only.
    """

    named: str | None
    kind: str | None
    variables: tuple[str, ...]
    vendor: str | None
    azure_vm: bool | None
    arc_agent: bool


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether the host at *address* answers a request that holds neither a secret nor a question.

    *status* is that of its answer; *problem* is why there is none, or why it was not *asked*. *expected* says whether
    the answer is one of that host's own.
    """

    what: str
    address: str | None
    asked: bool
    seconds: float
    status: int | None = None
    expected: bool | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Skew:
    """How far this machine's clock is ahead (negative: behind), in *seconds*, or *at_least* so far.

    *evidence* says how that is known; *matters* whether it is more than Azure puts up with.
    """

    seconds: float | None
    at_least: bool
    evidence: str
    meaning: str
    matters: bool


@dataclass(frozen=True, slots=True)
class Proxy:
    """A variable that names a proxy, whose *address* is without user and password."""

    variable: str
    address: str
    used_by_aiomsi: bool


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """The proxies of the environment.

    *exceptions* is the variable with the hosts that are reached without one; *in_the_way* are the local hosts that
    other programs would ask through *culprit*.
    """

    proxies: tuple[Proxy, ...] = ()
    exceptions: str | None = None
    in_the_way: tuple[str, ...] = ()
    culprit: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the Azure CLI, by its own files."""

    user: str | None
    type: str | None
    tenant_id: str | None
    subscription_id: str | None
    subscription: str | None


@dataclass(frozen=True, slots=True)
class AzureCLIFacts:
    """The Azure CLI: *account* is the one that would answer, *others* is how many more it knows.

    *elsewhere* is another cloud with accounts, where the active one has none.
    """

    path: str | None
    version: str | None
    seconds: float
    cloud: str | None
    account: Account | None
    others: int
    elsewhere: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do: *commands* are ready to be pasted once what is in <angle brackets> is filled in.

    A "fix" mends what failed, a "grant" gives the identity access, a "note" is worth knowing.
    """

    subject: Literal["fix", "grant", "note"]
    why: str
    commands: tuple[str, ...] = ()


def fix(why: str, *commands: str) -> Advice:
    """Return the advice that mends something."""
    return Advice("fix", why, commands)


@dataclass(frozen=True, slots=True)
class Report:
    """All that the doctor has found."""

    program: Program
    asked: Asked
    conclusion: Conclusion
    sources: tuple[SourceFacts, ...]
    host: HostFacts
    reach: tuple[Reach, ...]
    clock: Skew
    proxies: ProxyFacts
    azure_cli: AzureCLIFacts
    advice: tuple[Advice, ...] = field(default=())


def as_json(report: Report) -> str:
    """Return *report* as a JSON object for support tickets, in ASCII."""
    return json.dumps(asdict(report), indent=2)
