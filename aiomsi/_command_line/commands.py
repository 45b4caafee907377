"""The commands and their options."""

from __future__ import annotations

import click

from aiomsi._command_line import token_command
from aiomsi._command_line.outcome import EXIT_CODES_HELP, interruptible, logs_shown, run

__all__ = ["cli"]


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
@click.option("--tenant", metavar="TENANT", help="Ask for a token of this tenant, where the source can choose one.")
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what is being done.")
def token(resource: str, output: str, client_id: str | None, tenant: str | None, *, verbose: bool) -> None:
    """Print a token for RESOURCE, such as https://vault.azure.net.

    It comes from what a service here would use: the managed identity of this machine, or else the Azure CLI.
    """
    with logs_shown(shown=verbose):
        held = run(token_command.fetch(resource, client_id=client_id, tenant=tenant))
    click.echo(token_command.FORMATS[output](held))


@cli.command(epilog=EXIT_CODES_HELP)
@click.argument("resource", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object, for a support ticket.")
@click.option("--client-id", metavar="ID", help="Examine this user-assigned managed identity, and nothing else.")
@click.option("--tenant", metavar="TENANT", help="Ask for tokens of this tenant, where a source can choose one.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.IntRange(1, 600),
    default=30,
    show_default=True,
    help="How many seconds each source may take.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what is being done.")
def doctor(
    resource: str | None,
    client_id: str | None,
    tenant: str | None,
    timeout: int,
    *,
    as_json: bool,
    verbose: bool,
) -> None:
    """Tell why a token for RESOURCE can or cannot be had here, and what to do.

    Without RESOURCE it is Azure Resource Manager's, for which every identity can get one. All sources are asked, those
    too that a service here would not come to; no secret is shown. The exit code is 0 if a service here would get a
    token.
    """
    with interruptible(), logs_shown(shown=verbose):
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
    from aiomsi._command_line.demo import play  # noqa: PLC0415  (rich takes its time, which `aiomsi token` has not)
    from aiomsi._command_line.measurement import Record  # noqa: PLC0415
    from aiomsi._command_line.presentation import show  # noqa: PLC0415

    record = Record(callers)
    with logs_shown(shown=False), show(record) as announce:
        run(play(record, announce))
    raise SystemExit(0 if record.kept else 1)
