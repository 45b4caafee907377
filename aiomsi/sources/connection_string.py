"""Connection strings of the AppAuthentication library: `RunAs=App;AppId=…` → a source. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiomsi._errors import ConfigurationError, without_frames
from aiomsi.sources._selection import CONNECTION_STRING, selected
from aiomsi.sources._surroundings import Surroundings
from aiomsi.sources.azure_cli import AzureCLI
from aiomsi.sources.azure_developer_cli import AzureDeveloperCLI
from aiomsi.sources.azure_powershell import AzurePowerShell
from aiomsi.sources.client_credentials import ClientSecret
from aiomsi.sources.integrated import IntegratedAuth
from aiomsi.sources.key_vault_certificate import KeyVaultCertificate
from aiomsi.sources.managed_identity import ManagedIdentity
from aiomsi.sources.visual_studio import VisualStudio
from aiomsi.sources.workload_identity import WorkloadIdentity

if TYPE_CHECKING:
    from aiomsi._source import Source

__all__ = ["from_connection_string"]

_KEYS = {
    name.lower(): name
    for name in (
        "AppId",
        "AppKey",
        "CertificateStoreLocation",
        "CertificateSubjectName",
        "CertificateThumbprint",
        "DeveloperTool",
        "KeyVaultCertificateSecretIdentifier",
        "KeyVaultUserAssignedManagedIdentityId",
        "MsiRetryTimeout",
        "RunAs",
        "TenantId",
    )
}
_TOOLS: dict[str, type[AzureCLI | AzureDeveloperCLI | AzurePowerShell | VisualStudio]] = {
    "azurecli": AzureCLI,
    "azuredevelopercli": AzureDeveloperCLI,
    "azurepowershell": AzurePowerShell,
    "visualstudio": VisualStudio,
}
_STORE = ("CertificateStoreLocation", "CertificateThumbprint", "CertificateSubjectName")
_FORMS = (
    "RunAs=App[;AppId=<client id>], RunAs=App;AppId=<client id>;TenantId=<tenant>;AppKey=<secret>,"
    " RunAs=App;AppId=<client id>;KeyVaultCertificateSecretIdentifier=<URL>, RunAs=Workload, or"
    " RunAs=Developer;DeveloperTool=AzureCLI"
)

# The grammar of ADO.NET connection strings: `==` in a key is one `=`, a value may be quoted, a doubled quote is one.
# Nothing that repeats can match what follows it, so that a text is read in a time proportional to its length.
_WORD = r"(?:[^=;\s]|==)++"
_PAIR = re.compile(
    rf"""\s*+(?P<key>{_WORD}(?:\s++{_WORD})*+)\s*+=(?!=)\s*+
    (?:"(?P<double>(?:[^"]|"")*+)"|'(?P<single>(?:[^']|'')*+)'|(?P<plain>[^;"'][^;]*+)?)\s*+(?:;|$)""",
    re.VERBOSE,
)


class _WrongError(Exception):
    """What is wrong with a connection string, without any value of it but those that are no secrets."""


def from_connection_string(text: str, surroundings: Surroundings | None = None) -> Source:
    """Return the source that *text* means.

    `RunAs=App` is the managed identity, or with an AppKey or a certificate an application; `RunAs=Developer` with a
    DeveloperTool is whoever is logged in there. `RunAs=Workload` (workload identity), and DeveloperTool=AzurePowerShell
    or AzureDeveloperCLI, are additions of ours, as is a TenantId for developers.

    Source: Microsoft documentation, "Service-to-service authentication to Azure Key Vault using .NET".

    Raises:
        TypeError: *text* is not a string.
        ConfigurationError: it is wrong, or means a source that cannot be had; no secret of it is shown.
    """
    if not isinstance(text, str):
        raise TypeError(f"a connection string is a string, not {type(text).__name__}")
    try:
        return _source(_Settings(_parse(text)), surroundings or Surroundings())
    except ConfigurationError as error:  # Of the environment, for the source that reads a key vault.
        wrong = without_frames(error)
    except _WrongError as error:
        wrong = ConfigurationError(
            f"the connection string is wrong: {error}; use one of {_FORMS} (it comes from the argument or from"
            f" {CONNECTION_STRING})"
        )
    del text  # A traceback may show what our frames hold, and those of the error above are gone.
    raise wrong


