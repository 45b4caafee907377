"""`aiomsi doctor` as a whole: over the emulator and scripted tools, from the examination to what is printed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from click.testing import CliRunner
from rich.console import Console
from support import nowhere
from test_azure_cli_profile import account
from test_tools import StandIn, jwt

from aiomsi import AccessToken
from aiomsi._command_line.commands import cli
from aiomsi._command_line.doctor import verdicts
from aiomsi._command_line.doctor.examination import examine
from aiomsi._command_line.doctor.presentation import show
from aiomsi._command_line.doctor.report import Report, as_json
from aiomsi.endpoint import Answer, Gate, IdentityEndpoint
from aiomsi.sources import AzureCLI, FirstAvailable, Surroundings, default
from aiomsi.testing import ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

VAULT = "https://vault.azure.net"
ARM = "https://management.azure.com/"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
TENANT = "11111111-aaaa-4bbb-8ccc-000000000001"
AZURE_CHASSIS = "7783-7084-3265-9085-8269-3286-77"
LOG_IN = "ERROR: Please run 'az login' to setup account.\n"


class Machine:
    """A machine of which a test decides everything: its variables, its files, and what answers as IMDS."""

    def __init__(self, folder: Path, imds_url: str) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {"PATH": str(folder / "bin"), "HOME": "/home/me"}
        self.imds_url = imds_url
        (folder / "bin").mkdir()
        (folder / "home/me/.azure").mkdir(parents=True)
        (folder / "sys/class/dmi/id").mkdir(parents=True)

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(
            environ=self.environ, platform="linux", root=self.folder, imds_url=self.imds_url, arc_url=self.imds_url
        )

    def firmware(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / "sys/class/dmi/id" / name).write_text(text)

    def az(self, stdout: str = "", *, version: str = '{"azure-cli": "2.91.0"}', **ending: Any) -> StandIn:
        """Install an `az` that prints *stdout* for a token."""
        tool = StandIn(self.folder / "bin", AzureCLI, "az", stdout)
        tool.says(stdout, **ending)
        says = tool.path.read_text().partition("\n")[2]
        tool.path.write_text(f"#!/bin/sh\nif [ \"$1\" = version ]; then echo '{version}'; exit 0; fi\n{says}")
        return tool

    def holds(self, *accounts: dict[str, Any], cloud: str | None = None) -> None:
        """Let these be the accounts of the Azure CLI."""
        home = self.folder / "home/me/.azure"
        (home / "azureProfile.json").write_text(json.dumps({"subscriptions": accounts}))
        if cloud is not None:
            (home / "config").write_text(f"[cloud]\nname = {cloud}\n")

    async def examine(self, resource: str | None = VAULT, **options: Any) -> Report:
        async with asyncio.timeout(30):
            return await examine(resource, surroundings=self.surroundings, **options)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with nowhere() as url:
        yield Machine(tmp_path, url)


@asynccontextmanager
async def host(machine: Machine, kind: str, **options: Any) -> AsyncIterator[IdentityEndpoint]:
    """Let *machine* be one with a host of this *kind*."""
    async with IdentityEndpoint(hosts=[kind], root=machine.folder, **options) as endpoint:
        machine.environ |= endpoint.environ(kind)
        yield endpoint


def printed(**claims: Any) -> str:
    """Return what `az` prints for a token of a user."""
    who = {"oid": "an-object", "upn": "me@contoso.com", "tid": TENANT, "scp": "user_impersonation", **claims}
    return json.dumps({"accessToken": jwt(**who), "expires_on": int(time.time()) + 3600})


def shown(report: Report, *, terminal: bool = False) -> str:
    """Return what a person sees of *report*."""
    written = StringIO()
    show(report, Console(file=written, force_terminal=terminal, width=100, highlight=False))
    return written.getvalue()


def commands(report: Report, subject: str = "fix") -> list[str]:
    return [command for advice in report.advice if advice.subject == subject for command in advice.commands]


def verdict(report: Report, name: str) -> tuple[str, bool]:
    found = next(source for source in report.sources if source.name == name)
    return found.verdict, found.reached


# What works


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("app_service", "app_service"),
        ("app_service_2017", "azure_ml"),
        ("imds", "imds"),
        ("azure_arc", "azure_arc"),
        ("cloud_shell", "cloud_shell"),
        ("service_fabric", "service_fabric"),
        ("entra", "workload_identity"),
    ],
)
async def test_every_host_is_told(machine: Machine, kind: str, source: str) -> None:
    """The report names the host, the variables that tell of it, the identity, and how to give it access."""
    async with host(machine, kind) as endpoint:
        report = await machine.examine()
    assert (report.conclusion.works, report.conclusion.exit_code, report.conclusion.source) == (True, 0, source)
    assert verdict(report, "managed_identity") == ("used", True)
    assert set(endpoint.environ(kind)) - {"SSL_CERT_FILE"} <= set(report.host.variables)
    assert report.host.named == source
    assert report.host.kind is not None
    identity = report.conclusion.identity
    assert identity is not None
    assert 86_000 < identity.expires_in < 86_401
    assert any(identity.object_id in command for command in commands(report, "grant"))  # type: ignore[operator]
    assert (report.clock.meaning, report.clock.matters) == ("right", False)
    assert len(endpoint.token_requests) == 1


async def test_a_host_is_asked_without_its_secret_whether_it_is_there(machine: Machine) -> None:
    """To see its answer and its clock, a host is sent a request that holds nothing."""
    async with host(machine, "app_service") as endpoint:
        report = await machine.examine()
    bare = [request for request in endpoint.requests if request not in endpoint.token_requests]
    assert [(request.parameters, "x-identity-header" in request.headers) for request in bare] == [({}, False)]
    assert (report.reach[0].what, report.reach[0].address, report.reach[0].status) == (
        "app_service",
        endpoint.url,
        400,
    )


async def test_imds_is_not_asked_where_another_host_is_named(machine: Machine) -> None:
    """What a service here would not ask is not asked, and the report says so."""
    async with host(machine, "app_service"):
        report = await machine.examine()
    imds = report.reach[-1]
    assert (imds.what, imds.asked, imds.problem) == ("imds", False, "not asked, since App Service goes before it")


async def test_nobody_is_asked_where_no_managed_identity_is_wanted(machine: Machine) -> None:
    """Where the environment chooses a developer's tool, neither IMDS nor a host that a variable names is asked."""
    machine.environ["AZURE_TOKEN_CREDENTIALS"] = "azurecli"
    async with host(machine, "app_service") as endpoint:
        report = await machine.examine()
    assert endpoint.requests == []
    assert [target.problem for target in report.reach] == ["not asked, since no managed identity is wanted"]


