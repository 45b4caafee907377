"""How a principal is given access to what a token was asked for: one row for each service. Pure.

Sources: Microsoft documentation, "Azure built-in roles", and of each service the page on access with Microsoft Entra;
reference of `az role assignment create`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiomsi._command_line.doctor.report import Identity

__all__ = ["Grant", "commands_for", "grant_for"]

_PROVIDERS = "/subscriptions/<subscription>/resourceGroups/<group>/providers"


@dataclass(frozen=True, slots=True)
class Grant:
    """One service: it is the one that a resource means which is one of *resources*, or a name under their hosts.

    The *roles* are given at *scope*, each of them for another use; *commands* are those of a service that has a way of
    its own. In both, what is in angle brackets is filled in by a person, and {oid}, {kind}, {app}, {user}, {type} and
    {tenant} by what is known of the principal.
    """

    service: str
    resources: tuple[str, ...]
    roles: tuple[str, ...] = ()
    scope: str = ""
    commands: tuple[str, ...] = ()


_TABLE = (
    Grant(
        "Azure Resource Manager",
        (
            "management.azure.com",
            "management.core.windows.net",
            "management.usgovcloudapi.net",
            "management.core.usgovcloudapi.net",
            "management.chinacloudapi.cn",
            "management.core.chinacloudapi.cn",
            "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        ),
        ("Reader", "Contributor"),
        "/subscriptions/<subscription>",
    ),
    Grant(
        "Key Vault",
        ("vault.azure.net", "vault.usgovcloudapi.net", "vault.azure.cn", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"),
        ("Key Vault Secrets User", "Key Vault Crypto User", "Key Vault Certificate User"),
        f"{_PROVIDERS}/Microsoft.KeyVault/vaults/<vault>",
        # Vaults that use access policies instead of roles.
        ("az keyvault set-policy --name <vault> --object-id {oid} --secret-permissions get list",),
    ),
    Grant(
        "Managed HSM",
        ("managedhsm.azure.net", "managedhsm.usgovcloudapi.net", "managedhsm.azure.cn"),
        commands=(
            (
                "az keyvault role assignment create --hsm-name <hsm> --assignee {oid}"
                ' --role "Managed HSM Crypto User" --scope /keys'
            ),
        ),
    ),
    Grant(
        "Storage",
        (
            "storage.azure.com",
            "core.windows.net",
            "core.usgovcloudapi.net",
            "core.chinacloudapi.cn",
            "e406a681-f3d4-42a8-90b6-c2b029497af1",
        ),
        (
            "Storage Blob Data Reader",
            "Storage Blob Data Contributor",
            "Storage Queue Data Contributor",
            "Storage Table Data Contributor",
        ),
        f"{_PROVIDERS}/Microsoft.Storage/storageAccounts/<account>",
    ),
    Grant(
        "Azure Database for PostgreSQL or MySQL",
        (
            "ossrdbms-aad.database.windows.net",
            "ossrdbms-aad.database.usgovcloudapi.net",
            "ossrdbms-aad.database.chinacloudapi.cn",
        ),
        commands=(
            (
                "PostgreSQL, in the database postgres: SELECT * FROM"
                " pgaadauth_create_principal_with_oid('<role>', '{oid}', '{type}', false, false);"
            ),
            "MySQL: CREATE AADUSER '<name>' IDENTIFIED BY '{app}';",
        ),
    ),
    Grant(
        "Azure SQL",
        ("database.windows.net", "database.usgovcloudapi.net", "database.chinacloudapi.cn"),
        commands=(
            "az ad sp show --id {oid} --query displayName --output tsv",
            "CREATE USER [{user}] FROM EXTERNAL PROVIDER; ALTER ROLE db_datareader ADD MEMBER [{user}];",
            "ALTER ROLE db_datawriter ADD MEMBER [{user}];",
        ),
    ),
    Grant(
        "Service Bus",
        ("servicebus.azure.net", "servicebus.windows.net"),
        ("Azure Service Bus Data Receiver", "Azure Service Bus Data Sender"),
        f"{_PROVIDERS}/Microsoft.ServiceBus/namespaces/<namespace>",
    ),
    Grant(
        "Event Hubs",
        ("eventhubs.azure.net",),
        ("Azure Event Hubs Data Receiver", "Azure Event Hubs Data Sender"),
        f"{_PROVIDERS}/Microsoft.EventHub/namespaces/<namespace>",
    ),
    Grant(
        "Azure AI services and Azure OpenAI",
        (
            "cognitiveservices.azure.com",
            "openai.azure.com",
            "cognitiveservices.azure.us",
            "cognitiveservices.azure.cn",
            "ai.azure.com",
        ),
        ("Cognitive Services User", "Cognitive Services OpenAI User"),
        f"{_PROVIDERS}/Microsoft.CognitiveServices/accounts/<account>",
    ),
    Grant(
        "AI Search",
        ("search.azure.com", "search.azure.us"),
        ("Search Index Data Reader", "Search Index Data Contributor"),
        f"{_PROVIDERS}/Microsoft.Search/searchServices/<service>",
    ),
    Grant(
        "App Configuration",
        ("azconfig.io", "azconfig.azure.us", "azconfig.azure.cn"),
        ("App Configuration Data Reader",),
        f"{_PROVIDERS}/Microsoft.AppConfiguration/configurationStores/<store>",
    ),
    Grant(
        "Cosmos DB",
        ("cosmos.azure.com", "documents.azure.com", "documents.azure.us", "documents.azure.cn"),
        commands=(
            (
                "az cosmosdb sql role assignment create --resource-group <group> --account-name <account> --scope /"
                " --principal-id {oid} --role-definition-name 'Cosmos DB Built-in Data Reader'"
            ),
        ),
    ),
    Grant(
        "Container Registry",
        ("containerregistry.azure.net", "azurecr.io", "azurecr.us", "azurecr.cn"),
        ("AcrPull", "AcrPush"),
        f"{_PROVIDERS}/Microsoft.ContainerRegistry/registries/<registry>",
    ),
    Grant(
        "Log Analytics",
        ("api.loganalytics.io", "api.loganalytics.us", "api.loganalytics.azure.cn", "api.loganalytics.azure.com"),
        ("Log Analytics Reader",),
        f"{_PROVIDERS}/Microsoft.OperationalInsights/workspaces/<workspace>",
    ),
    Grant(
        "Azure Monitor",
        ("monitor.azure.com", "monitor.azure.us", "monitor.azure.cn"),
        ("Monitoring Metrics Publisher",),
        f"{_PROVIDERS}/Microsoft.Insights/dataCollectionRules/<rule>",
    ),
    Grant(
        "Azure Cache for Redis",
        ("redis.azure.com", "acca5fbb-b7e4-4009-81f1-37e38fd66d78"),
        commands=(
            (
                "az redis access-policy-assignment create --resource-group <group> --name <cache>"
                " --policy-assignment-name <name> --access-policy-name 'Data Contributor' --object-id {oid}"
                " --object-id-alias <name>"
            ),
        ),
    ),
    Grant(
        "Microsoft Graph",
        (
            "graph.microsoft.com",
            "graph.microsoft.us",
            "microsoftgraph.chinacloudapi.cn",
            "00000003-0000-0000-c000-000000000000",
        ),
        commands=(
            (
                "az ad sp show --id 00000003-0000-0000-c000-000000000000 --query"
                " \"{{resourceId: id, appRoleId: appRoles[?value=='<permission, such as User.Read.All>'].id | [0]}}\""
            ),
            (
                "az rest --method POST --url https://graph.microsoft.com/v1.0/servicePrincipals/{oid}/appRoleAssignments"
                ' --body \'{{"principalId": "{oid}", "resourceId": "<resourceId>", "appRoleId": "<appRoleId>"}}\''
            ),
        ),
    ),
)
_ANY = Grant("the service", (), ("<role>",), "<id of the resource, such as that in `az resource list`>")
_GRAPH_USER = ("az login --tenant {tenant} --scope https://graph.microsoft.com/<permission, such as User.Read.All>",)


def grant_for(resource: str) -> Grant:
    """Return how access to *resource* is given; in the general form if the service is not known."""
    host = (urlsplit(resource).hostname if "//" in resource else resource) or ""
    labels = host.lower().rstrip(".").split(".")
    # The longest name that is known is meant: a database's is under that of another one.
    names = [".".join(labels[start:]) for start in range(len(labels))]
    known = {name: grant for grant in _TABLE for name in grant.resources}
    return next((known[name] for name in names if name in known), _ANY)


def commands_for(resource: str, identity: Identity) -> tuple[str, ...]:
    """Return what gives the principal of *identity* access to *resource*, one command for each use."""
    grant, user = grant_for(resource), identity.type == "User"
    name = _quotable(identity.user_principal_name)
    facts = {
        "oid": _quotable(identity.object_id) or "<object id>",
        "kind": {"User": "User", "App": "ServicePrincipal"}.get(identity.type or "", "<User or ServicePrincipal>"),
        "type": "user" if user else "service",
        "app": (name or "<user>") if user else _quotable(identity.app_id) or "<client id>",
        # Only users tell their name; an application has that of the machine or of its own identity.
        "user": (name or "<name>") if user else "<name>",
        "tenant": _quotable(identity.tenant_id) or "<tenant>",
    }
    own = _GRAPH_USER if user and grant.service == "Microsoft Graph" else grant.commands
    if user:  # There is no service principal to be shown.
        own = tuple(command for command in own if not command.startswith("az ad sp show --id {oid}"))
    roles = tuple(
        "az role assignment create --assignee-object-id {oid} --assignee-principal-type {kind}"
        f' --role "{role}" --scope "{grant.scope}"'
        for role in grant.roles
    )
    return tuple(command.format_map(facts) for command in (*roles, *own))


def _quotable(claim: str | None) -> str:
    """Return *claim* without what would mean something else in a command: claims are whatever a token says."""
    return re.sub(r"[^\w.@#+-]|^[#-]", "_", claim or "")
