"""The account of Azure PowerShell, with programs that stand in for PowerShell."""

from __future__ import annotations

import base64
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from test_tools import END, NOW, TENANT, VAULT, StandIn

from aiomsi import AiomsiError, MalformedResponseError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources import Surroundings, TokenRequest
from aiomsi.sources.azure_powershell import AzurePowerShell
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")


def answered(**members: Any) -> str:
    """Return what the script prints."""
    return f"aiomsi:{json.dumps(members)}\n"


def failed(message: str, *, kind: str = "Exception", name: str = "Error,Get-AzAccessToken") -> str:
    """Return what the script prints when something has thrown."""
    return answered(error=message, type=kind, id=name)


GIVEN = answered(token="opaque", expires_on=END)


@pytest.fixture
def pwsh(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path, AzurePowerShell, "pwsh", GIVEN)


def script_of(call: list[str]) -> str:
    """Return the script that a call was given."""
    *options, encoded = call
    assert options == ["-NoProfile", "-NonInteractive", "-EncodedCommand"]
    return base64.b64decode(encoded, validate=True).decode("utf-16-le")


async def test_the_script_asks_for_the_resource(pwsh: StandIn) -> None:
    """PowerShell gets a script that wants the module, and a token for the resource, in quotes that nothing can end."""
    await pwsh.fetch()
    script = script_of(pwsh.asked[0])
    assert "Import-Module Az.Accounts -MinimumVersion 2.2.0\n" in script
    assert f"Get-AzAccessToken -ResourceUrl '{VAULT}'\n" in script
    assert script.count("'") % 2 == 0


@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [
        ({"tenant_id": TENANT}, None, TENANT),
        ({"tenant_id": TENANT}, "asked.example", "asked.example"),
        ({}, "asked.example", "asked.example"),
    ],
    ids=["own", "asked over own", "asked"],
)
async def test_the_script_asks_for_the_tenant(
    pwsh: StandIn, options: dict[str, str], asked: str | None, expected: str
) -> None:
    """A tenant is part of the same command."""
    await pwsh.source(**options).fetch(TokenRequest(VAULT, tenant_id=asked, clock=ManualClock(NOW)))
    assert f"Get-AzAccessToken -ResourceUrl '{VAULT}' -TenantId '{expected}'\n" in script_of(pwsh.asked[0])


async def test_the_script_reads_a_token_of_either_kind(pwsh: StandIn) -> None:
    """The token is a SecureString since Az.Accounts 5.0 and was a string before; its end is a date with a zone."""
    await pwsh.fetch()
    script = script_of(pwsh.asked[0])
    assert "if ($token -is [securestring])" in script
    assert ".ToUnixTimeSeconds()" in script


async def test_powershell_neither_colours_nor_reports(pwsh: StandIn) -> None:
    """Colours would end up in messages, and reports and looking for updates take time."""
    pwsh.does(f"""printf 'aiomsi:{{"token": "%s-%s-%s", "expires_on": {END}}}' \\
        "$NO_COLOR" "$POWERSHELL_TELEMETRY_OPTOUT" "$POWERSHELL_UPDATECHECK" """)
    assert (await pwsh.fetch()).token == "1-1-Off"


@pytest.mark.parametrize(
    "stdout",
    [
        f"WARNING: TenantId is old\n\n{GIVEN}",
        f"{GIVEN}a survey\n",
        GIVEN.replace("\n", "\r\n"),
        GIVEN.rstrip(),
        f"{answered(token='first', expires_on=END)}{GIVEN}",
        b"\xe9t\xe9\n" + GIVEN.encode(),
    ],
    ids=["before", "after", "Windows", "no end", "another", "encoding"],
)
async def test_noise_around_the_answer_is_ignored(pwsh: StandIn, stdout: str | bytes) -> None:
    """What modules print around the answer of the script does not matter."""
    pwsh.says(stdout, stderr="#< CLIXML\n<Objs></Objs>")
    token = await pwsh.fetch()
    assert (token.token, token.expires_on) == ("opaque", END)