async def test_imds_is_known_by_its_answer(machine: Machine) -> None:
    """An answer of IMDS's own is told from one of something else at its address."""
    async with IdentityEndpoint(hosts=["imds", "app_service"]) as endpoint:
        machine.imds_url = endpoint.url
        genuine = await machine.examine()
    async with IdentityEndpoint(hosts=["azure_ml"]) as endpoint:
        machine.imds_url = endpoint.url
        imitation = await machine.examine()
    assert genuine.reach[0].expected is True
    assert genuine.conclusion.source == "imds"
    assert imitation.reach[0].expected is False
    assert imitation.conclusion.exit_code == 3
    assert "not what this service says" in shown(imitation)


async def test_the_firmware_of_another_maker(machine: Machine) -> None:
    """On a machine that is not Azure's, IMDS is not asked at all, and the report names the maker."""
    machine.firmware(sys_vendor="Contoso Computers\n")
    report = await machine.examine()
    assert (report.host.vendor, report.host.azure_vm) == ("Contoso Computers", False)
    assert report.reach[-1].problem == "not asked, since the firmware says that this is no machine on Azure"
    assert "its firmware names another maker" in report.sources[0].error.message  # type: ignore[union-attr]
    assert "no machine on Azure (Contoso Computers)" in shown(report)


async def test_a_developer(machine: Machine) -> None:
    """Who is logged in to `az` is told with all that its files say, and no token is shown."""
    tool = machine.az(printed())
    machine.holds(account(2), account(1))
    report = await machine.examine()
    assert report.conclusion.source == "azure_cli"
    assert report.azure_cli == replace(
        report.azure_cli, path=str(tool.path), version="2.91.0", cloud="AzureCloud", others=1, problem=None
    )
    found = report.azure_cli.account
    assert found is not None
    assert (found.user, found.type, found.tenant_id) == ("me@contoso.com", "user", TENANT)
    assert (found.subscription, found.subscription_id) == ("Subscription 1", account(1)["id"])
    text = shown(report)
    assert "user me@contoso.com" in text
    assert "2.91.0" in text
    assert "signature" not in text + as_json(report)
    assert any("--assignee-principal-type User" in command for command in commands(report, "grant"))


async def test_sources_after_the_first_are_tried_too(machine: Machine) -> None:
    """Whoever else would have a token is told, and that a service here does not ask them."""
    machine.az(printed())
    async with host(machine, "app_service"):
        report = await machine.examine()
    assert verdict(report, "managed_identity") == ("used", True)
    assert verdict(report, "azure_cli") == ("works", False)
    assert verdict(report, "azure_developer_cli") == ("unavailable", False)
    assert re.search(r"azure_cli +would work +[\d.]+ s  as me@contoso.com", shown(report))


async def test_the_first_that_is_there_is_the_one_that_a_service_uses(machine: Machine) -> None:
    """Whatever the machine, the doctor says what `TokenProvider()` does."""
    machine.az(printed())
    report = await machine.examine()
    token = await default(surroundings=machine.surroundings).fetch(ask())
    assert report.conclusion.source == token.source == "azure_cli"


def ask() -> Any:
    from aiomsi.sources import TokenRequest

    return TokenRequest(VAULT)


