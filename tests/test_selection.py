"""What `TokenProvider()` is: what the environment selects, as the Azure SDKs understand it."""

from __future__ import annotations

import asyncio
import re
import traceback
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from support import PacedClock, internet

from aiomsi import AccessToken, ConfigurationError, SourceUnavailableError, TokenProvider
from aiomsi.endpoint import IdentityEndpoint
from aiomsi.sources import ManagedIdentity, Surroundings, TokenRequest, default
from aiomsi.sources._selection import selected

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "Xy7~Q8no.client.id-but-a-secret"
VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
APPLICATION = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": CLIENT_ID, "AZURE_CLIENT_SECRET": "hunter2"}
BAD_SECRET = {"AZURE_CLIENT_SECRET": "hunter2\n"}
MALFORMED = {**APPLICATION, **BAD_SECRET, "AZURE_CLIENT_ID": "my-app"}
CERTIFICATE = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": CLIENT_ID, "AZURE_CLIENT_CERTIFICATE_PATH": "/cert.pem"}
MACHINE = "ManagedIdentity()"
NAMED = f"ManagedIdentity(client_id='{CLIENT_ID}')"
TOOLS = "AzureCLI(), AzureDeveloperCLI(), AzurePowerShell(), VisualStudio(), IntegratedAuth()"
OF_SECRET = f"ClientSecret(tenant_id='t', client_id='{CLIENT_ID}')"
OF_CERTIFICATE = f"ClientCertificate(tenant_id='t', client_id='{CLIENT_ID}')"


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({}, f"FirstAvailable({MACHINE}, {TOOLS})"),
        ({"AZURE_TOKEN_CREDENTIALS": ""}, f"FirstAvailable({MACHINE}, {TOOLS})"),
        ({"AZURE_CLIENT_ID": CLIENT_ID}, f"FirstAvailable({NAMED}, {TOOLS})"),
        ({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": CLIENT_ID}, f"FirstAvailable({NAMED}, {TOOLS})"),
        ({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_SECRET": "hunter2"}, f"FirstAvailable({MACHINE}, {TOOLS})"),
        (APPLICATION, f"FirstAvailable({OF_SECRET}, {NAMED}, {TOOLS})"),
        (CERTIFICATE, f"FirstAvailable({OF_CERTIFICATE}, {NAMED}, {TOOLS})"),
        ({**CERTIFICATE, **APPLICATION}, f"FirstAvailable({OF_SECRET}, {NAMED}, {TOOLS})"),
        ({"AZURE_TOKEN_CREDENTIALS": "prod"}, MACHINE),
        ({"AZURE_TOKEN_CREDENTIALS": " PROD "}, MACHINE),
        ({"AZURE_TOKEN_CREDENTIALS": "prod", **APPLICATION}, f"FirstAvailable({OF_SECRET}, {NAMED})"),
        ({"AZURE_TOKEN_CREDENTIALS": "dev", **APPLICATION}, f"FirstAvailable({TOOLS})"),
        ({"AZURE_TOKEN_CREDENTIALS": "dev", **MALFORMED}, f"FirstAvailable({TOOLS})"),
        ({"AZURE_TOKEN_CREDENTIALS": "AzureCliCredential", **MALFORMED}, "AzureCLI()"),
        ({"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential", **APPLICATION, **BAD_SECRET}, NAMED),
        ({"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", **APPLICATION}, OF_SECRET),
        ({"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", **CERTIFICATE}, OF_CERTIFICATE),
        ({"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}, MACHINE),
        ({"AZURE_TOKEN_CREDENTIALS": "managedidentitycredential", **APPLICATION}, NAMED),
        ({"AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential"}, "WorkloadIdentity()"),
        ({"AZURE_TOKEN_CREDENTIALS": "AzureCliCredential"}, "AzureCLI()"),
        ({"AZURE_TOKEN_CREDENTIALS": "azure_cli"}, "AzureCLI()"),
        ({"AZURE_TOKEN_CREDENTIALS": "AzureDeveloperCliCredential"}, "AzureDeveloperCLI()"),
        ({"AZURE_TOKEN_CREDENTIALS": "AzurePowerShellCredential"}, "AzurePowerShell()"),
        ({"AZURE_TOKEN_CREDENTIALS": "VisualStudioCredential"}, "VisualStudio()"),
        ({"AZURE_TOKEN_CREDENTIALS": "integrated"}, "IntegratedAuth()"),
        (
            {"AZURE_TOKEN_CREDENTIALS": "AzurePipelinesCredential"},
            "AzurePipelines(client_id=None, service_connection_id=None)",
        ),
        ({"AZURE_TOKEN_CREDENTIALS": "github_actions"}, "GitHubActions(client_id=None)"),
    ],
)
def test_what_is_selected(environ: dict[str, str], source: str) -> None:
    """`AZURE_TOKEN_CREDENTIALS` is dev, prod, or one source by the SDKs' name or ours; without it all are tried."""
    assert repr(selected(Surroundings(environ=environ))) == source


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"AZURE_TOKEN_CREDENTIALS": "production"}, "'production', but should be dev, prod, or .* azurecli"),
        ({"AZURE_TOKEN_CREDENTIALS": "VisualStudioCodeCredential"}, "one of .*visualstudio"),
        ({"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", "AZURE_CLIENT_SECRET": "hunter2"}, "are not all set"),
        ({"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}, "are not all set"),
        ({"AZURE_CLIENT_ID": "my-app"}, "AZURE_CLIENT_ID is no GUID, as client ids are"),
        ({**APPLICATION, "AZURE_CLIENT_SECRET": "hunter2\n"}, "AZURE_CLIENT_SECRET is wrong: client_secret"),
    ],
)
async def test_a_wrong_selection_is_told(environ: dict[str, str], complaint: str) -> None:
    """A name that means nothing, or one whose variables are missing, is an error rather than another identity."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        await default(surroundings=Surroundings(environ=environ)).fetch(TokenRequest(VAULT))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"IDENTITY_ENDPOINT": "http://127.0.0.1:1"}, ["IDENTITY_HEADER is not set, .* do not name App Service;"]),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/token"}, ["AZURE_TENANT_ID is not set, .* do not name workload identity;"]),
        (
            {"AZURE_CLIENT_SECRET": "hunter2", "AZURE_TENANT_ID": "t"},
            ["AZURE_CLIENT_SECRET is set, but not AZURE_CLIENT_ID, so it belongs to no application;"],
        ),
        (
            {"AZURE_CLIENT_CERTIFICATE_PATH": "/cert.pem", "AZURE_TOKEN_CREDENTIALS": "prod", "MSI_SECRET": "hunter2"},
            [
                "AZURE_CLIENT_CERTIFICATE_PATH is set, but not AZURE_TENANT_ID and AZURE_CLIENT_ID,",
                "MSI_ENDPOINT is not set, .* do not name Azure ML",
            ],
        ),
        ({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": CLIENT_ID}, []),
        ({"AZURE_CLIENT_SECRET": "hunter2", "AZURE_TOKEN_CREDENTIALS": "dev"}, []),
        ({"IDENTITY_ENDPOINT": "http://127.0.0.1:1", "AzureServicesAuthConnectionString": "RunAs=App"}, []),
    ],
)
async def test_what_is_half_said_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, environ: dict[str, str], told: list[str]
) -> None:
    """A service that was to be a machine or an application does not become a developer without a word."""
    here = Surroundings({**environ, "PATH": str(tmp_path)}, root=tmp_path, imds_url="http://127.0.0.1:1")
    source = default(surroundings=here)
    for _ in range(2):
        clock = PacedClock()
        fetching = asyncio.ensure_future(source.fetch(TokenRequest(VAULT, clock=clock)))
        await clock.pace(fetching)
        assert isinstance(fetching.exception(), SourceUnavailableError)
    for said, pattern in zip(caplog.messages, told, strict=True):
        assert re.match(f"{pattern}.* it is passed over$", said)
    assert "hunter2" not in caplog.text


async def test_a_machine_by_half_its_name_is_told_so(tmp_path: Path) -> None:
    """Who asks for the managed identity alone is told which variable is missing, not that there is none."""
    here = Surroundings({"IDENTITY_ENDPOINT": "http://127.0.0.1:1"}, root=tmp_path, imds_url="http://127.0.0.1:1")
    with pytest.raises(SourceUnavailableError, match="found: IDENTITY_HEADER is not set, without which"):
        await ManagedIdentity(retry_timeout=0, surroundings=here).fetch(TokenRequest(VAULT))


@pytest.mark.parametrize("selection", ["", "prod", "EnvironmentCredential", "ManagedIdentityCredential", SECRET])
async def test_a_secret_in_another_variable_s_place_is_not_shown(tmp_path: Path, selection: str) -> None:
    """People mix variables up, so the value of a wrong one is told by no error."""
    environ = {**APPLICATION, "AZURE_CLIENT_ID": SECRET, "AZURE_TOKEN_CREDENTIALS": selection, "PATH": str(tmp_path)}
    surroundings = Surroundings(environ=environ, root=tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        await default(surroundings=surroundings).fetch(TokenRequest(VAULT))
    said = "".join(traceback.format_exception(caught.value)).lower()
    assert SECRET.lower() not in said


async def test_the_user_assigned_identity_of_the_environment_is_the_one_asked_for(tmp_path: Path) -> None:
    """`AZURE_CLIENT_ID` says which identity of the machine `TokenProvider()` is."""
    async with IdentityEndpoint() as endpoint:
        environ = {**endpoint.environ("app_service"), "AZURE_CLIENT_ID": CLIENT_ID}
        source = default(surroundings=Surroundings(environ=environ, root=tmp_path))
        async with TokenProvider(source) as provider:
            token = await provider.access_token(VAULT)
        assert endpoint.token_requests[0].parameters["client_id"] == CLIENT_ID
    assert token.principal is not None
    assert token.principal.app_id == CLIENT_ID


async def test_the_application_of_the_environment_comes_first(tmp_path: Path) -> None:
    """Who has set a tenant, a client and a secret means them, on a machine with an identity of its own too."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"access_token": "of-the-application", "expires_in": 3600})

    async with IdentityEndpoint() as endpoint, internet(tmp_path, answer, "login.microsoftonline.com") as world:
        environ = {**APPLICATION, **world.environ, **endpoint.environ("app_service")}
        token = await default(surroundings=Surroundings(environ=environ)).fetch(TokenRequest(VAULT))
        assert (token.token, token.source, endpoint.requests) == ("of-the-application", "client_secret", [])


async def test_the_secret_of_the_environment_is_read_for_each_request(tmp_path: Path) -> None:
    """A secret that is renewed while the process runs is the one that is sent next."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"access_token": "a-token", "expires_in": 3600})

    async with internet(tmp_path, answer, "login.microsoftonline.com") as world:
        environ = {**APPLICATION, **world.environ}
        source = default(surroundings=Surroundings(environ=environ))
        await source.fetch(TokenRequest(VAULT))
        environ["AZURE_CLIENT_SECRET"] = "renewed"
        await source.fetch(TokenRequest(VAULT))
    assert [form["client_secret"] for form in world.forms] == ["hunter2", "renewed"]


async def test_a_machine_by_name_is_never_passed_over(tmp_path: Path) -> None:
    """Selected by name, the managed identity is asked without a probe, and its absence is told as what it is."""
    environ = {"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential", "PATH": str(tmp_path)}
    surroundings = Surroundings(environ=environ, root=tmp_path, imds_url="http://127.0.0.1:1")
    clock = PacedClock()
    fetching = asyncio.ensure_future(default(surroundings=surroundings).fetch(TokenRequest(VAULT, clock=clock)))
    assert await clock.pace(fetching) == [1.0, 2.0]
    assert isinstance(fetching.exception(), SourceUnavailableError)


async def test_everything_said_together(tmp_path: Path) -> None:
    """When nobody is there, one error has a line for each source and the one thing to do."""
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/sys_vendor").write_text("Another Maker\n")
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path), "KRB5CCNAME": f"FILE:{tmp_path / 'none'}"}
    surroundings = Surroundings(environ=environ, root=tmp_path)
    with pytest.raises(SourceUnavailableError) as caught:
        await default(surroundings=surroundings).fetch(TokenRequest(VAULT))
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"no token for {VAULT!r}: none of the 6 sources asked is there"
    assert [line.split(":")[0].removeprefix("- ") for line in lines] == [
        "managed_identity",
        "azure_cli",
        "azure_developer_cli",
        "azure_powershell",
        "visual_studio",
        "integrated",
    ]
    assert "its firmware names another maker" in lines[0]
    assert "az was not found on the PATH" in lines[1]
    assert last == "To do: install the Azure CLI (https://aka.ms/azure-cli) and run: az login"
    assert caught.value.resource == VAULT


def test_the_default_is_as_able_as_what_it_is_made_of() -> None:
    """What the provider asks of a source is answered for the one selected, whichever that is now."""
    environ = {"AZURE_TOKEN_CREDENTIALS": "prod"}
    source = default(surroundings=Surroundings(environ=environ))
    assert (source.time_limit, source.max_parallel, source.chooses_tenant) == (90.0, 4, False)  # type: ignore[attr-defined]
    environ["AZURE_TOKEN_CREDENTIALS"] = "azurecli"
    assert (source.time_limit, source.max_parallel, source.chooses_tenant) == (30.0, 8, True)  # type: ignore[attr-defined]


async def test_a_source_that_learns_is_kept_while_nothing_changes(tmp_path: Path) -> None:
    """What a source has found out about the machine is not forgotten between two fetches."""
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    async with IdentityEndpoint() as endpoint:
        environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
        source = default(surroundings=Surroundings(environ=environ, root=tmp_path, imds_url=endpoint.url))
        assert isinstance(await source.fetch(TokenRequest(VAULT)), AccessToken)
        await source.fetch(TokenRequest("https://storage.azure.com/"))
        assert len(endpoint.requests) == 3, "one probe, two tokens"
