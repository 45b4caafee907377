"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiomsi._command_line import token_command
from aiomsi._command_line.outcome import EXIT_CODES_HELP, interruptible, logs_shown, run
from aiomsi._command_line.serve.options import ServeOptions, problem
from aiomsi._command_line.serve.variables import FORMATS, Variables

__all__ = ["cli"]

_PORT = click.IntRange(0, 65_535)
_SECONDS = click.FloatRange(min=0, max=1e9)


def _text(value: str) -> str:
    """Return *value*, but refuse what a shell makes of a variable that is not set."""
    if not value:
        raise click.BadParameter("it is empty; leave it out instead")
    return value


def _path(value: str) -> Path:
    return Path(_text(value))


@click.group(
    invoke_without_command=True, epilog=EXIT_CODES_HELP, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="aiomsi", prog_name="aiomsi", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Azure managed identity tokens: one request whatever the crowd, refreshed before anyone has to wait."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(epilog=EXIT_CODES_HELP)
@click.argument("resource")
@click.option(
    "--output",
    type=click.Choice(list(token_command.FORMATS)),
    default="token",
    show_default=True,
    help="The token alone, all that is known of it, or an Authorization header.",
)
@click.option("--client-id", metavar="ID", help="Use this user-assigned managed identity, and nothing else.")
@click.option(
    "--tenant", type=_text, metavar="TENANT", help="Ask for a token of this tenant, where the source can choose one."
)
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what is being done.")
def token(resource: str, output: str, client_id: str | None, tenant: str | None, *, verbose: bool) -> None:
    """Print a token for RESOURCE, such as https://vault.azure.net.

    It comes from what a service here would use: what the environment names, the managed identity of this machine, or
    else the developer's login (az login, or that of another tool).
    """
    with logs_shown(shown=verbose):
        held = run(token_command.fetch(resource, client_id=client_id, tenant=tenant))
    click.echo(token_command.FORMATS[output](held))


@cli.command(epilog=EXIT_CODES_HELP)
@click.argument("resource", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object, for a support ticket.")
@click.option("--client-id", metavar="ID", help="Examine this user-assigned managed identity, and nothing else.")
@click.option(
    "--tenant", type=_text, metavar="TENANT", help="Ask for tokens of this tenant, where a source can choose one."
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.IntRange(1, 600),
    default=30,
    show_default=True,
    help="How many seconds each source may take.",
)
def doctor(
    resource: str | None,
    client_id: str | None,
    tenant: str | None,
    timeout: int,
    *,
    as_json: bool,
) -> None:
    """Tell why a token for RESOURCE can or cannot be had here, and what to do.

    Without RESOURCE it is Azure Resource Manager's, for which every identity can get one. All sources are asked, those
    too that a service here would not come to; no secret is shown. The exit code is 0 if a service here would get a
    token.
    """
    with interruptible(), logs_shown(shown=False):
        from aiomsi._command_line.doctor.command import examined  # noqa: PLC0415  (for the same reason as below)

        report = examined(resource, client_id=client_id, tenant=tenant, limit=timeout, json=as_json)
    raise SystemExit(report.conclusion.exit_code)


@cli.command()
@click.option(
    "--callers",
    type=click.IntRange(1, 100_000),
    default=10_000,
    show_default=True,
    help="How many ask for the first token at the same time.",
)
def demo(callers: int) -> None:
    """Show a crowd, a refresh and an outage, live.

    Takes less than 15 seconds. Everything stays on this machine: the endpoint is a process of its own that hands out
    fake tokens. The exit code is 1 if the crowd took more than one request, or if any caller had to wait for a refresh
    or saw an error.
    """
    with interruptible(), logs_shown(shown=False):
        from aiomsi._command_line.demo import play  # noqa: PLC0415  (rich takes its time, which `aiomsi token` has not)
        from aiomsi._command_line.measurement import Record  # noqa: PLC0415
        from aiomsi._command_line.presentation import show  # noqa: PLC0415

        record = Record(callers)
        with show(record) as announce:
            run(play(record, announce))
    raise SystemExit(0 if record.kept else 1)


@cli.command(epilog=EXIT_CODES_HELP)
@click.option(
    "--source",
    type=_text,
    metavar="SOURCE",
    help="Whose tokens: dev (the usual), prod, or a name as in AZURE_TOKEN_CREDENTIALS (azure_cli, azure_developer_cli,"
    " azure_powershell, visual_studio, integrated, managed_identity, workload_identity, environment); default is"
    " whatever TokenProvider() would take.",
)
@click.option(
    "--tenant", type=_text, metavar="TENANT", help="Give out tokens of this tenant, where the source can choose one."
)
@click.option("--allow", metavar="RESOURCE", multiple=True, help="Give out tokens for this resource alone; repeatable.")
@click.option("--imds", is_flag=True, help="Speak the protocol of IMDS too, which has no secret; needs --allow.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=_PORT, default=0, help="The port; 0, as usual, is a free one.")
@click.option("--imds-port", type=_PORT, default=0, help="The port of IMDS, which has one of its own.")
@click.option(
    "--host-name",
    "host_names",
    metavar="NAME",
    multiple=True,
    help="A name by which clients may ask, too; the first is the one that they are told.",
)
@click.option("--beyond-loopback", is_flag=True, help="Let --host be an address that others can reach.")
@click.option(
    "--socket", type=_path, metavar="PATH", help="Listen at this Unix socket instead, which is for you alone."
)
@click.option(
    "--output",
    type=click.Choice(list(FORMATS)),
    default="env",
    show_default=True,
    help="The form in which to print what clients must set.",
)
@click.option("--emulate", is_flag=True, help="Give out fake tokens, and nobody's real ones.")
@click.option(
    "--play",
    metavar="HOST",
    multiple=True,
    help="Emulator: play this host (app_service, app_service_2017, imds, azure_arc, azure_ml, cloud_shell,"
    " service_fabric, entra) instead of the first three; repeatable.",
)
@click.option("--root", type=_path, metavar="PATH", help="Emulator: the folder for the files of Arc and Entra.")
@click.option(
    "--lifetime",
    type=click.FloatRange(min=0, min_open=True, max=1e9),
    metavar="SECONDS",
    help="Emulator: how long tokens are good.",
)
@click.option("--latency", type=_SECONDS, metavar="SECONDS", help="Emulator: how long each answer takes.")
@click.option(
    "--script",
    metavar="STEP",
    multiple=True,
    help="Emulator: what goes wrong with the next request (429:3, 503, hang, skew:-600, …) or with some of them"
    " (503@2-4, hang@10s-40s); repeatable; the README has a table.",
)
@click.option("--date-text", is_flag=True, help="Emulator: write expiry as a date in App Service's older protocol.")
def serve(**options: Any) -> None:
    """Give the tokens of your `az login` to containers, and to programs in any language.

    Speaks App Service's protocols, so that every Azure SDK takes it for a managed identity. Prints what clients must
    set, then serves until it is told to end, and shows who asks for what. Each resource is fetched once for all
    clients, and refreshed before they have to wait.
    """
    wanted = ServeOptions(**options)
    wrong = problem(wanted)
    if wrong is not None:
        raise click.UsageError(wrong)

    def announce(variables: Variables) -> None:
        click.echo(FORMATS[wanted.output](variables))

    with interruptible(), logs_shown(shown=False):
        from aiomsi._command_line.serve.command import serve  # noqa: PLC0415  (as above)

        run(serve(wanted, announce))