async def test_an_opaque_token_names_nobody(machine: Machine) -> None:
    """Where the token says nothing about its owner, the report says that, and leaves room in the commands."""
    machine.az(json.dumps({"accessToken": "opaque", "expires_on": int(time.time()) + 60}))
    report = await machine.examine()
    text = shown(report)
    assert "not told by the token, which is opaque" in text
    assert "as somebody whom the token does not name" in text
    assert "<object id>" in commands(report, "grant")[0]


# What chooses


async def test_the_connection_string_is_named_as_the_reason(machine: Machine) -> None:
    """A connection string decides alone; its name is shown, and nothing of its value."""
    machine.az(printed())
    machine.environ["AzureServicesAuthConnectionString"] = "RunAs=Developer;DeveloperTool=AzureCli"
    report = await machine.examine()
    assert [source.name for source in report.sources] == ["azure_cli"]
    assert report.asked.chosen_by == "the variable AzureServicesAuthConnectionString"
    assert "DeveloperTool" not in shown(report) + as_json(report)


async def test_the_selection_is_named_as_the_reason(machine: Machine) -> None:
    """AZURE_TOKEN_CREDENTIALS selects, and the report says that it did."""
    machine.environ["AZURE_TOKEN_CREDENTIALS"] = "dev"
    report = await machine.examine()
    assert report.sources[0].name == "azure_cli"
    assert report.asked.chosen_by == "the variable AZURE_TOKEN_CREDENTIALS"


async def test_a_wrong_selection_is_told(machine: Machine) -> None:
    """An environment that chooses nothing that exists is the diagnosis; everything else is told all the same."""
    machine.environ["AZURE_TOKEN_CREDENTIALS"] = "nonsense"
    report = await machine.examine()
    assert (report.conclusion.exit_code, report.sources) == (4, ())
    assert "AZURE_TOKEN_CREDENTIALS is 'nonsense'" in report.advice[0].why
    assert shown(report).count("AZURE_TOKEN_CREDENTIALS is 'nonsense'") == 1


async def test_client_id_means_that_managed_identity(machine: Machine) -> None:
    """With a client id one managed identity is asked, as by `aiomsi token`."""
    machine.environ["AzureServicesAuthConnectionString"] = "RunAs=Developer;DeveloperTool=AzureCli"
    async with host(machine, "app_service"):
        report = await machine.examine(client_id=CLIENT_ID)
    assert report.conclusion.identity.app_id == CLIENT_ID  # type: ignore[union-attr]
    assert report.asked.chosen_by.startswith("--client-id")


async def test_the_tenant_goes_to_those_who_can_choose(machine: Machine) -> None:
    """A tenant is asked of the tools, and not of a managed identity."""
    tool = machine.az(printed())
    async with host(machine, "app_service"):
        await machine.examine(tenant="contoso.example")
    assert "contoso.example" in tool.asked[0]


@pytest.mark.parametrize(
    ("environ", "cloud", "expected"),
    [
        ({}, None, ARM),
        ({"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us/"}, None, "https://management.usgovcloudapi.net/"),
        ({"AZURE_AUTHORITY_HOST": "login.chinacloudapi.cn"}, None, "https://management.chinacloudapi.cn/"),
        ({"AZURE_AUTHORITY_HOST": "https://["}, None, ARM),
        ({}, "AzureUSGovernment", "https://management.usgovcloudapi.net/"),
        ({"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com"}, "AzureChinaCloud", ARM),
        ({"HOME": ""}, "AzureChinaCloud", ARM),
    ],
)
async def test_the_default_resource_is_that_of_the_cloud(
    machine: Machine, environ: dict[str, str], cloud: str | None, expected: str
) -> None:
    """Without a resource it is Azure Resource Manager's, for which every identity can get a token."""
    machine.environ |= environ
    machine.holds(cloud=cloud)
    assert (await machine.examine(None)).asked.resource == expected


async def test_files_of_az_that_make_no_sense_are_passed_over(machine: Machine) -> None:
    """A profile that is half written does not keep the doctor from the rest."""
    (machine.folder / "home/me/.azure/azureProfile.json").write_text("{")
    report = await machine.examine(None)
    assert (report.azure_cli.cloud, report.azure_cli.account) == (None, None)
    assert "cloud         not known" in shown(report)


# What fails, and what to do


async def test_nobody_is_there(machine: Machine) -> None:
    """On a machine with nothing at all, all sources are listed with why, and the thing to do is to log in."""
    report = await machine.examine()
    assert report.conclusion.exit_code == 3
    assert {verdict(report, source.name) for source in report.sources} == {("unavailable", True)}
    assert commands(report) == ["az login"]
    assert report.clock.seconds is None
    text = shown(report)
    assert f"No token for {VAULT} can be had (exit code 3)." in text
    assert "To do: install the Azure CLI" in text