class _Settings:
    """The settings of a connection string that nobody has asked for yet; their values may be secret."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def take(self, key: str) -> str | None:
        return self._values.pop(key.lower(), None)

    def need(self, key: str, for_: str) -> str:
        value = self.take(key)
        if value is None:
            raise _WrongError(f"{for_} needs {key}")
        return value

    def __contains__(self, key: str) -> bool:
        return key.lower() in self._values

    def finish(self) -> None:
        """Raise if anything was left over."""
        names = ", ".join(_KEYS.get(key, "an unknown one") for key in self._values)
        if names:
            raise _WrongError(f"{len(self._values)} of its keys ({names}) do not belong there")


def _source(settings: _Settings, surroundings: Surroundings) -> Source:
    run_as = (settings.take("RunAs") or "").lower()
    makers = {"app": _app, "currentuser": _current_user, "developer": _developer, "workload": _workload}
    if run_as not in makers:
        raise _WrongError("its RunAs is not supported" if run_as else "it has no RunAs")
    source = makers[run_as](settings, surroundings)
    settings.finish()
    return source


def _app(settings: _Settings, surroundings: Surroundings) -> Source:
    # In the order in which AppAuthentication decides.
    if "AppId" in settings and any(key in settings for key in _STORE):
        raise _WrongError(
            f"{' and '.join(key for key in _STORE if key in settings)} mean a certificate store of Windows, which is"
            " not supported; export the certificate, and use aiomsi.sources.ClientCertificate or a key vault"
        )
    if "KeyVaultCertificateSecretIdentifier" in settings:
        return _key_vault(settings, surroundings)
    if "AppKey" in settings:
        try:
            return ClientSecret(
                client_id=settings.need("AppId", "AppKey"),
                tenant_id=settings.need("TenantId", "AppKey"),
                client_secret=settings.need("AppKey", "AppKey"),
                surroundings=surroundings,
            )
        except ValueError:
            raise _WrongError("AppKey holds control characters, such as the end of a line") from None
    return _machine(settings.take("AppId"), _retry_timeout(settings), surroundings)


def _machine(client_id: str | None, retry_timeout: float | None, surroundings: Surroundings) -> ManagedIdentity:
    try:
        return ManagedIdentity(client_id=client_id, retry_timeout=retry_timeout, surroundings=surroundings)
    except ValueError:
        raise _WrongError("the id of a managed identity is not a client id, which is a GUID") from None


def _key_vault(settings: _Settings, surroundings: Surroundings) -> Source:
    client_id = settings.need("AppId", "KeyVaultCertificateSecretIdentifier")
    retry_timeout = _retry_timeout(settings)
    reader_id = settings.take("KeyVaultUserAssignedManagedIdentityId")
    reader: Source = (
        selected(surroundings, retry_timeout=retry_timeout)
        if reader_id is None
        else _machine(reader_id, retry_timeout, surroundings)
    )
    try:
        return KeyVaultCertificate(
            secret_identifier=settings.need("KeyVaultCertificateSecretIdentifier", "RunAs=App"),
            client_id=client_id,
            reader=reader,
            tenant_id=settings.take("TenantId"),
            surroundings=surroundings,
        )
    except ValueError:
        raise _WrongError(
            "KeyVaultCertificateSecretIdentifier is not of the form https://<vault>.vault.azure.net/secrets/<name>"
        ) from None


def _retry_timeout(settings: _Settings) -> float | None:
    text = settings.take("MsiRetryTimeout")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _WrongError("MsiRetryTimeout is a whole number of seconds that is not negative")
    return float(text)


def _developer(settings: _Settings, surroundings: Surroundings) -> Source:
    tool = _TOOLS.get(settings.need("DeveloperTool", "RunAs=Developer").lower())
    if tool is None:
        raise _WrongError("DeveloperTool is none of AzureCLI, AzureDeveloperCLI, AzurePowerShell and VisualStudio")
    try:
        return tool(tenant_id=settings.take("TenantId"), surroundings=surroundings)
    except ValueError:
        raise _WrongError("TenantId holds characters that no tenant has") from None


def _current_user(settings: _Settings, surroundings: Surroundings) -> Source:
    return IntegratedAuth(tenant_id=settings.take("TenantId"), surroundings=surroundings)


def _workload(settings: _Settings, surroundings: Surroundings) -> Source:
    return WorkloadIdentity(
        client_id=settings.take("AppId"), tenant_id=settings.take("TenantId"), surroundings=surroundings
    )


def _parse(text: str) -> dict[str, str]:
    """Return the settings in *text* by their names in lower case."""
    settings: dict[str, str] = {}
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _PAIR.match(text, position, end)
        if match is None:
            raise _WrongError("it is not of the form Key1=Value1;Key2=Value2")
        key = match["key"].replace("==", "=").lower()
        double, single, plain = match["double"], match["single"], match["plain"]
        if double is not None:
            value = double.replace('""', '"')
        else:
            value = single.replace("''", "'") if single is not None else (plain or "").strip()
        if key in settings:
            raise _WrongError("a key is repeated")
        if not value:
            raise _WrongError("a value is empty")
        settings[key] = value
        position = match.end()
    if not settings:
        raise _WrongError("it is empty")
    return settings
