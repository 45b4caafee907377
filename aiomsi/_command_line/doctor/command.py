"""`aiomsi doctor`: examine, and print the report in the form that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console

from aiomsi._command_line.doctor.examination import examine
from aiomsi._command_line.doctor.presentation import show
from aiomsi._command_line.doctor.report import as_json
from aiomsi._command_line.outcome import run

if TYPE_CHECKING:
    from aiomsi._command_line.doctor.report import Report
    from aiomsi.sources import Surroundings

__all__ = ["examined"]


def examined(
    resource: str | None,
    *,
    client_id: str | None = None,
    tenant: str | None = None,
    limit: float,
    json: bool = False,
    surroundings: Surroundings | None = None,
) -> Report:
    """Examine this machine, print the report, and return it."""
    call = examine(resource, client_id=client_id, tenant=tenant, limit=limit, surroundings=surroundings)
    if json:
        report = run(call)
        click.echo(as_json(report))
        return report
    console = Console(highlight=False)
    with console.status("all sources are asked, at the same time", spinner="line"):
        report = run(call)
    show(report, console)
    return report