async def test_an_identity_that_is_not_switched_on(machine: Machine) -> None:
    """An app without an identity has no variables for one, but others that tell what it is, and its name."""
    machine.environ |= {"WEBSITE_SITE_NAME": "orders", "WEBSITE_RESOURCE_GROUP": "shop"}
    report = await machine.examine()
    assert (report.host.named, report.host.kind) == (None, "app_service")
    assert commands(report) == ["az webapp identity assign --resource-group shop --name orders"]
    assert "To do: no such identity is switched on here (App Service)" in shown(report)


async def test_a_machine_without_an_identity(machine: Machine) -> None:
    """A virtual machine that knows no identity gets one by a command."""
    machine.firmware(chassis_asset_tag=AZURE_CHASSIS)
    async with IdentityEndpoint(hosts=["imds"]) as endpoint:
        machine.imds_url = endpoint.url
        endpoint.script(then=Answer(400, {"error": "invalid_request", "error_description": "Identity not found"}))
        report = await machine.examine()
    assert (report.host.azure_vm, report.conclusion.exit_code) == (True, 3)
    assert "az vm identity assign --resource-group <group> --name <machine>" in commands(report)
    assert not any("az login" in command for command in commands(report))


async def test_a_user_assigned_identity_that_is_not_assigned(machine: Machine) -> None:
    """With a client id the commands find that identity and assign it."""
    refused = Answer(400, {"error": "invalid_request", "error_description": "Identity not found"})
    async with host(machine, "imds") as endpoint:
        endpoint.script(then=refused)
        report = await machine.examine(client_id=CLIENT_ID)
    assert report.conclusion.exit_code == 5
    assert commands(report) == [
        f"az identity list --query \"[?clientId=='{CLIENT_ID}'].id\" --output tsv",
        "az vm identity assign --resource-group <group> --name <machine> --identities <id of the identity>",
        "az vmss identity assign --resource-group <group> --name <scale set> --identities <id of the identity>",
    ]


async def test_several_identities(machine: Machine) -> None:
    """Where the machine has several identities, one has to be named."""
    text = "Multiple user assigned identities exist, please specify the clientId / resourceId"
    async with host(machine, "imds") as endpoint:
        endpoint.script(then=Answer(400, {"error": "invalid_request", "error_description": text}))
        report = await machine.examine()
    assert 'export AZURE_CLIENT_ID="<client id>"' in commands(report)


async def test_a_host_that_refuses_and_a_tool_that_would_not(machine: Machine) -> None:
    """A refusal stops a service; that a developer's tool would work is a note, not a success."""
    machine.az(printed())
    async with host(machine, "app_service"):
        machine.environ["IDENTITY_HEADER"] = "the wrong one"
        report = await machine.examine()
    assert report.conclusion.exit_code == 5
    assert verdict(report, "managed_identity") == ("failed", True)
    assert verdict(report, "azure_cli") == ("works", False)
    assert "restart the app" in report.advice[0].why
    assert commands(report, "note") == ['export AZURE_TOKEN_CREDENTIALS="dev"']


async def test_a_host_that_cannot_serve_now(machine: Machine) -> None:
    """An outage is told with how long to wait."""
    async with host(machine, "app_service") as endpoint:
        endpoint.script(then=Answer(503, headers={"Retry-After": "3600"}))
        report = await machine.examine()
    assert report.conclusion.exit_code == 7
    assert report.advice[0].why == "app_service is there but cannot serve now (HTTP 503); ask again in 3600 s"


async def test_a_host_that_is_silent(machine: Machine) -> None:
    """An endpoint that a variable names and that is not there is an outage, within the time that was given."""
    machine.environ |= {"IDENTITY_ENDPOINT": f"{machine.imds_url}/msi/token", "IDENTITY_HEADER": "a-secret"}
    report = await machine.examine(limit=0.5)
    assert report.conclusion.exit_code == 7
    assert report.advice[0].why.startswith("the identity endpoint (App Service) does not answer")
    assert "refused the connection" in (report.reach[0].problem or "")


async def test_imds_that_is_silent_on_azure(machine: Machine) -> None:
    """On a virtual machine on Azure the way to the metadata service is to be looked at."""
    machine.firmware(chassis_asset_tag=AZURE_CHASSIS)
    report = await machine.examine(limit=0.5)
    assert report.conclusion.exit_code == 7
    assert "ip route get 169.254.169.254" in commands(report)


async def test_an_agent_of_azure_arc_that_is_silent(machine: Machine) -> None:
    """The agent's program tells of it without any variable; if it does not answer, it is to be restarted."""
    program = machine.folder / "opt/azcmagent/bin/himds"
    program.parent.mkdir(parents=True)
    program.touch()
    report = await machine.examine(limit=0.5)
    assert (report.host.arc_agent, report.host.kind, report.reach[0].what) == (True, "azure_arc", "azure_arc")
    assert "sudo systemctl restart himdsd" in commands(report)
    assert "its agent is installed" in shown(report)