NOT_CONNECTED = "Run Connect-AzAccount to login."
EXPIRED = "Your Azure credentials have expired, please run Connect-AzAccount. AADSTS700082: The token has expired."
NO_MODULE = "The specified module 'Az.Accounts' with version '2.2.0' was not loaded."
NO_SCRIPTS = "Le fichier Az.Accounts.psm1 ne peut pas être chargé, l'exécution de scripts est désactivée"


@pytest.mark.parametrize(
    ("stdout", "kind", "code", "advice"),
    [
        (failed(NOT_CONNECTED), SourceUnavailableError, None, "run in PowerShell: Connect-AzAccount"),
        (failed(EXPIRED), TokenRefusedError, "AADSTS700082", "run in PowerShell: Connect-AzAccount"),
        (
            failed(
                NO_MODULE, name="Modules_ModuleWithVersionNotFound,Microsoft.PowerShell.Commands.ImportModuleCommand"
            ),
            SourceUnavailableError,
            None,
            "run in PowerShell: Install-Module Az.Accounts",
        ),
        (
            failed(NO_SCRIPTS, kind="PSSecurityException", name="UnauthorizedAccess,ImportModuleCommand"),
            SourceUnavailableError,
            None,
            "run: Set-ExecutionPolicy -Scope CurrentUser RemoteSigned",
        ),
        (
            failed("AuthorizationManager check failed."),
            SourceUnavailableError,
            None,
            "run: Set-ExecutionPolicy -Scope CurrentUser RemoteSigned",
        ),
        (failed("no such resource"), TokenRefusedError, None, f"Get-AzAccessToken -ResourceUrl {VAULT}"),
    ],
    ids=["nobody", "expired", "no module", "policy", "policy in words", "other"],
)
async def test_a_failure_is_told_by_what_was_thrown(
    pwsh: StandIn, stdout: str, kind: type[AiomsiError], code: str | None, advice: str
) -> None:
    """Whoever does not use Azure PowerShell is passed over in a chain, a refusal stops it, and each says what to do."""
    pwsh.says(stdout, stderr="#< CLIXML\n<Objs>noise</Objs>", exit_code=1)
    with pytest.raises(AiomsiError, match=re.escape(advice)) as caught:
        await pwsh.fetch()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (1, code)
    assert (caught.value.resource, caught.value.source) == (VAULT, "azure_powershell")
    assert json.loads(stdout.partition(":")[2])["error"].rstrip(".") in str(caught.value)
    assert "noise" not in str(caught.value)


CLIXML = (
    '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
    '<Obj S="progress" RefId="0"><TN RefId="0"><T>ProgressRecord</T></TN><S>Preparing modules</S></Obj>'
    '<S S="Error">_x001B_[31;1mboom: &lt;it&gt; &amp; more_x001B_[0m_x000D__x000A_</S>'
    '<S S="Error">At line:1 char:1_x000D__x000A_</S></Objs>'
)


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        (CLIXML, ": boom: <it> & more At line:1 char:1;"),
        (CLIXML.replace("Error", "Warning"), ": nothing;"),
        ("\x1b[91mboom\x1b[0m\n", ": boom;"),
        ("", ": nothing;"),
        (CLIXML.replace("boom", "x" * 30 + " " * 2000), ": " + "x" * 30),
    ],
    ids=["CLIXML", "no errors", "colours", "nothing", "long"],
)
async def test_an_error_outside_of_the_script_is_made_readable(pwsh: StandIn, stderr: str, shown: str) -> None:
    """What PowerShell itself had to say is part of the message, in one short line without its XML and its colours."""
    pwsh.says("WARNING: something", stderr=stderr, exit_code=64)
    with pytest.raises(TokenRefusedError) as caught:
        await pwsh.fetch()
    assert shown in str(caught.value)
    assert "(exit code 64)" in str(caught.value)
    assert not re.search(r"_x00|CLIXML|\[31|\n|Preparing", str(caught.value))
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("stderr", "advice"),
    [
        ('#< CLIXML\n<Objs><S S="Error">AuthorizationManager check failed._x000A_</S></Objs>', "Set-ExecutionPolicy"),
        ("Get-AzAccessToken: Run Connect-AzAccount to login.", "run in PowerShell: Connect-AzAccount"),
    ],
    ids=["policy", "nobody"],
)
async def test_an_error_outside_of_the_script_is_understood(pwsh: StandIn, stderr: str, advice: str) -> None:
    """Errors mean the same wherever they were thrown."""
    pwsh.says(stderr=stderr, exit_code=1)
    with pytest.raises(SourceUnavailableError, match=advice):
        await pwsh.fetch()


