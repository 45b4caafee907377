"""`aiomsi doctor`: examine, and print the report in the form that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console

from aiomsi._command_line.doctor.examination import examine
from aiomsi._command_line.doctor.presentation import show
from aiomsi._command_line.doctor.report import as_json

if TYPE_CHECKING:
    from aiomsi._command_line.doctor.report import Report
    from aiomsi.sources import Surroundings

__all__ = ["examined"]


async def examined(
    resource: str | None,
    *,
    client_id: str | None,
    tenant: str | None,
    limit: float,
    json: bool,
    surroundings: Surroundings | None = None,
) -> Report:
    """Examine this machine, print the report, and return it."""
    console = Console(highlight=False)
    if json:
        report = await examine(resource, tenant=tenant, client_id=client_id, limit=limit, surroundings=surroundings)
        click.echo(as_json(report))
        return report
    with console.status("all sources are asked at the same time"):
        report = await examine(resource, tenant=tenant, client_id=client_id, limit=limit, surroundings=surroundings)
    show(report, console)
    return report