async def test_a_key_of_azure_arc_that_may_not_be_read(machine: Machine) -> None:
    """Who may not read the agent's keys has to be one of its group."""
    async with host(machine, "azure_arc") as endpoint:
        keys = machine.folder / "var/opt/azcmagent/tokens"
        endpoint.script()
        keys.rename(keys.with_name("elsewhere"))
        keys.symlink_to(keys.with_name("elsewhere"))
        (keys.with_name("elsewhere")).chmod(0o755)
        machine.environ["HOME"] = "/home/me"
        elsewhere = replace(machine.surroundings, root=machine.folder / "home")
        report = await examine(VAULT, surroundings=elsewhere)
    assert report.conclusion.exit_code == 5
    assert commands(report) == ['sudo usermod --append --groups himds "$USER"']


async def test_a_federated_credential_that_is_missing(machine: Machine) -> None:
    """The command that adds it has the issuer and the subject of the very token that was refused."""
    text = "AADSTS70021: No matching federated identity record found for presented assertion."
    async with host(machine, "entra") as endpoint:
        endpoint.script(then=Answer(400, {"error": "invalid_client", "error_description": text}))
        report = await machine.examine()
    assert report.conclusion.exit_code == 5
    (command,) = commands(report)
    assert command.startswith("az identity federated-credential create")
    assert "--issuer https://oidc.fa4efa4e.invalid/ --subject system:serviceaccount:default:demo" in command


async def test_an_application_with_a_wrong_secret(machine: Machine) -> None:
    """A secret that Entra refuses is replaced by a command; what it was is not shown."""
    text = "AADSTS7000215: Invalid client secret provided. Ensure the secret is the value: not-the-secret"
    async with host(machine, "entra") as endpoint:
        del machine.environ["AZURE_FEDERATED_TOKEN_FILE"]
        machine.environ["AZURE_CLIENT_SECRET"] = "not-the-secret"
        endpoint.script(then=Answer(401, {"error": "invalid_client", "error_description": text}))
        report = await machine.examine()
    assert verdict(report, "client_secret") == ("failed", True)
    assert report.reach[0].what == "entra"
    assert commands(report) == ['az ad app credential reset --append --id "$AZURE_CLIENT_ID"']
    assert "not-the-secret" not in shown(report) + as_json(report)


@pytest.mark.parametrize("secret", [None, "not-the-secret"])
async def test_entra_that_is_silent(machine: Machine, secret: str | None) -> None:
    """An application and a workload ask Entra itself, and nothing on this machine could be restarted for it."""
    async with host(machine, "entra") as endpoint:
        authority = endpoint.tls_url
    if secret is not None:
        del machine.environ["AZURE_FEDERATED_TOKEN_FILE"]
        machine.environ["AZURE_CLIENT_SECRET"] = secret
    report = await machine.examine(limit=1)
    assert report.conclusion.exit_code == 7
    assert commands(report) == [f"curl --head {authority}"]


async def test_an_application_that_is_not_whole(machine: Machine) -> None:
    """Where the environment does not say whom to ask, that is told in place of an answer."""
    machine.environ |= {"AZURE_TOKEN_CREDENTIALS": "workloadidentity"}
    report = await machine.examine()
    entra = report.reach[0]
    assert (entra.what, entra.asked, entra.address) == ("entra", False, None)
    assert "AZURE_CLIENT_ID" in (entra.problem or "")


# The Azure CLI


async def test_nobody_is_logged_in_to_az(machine: Machine) -> None:
    """Nobody is logged in: `az login`, with the tenant that was asked for."""
    machine.az(stderr=LOG_IN, exit_code=1)
    assert commands(await machine.examine()) == ["az login"]
    assert commands(await machine.examine(tenant="contoso.example")) == ["az login --tenant contoso.example"]


async def test_a_login_that_has_expired(machine: Machine) -> None:
    """A refused login is made again for the tenant of the account, and for what was refused."""
    machine.az(stderr="ERROR: AADSTS700082: The refresh token has expired.\n", exit_code=1)
    machine.holds(account(1))
    report = await machine.examine()
    assert report.conclusion.exit_code == 5
    assert commands(report) == [f"az login --tenant {TENANT} --scope {VAULT}/.default"]


async def test_a_login_of_another_tenant(machine: Machine) -> None:
    """Who asks for another tenant than the one of the account logs in there, and chooses a subscription of it."""
    machine.az(stderr="ERROR: AADSTS50076: another factor\n", exit_code=1)
    machine.holds(account(1))
    report = await machine.examine(tenant="contoso.example")
    assert commands(report) == [f"az login --tenant contoso.example --scope {VAULT}/.default"]
    assert commands(report, "note") == ["az account set -s <subscription>"]


async def test_no_default_subscription(machine: Machine) -> None:
    """Accounts without a default one: choose one."""
    machine.az(stderr=LOG_IN, exit_code=1)
    machine.holds(account(2), account(3))
    report = await machine.examine()
    assert commands(report) == ["az account list --all --output table", "az account set -s <subscription>"]
    assert "none in this cloud is the default, of 2 known" in shown(report)


