"""From the command line and the library through the real `az` to an Entra ID on loopback, and back."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest
from installed_cli import AS_SERVICE, TENANT, InstalledCLI, choose_cloud, install, serving_entra
from support import nowhere

from aiomsi import EndpointError, SourceUnavailableError, TokenProvider, TokenRefusedError
from aiomsi._token import unverified_claims
from aiomsi.endpoint import Answer, IdentityEndpoint
from aiomsi.sources import AzureCLI, Surroundings, TokenRequest, default

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.azure_cli,
    pytest.mark.skipif(sys.platform == "win32", reason="a shell script counts how often `az` is started"),
]

VAULT = "https://vault.azure.net"
OTHER_TENANT = "55555555-aaaa-4bbb-8ccc-000000000005"
SUBSCRIPTION = "33333333-aaaa-4bbb-8ccc-000000000003"
AS_DEVELOPER = {"AzureServicesAuthConnectionString": "RunAs=Developer;DeveloperTool=AzureCLI"}
NO_IDENTITY = Answer(400, {"error": "invalid_request", "error_description": "Identity not found"})

_numbers = itertools.count(1)


@pytest.fixture(scope="module", name="nowhere")
def _nowhere() -> Iterator[str]:
    with nowhere() as url:
        yield url


@pytest.fixture(scope="module")
def logged_out(tmp_path_factory: pytest.TempPathFactory, nowhere: str) -> InstalledCLI:
    """Return an `az` at which nobody has logged in."""
    return install(tmp_path_factory.mktemp("logged_out"), nowhere)


@pytest.fixture(scope="module")
def logged_in(tmp_path_factory: pytest.TempPathFactory, nowhere: str) -> Iterator[InstalledCLI]:
    """Return an `az` at which a service principal has logged in to an Entra ID on loopback."""
    az = install(tmp_path_factory.mktemp("logged_in"), nowhere)
    with serving_entra(az.folder) as entra:
        choose_cloud(az, entra)
        az.run("login", *AS_SERVICE, "--tenant", TENANT)
        assert az.token_requests == [{"tenant": TENANT, "scope": f"{entra}/.default"}]
        yield az


@pytest.fixture
def resource() -> str:
    """Return a resource for which nobody has a token yet."""
    return f"https://vault-{next(_numbers)}.example"


async def aiomsi(*arguments: str, environ: dict[str, str]) -> tuple[int | None, str, str]:
    """Run the command line, and return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "aiomsi", *arguments),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


def without_identity(az: InstalledCLI, nowhere: str, root: Path) -> Surroundings:
    """Return a machine of which nothing says whether it has a managed identity, and where no IMDS answers."""
    environ = {name: value for name, value in az.environ.items() if name != "AZURE_POD_IDENTITY_AUTHORITY_HOST"}
    return Surroundings(environ=environ, root=root, imds_url=nowhere)


def claims_of(token: str) -> dict[str, Any]:
    claims = unverified_claims(token)
    assert claims is not None
    return claims


async def test_the_command_line_says_that_nobody_is_logged_in(logged_out: InstalledCLI) -> None:
    """For a developer who has not logged in there is one line that says how to, and an exit code of its own."""
    exit_code, stdout, stderr = await aiomsi("token", VAULT, environ={**logged_out.environ, **AS_DEVELOPER})
    assert (exit_code, stdout) == (3, "")
    assert stderr.count("\n") == 1
    assert stderr.startswith(f"aiomsi: `az` gave no token for '{VAULT}'")
    assert stderr.endswith("run: az login\n")


async def test_the_command_line_says_what_it_tried(logged_out: InstalledCLI) -> None:
    """Where IMDS knows no identity and nobody is logged in, the message has a line for each, and what to do."""
    async with IdentityEndpoint(hosts=["imds"]) as endpoint:
        endpoint.script(then=NO_IDENTITY)
        environ = {**logged_out.environ, **endpoint.environ("imds")}
        exit_code, stdout, stderr = await aiomsi("token", VAULT, environ=environ)
    assert (exit_code, stdout) == (3, "")
    first, imds, az, *others, advice = stderr.splitlines()
    assert first == f"aiomsi: no token for '{VAULT}': none of the 6 sources asked is there"
    assert imds.startswith("- imds: ")
    assert az.startswith("- azure_cli: `az` gave no token")
    assert "az login" in az
    names = ["azure_developer_cli", "azure_powershell", "visual_studio", "integrated"]
    assert [line.split(":")[0] for line in others] == [f"- {name}" for name in names]
    assert advice.startswith("To do: ")


