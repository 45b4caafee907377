"""What there is of the Azure CLI: its path, its version, and who is logged in; never a token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from aiomsi._command_line.doctor.report import Account, AzureCLIFacts
from aiomsi._errors import AiomsiError
from aiomsi.sources._azure_cli_profile import AzureCLIProfile, default_account
from aiomsi.sources._files import UnfitFileError
from aiomsi.sources._subprocess import find_program
from aiomsi.sources._tools import ask
from aiomsi.sources.azure_cli import AZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._source import TokenRequest
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["accounts", "azure_cli"]

Accounts = tuple[str, "Sequence[dict[str, Any]]"]


async def accounts(surroundings: Surroundings) -> Accounts | None:
    """Return the active cloud and the accounts of all clouds, or None if that cannot be known."""
    try:
        return await anyio.to_thread.run_sync(AzureCLIProfile(surroundings).look)
    except (OSError, UnfitFileError, ValueError, RecursionError):
        return None


async def azure_cli(
    known: Accounts | None, request: TokenRequest, surroundings: Surroundings, limit: float
) -> AzureCLIFacts:
    """Return all about the Azure CLI, whose files say what is *known*; it may run for *limit* seconds."""
    clock = request.clock
    began = clock.monotonic()
    path = await anyio.to_thread.run_sync(find_program, AZ.program, surroundings)
    version, problem = await _version(request, surroundings, limit) if path else (None, None)
    cloud, listed = known or (None, ())
    found = default_account(listed, cloud) if cloud is not None else None
    return AzureCLIFacts(
        path=path,
        version=version,
        seconds=round(clock.monotonic() - began, 3),
        cloud=cloud,
        account=None if found is None else _account(found),
        others=len(listed) - (found is not None),
        elsewhere=None if found is not None else _elsewhere(listed, cloud),
        problem=problem,
    )


async def _version(request: TokenRequest, surroundings: Surroundings, limit: float) -> tuple[str | None, str | None]:
    """Return the version, or what went wrong when it was asked for."""
    arguments = ["version", "--output", "json"]
    try:
        finished = await ask(AZ, arguments, request, surroundings=surroundings, limit=limit)
    except AiomsiError as error:
        return None, str(error)
    try:
        version = json.loads(finished.stdout)["azure-cli"]
    except (ValueError, RecursionError, LookupError, TypeError):
        version = None
    if isinstance(version, str):
        return version, None
    return None, f"`az {' '.join(arguments)}` told no version (exit code {finished.exit_code})"


def _account(found: dict[str, Any]) -> Account:
    user = found.get("user")
    who = user if isinstance(user, dict) else {}
    return Account(
        user=_text(who.get("name")),
        type=_text(who.get("type")),
        tenant_id=_text(found.get("tenantId")),
        subscription_id=_text(found.get("id")),
        subscription=_text(found.get("name")),
    )


def _elsewhere(listed: Sequence[dict[str, Any]], cloud: str | None) -> str | None:
    """Return another cloud with accounts, if the active one has none at all."""
    clouds = [_text(account.get("environmentName")) for account in listed]
    return None if cloud in clouds else next(filter(None, clouds), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