async def test_a_login_in_another_cloud(machine: Machine) -> None:
    """Accounts of another cloud than the active one: activate it."""
    machine.az(stderr=LOG_IN, exit_code=1)
    machine.holds(account(1, environmentName="AzureChinaCloud"), cloud="AzureCloud")
    assert commands(await machine.examine()) == ["az cloud set --name AzureChinaCloud"]


async def test_a_resource_that_the_tenant_does_not_know(machine: Machine) -> None:
    """A misspelt resource is no reason to log in again."""
    machine.az(stderr="ERROR: AADSTS500011: The resource principal was not found.\n", exit_code=1)
    (command,) = commands(await machine.examine())
    assert command.startswith("az ad sp list --filter")
    assert VAULT in command


async def test_a_login_whose_files_cannot_be_found(machine: Machine) -> None:
    """Whom Entra refuses is logged in, wherever az keeps its files."""
    machine.az(stderr="ERROR: AADSTS50076: another factor\n", exit_code=1)
    report = await machine.examine()
    assert [advice.why for advice in report.advice] == ["the login of the Azure CLI is not good for this; log in"]


async def test_files_of_az_that_cannot_be_read_tell_nothing(machine: Machine) -> None:
    """What is not known is not told as if nobody were logged in."""
    machine.az(printed())
    (machine.folder / "home/me/.azure/azureProfile.json").mkdir()
    report = await machine.examine()
    assert "account       not known" in shown(report)


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\necho 'ERROR: unrecognized arguments: --output' >&2; exit 2", "#!/nowhere"]
)
async def test_az_that_does_not_work(machine: Machine, script: str) -> None:
    """A login mends no tool that is broken, or too old for its arguments."""
    machine.az().path.write_text(script)
    report = await machine.examine()
    assert commands(report) == [f"az account get-access-token --query expiresOn --resource {VAULT}"]


async def test_az_that_fails(machine: Machine) -> None:
    """What is no fault of the login is tried by hand."""
    machine.az(stderr="The command failed with an unexpected error.\nTraceback\nOSError: down\n", exit_code=1)
    report = await machine.examine(tenant="contoso.example")
    assert commands(report) == [
        f"az account get-access-token --query expiresOn --resource {VAULT} --tenant contoso.example"
    ]


@pytest.mark.parametrize("version", ["nonsense", "{}", "[]", '{"azure-cli": 2}'])
async def test_az_of_no_version(machine: Machine, version: str) -> None:
    """A version that cannot be read is told as that."""
    machine.az(printed(), version=version)
    report = await machine.examine()
    assert report.azure_cli.version is None
    assert "told no version (exit code 0)" in shown(report)


async def test_az_that_hangs(machine: Machine) -> None:
    """A tool that does not come to its end is given up, and so is its version."""
    machine.az(printed()).path.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    report = await machine.examine(limit=0.3)
    assert (report.conclusion.exit_code, report.conclusion.source) == (7, "azure_cli")
    assert "did not finish" in (report.azure_cli.problem or "")


