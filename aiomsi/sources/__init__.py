"""Where tokens come from. Each source says how to get one token; `TokenProvider` does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi._lazy import lazily

if TYPE_CHECKING:
    from aiomsi._source import Source, TokenRequest
    from aiomsi.sources._surroundings import Surroundings
    from aiomsi.sources.azure_cli import AzureCLI
    from aiomsi.sources.azure_developer_cli import AzureDeveloperCLI
    from aiomsi.sources.azure_powershell import AzurePowerShell
    from aiomsi.sources.chain import FirstAvailable
    from aiomsi.sources.client_credentials import ClientCertificate, ClientSecret
    from aiomsi.sources.connection_string import from_connection_string
    from aiomsi.sources.detected import default
    from aiomsi.sources.federation import AzurePipelines, GitHubActions
    from aiomsi.sources.integrated import IntegratedAuth
    from aiomsi.sources.managed_identity import ManagedIdentity
    from aiomsi.sources.visual_studio import VisualStudio
    from aiomsi.sources.workload_identity import WorkloadIdentity

__all__ = [
    "AzureCLI",
    "AzureDeveloperCLI",
    "AzurePipelines",
    "AzurePowerShell",
    "ClientCertificate",
    "ClientSecret",
    "FirstAvailable",
    "GitHubActions",
    "IntegratedAuth",
    "ManagedIdentity",
    "Source",
    "Surroundings",
    "TokenRequest",
    "VisualStudio",
    "WorkloadIdentity",
    "default",
    "from_connection_string",
]

_HOMES = {
    "aiomsi._source": ("Source", "TokenRequest"),
    "aiomsi.sources._surroundings": ("Surroundings",),
    "aiomsi.sources.azure_cli": ("AzureCLI",),
    "aiomsi.sources.azure_developer_cli": ("AzureDeveloperCLI",),
    "aiomsi.sources.azure_powershell": ("AzurePowerShell",),
    "aiomsi.sources.chain": ("FirstAvailable",),
    "aiomsi.sources.client_credentials": ("ClientCertificate", "ClientSecret"),
    "aiomsi.sources.connection_string": ("from_connection_string",),
    "aiomsi.sources.detected": ("default",),
    "aiomsi.sources.federation": ("AzurePipelines", "GitHubActions"),
    "aiomsi.sources.integrated": ("IntegratedAuth",),
    "aiomsi.sources.managed_identity": ("ManagedIdentity",),
    "aiomsi.sources.visual_studio": ("VisualStudio",),
    "aiomsi.sources.workload_identity": ("WorkloadIdentity",),
}


__getattr__ = lazily(globals(), _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
