"""Which sources are tried where nothing was said in code: all that fit, or what `AZURE_TOKEN_CREDENTIALS` selects.

Source: Microsoft documentation, "Credential chains in the Azure Identity client library".
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, cast

from aiomsi._errors import ConfigurationError
from aiomsi.sources._hosts import half_name
from aiomsi.sources.azure_cli import AzureCLI
from aiomsi.sources.azure_developer_cli import AzureDeveloperCLI
from aiomsi.sources.azure_powershell import AzurePowerShell
from aiomsi.sources.chain import FirstAvailable
from aiomsi.sources.integrated import IntegratedAuth
from aiomsi.sources.managed_identity import ManagedIdentity
from aiomsi.sources.visual_studio import VisualStudio

if TYPE_CHECKING:
    from aiomsi._source import Source
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["CONNECTION_STRING", "SELECTION", "VARIABLES", "half_said", "selected"]

CONNECTION_STRING = "AzureServicesAuthConnectionString"
"""The variable that goes before all that `selected` looks at."""

SELECTION = "AZURE_TOKEN_CREDENTIALS"
_TENANT, _CLIENT = "AZURE_TENANT_ID", "AZURE_CLIENT_ID"
_SECRET = "AZURE_CLIENT_SECRET"  # noqa: S105  (its name)
_CERTIFICATE, _PASSWORD = "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PASSWORD"
_CHAIN = "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"

VARIABLES = (SELECTION, _TENANT, _CLIENT, _SECRET, _CERTIFICATE, _PASSWORD, _CHAIN)
"""What `selected` depends on."""

_TOOLS = (AzureCLI, AzureDeveloperCLI, AzurePowerShell, VisualStudio, IntegratedAuth)
_BY_NAME = {
    "azurecli": ("azure_cli", "AzureCLI"),
    "azuredevelopercli": ("azure_developer_cli", "AzureDeveloperCLI"),
    "azurepipelines": ("federation", "AzurePipelines"),
    "azurepowershell": ("azure_powershell", "AzurePowerShell"),
    "githubactions": ("federation", "GitHubActions"),
    "integrated": ("integrated", "IntegratedAuth"),
    "visualstudio": ("visual_studio", "VisualStudio"),
    "workloadidentity": ("workload_identity", "WorkloadIdentity"),
}


def selected(surroundings: Surroundings, selection: str | None = None, *, retry_timeout: float | None = None) -> Source:
    """Return the source that *selection* names, or else the environment's variable of the same meaning.

    *retry_timeout* is the managed identity's, in seconds.

    Raises:
        ConfigurationError: there is no such source, or variables that it needs are missing or malformed.
    """
    asked = (selection or surroundings.get(SELECTION) or "").strip().lower()
    # "AzureCliCredential" is how the Azure SDKs spell it, "azure_cli" is how we do.
    name = asked.replace("_", "").removesuffix("credential")
    # Nothing is made that is not selected, since the variables of another source may be wrong.
    if name in _BY_NAME:
        return _named(*_BY_NAME[name], surroundings)
    if name == "managedidentity":
        return _managed_identity(surroundings, retry_timeout)
    if name == "environment":
        return _needed_application(surroundings)
    if asked not in ("", "dev", "prod"):
        raise _unknown(asked, SELECTION if selection is None else "the source")
    machine = [] if asked == "dev" else [*_application(surroundings), _managed_identity(surroundings, retry_timeout)]
    tools = [] if asked == "prod" else [tool(surroundings=surroundings) for tool in _TOOLS]
    return machine[0] if len(machine) == 1 and not tools else FirstAvailable(*machine, *tools)


def half_said(surroundings: Surroundings) -> list[str]:
    """Return what the environment says only half of where nothing is selected by name, so that it is passed over."""
    get = surroundings.get
    if (get(SELECTION) or "").strip().lower() not in ("", "prod"):
        return []
    found = []
    proof = next((variable for variable in (_SECRET, _CERTIFICATE) if get(variable)), None)
    missing = [variable for variable in (_TENANT, _CLIENT) if not get(variable)]
    if proof and missing:
        found.append(f"{proof} is set, but not {' and '.join(missing)}, so it belongs to no application")
    named = half_name(surroundings)
    return found if named is None else [*found, named]


def _unknown(asked: str, said_by: str) -> ConfigurationError:
    known = ", ".join(sorted(("environment", "managedidentity", *_BY_NAME)))
    # Names are of letters. What else stands there is not shown: people mix variables up, and others hold secrets.
    what = f"is {asked!r}, but should" if re.fullmatch("[a-z_]{1,40}", asked) else "should"
    return ConfigurationError(f"{said_by} {what} be dev, prod, or the name of one of {known}")


def _managed_identity(surroundings: Surroundings, retry_timeout: float | None) -> ManagedIdentity:
    try:
        return ManagedIdentity(
            client_id=surroundings.get(_CLIENT), retry_timeout=retry_timeout, surroundings=surroundings
        )
    except ValueError:  # Its text shows the value, which may be the secret of the variable next to it.
        raise ConfigurationError(f"{_CLIENT} is no GUID, as client ids are") from None


def _application(surroundings: Surroundings) -> list[Source]:
    """Return the application that the environment holds the secret or certificate of, if it does."""
    get = surroundings.get
    tenant_id, client_id = get(_TENANT), get(_CLIENT)
    if not tenant_id or not client_id or not (get(_SECRET) or get(_CERTIFICATE)):
        return []
    from aiomsi.sources.client_credentials import ClientCertificate, ClientSecret  # noqa: PLC0415  (seldom there)

    try:
        if get(_SECRET):
            return [
                ClientSecret(
                    tenant_id=tenant_id,
                    client_id=client_id,
                    client_secret=get(_SECRET) or "",
                    surroundings=surroundings,
                )
            ]
        return [
            ClientCertificate(
                tenant_id=tenant_id,
                client_id=client_id,
                certificate=get(_CERTIFICATE) or "",
                password=get(_PASSWORD),
                send_certificate_chain=(get(_CHAIN) or "").lower() in ("1", "true"),
                surroundings=surroundings,
            )
        ]
    except ValueError as error:
        raise ConfigurationError(f"{_SECRET if get(_SECRET) else _CERTIFICATE} is wrong: {error}") from None


def _needed_application(surroundings: Surroundings) -> Source:
    found = _application(surroundings)
    if found:
        return found[0]
    raise ConfigurationError(
        f"the environment's application is selected, but {_TENANT}, {_CLIENT} and one of {_SECRET} and"
        f" {_CERTIFICATE} are not all set"
    )


def _named(module: str, name: str, surroundings: Surroundings) -> Source:
    # Loaded only when it is selected.
    kind = getattr(import_module(f"aiomsi.sources.{module}"), name)
    return cast("Source", kind(surroundings=surroundings))