async def test_a_source_that_ignores_its_deadline_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor never hangs, whatever a source does."""
    monkeypatch.setattr(verdicts, "_GRACE", 0.1)
    (trial,) = await verdicts.ask_all(ScriptedSource(held=True), ask(), 0.1)
    assert str(trial.outcome) == "scripted gave no token within 0.1 s"


async def test_a_bug_in_one_source_does_not_hide_the_others() -> None:
    """What no source should raise is told by its name alone, and the others are asked all the same."""
    buggy, fine = ScriptedSource(name="buggy"), ScriptedSource()
    buggy.script(KeyError("a-secret"))
    trials = await verdicts.ask_all(FirstAvailable(buggy, fine), ask(), 1)
    assert str(trials[0].outcome) == "buggy failed in an unexpected way (KeyError); please report this"
    assert isinstance(trials[1].outcome, AccessToken)
    assert (await verdicts.decide(trials, ask())) == (trials[0].outcome, 1)


async def test_strange_profiles_are_read_as_far_as_they_go(machine: Machine) -> None:
    """What is missing in a profile is not known, and no reason to fail."""
    machine.az(printed())
    machine.holds({"environmentName": "AzureCloud", "isDefault": True, "user": "nobody", "name": 7})
    report = await machine.examine()
    assert report.azure_cli.account is not None
    assert set(vars_of(report.azure_cli.account)) == {None}
    assert "account (no name)" in shown(report)


def vars_of(value: Any) -> list[Any]:
    return [getattr(value, name) for name in value.__slots__]


# Secrets, and terminals


async def test_secrets_stay_in(machine: Machine) -> None:
    """Whatever holds a secret, and whoever repeats one, neither kind of output shows it."""
    place = machine.imds_url.removeprefix("http://")
    swapped = (
        "aB38Q~dEfGhIjKlMnOpQrStUvWxYz0123456789-_"  # As Entra makes them; people put them into the wrong variable.
    )
    secrets = ["hdr-5ecret", "cl1ent-5ecret", "pr0xy-5ecret", "c0nn-5ecret", "t00l-5ecret", "pa5s w0rd"]
    machine.environ |= {
        "IDENTITY_HEADER": secrets[0],
        "AZURE_CLIENT_SECRET": secrets[1],
        "HTTP_PROXY": f"http://me:{secrets[2]}@{place}",
        "HTTPS_PROXY": f"http://{secrets[2]}@{place}/",
        "ALL_PROXY": f"http://me:1/{secrets[2]}@127.0.0.1",
        "MY_TOOL_TOKEN": secrets[4],
        "AZURE_CLIENT_CERTIFICATE_PASSWORD": secrets[5],
        "WEBSITE_SITE_NAME": secrets[4],
    }
    token = jwt(upn="me@contoso.com", note=secrets[4])
    known = " ".join(secret for secret in secrets if secret != secrets[3])
    machine.az(stderr=f"ERROR: {known} {token} proxies: {machine.environ['HTTP_PROXY']}\n", exit_code=1)
    reports = [await machine.examine()]
    machine.environ["AzureServicesAuthConnectionString"] = f"RunAs=App;AppId=x;TenantId=y;AppKey='{secrets[3]}'"
    reports.append(await machine.examine())
    machine.environ["AzureServicesAuthConnectionString"] = f"RunAs=Developer;DeveloperTool=AzureCli;AppKee={secrets[3]}"
    reports.append(await machine.examine())
    del machine.environ["AzureServicesAuthConnectionString"]
    machine.environ |= {"AZURE_TENANT_ID": swapped, "AZURE_FEDERATED_TOKEN_FILE": jwt(sub="swapped")}
    reports.append(await machine.examine())
    machine.environ["AZURE_CLIENT_ID"] = swapped
    reports.append(await machine.examine())
    told = "".join(shown(report) + as_json(report) for report in reports)
    assert [secret for secret in (*secrets, swapped, "signature", token.split(".")[1]) if secret in told] == []
    assert f"http://{place}, used by aiomsi" in told
    assert "no URL of a proxy" in told
    assert "<redacted>" in told


async def test_nothing_from_outside_moves_a_terminal(machine: Machine) -> None:
    """Names, claims and messages come from outside: their control characters do not reach the terminal."""
    evil = "\x1b[2J\x9b31m\r\n\u202eevil[red]"
    machine.az(printed(upn=evil, tid=evil, oid=evil))
    machine.holds(account(1, name=evil, user={"name": evil, "type": evil}))
    machine.firmware(sys_vendor=evil)
    machine.environ["WEBSITE_SITE_NAME"] = evil
    report = await machine.examine()
    text = shown(report)
    assert "evil[red]" in text
    assert re.findall(r"[^\n -~]", text) == []
    assert "\x1b[2J" not in shown(report, terminal=True)


async def test_a_terminal_that_cannot_write_everything(machine: Machine) -> None:
    """What cannot be written in the encoding of the output is escaped."""
    machine.az(printed(upn="zoë@contoso.com"))
    report = await machine.examine()

    class Ascii(StringIO):
        encoding = "ascii"

    written = Ascii()
    show(report, Console(file=written))
    assert "zo\\xeb@contoso.com" in written.getvalue()


async def test_an_end_that_is_no_date(machine: Machine) -> None:
    """A time that no calendar has is shown as the number that it is."""
    async with host(machine, "app_service"):
        report = await machine.examine()
    assert report.conclusion.identity is not None
    endless = replace(report.conclusion.identity, expires_on=1e15, expires_in=90.0)
    text = shown(replace(report, conclusion=replace(report.conclusion, identity=endless)))
    assert "expires       1000000000000000, in 90 s" in text


async def test_commands_are_never_broken(machine: Machine) -> None:
    """In a terminal words are wrapped, but a command stays in one piece, to be pasted."""
    async with host(machine, "app_service"):
        report = await machine.examine()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown(report, terminal=True))
    assert all(f"    {command}\n" in plain for command in commands(report, "grant"))
    assert shown(report) != plain
    assert "\x1b[1;32m" in shown(report, terminal=True)


# The command


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread of its own, since the command runs a loop of its own."""
    with start_blocking_portal() as opened:
        yield opened


@pytest.fixture
def endpoint(portal: BlockingPortal) -> Iterator[IdentityEndpoint]:
    with portal.wrap_async_context_manager(IdentityEndpoint()) as opened:
        yield opened


def environ(endpoint: IdentityEndpoint) -> dict[str, str]:
    return {"AzureServicesAuthConnectionString": "", "PATH": "", **endpoint.environ("app_service")}


