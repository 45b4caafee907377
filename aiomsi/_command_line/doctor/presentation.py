"""How a report looks to a person: coloured in a terminal, plain lines elsewhere. Commands are never broken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from aiomsi._command_line.doctor.platforms import title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from aiomsi._command_line.doctor.report import (
        AzureCLIFacts,
        HostFacts,
        Identity,
        ProxyFacts,
        Reach,
        Report,
        SourceFacts,
    )

__all__ = ["show"]

_STYLES = {"used": "bold green", "works": "green", "unavailable": "dim", "failed": "bold red"}
_TITLES = {"fix": "To do", "grant": "Access", "note": "Note"}
_LABEL = 13  # Columns.
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True, slots=True)
class _Line:
    text: Text
    indent: int = 0
    whole: bool = False  # Never to be broken, since it is to be pasted.


def show(report: Report, console: Console) -> None:
    """Print *report*."""
    for line in _lines(report):
        _encodable(line.text, console.encoding)
        if console.is_terminal and not line.whole:
            console.print(Padding(line.text, (0, 0, 0, line.indent)))
        else:
            console.print(Text(" " * line.indent).append_text(line.text), soft_wrap=True)


def _encodable(text: Text, encoding: str) -> None:
    """Let *text* be what can be written in *encoding*."""
    plain = text.plain.encode(encoding, "backslashreplace").decode(encoding)
    if plain != text.plain:
        text.plain = plain


def _lines(report: Report) -> Iterator[_Line]:
    yield from _conclusion(report)
    yield from _advice(report, "fix")
    if report.conclusion.identity is not None:
        yield from _section("Identity", _identity(report.conclusion.identity))
    yield from _title(f"Sources, chosen by {report.asked.chosen_by}")
    for source in report.sources:
        yield from _source(source)
    yield from _section("This machine", _host(report.host))
    yield from _title("Network")
    for target in report.reach:
        yield _row(target.what, _reach(target))
    yield _row("clock", f"{report.clock.meaning} ({report.clock.evidence})")
    yield from (_row("proxy", text) for text in _proxies(report.proxies))
    yield from _section("Azure CLI", _azure_cli(report.azure_cli))
    yield from _advice(report, "grant")
    yield from _advice(report, "note")
    what = report.program
    yield _Line(Text(f"\naiomsi {what.aiomsi}, Python {what.python}, {what.platform}", "dim"))


def _title(text: str) -> Iterator[_Line]:
    yield _Line(Text(f"\n{text}", "bold"))


def _section(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[_Line]:
    yield from _title(title)
    yield from (_row(label, text) for label, text in rows)


def _row(label: str, text: str) -> _Line:
    return _Line(Text(f"{label:{_LABEL}} ").append(text), 2)


def _conclusion(report: Report) -> Iterator[_Line]:
    found, tenant = report.conclusion, report.asked.tenant
    resource = report.asked.resource + (f" in the tenant {tenant}" if tenant else "")
    if found.works:
        yield _Line(Text(f"A token for {resource} can be had, from {found.source}.", "bold green"))
        return
    yield _Line(Text(f"No token for {resource} can be had (exit code {found.exit_code}).", "bold red"))
    if found.error is not None and found.error.message not in [advice.why for advice in report.advice]:
        # The lines after the first are about the sources, which come below.
        first = found.error.message.partition("\n")[0]
        yield _Line(Text(f"{found.error.kind}: {first}"))


def _identity(who: Identity) -> Iterator[tuple[str, str]]:
    if who.type is None:
        yield "principal", "not told by the token, which is opaque"
    else:
        kind = "user" if who.type == "User" else "application"
        yield "principal", f"{kind} {who.user_principal_name or who.app_id or '(no name)'}"
    yield from _known(("client id", who.app_id), ("object id", who.object_id), ("tenant", who.tenant_id))
    yield "expires", f"{_moment(who.expires_on)}, in {_span(who.expires_in)}"


def _source(source: SourceFacts) -> Iterator[_Line]:
    verdict = source.verdict if source.reached or source.verdict != "works" else "would work"
    head = Text(f"{source.name:20} ").append(f"{verdict:{_LABEL}}", _STYLES[source.verdict])
    head.append(f" {source.seconds:6.2f} s")
    if source.identity is not None:
        by = f", from {source.identity.source}" if source.identity.source != source.name else ""
        head.append(f"  as {_who(source.identity)}{by}")
    yield _Line(head, 2)
    if source.error is not None:
        unasked = "" if source.reached else "(not asked by a service here) "
        yield _Line(Text(f"{unasked}{source.error.message}", "dim" if source.verdict == "unavailable" else ""), 4)


def _who(who: Identity) -> str:
    return who.user_principal_name or who.app_id or who.object_id or "somebody whom the token does not name"


def _host(host: HostFacts) -> Iterator[tuple[str, str]]:
    yield "platform", title_of(host.kind) if host.kind else "not one of Azure's, as far as can be told"
    yield "host", f"{host.named}, by the variables" if host.named else "none is named by the variables"
    if host.variables:
        yield "variables", ", ".join(host.variables)
    maker = {True: "a virtual machine on Azure", False: "no machine on Azure", None: "does not tell"}[host.azure_vm]
    yield "firmware", f"{maker} ({host.vendor})" if host.vendor else maker
    if host.arc_agent:
        yield "Azure Arc", "its agent is installed"


def _reach(target: Reach) -> str:
    if target.status is None:
        return target.problem or ""
    whose = {True: ", as it should", False: ", which is not what this service says", None: ""}[target.expected]
    return f"{target.address} answers in {target.seconds:.2f} s (HTTP {target.status}{whose})"


def _proxies(found: ProxyFacts) -> Iterator[str]:
    for proxy in found.proxies:
        used = "used by aiomsi for public services" if proxy.used_by_aiomsi else "not used by aiomsi"
        yield f"{proxy.variable} is {proxy.address}, {used}"
    if found.in_the_way:
        yield f"{found.culprit} is in the way of others to {', '.join(found.in_the_way)}"
    if not found.proxies:
        yield "none"


def _azure_cli(cli: AzureCLIFacts) -> Iterator[tuple[str, str]]:
    yield "path", cli.path or "not found on the PATH"
    if cli.path is not None:
        yield "version", f"{cli.version or cli.problem} ({cli.seconds:.2f} s)"
    if cli.cloud is None:  # Its files cannot be read.
        yield from (("cloud", "not known"), ("account", "not known"))
        return
    yield "cloud", cli.cloud
    if cli.account is None:
        nobody = f"none in this cloud is the default, of {cli.others} known" if cli.others else "nobody is logged in"
        yield "account", nobody
        return
    who = cli.account
    yield "account", f"{who.type or 'account'} {who.user or '(no name)'}"
    yield from _known(("tenant", who.tenant_id))
    yield "subscription", f"{who.subscription or ''} ({who.subscription_id}), of {cli.others + 1}"


def _known(*rows: tuple[str, str | None]) -> Iterator[tuple[str, str]]:
    yield from ((label, text) for label, text in rows if text is not None)


def _advice(report: Report, subject: str) -> Iterator[_Line]:
    for advice in report.advice:
        if advice.subject == subject:
            yield _Line(Text(f"\n{_TITLES[subject]}: ", "bold yellow").append(advice.why, "not bold default"))
            yield from (_Line(Text(command, "cyan"), 4, whole=True) for command in advice.commands)


def _moment(moment: float) -> str:
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f}"


def _span(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