async def test_the_library_says_that_nobody_is_logged_in(logged_out: InstalledCLI) -> None:
    """The Azure CLI alone is unavailable as long as nobody is logged in, whatever is asked for."""
    for tenant_id in (None, OTHER_TENANT):
        async with TokenProvider(AzureCLI(tenant_id=tenant_id, surroundings=logged_out.surroundings)) as provider:
            with pytest.raises(SourceUnavailableError, match=r"run: az login$") as caught:
                await provider.token(VAULT)
        assert (caught.value.source, caught.value.status) == ("azure_cli", 1)


async def test_the_default_says_that_nobody_is_logged_in(
    logged_out: InstalledCLI, nowhere: str, tmp_path: Path
) -> None:
    """Without a managed identity and a login, the one thing to do is to log in."""
    surroundings = without_identity(logged_out, nowhere, tmp_path)
    async with TokenProvider(default(surroundings=surroundings)) as provider:
        with pytest.raises(SourceUnavailableError, match=r"\nTo do: az login$") as caught:
            await provider.token(VAULT)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()[1:3]] == [
        "- managed_identity",
        "- azure_cli",
    ]


async def test_the_command_line_prints_a_token(logged_in: InstalledCLI, resource: str) -> None:
    """With a login there is a token, and nothing else, on standard output."""
    exit_code, stdout, stderr = await aiomsi("token", resource, environ={**logged_in.environ, **AS_DEVELOPER})
    assert (exit_code, stderr) == (0, "")
    assert claims_of(stdout.removesuffix("\n"))["aud"] == f"{resource}/.default"


async def test_the_command_line_tells_a_refusal(logged_in: InstalledCLI) -> None:
    """A refusal has another exit code than a missing login."""
    environ = {**logged_in.environ, **AS_DEVELOPER}
    exit_code, stdout, stderr = await aiomsi("token", "https://refused.example", environ=environ)
    assert (exit_code, stdout) == (5, "")
    assert "AADSTS500011: The resource was not found." in stderr


async def test_the_default_ends_at_the_login(
    logged_in: InstalledCLI, resource: str, nowhere: str, tmp_path: Path
) -> None:
    """A developer's machine, without a managed identity, gives the developer's token."""
    surroundings = without_identity(logged_in, nowhere, tmp_path)
    async with TokenProvider(default(surroundings=surroundings)) as provider:
        token = await provider.access_token(resource)
    assert (token.source, claims_of(token.token)["aud"]) == ("azure_cli", f"{resource}/.default")


async def test_a_crowd_starts_az_once(logged_in: InstalledCLI, resource: str) -> None:
    """However many ask for a token at once, `az` runs once, and asks Entra ID once."""
    before = logged_in.starts
    async with TokenProvider(AzureCLI(surroundings=logged_in.surroundings)) as provider:
        tokens = await asyncio.gather(*(provider.token(resource) for _ in range(50)))
        tokens.append(await provider.token(resource))
    assert len(set(tokens)) == 1
    assert logged_in.starts == before + 1
    assert logged_in.token_requests.count({"tenant": TENANT, "scope": f"{resource}/.default"}) == 1


async def test_the_end_is_that_of_the_token(logged_in: InstalledCLI, resource: str) -> None:
    """The end that `az` tells is the one in the token, but for the second that it may wobble."""
    async with TokenProvider(AzureCLI(surroundings=logged_in.surroundings)) as provider:
        token = await provider.access_token(resource)
    assert token.expires_on == pytest.approx(claims_of(token.token)["exp"], abs=2)
    assert token.refresh_on is not None
    assert token.refresh_on < token.expires_on


async def test_a_tenant_reaches_entra(logged_in: InstalledCLI, resource: str) -> None:
    """The tenant of the login serves who names none, and that of the source or the call who does."""
    surroundings = logged_in.surroundings
    async with TokenProvider(AzureCLI(surroundings=surroundings)) as provider:
        own = await provider.access_token(resource)
        asked = await provider.access_token(resource, tenant_id=OTHER_TENANT)
    async with TokenProvider(AzureCLI(tenant_id=OTHER_TENANT, surroundings=surroundings)) as provider:
        chosen = await provider.access_token(resource)
    assert [claims_of(token.token)["tid"] for token in (own, asked, chosen)] == [TENANT, OTHER_TENANT, OTHER_TENANT]


