"""What the findings mean: the report. Pure, but for the environment that it reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiomsi._command_line.doctor.advice import advise
from aiomsi._command_line.doctor.clock import issued, skew
from aiomsi._command_line.doctor.host import ENTRA
from aiomsi._command_line.doctor.platforms import commands_on
from aiomsi._command_line.doctor.proxies import proxies
from aiomsi._command_line.doctor.report import Conclusion, ErrorFacts, Identity, Report, SourceFacts
from aiomsi._command_line.doctor.secrecy import known_secrets, scrubbed
from aiomsi._command_line.outcome import exit_code
from aiomsi._errors import SourceUnavailableError
from aiomsi._token import AccessToken
from aiomsi.sources._selection import CONNECTION_STRING, SELECTION, half_said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiomsi._command_line.doctor.azure_cli import Accounts
    from aiomsi._command_line.doctor.clock import Reading
    from aiomsi._command_line.doctor.report import Asked, AzureCLIFacts, HostFacts, Program, Reach
    from aiomsi._command_line.doctor.verdicts import Outcome, Trial
    from aiomsi._errors import AiomsiError
    from aiomsi.sources import Surroundings

__all__ = ["Findings", "chosen_by", "management", "report_on"]

_PUBLIC = "https://management.azure.com/"
_US_GOVERNMENT = "https://management.usgovcloudapi.net/"
_CHINA = "https://management.chinacloudapi.cn/"
_MANAGEMENT = {
    "login.microsoftonline.us": _US_GOVERNMENT,
    "login.chinacloudapi.cn": _CHINA,
    "login.partner.microsoftonline.cn": _CHINA,
    "AzureUSGovernment": _US_GOVERNMENT,
    "AzureChinaCloud": _CHINA,
}


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found out by asking; *outcome* is what a service gets, which asks the first *reached* sources."""

    program: Program
    asked: Asked
    trials: Sequence[Trial]
    outcome: Outcome
    reached: int
    host: HostFacts
    reach: Sequence[tuple[Reach, Reading | None]]
    cli: AzureCLIFacts
    now: float


def management(surroundings: Surroundings, known: Accounts | None) -> str:
    """Return the Azure Resource Manager of the cloud that the environment, or else the Azure CLI, is set to."""
    authority = surroundings.get("AZURE_AUTHORITY_HOST")
    if authority is None:
        return _PUBLIC if known is None else _MANAGEMENT.get(known[0], _PUBLIC)
    try:
        host = urlsplit(authority if "://" in authority else f"https://{authority}").hostname
    except ValueError:
        host = None
    return _MANAGEMENT.get(host or "", _PUBLIC)


def chosen_by(client_id: str | None, surroundings: Surroundings) -> str:
    """Return what has chosen the sources that are asked."""
    if client_id is not None:
        return "--client-id: that managed identity, and nothing else"
    for variable in (CONNECTION_STRING, SELECTION):
        if surroundings.get(variable) is not None:
            return f"the variable {variable}"
    return f"nothing, so the first that is there ({CONNECTION_STRING} and {SELECTION} are not set)"


def report_on(found: Findings, surroundings: Surroundings) -> Report:
    """Return the report on what was *found*, without any secret."""
    tokens = [trial.outcome.token for trial in found.trials if isinstance(trial.outcome, AccessToken)]
    readings = [reading for _, reading in found.reach if reading is not None]
    addresses = [urlsplit(target.address or "").hostname for target, _ in found.reach if target.what != ENTRA]
    report = Report(
        program=found.program,
        asked=found.asked,
        conclusion=_conclusion(found),
        sources=tuple(_source(found, number, trial) for number, trial in enumerate(found.trials)),
        host=found.host,
        reach=tuple(target for target, _ in found.reach),
        clock=skew(readings, filter(None, map(issued, tokens)), found.now),
        proxies=proxies(surroundings, filter(None, addresses)),
        azure_cli=found.cli,
    )
    client_id = report.asked.client_id or surroundings.get("AZURE_CLIENT_ID")
    switched_on = commands_on(report.host.kind, surroundings, client_id)
    whole = replace(report, advice=advise(report, switched_on, half_said(surroundings)))
    return scrubbed(whole, known_secrets(surroundings, tokens))


def _conclusion(found: Findings) -> Conclusion:
    outcome = found.outcome
    if isinstance(outcome, AccessToken):
        return Conclusion(True, 0, outcome.source, _identity(outcome, found.now))
    return Conclusion(False, exit_code(outcome), outcome.source, error=_error(outcome))


def _source(found: Findings, number: int, trial: Trial) -> SourceFacts:
    outcome, reached = trial.outcome, number < found.reached
    facts = SourceFacts(trial.source.name, "unavailable", reached, round(trial.seconds, 3))
    if isinstance(outcome, AccessToken):
        used = reached and outcome is found.outcome
        return replace(facts, verdict="used" if used else "works", identity=_identity(outcome, found.now))
    absent = isinstance(outcome, SourceUnavailableError)
    return replace(facts, verdict="unavailable" if absent else "failed", error=_error(outcome))


def _identity(token: AccessToken, now: float) -> Identity:
    principal = token.principal
    who = {} if principal is None else asdict(principal)
    return Identity(
        source=token.source, expires_on=token.expires_on, expires_in=round(token.expires_on - now, 3), **who
    )


def _error(error: AiomsiError) -> ErrorFacts:
    return ErrorFacts(type(error).__name__, str(error), error.source, error.status, error.code, error.retry_after)
