"""The kinds of platform: how each shows itself even before its identity is switched on, and how that is done. Pure.

Sources: Microsoft documentation, "How to use managed identities for App Service and Azure Functions", "Managed
identities in Azure Container Apps", "Configure managed identities on Azure virtual machines", "Azure Connected Machine
agent", "Deploy and configure workload identity on an AKS cluster"; reference of the environment variables of each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["VARIABLES", "Platform", "commands_on", "platform_of", "title_of"]

_PLAIN = re.compile(r"[0-9A-Za-z][\w.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Platform:
    """One kind: it is where one of *variables* is set, and its identity is switched on by *commands*.

    Where *user_assigned* is there, it is the end of the command that assigns an identity of its own, instead of
    *system_assigned*. *names* are the variables that hold what is in angle brackets in the commands, where any does.
    """

    name: str
    title: str
    variables: tuple[str, ...]
    commands: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    system_assigned: str = ""
    user_assigned: str = ""

    def switched_on(self, surroundings: Surroundings, client_id: str | None) -> tuple[str, ...]:
        """Return the commands that switch the identity on, or that with *client_id*, with the names known here."""
        commands = tuple(f"{command}{self.system_assigned}" for command in self.commands)
        if client_id is not None and self.user_assigned and _PLAIN.fullmatch(client_id):
            find = f"az identity list --query \"[?clientId=='{client_id}'].id\" --output tsv"
            commands = (find, *(f"{command}{self.user_assigned}" for command in self.commands))
        found = {place: surroundings.get(variable) or "" for place, variable in self.names.items()}
        known = {place: text for place, text in found.items() if _PLAIN.fullmatch(text)}
        return tuple(re.sub(r"<([^>]+)>", lambda place: known.get(place[1], place[0]), command) for command in commands)


_IDENTITIES = " --identities <id of the identity>"
_APP = MappingProxyType({"app": "WEBSITE_SITE_NAME", "group": "WEBSITE_RESOURCE_GROUP"})

FUNCTIONS = Platform(
    "functions",
    "Azure Functions",
    ("FUNCTIONS_EXTENSION_VERSION", "FUNCTIONS_WORKER_RUNTIME"),
    ("az functionapp identity assign --resource-group <group> --name <app>",),
    _APP,
    user_assigned=_IDENTITIES,
)
WEB_APP = Platform(
    "app_service",
    "App Service",
    ("WEBSITE_SITE_NAME", "WEBSITE_INSTANCE_ID"),
    ("az webapp identity assign --resource-group <group> --name <app>",),
    _APP,
    user_assigned=_IDENTITIES,
)
CONTAINER_APP = Platform(
    "container_apps",
    "Azure Container Apps",
    ("CONTAINER_APP_NAME", "CONTAINER_APP_REVISION"),
    ("az containerapp identity assign --resource-group <group> --name <app>",),
    MappingProxyType({"app": "CONTAINER_APP_NAME"}),
    system_assigned=" --system-assigned",
    user_assigned=" --user-assigned <id of the identity>",
)
SERVICE_FABRIC = Platform(
    "service_fabric",
    "Service Fabric",
    ("IDENTITY_SERVER_THUMBPRINT", "Fabric_ApplicationName"),
    ("az deployment group create --resource-group <group> --template-file <application with an identity>.json",),
)
AZURE_ML = Platform(
    "azure_ml",
    "Azure Machine Learning",
    ("AZUREML_RUN_ID", "AZUREML_ARM_WORKSPACE_NAME"),
    (
        (
            "az ml compute update --resource-group <group> --workspace-name <workspace> --name <compute>"
            " --identity-type system_assigned"
        ),
    ),
    MappingProxyType({"group": "AZUREML_ARM_RESOURCEGROUP", "workspace": "AZUREML_ARM_WORKSPACE_NAME"}),
)
CLOUD_SHELL = Platform("cloud_shell", "Cloud Shell", ("ACC_CLOUD", "AZUREPS_HOST_ENVIRONMENT"), ("az login",))
GITHUB_ACTIONS = Platform(
    "github_actions",
    "GitHub Actions",
    ("GITHUB_ACTIONS",),
    (
        (
            "az identity federated-credential create --resource-group <group> --identity-name <identity> --name github"
            " --issuer https://token.actions.githubusercontent.com"
            " --subject repo:<owner>/<repository>:ref:refs/heads/<branch>"
            " --audiences api://AzureADTokenExchange"
        ),
        "export AZURE_TOKEN_CREDENTIALS=githubactions AZURE_CLIENT_ID=<client id> AZURE_TENANT_ID=<tenant>",
    ),
    MappingProxyType({"client id": "AZURE_CLIENT_ID", "tenant": "AZURE_TENANT_ID"}),
)
KUBERNETES = Platform(
    "kubernetes",
    "Kubernetes",
    ("KUBERNETES_SERVICE_HOST",),
    (
        "az aks update --resource-group <group> --name <cluster> --enable-oidc-issuer --enable-workload-identity",
        (
            "az identity federated-credential create --resource-group <group> --identity-name <identity> --name <name>"
            ' --issuer "$(az aks show --resource-group <group> --name <cluster> --query oidcIssuerProfile.issuerUrl'
            ' --output tsv)" --subject system:serviceaccount:<namespace>:<service account>'
            " --audiences api://AzureADTokenExchange"
        ),
        (
            "kubectl annotate serviceaccount --namespace <namespace> <service account>"
            " azure.workload.identity/client-id=<client id>"
        ),
        (
            "kubectl patch deployment --namespace <namespace> <deployment> --patch"
            ' \'{"spec": {"template": {"metadata": {"labels": {"azure.workload.identity/use": "true"}},'
            ' "spec": {"serviceAccountName": "<service account>"}}}}\''
        ),
    ),
    MappingProxyType({"client id": "AZURE_CLIENT_ID"}),
)
AZURE_ARC = Platform(
    "azure_arc",
    "a machine of Azure Arc",
    ("IMDS_ENDPOINT",),
    (
        (
            "sudo azcmagent connect --subscription-id <subscription> --resource-group <group> --tenant-id <tenant>"
            " --location <location>"
        ),
        "sudo azcmagent show",
    ),
)
VIRTUAL_MACHINE = Platform(
    "virtual_machine",
    "a virtual machine on Azure",
    ("AZURE_POD_IDENTITY_AUTHORITY_HOST",),
    (
        "az vm identity assign --resource-group <group> --name <machine>",
        "az vmss identity assign --resource-group <group> --name <scale set>",
    ),
    user_assigned=_IDENTITIES,
)

# In the order in which they are looked for: a function app has the variables of a web app too, and Container Apps and
# AKS run Kubernetes.
_BY_VARIABLES = (
    SERVICE_FABRIC,
    FUNCTIONS,
    WEB_APP,
    CONTAINER_APP,
    AZURE_ML,
    CLOUD_SHELL,
    GITHUB_ACTIONS,
    KUBERNETES,
    AZURE_ARC,
    VIRTUAL_MACHINE,
)
VARIABLES = tuple(variable for platform in _BY_VARIABLES for variable in platform.variables)
"""What tells the kind of a platform."""

_BY_NAME = {platform.name: platform for platform in _BY_VARIABLES}
# The hosts that are not called like their platforms.
_KINDS = {"imds": VIRTUAL_MACHINE.name, "workload_identity": KUBERNETES.name}


def title_of(kind: str | None) -> str:
    """Return the title of the platform that is called *kind*."""
    return _BY_NAME[kind].title if kind in _BY_NAME else "this platform"


def commands_on(kind: str | None, surroundings: Surroundings, client_id: str | None) -> tuple[str, ...]:
    """Return the commands that switch the identity on where the platform is called *kind*, or none."""
    return _BY_NAME[kind].switched_on(surroundings, client_id) if kind in _BY_NAME else ()


def platform_of(
    surroundings: Surroundings, *, host: str | None, azure_vm: bool | None, arc_agent: bool
) -> Platform | None:
    """Return what kind of platform this is, or None if nothing tells: then it may be a developer's machine.

    *host* is the name of the host that the environment names.
    """
    found = (one for one in _BY_VARIABLES if any(map(surroundings.get, one.variables)))
    kind = next(found, None if host is None else _BY_NAME[_KINDS.get(host, host)])
    if kind is None and arc_agent:
        return AZURE_ARC
    return VIRTUAL_MACHINE if kind is None and azure_vm else kind
