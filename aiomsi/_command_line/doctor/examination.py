"""The examination: all that can be found out is asked for at the same time, and each for a limited time."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
from typing import TYPE_CHECKING

import anyio.to_thread

from aiomsi._clock import SYSTEM_CLOCK
from aiomsi._command_line.doctor.azure_cli import accounts, azure_cli
from aiomsi._command_line.doctor.diagnosis import Findings, chosen_by, management, report_on
from aiomsi._command_line.doctor.host import host_facts, reach, targets
from aiomsi._command_line.doctor.report import Asked, Program
from aiomsi._command_line.doctor.verdicts import ask_all, decide, members
from aiomsi._errors import ConfigurationError, without_frames
from aiomsi._resource import resource_of
from aiomsi._source import TokenRequest
from aiomsi.sources import ManagedIdentity, Surroundings
from aiomsi.sources.detected import chosen

if TYPE_CHECKING:
    from aiomsi._clock import Clock
    from aiomsi._command_line.doctor.azure_cli import Accounts
    from aiomsi._command_line.doctor.report import Report
    from aiomsi._command_line.doctor.verdicts import Outcome, Trial
    from aiomsi._source import Source

__all__ = ["TIME_LIMIT", "examine"]

TIME_LIMIT = 30.0  # Seconds for each source, unless the user says otherwise.


async def examine(
    resource: str | None = None,
    *,
    tenant: str | None = None,
    client_id: str | None = None,
    limit: float = TIME_LIMIT,
    surroundings: Surroundings | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Report:
    """Find out whether a token for *resource* can be had, and why; the default is the cloud's Azure Resource Manager.

    *tenant* and *client_id* are as for `aiomsi token`; each source may take *limit* seconds.

    Raises:
        ValueError: *resource* or *client_id* is none.
    """
    surroundings = surroundings or Surroundings()
    source = _source(client_id, surroundings)
    known = await accounts(surroundings)
    resource = management(surroundings, known) if resource is None else resource_of(resource)
    asked = Asked(resource, tenant, client_id, chosen_by(client_id, surroundings))
    found = await _find_out(asked, source, known, surroundings, clock, limit)
    return report_on(found, surroundings)


async def _find_out(
    asked: Asked,
    source: Source | ConfigurationError,
    known: Accounts | None,
    surroundings: Surroundings,
    clock: Clock,
    limit: float,
) -> Findings:
    request = TokenRequest(asked.resource, tenant_id=asked.tenant, clock=clock)
    host = await host_facts(surroundings)
    names = [] if isinstance(source, ConfigurationError) else [member.name for member in members(source)]
    async with asyncio.TaskGroup() as tasks:
        verdicts = tasks.create_task(_verdicts(source, request, limit))
        reached = [tasks.create_task(reach(target, clock)) for target in targets(host, names, surroundings)]
        cli = tasks.create_task(azure_cli(known, request, surroundings, limit))
    trials, outcome, asked_first = verdicts.result()
    return Findings(
        program=await anyio.to_thread.run_sync(_program, surroundings),
        asked=asked,
        trials=trials,
        outcome=outcome,
        reached=asked_first,
        host=host,
        reach=[task.result() for task in reached],
        cli=cli.result(),
        now=clock.wall(),
    )


def _program(surroundings: Surroundings) -> Program:
    """Return what runs here. Blocks."""
    return Program(importlib.metadata.version("aiomsi"), platform.python_version(), surroundings.platform)


def _source(client_id: str | None, surroundings: Surroundings) -> Source | ConfigurationError:
    """Return what a service here would ask, or why that cannot be said."""
    if client_id is not None:
        return ManagedIdentity(client_id=client_id, surroundings=surroundings)
    try:
        return chosen(surroundings)
    except ConfigurationError as error:
        return without_frames(error)


async def _verdicts(
    source: Source | ConfigurationError, request: TokenRequest, limit: float
) -> tuple[list[Trial], Outcome, int]:
    """Return what each source gave, what a service gets of that, and how many of them it asks."""
    if isinstance(source, ConfigurationError):
        return [], source, 0
    trials = await ask_all(source, request, limit)
    return (trials, *await decide(trials, request))
