"""What to do about the error codes of Entra ID. Pure.

Source: Microsoft documentation, "Microsoft Entra authentication and authorization error codes".
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from aiomsi._command_line.doctor.report import Advice, fix

if TYPE_CHECKING:
    from aiomsi._command_line.doctor.report import Asked, ErrorFacts

__all__ = ["UNKNOWN_RESOURCE", "about_entra"]

UNKNOWN_RESOURCE = ("AADSTS500011", "AADSTS50001", "invalid_resource")
_UNKNOWN_FEDERATION = ("AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213")
_APPLICATION = '"$AZURE_CLIENT_ID"'

_ADVICE: tuple[tuple[tuple[str, ...], Advice], ...] = (
    (
        ("AADSTS7000215", "AADSTS7000222"),
        fix(
            "the secret is wrong or has expired; make another one, and set AZURE_CLIENT_SECRET to it",
            f"az ad app credential reset --append --id {_APPLICATION}",
        ),
    ),
    (
        ("AADSTS700027",),
        fix(
            "the certificate is not one of the application's; add it",
            f"az ad app credential reset --append --id {_APPLICATION} --cert @<certificate>.pem",
        ),
    ),
    (
        ("AADSTS700016", "AADSTS90002", "AADSTS900023"),
        fix(
            "there is no such application in that tenant, or it is one of another cloud (AZURE_AUTHORITY_HOST)",
            f"az ad sp show --id {_APPLICATION}",
            "az account show --query tenantId",
        ),
    ),
)


def about_entra(error: ErrorFacts, asked: Asked) -> Advice | None:
    """Return what to do about the code of *error*, or None if it has none that is known here."""
    if error.code in _UNKNOWN_FEDERATION:
        return _about_federation(error)
    if error.code in UNKNOWN_RESOURCE:
        wanted = shlex.quote(f"servicePrincipalNames/any(name:name eq '{asked.resource}')")
        why = "the tenant does not know the resource; check its spelling, its trailing slash and the tenant"
        return fix(why, f"az ad sp list --filter {wanted} --query '[].displayName'")
    return next((advice for codes, advice in _ADVICE if error.code in codes), None)


def _about_federation(error: ErrorFacts) -> Advice:
    found = re.search(r"issuer '([^']+)', subject '([^']+)'", error.message)
    issuer, subject = map(shlex.quote, found.groups()) if found else ("<issuer>", "<subject>")
    return fix(
        "no federated credential of the application fits this token; add one, which counts after some minutes",
        "az identity federated-credential create --resource-group <group> --identity-name <identity> --name <name>"
        f" --issuer {issuer} --subject {subject} --audiences api://AzureADTokenExchange",
    )