@pytest.mark.parametrize("subscription", [SUBSCRIPTION, "Test Subscription"], ids=["id", "name"])
async def test_a_subscription_reaches_az(logged_in: InstalledCLI, resource: str, subscription: str) -> None:
    """A subscription is named by its id or, blanks and all, by its name, and brings its tenant."""
    async with TokenProvider(AzureCLI(subscription=subscription, surroundings=logged_in.surroundings)) as provider:
        token = await provider.access_token(resource, tenant_id=OTHER_TENANT)
    assert claims_of(token.token)["tid"] == TENANT


async def test_an_unknown_subscription_is_refused(logged_in: InstalledCLI, resource: str) -> None:
    """A subscription that the account does not have is an error that names it."""
    async with TokenProvider(AzureCLI(subscription="not mine", surroundings=logged_in.surroundings)) as provider:
        with pytest.raises(TokenRefusedError, match="Subscription 'not mine' not found"):
            await provider.token(resource)


async def test_a_refusal_of_entra_is_told_with_its_code(logged_in: InstalledCLI) -> None:
    """An error of Entra ID comes through with its code, and does not look as if nobody were logged in."""
    async with TokenProvider(AzureCLI(surroundings=logged_in.surroundings)) as provider:
        with pytest.raises(TokenRefusedError, match="AADSTS500011: The resource was not found") as caught:
            await provider.token("https://refused.example")
    assert (caught.value.code, caught.value.status) == ("AADSTS500011", 1)


async def test_an_outage_of_entra_is_no_refusal(logged_in: InstalledCLI) -> None:
    """Where Entra ID cannot serve, the error is one that passes, and says why."""
    async with TokenProvider(AzureCLI(surroundings=logged_in.surroundings)) as provider:
        with pytest.raises(EndpointError, match="HTTP Error: 503"):
            await provider.token("https://outage.example")


async def test_an_unreachable_entra_is_no_refusal(logged_in: InstalledCLI, resource: str) -> None:
    """Where Entra ID cannot be reached, the error is one that passes, and says why."""
    surroundings = Surroundings(environ={**logged_in.environ, "NO_PROXY": ""})
    async with TokenProvider(AzureCLI(surroundings=surroundings)) as provider:
        with pytest.raises(EndpointError, match="Unable to connect to proxy"):
            await provider.token(resource)


@pytest.fixture
def own(tmp_path: Path, nowhere: str) -> Iterator[InstalledCLI]:
    """Return an `az` that one test alone logs in to an Entra ID on loopback, and out again."""
    az = install(tmp_path, nowhere)
    with serving_entra(tmp_path) as entra:
        choose_cloud(az, entra)
        yield az


async def test_the_key_of_the_identity_changes_with_the_account_alone(own: InstalledCLI, resource: str) -> None:
    """Logging in and out and choosing a subscription change who answers; looking around and fetching do not."""
    source = AzureCLI(surroundings=own.surroundings)
    own.run("account", "list")
    keys = [source.identity_key()]
    for command in (
        ("login", *AS_SERVICE, "--tenant", TENANT),
        ("account", "set", "--subscription", "Other Subscription"),
        ("login", *AS_SERVICE, "--tenant", OTHER_TENANT),
    ):
        own.run(*command)
        keys.append(source.identity_key())
        own.run("account", "list")
        await source.fetch(TokenRequest(resource))
        assert source.identity_key() == keys[-1]
    assert keys[0] == "nobody"
    assert None not in keys
    assert len(set(keys)) == 4
    own.run("account", "clear")
    assert source.identity_key() == "nobody"


async def test_the_key_of_the_identity_is_that_of_the_cloud_in_use(own: InstalledCLI) -> None:
    """Nobody is logged in to another cloud, until `az` goes back to the first one."""
    own.run("login", *AS_SERVICE, "--tenant", TENANT)
    source = AzureCLI(surroundings=own.surroundings)
    before = source.identity_key()
    own.run("cloud", "set", "--name", "AzureChinaCloud")
    assert source.identity_key() == "nobody"
    own.run("cloud", "set", "--name", "loopback")
    assert source.identity_key() == before != "nobody"
    elsewhere = Surroundings(environ={**own.environ, "AZURE_CLOUD_NAME": "AzureChinaCloud"})
    assert AzureCLI(surroundings=elsewhere).identity_key() == "nobody"