async def test_a_broken_answer_is_passed_over(pwsh: StandIn) -> None:
    """An answer that is no JSON counts for nothing, and what is on the other side is told instead."""
    pwsh.says("aiomsi:{broken}\n", stderr="boom", exit_code=1)
    with pytest.raises(TokenRefusedError, match="boom"):
        await pwsh.fetch()


async def test_output_without_an_answer_is_described(pwsh: StandIn) -> None:
    """Success without the answer of the script says what was printed instead, and shows nothing of it."""
    pwsh.says("signature\n")
    with pytest.raises(MalformedResponseError, match=r"printed no token: .* not JSON of 10 bytes") as caught:
        await pwsh.fetch()
    assert "signature" not in str(caught.value)


@pytest.mark.parametrize("tenant_id", [None, "asked.example"], ids=["no tenant", "a tenant"])
async def test_claims_need_a_new_connection(pwsh: StandIn, tenant_id: str | None) -> None:
    """A challenge's claims are passed to `Connect-AzAccount` only, so the error is the command to run."""
    claims = '{"access_token": {"nbf": {"essential": true, "value": "1604106651"}}}'
    with pytest.raises(TokenRefusedError) as caught:
        await pwsh.fetch(claims=claims, tenant_id=tenant_id)
    tenant = " -Tenant asked.example" if tenant_id else ""
    command = re.search(rf': Connect-AzAccount{tenant} -ClaimsChallenge "([^"]+)"$', str(caught.value))
    assert command is not None
    assert base64.b64decode(command[1]).decode() == claims
    assert pwsh.asked == []


def on_windows(folder: Path) -> Surroundings:
    return Surroundings(environ={"PATH": str(folder), "SYSTEMROOT": str(folder)}, platform="win32")


async def test_on_windows_its_own_powershell_will_do(tmp_path: Path) -> None:
    """Where the newer PowerShell is not installed, the one that Windows has runs the same script."""
    old = StandIn(tmp_path, AzurePowerShell, "powershell.EXE", GIVEN)
    old.surroundings = on_windows(tmp_path)
    assert (await old.fetch()).token == "opaque"
    assert f"-ResourceUrl '{VAULT}'" in script_of(old.asked[0])


async def test_on_windows_the_newer_powershell_goes_first(tmp_path: Path) -> None:
    """The PowerShell of Windows is not asked where there is another one, whatever that answers."""
    new, old = (StandIn(tmp_path, AzurePowerShell, f"{name}.EXE", GIVEN) for name in ("pwsh", "powershell"))
    new.surroundings = on_windows(tmp_path)
    new.says(failed(NOT_CONNECTED), exit_code=1)
    with pytest.raises(SourceUnavailableError, match="Connect-AzAccount"):
        await new.fetch()
    assert (len(new.asked), len(old.asked)) == (1, 0)


@pytest.mark.parametrize(("platform", "program"), [("linux", "pwsh"), ("win32", "powershell")])
async def test_without_powershell_the_message_says_where_to_get_it(tmp_path: Path, platform: str, program: str) -> None:
    """Where there is none, the source is unavailable and says how to install it and the module."""
    surroundings = Surroundings(environ={"PATH": str(tmp_path)}, platform=platform)
    with pytest.raises(SourceUnavailableError, match=rf"^{program} was not .* Install-Module Az.Accounts"):
        await AzurePowerShell(surroundings=surroundings).fetch(TokenRequest(VAULT))
