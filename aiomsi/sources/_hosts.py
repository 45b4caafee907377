"""The hosts that give a machine identity: how each is recognised and spoken to. One row each.

Sources: Microsoft documentation, "How to use managed identities for App Service and Azure Functions", "How to use
managed identities on an Azure VM to acquire an access token", "Authenticate against Azure resources with Azure
Arc-enabled servers", "Use managed identity with a Service Fabric application"; REST protocols as in the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from aiomsi.sources._retrying import Patience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi.sources._surroundings import Surroundings

__all__ = [
    "ARC_AGENT",
    "HOST_VARIABLES",
    "IMDS",
    "WORKLOAD_IDENTITY",
    "Host",
    "Selector",
    "SelectorKind",
    "half_name",
    "host_named_by",
]

SelectorKind: TypeAlias = Literal["client_id", "object_id", "resource_id"]
Selector: TypeAlias = tuple[SelectorKind, str]
"""How a user-assigned identity is named, and its name."""


@dataclass(frozen=True, slots=True)
class Host:
    """One kind of host. Times are in seconds."""

    name: str
    title: str
    variables: tuple[str, ...] = ()
    """It is this host if all of these are set; the first holds the URL to ask, or what `path` is appended to."""
    address: Literal["imds_url", "arc_url"] | None = None
    """Which of the surroundings' addresses it has where no variable says."""
    path: str = ""
    method: Literal["GET", "POST"] = "GET"
    api_version: str | None = None
    selectors: Mapping[SelectorKind, str] = field(default_factory=lambda: MappingProxyType({}))
    """How it spells each way of naming a user-assigned identity; a missing one cannot be used there."""
    selection: str = ""
    """Why no identity can be selected there, where none can."""
    default_client_id: str | None = None
    """The variable with the client id to ask for when the user names none."""
    secret: tuple[str, str] | None = None
    """The header that carries the secret, and the variable that holds it."""
    pin: str | None = None
    """The variable with the SHA-1 of the certificate that it must show before it sees the secret."""
    challenges: bool = False
    """Whether it wants the content of a file that only its friends can read."""
    echo: Mapping[SelectorKind, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """The members of an answer that name the identity it is for; compared with what was selected."""
    echo_needed: bool = False
    """Whether an answer without any of them is for another identity."""
    knows_capabilities: bool = False
    """Whether it takes client capabilities and the digest of a token to be replaced."""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"Metadata": "true"}))
    also_retried: frozenset[int] = frozenset()
    """Statuses that mean "not now" beside 408, 429 and 5xx, which do everywhere."""
    no_identity: frozenset[int] = frozenset()
    """Statuses that mean that the identity is not assigned, whatever the text."""
    gives_way: bool = False
    """Whether other sources may be asked in its place until it has given a token, though a variable names it."""
    patience: Patience = field(default_factory=Patience)
    time_limit: float = 30.0
    max_parallel: int | None = None
    advice: str = ""
    """What to do when it knows no identity."""


APP_SERVICE = Host(
    name="app_service",
    title="App Service",
    variables=("IDENTITY_ENDPOINT", "IDENTITY_HEADER"),
    api_version="2019-08-01",
    selectors=MappingProxyType({"client_id": "client_id", "object_id": "object_id", "resource_id": "mi_res_id"}),
    secret=("X-IDENTITY-HEADER", "IDENTITY_HEADER"),
    advice="switch the identity on for this app (`az webapp identity assign`, `az functionapp identity assign` or"
    " `az containerapp identity assign`)",
)

SERVICE_FABRIC = Host(
    name="service_fabric",
    title="Service Fabric",
    variables=("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"),
    api_version="2019-07-01-preview",
    selection="the application's manifest says which identity it is",
    secret=("Secret", "IDENTITY_HEADER"),
    pin="IDENTITY_SERVER_THUMBPRINT",
    knows_capabilities=True,
    headers=MappingProxyType({}),
    no_identity=frozenset({404}),
    patience=Patience(throttled=5),
    time_limit=60.0,
    advice="give the application a managed identity and map it in the application's manifest",
)

