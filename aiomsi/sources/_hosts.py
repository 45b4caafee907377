"""The hosts that give a machine identity: how each is recognised and spoken to. One row each.

Source: Microsoft documentation, "How to use managed identities for App Service and Azure Functions" and "How to use
managed identities on an Azure VM to acquire an access token".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["IMDS", "Host", "SelectorKind", "host_named_by"]

SelectorKind: TypeAlias = Literal["client_id", "object_id", "resource_id"]


@dataclass(frozen=True, slots=True)
class Host:
    """One kind of host. Times are in seconds."""

    name: str
    title: str
    variables: tuple[str, ...]
    """It is this host if all of these are set; the first holds the URL to ask, or what `path` is appended to."""
    api_version: str
    selectors: Mapping[SelectorKind, str]
    """How it spells each way of naming a user-assigned identity; a missing one cannot be used there."""
    path: str = ""
    secret: tuple[str, str] | None = None
    """The header that carries the secret, and the variable that holds it."""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"Metadata": "true"}))
    also_retried: frozenset[int] = frozenset()
    """Statuses that mean "not now" beside 408, 429 and 5xx, which do everywhere."""
    retries: int = 3
    network_retries: int = 3
    time_limit: float = 30.0
    max_parallel: int | None = None
    advice: str = ""
    """What to do when it knows no identity."""
    supported: bool = True
    """Whether it can be asked. If not it is recognised all the same, so that nobody becomes somebody else there."""


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

APP_SERVICE_2017 = Host(
    name="app_service_2017",
    title="App Service (2017 protocol)",
    variables=("MSI_ENDPOINT", "MSI_SECRET"),
    api_version="2017-09-01",
    selectors=MappingProxyType({"client_id": "clientid"}),
    secret=("secret", "MSI_SECRET"),
    advice="switch the identity on for this app (`az webapp identity assign`)",
)

IMDS = Host(
    name="imds",
    title="the Instance Metadata Service",
    variables=("AZURE_POD_IDENTITY_AUTHORITY_HOST",),
    api_version="2018-02-01",
    selectors=MappingProxyType({"client_id": "client_id", "object_id": "object_id", "resource_id": "msi_res_id"}),
    path="/metadata/identity/oauth2/token",
    also_retried=frozenset({404, 410}),
    retries=4,
    network_retries=2,
    time_limit=90.0,
    max_parallel=4,  # It answers at most 5 requests at the same time.
    advice="switch the identity on for this machine (`az vm identity assign`)",
)


def _unsupported(name: str, title: str, *variables: str) -> Host:
    return Host(name, title, variables, api_version="", selectors=MappingProxyType({}), supported=False)


# In the order in which they are looked for: App Service sets the variables of its 2017 protocol too, and others share
# some of theirs.
_HOSTS = (
    _unsupported(
        "service_fabric", "Service Fabric", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"
    ),
    APP_SERVICE,
    _unsupported("azure_arc", "Azure Arc", "IDENTITY_ENDPOINT", "IMDS_ENDPOINT"),
    APP_SERVICE_2017,
    _unsupported("cloud_shell", "Cloud Shell", "MSI_ENDPOINT"),
    _unsupported("workload_identity", "workload identity", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
    IMDS,
)


def host_named_by(surroundings: Surroundings) -> Host | None:
    """Return the host that the environment names, without any I/O, or None if it names none."""
    return next((host for host in _HOSTS if all(map(surroundings.get, host.variables))), None)
