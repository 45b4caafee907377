"""What to do so that the Azure CLI gives a token. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from aiomsi._command_line.doctor.entra_advice import UNKNOWN_RESOURCE, about_entra
from aiomsi._command_line.doctor.report import Advice, fix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiomsi._command_line.doctor.report import Asked, AzureCLIFacts, ErrorFacts

__all__ = ["about_azure_cli"]


def about_azure_cli(error: ErrorFacts, asked: Asked, cli: AzureCLIFacts) -> Iterator[Advice]:
    """Return what to do about the *error* that the Azure CLI gave, or that there is none."""
    unknown = about_entra(error, asked) if error.code in UNKNOWN_RESOURCE else None
    if cli.path is None:
        yield fix("install the Azure CLI (https://aka.ms/azure-cli) and log in", _login(asked, cli))
    elif cli.elsewhere is not None:
        why = f"the Azure CLI is logged in to {cli.elsewhere}, while the active cloud is {cli.cloud}"
        yield fix(why, f"az cloud set --name {shlex.quote(cli.elsewhere)}")
    elif cli.account is None and cli.others:
        why = "the Azure CLI is logged in, but no subscription is the default"
        yield fix(why, "az account list --all --output table", "az account set -s <subscription>")
    elif unknown is not None:
        yield unknown
    elif error.code is not None or (error.kind == "SourceUnavailableError" and cli.problem is None):
        yield from _about_login(error, asked, cli)
    else:
        tenant = f" --tenant {shlex.quote(asked.tenant)}" if asked.tenant else ""
        resource = shlex.quote(asked.resource)
        command = f"az account get-access-token --query expiresOn --resource {resource}{tenant}"
        yield fix("the Azure CLI failed; try the same by hand", command)


def _about_login(error: ErrorFacts, asked: Asked, cli: AzureCLIFacts) -> Iterator[Advice]:
    refused = error.code is not None  # By Entra ID, which knows who is logged in, wherever that is written down.
    nobody = cli.account is None and not refused
    why = "nobody is logged in to the Azure CLI" if nobody else "the login of the Azure CLI is not good for this"
    yield fix(f"{why}; log in", _login(asked, cli, named=refused))
    tenant = None if cli.account is None else cli.account.tenant_id
    if tenant and asked.tenant and asked.tenant.lower() != tenant.lower():
        yield Advice(
            "note",
            f"the default subscription belongs to the tenant {tenant}; make one of {asked.tenant} the default",
            ("az account set -s <subscription>",),
        )


def _login(asked: Asked, cli: AzureCLIFacts, *, named: bool = False) -> str:
    """Return the command that logs in; what a tenant wants for a resource is asked for only if that is *named*."""
    tenant = asked.tenant or (None if cli.account is None else cli.account.tenant_id)
    command = f"az login --tenant {shlex.quote(tenant)}" if tenant else "az login"
    return f"{command} --scope {shlex.quote(f'{asked.resource}/.default')}" if named else command