AZURE_ARC = Host(
    name="azure_arc",
    title="Azure Arc",
    variables=("IDENTITY_ENDPOINT", "IMDS_ENDPOINT"),
    api_version="2020-06-01",
    selectors=MappingProxyType({"client_id": "client_id", "object_id": "object_id", "resource_id": "msi_res_id"}),
    challenges=True,
    # An agent that does not know user-assigned identities gives a token of the machine's own, whatever was asked for.
    echo=MappingProxyType(
        {"client_id": ("client_id",), "object_id": ("object_id",), "resource_id": ("msi_res_id", "mi_res_id")}
    ),
    echo_needed=True,
    also_retried=frozenset({410}),
    no_identity=frozenset({404}),
    gives_way=True,
    patience=Patience(upgrade=70.0),
    time_limit=90.0,
    advice="connect this machine (`azcmagent connect`)",
)

# The same agent where nothing but its program tells of it: services often do not inherit the variables.
ARC_AGENT = replace(AZURE_ARC, variables=(), address="arc_url", path="/metadata/identity/oauth2/token")

# App Service speaks this protocol too, but sets the newer variables beside these, which go first.
AZURE_ML = Host(
    name="azure_ml",
    title="Azure ML (or App Service with its protocol of 2017)",
    variables=("MSI_ENDPOINT", "MSI_SECRET"),
    api_version="2017-09-01",
    selectors=MappingProxyType({"client_id": "clientid"}),
    # Without a client id it may answer with a token of the user who is logged in.
    default_client_id="DEFAULT_IDENTITY_CLIENT_ID",
    secret=("secret", "MSI_SECRET"),
    # It is known to answer for the system-assigned identity where the one asked for is unknown.
    echo=MappingProxyType({"client_id": ("client_id",)}),
    advice="assign an identity to this compute or app",
)

CLOUD_SHELL = Host(
    name="cloud_shell",
    title="Cloud Shell",
    variables=("MSI_ENDPOINT",),
    method="POST",
    selection="it is the user who is signed in",
    advice="open another Cloud Shell, or run: az login",
)

# Recognised here, since others come before and after it, but asked in a way of its own (`workload_identity`).
WORKLOAD_IDENTITY = Host(
    name="workload_identity",
    title="workload identity",
    variables=("AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
    time_limit=60.0,
)

IMDS = Host(
    name="imds",
    title="the Instance Metadata Service",
    variables=("AZURE_POD_IDENTITY_AUTHORITY_HOST",),
    address="imds_url",
    path="/metadata/identity/oauth2/token",
    api_version="2018-02-01",
    selectors=MappingProxyType({"client_id": "client_id", "object_id": "object_id", "resource_id": "msi_res_id"}),
    also_retried=frozenset({404, 410}),
    gives_way=True,
    patience=Patience(answers=4, throttled=4, network=2, upgrade=70.0),
    time_limit=90.0,
    max_parallel=4,  # It answers at most 5 requests at the same time.
    advice="switch the identity on for this machine (`az vm identity assign`)",
)

# In the order in which they are looked for, since some share variables with others.
_HOSTS = (SERVICE_FABRIC, APP_SERVICE, AZURE_ARC, AZURE_ML, CLOUD_SHELL, WORKLOAD_IDENTITY, IMDS)
HOST_VARIABLES = tuple(dict.fromkeys(variable for host in _HOSTS for variable in host.variables))
"""What names a host."""


def half_name(surroundings: Surroundings) -> str | None:
    """Say which host the environment names but for one variable, where it names none; return None if there is none."""
    if host_named_by(surroundings) is not None:
        return None
    for host in _HOSTS:
        missing = [variable for variable in host.variables if not surroundings.get(variable)]
        if host is WORKLOAD_IDENTITY and missing == ["AZURE_FEDERATED_TOKEN_FILE"]:  # The tenant has other uses.
            continue
        if len(missing) == 1 < len(host.variables):
            return f"{missing[0]} is not set, without which the other variables do not name {host.title}"
    return None


def host_named_by(surroundings: Surroundings) -> Host | None:
    """Return the host that the environment names, without any I/O, or None if it names none."""
    return next((host for host in _HOSTS if all(map(surroundings.get, host.variables))), None)
