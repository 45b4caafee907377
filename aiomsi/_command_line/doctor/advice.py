"""What to do about what was found, spelt as the commands to run. Pure: a report in, advice out."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from aiomsi._command_line.doctor.azure_cli_advice import about_azure_cli
from aiomsi._command_line.doctor.entra_advice import about_entra
from aiomsi._command_line.doctor.grants import commands_for, grant_for
from aiomsi._command_line.doctor.host import ENTRA, ENTRA_SOURCES
from aiomsi._command_line.doctor.platforms import title_of
from aiomsi._command_line.doctor.report import Advice, fix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiomsi._command_line.doctor.report import ErrorFacts, ProxyFacts, Report, Skew

__all__ = ["advise"]

_UNAVAILABLE = "SourceUnavailableError"
_LOOK_AT_IMDS = 'curl --noproxy "*" -H Metadata:true "http://169.254.169.254/metadata/instance?api-version=2021-02-01"'
_RUN = re.compile(r"run: (.+)$")
_MACHINES = frozenset(
    {
        "app_service",
        "azure_arc",
        "azure_ml",
        "cloud_shell",
        "imds",
        "managed_identity",
        "service_fabric",
        "workload_identity",
    }
)


def advise(report: Report, switched_on: Sequence[str], half_said: Sequence[str] = ()) -> tuple[Advice, ...]:
    """Return what to do, what helps most first.

    *switched_on* are the commands that switch the identity on here, *half_said* is what the environment lacks.
    """
    found = [*_about_clock(report.clock, report.program.platform)]
    if report.conclusion.identity is not None:
        service = grant_for(report.asked.resource).service
        why = f"if {service} refuses this identity (such as with HTTP 403), grant it what it needs, of these"
        found.append(Advice("grant", why, commands_for(report.asked.resource, report.conclusion.identity)))
    else:
        found += _about_failures(report, switched_on)
    found += (Advice("note", half, ()) for half in half_said)
    found += _about_proxies(report.proxies, report.program.platform)
    return tuple(dict.fromkeys(found))


def _about_failures(report: Report, switched_on: Sequence[str]) -> Iterator[Advice]:
    error = report.conclusion.error
    if not report.sources and error is not None:  # It was not even clear whom to ask.
        yield fix(error.message)
    for source in report.sources:
        if source.reached and source.error is not None:
            yield from _about_source(source.error, report, switched_on)
    shadowed = " and ".join(source.name for source in report.sources if source.verdict == "works")
    if shadowed:
        yield Advice(
            "note",
            f"{shadowed} would give a token, but is not asked, since what goes before it is there and failed; if this"
            " is a developer's machine, choose the developer's tools",
            (_setting("AZURE_TOKEN_CREDENTIALS", "dev", report.program.platform),),
        )


def _about_source(error: ErrorFacts, report: Report, switched_on: Sequence[str]) -> Iterator[Advice]:
    """Return what to do about the *error* of one source that a service would ask."""
    absent = error.kind == _UNAVAILABLE
    known = about_entra(error, report.asked)
    if error.source == "azure_cli":
        # Nobody is to log in on a platform that has an identity of its own.
        if report.host.kind is None or not absent:
            yield from about_azure_cli(error, report.asked, report.azure_cli)
    elif known is not None:
        yield known
    elif error.kind == "EndpointError" and error.source in _MACHINES | ENTRA_SOURCES:
        yield _about_silence(error, report)
    elif error.source in _MACHINES:
        yield from _about_machine(error, report, switched_on)
    elif not absent or len(report.sources) == 1:
        yield fix(error.message, *_RUN.findall(error.message))


def _about_machine(error: ErrorFacts, report: Report, switched_on: Sequence[str]) -> Iterator[Advice]:
    if "multiple user assigned identities" in error.message.lower():
        yield fix(
            "several identities are assigned here; say which one, by its client id",
            "az identity list --query '[].{name: name, clientId: clientId}' --output table",
            _setting("AZURE_CLIENT_ID", "<client id>", report.program.platform),
        )
    elif error.source == "azure_arc" and error.kind == "TokenRefusedError" and error.status is None:
        why = "this process may not read the keys of Azure Arc's agent; log in anew after this"
        yield fix(why, 'sudo usermod --append --groups himds "$USER"')
    elif error.kind not in (_UNAVAILABLE, "TokenRefusedError") or error.status in (401, 403):
        yield fix(error.message)
    elif report.host.kind is not None:  # Otherwise nothing here looks like Azure.
        kind = title_of(report.host.kind)
        why = f"no such identity is switched on here ({kind}); switch it on, and restart what runs there"
        yield fix(why, *switched_on)


def _about_silence(error: ErrorFacts, report: Report) -> Advice:
    if error.status is not None:
        wait = "a while" if error.retry_after is None else f"{error.retry_after:g} s"
        return fix(f"{error.source} is there but cannot serve now (HTTP {error.status}); ask again in {wait}")
    if error.source in ENTRA_SOURCES:
        why = "Entra ID does not answer; is there a firewall, or a proxy that HTTPS_PROXY should name?"
        address = next((target.address for target in report.reach if target.what == ENTRA), None)
        return fix(why, f"curl --head {shlex.quote(address or 'https://login.microsoftonline.com')}")
    if error.source == "imds":
        why = "the Instance Metadata Service does not answer; is there a firewall, or the network of a container?"
        return fix(why, _LOOK_AT_IMDS, "ip route get 169.254.169.254")
    if error.source == "azure_arc":
        return fix("the agent of Azure Arc does not answer", "azcmagent check", "sudo systemctl restart himdsd")
    return fix(f"the identity endpoint ({title_of(report.host.kind)}) does not answer; restart what runs there")


def _about_clock(clock: Skew, platform: str) -> Iterator[Advice]:
    if clock.matters:
        commands = {"win32": "w32tm /resync", "darwin": "sudo sntp -sS time.apple.com"}
        command = commands.get(platform, "sudo timedatectl set-ntp true")
        yield fix(f"this machine's clock is {clock.meaning}; set it", command)


def _about_proxies(proxies: ProxyFacts, platform: str) -> Iterator[Advice]:
    if not proxies.in_the_way:
        return
    hosts, variable = ",".join(proxies.in_the_way), proxies.exceptions or "NO_PROXY"
    before = f"{'$env:' if platform == 'win32' else '$'}{variable}," if proxies.exceptions else ""
    yield Advice(
        "note",
        f"aiomsi asks {hosts} past every proxy, but others, such as curl, requests and azure-identity, may ask through"
        f" that of {proxies.culprit}, which sees the secret and has no answer",
        (_setting(variable, f"{before}{hosts}", platform),),
    )


def _setting(variable: str, value: str, platform: str) -> str:
    """Return the command that sets *variable*, in PowerShell on Windows."""
    return f'$env:{variable} = "{value}"' if platform == "win32" else f'export {variable}="{value}"'
