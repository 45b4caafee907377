"""Connection strings of the AppAuthentication library: `RunAs=App;AppId=…` → a source. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiomsi._errors import ConfigurationError
from aiomsi.sources.azure_cli import AzureCLI
from aiomsi.sources.managed_identity import ManagedIdentity

if TYPE_CHECKING:
    from aiomsi._source import Source
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["VARIABLE", "from_connection_string"]

VARIABLE = "AzureServicesAuthConnectionString"

_KEYS = frozenset(
    {
        "appid",
        "appkey",
        "certificatestorelocation",
        "certificatesubjectname",
        "certificatethumbprint",
        "developertool",
        "keyvaultcertificatesecretidentifier",
        "msiretrytimeout",
        "tenantid",
    }
)
_FORMS = "RunAs=App, RunAs=App;AppId=<client id> or RunAs=Developer;DeveloperTool=AzureCLI"

# The grammar of ADO.NET connection strings: `==` in a key is one `=`, a value may be quoted, a doubled quote is one.
_PAIR = re.compile(
    r"""\s*(?P<key>(?:[^=;]|==)+?)\s*=(?!=)\s*
    (?:"(?P<double>(?:[^"]|"")*)"|'(?P<single>(?:[^']|'')*)'|(?P<plain>[^;"'][^;]*)?)\s*(?:;|$)""",
    re.VERBOSE,
)


def from_connection_string(text: str, surroundings: Surroundings | None = None) -> Source:
    """Return the source that *text* means.

    Source: Microsoft documentation, "Service-to-service authentication to Azure Key Vault using .NET".

    Raises:
        TypeError: *text* is not a string.
        ConfigurationError: it is wrong, or means a source that is not supported; no value of it is shown.
    """
    if not isinstance(text, str):
        raise TypeError(f"a connection string is a string, not {type(text).__name__}")
    settings = _parse(text)
    run_as = settings.pop("runas", "").lower()
    source: Source
    if run_as == "app":
        source = _app(settings, surroundings)
    elif run_as == "developer":
        if settings.pop("developertool", "").lower() != "azurecli":
            raise _wrong("RunAs=Developer needs DeveloperTool=AzureCLI, the only tool supported so far")
        source = AzureCLI(surroundings=surroundings)
    else:
        raise _wrong("its RunAs is not supported" if run_as else "it has no RunAs")
    if settings:
        raise _wrong(
            f"{len(settings)} of its keys ({', '.join(map(_known, settings))}) do not belong there or are not supported"
        )
    return source


def _app(settings: dict[str, str], surroundings: Surroundings | None) -> ManagedIdentity:
    try:
        return ManagedIdentity(client_id=settings.pop("appid", None), surroundings=surroundings)
    except ValueError:
        raise _wrong("AppId is not a client id, which is a GUID") from None


def _parse(text: str) -> dict[str, str]:
    """Return the settings in *text* by their names in lower case."""
    settings: dict[str, str] = {}
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _PAIR.match(text, position, end)
        if match is None:
            raise _wrong("it is not of the form Key1=Value1;Key2=Value2")
        key = match["key"].replace("==", "=").lower()
        double, single, plain = match["double"], match["single"], match["plain"]
        if double is not None:
            value = double.replace('""', '"')
        else:
            value = single.replace("''", "'") if single is not None else (plain or "").strip()
        if key in settings:
            raise _wrong("a key is repeated")
        if not value:
            raise _wrong("a value is empty")
        settings[key] = value
        position = match.end()
    if not settings:
        raise _wrong("it is empty")
    return settings


def _wrong(what: str) -> ConfigurationError:
    # Never the text: a key may be misspelt, and a value may be a secret.
    return ConfigurationError(
        f"the connection string is wrong: {what}; use one of {_FORMS} (it comes from the argument or from {VARIABLE})"
    )


def _known(key: str) -> str:
    return key if key in _KEYS else "an unknown one"