def test_json_is_all_that_is_printed(endpoint: IdentityEndpoint) -> None:
    """`--json` prints one object, with the members that the README names, and the exit code is the same."""
    result = CliRunner().invoke(cli, ["doctor", VAULT, "--json"], env=environ(endpoint))
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == [
        "program",
        "asked",
        "conclusion",
        "sources",
        "host",
        "reach",
        "clock",
        "proxies",
        "azure_cli",
        "advice",
    ]
    assert report["asked"]["resource"] == VAULT
    assert report["conclusion"]["source"] == "app_service"
    assert endpoint.secret not in result.stdout


def test_a_terminal_of_few_characters(endpoint: IdentityEndpoint) -> None:
    """Not even what moves while one waits needs more than ASCII."""
    runner = CliRunner(charset="ascii")
    result = runner.invoke(cli, ["doctor"], env={**environ(endpoint), "FORCE_COLOR": "1", "TERM": "xterm"})
    assert (result.exit_code, result.stderr) == (0, "")
    assert "all sources are asked" in result.stdout


def test_a_person_gets_plain_lines(endpoint: IdentityEndpoint) -> None:
    """Without options the report is for a person, and without colours where there is no terminal."""
    result = CliRunner().invoke(cli, ["doctor"], env=environ(endpoint))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"A token for {ARM} can be had, from app_service.\n")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("change", "arguments", "code"),
    [
        ({}, ["two words"], 2),
        ({}, ["--client-id", "no-guid"], 2),
        ({}, ["--timeout", "0"], 2),
        ({"AzureServicesAuthConnectionString": "RunAs=Developer;DeveloperTool=AzureCli"}, [], 3),
        ({"IDENTITY_ENDPOINT": "no-url"}, [], 4),
        ({"IDENTITY_HEADER": "wrong"}, [], 5),
        ({"IDENTITY_ENDPOINT": "http://8.8.8.8/"}, [], 8),
    ],
)
def test_the_exit_code_says_it(
    endpoint: IdentityEndpoint, change: Mapping[str, str], arguments: list[str], code: int
) -> None:
    """The exit code is that of the error which a service here would see, in both forms."""
    for form in ([], ["--json"]):
        result = CliRunner().invoke(cli, ["doctor", *arguments, *form], env={**environ(endpoint), **change})
        assert result.exit_code == code
        assert "Traceback" not in result.output
        if code > 2:
            assert result.stderr == ""
            assert f'"exit_code": {code}' in result.stdout or f"(exit code {code})" in result.stdout


def test_interrupt_is_quiet(portal: BlockingPortal, endpoint: IdentityEndpoint) -> None:
    """Ctrl-C ends the command with 130, and without a word."""
    gate = Gate()
    endpoint.script(gate)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "aiomsi", "doctor"],
        env={**os.environ, **environ(endpoint)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    portal.call(gate.reached)
    process.send_signal(signal.SIGINT)
    assert (process.communicate(), process.returncode) == (("", ""), 130)


def test_other_commands_do_not_pay_for_it() -> None:
    """Neither the doctor nor rich is imported by who wants a token or help."""
    code = (
        "import sys; from aiomsi._command_line.commands import cli; cli(['token', '--help'], standalone_mode=False);"
        " print([name for name in sys.modules if name.startswith(('rich', 'aiomsi._command_line.doctor'))])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"IDENTITY_ENDPOINT"}, "IDENTITY_HEADER"),
        ({"IDENTITY_HEADER"}, "IDENTITY_ENDPOINT"),
        ({"IMDS_ENDPOINT"}, "IDENTITY_ENDPOINT"),
        ({"MSI_SECRET"}, "MSI_ENDPOINT"),
        ({"IDENTITY_ENDPOINT", "IDENTITY_SERVER_THUMBPRINT"}, "IDENTITY_HEADER"),
    ],
)
async def test_half_a_name_names_nobody(machine: Machine, variables: set[str], missing: str) -> None:
    """A variable that somebody forgot is told, since without it all the others are passed over in silence."""
    machine.environ |= dict.fromkeys(variables, "x")
    report = await machine.examine()
    (note,) = [advice for advice in report.advice if "is passed over" in advice.why]
    assert note.why.startswith(f"{missing} is not set, ")


@pytest.mark.parametrize("variables", [{}, {"AZURE_TENANT_ID": "contoso.example"}])
async def test_variables_with_another_use_are_no_half_names(machine: Machine, variables: dict[str, str]) -> None:
    """A tenant alone is for the application of the environment, for instance."""
    machine.environ |= variables
    assert not [advice for advice in (await machine.examine()).advice if "is passed over" in advice.why]


async def test_a_login_that_was_chosen_and_is_not_there(machine: Machine) -> None:
    """Where only one source is asked, what it is missing is the thing to do."""
    machine.environ |= {"AzureServicesAuthConnectionString": "RunAs=CurrentUser", "KRB5CCNAME": "FILE:/nowhere"}
    report = await machine.examine()
    assert [(source.name, source.verdict) for source in report.sources] == [("integrated", "unavailable")]
    (advice,) = [advice for advice in report.advice if advice.subject == "fix"]
    assert advice.commands in (("kinit",), ("pip install 'aiomsi[integrated]'",))  # As the extra is there or not.
