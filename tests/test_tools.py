"""What holds for each of the developer's tools, with programs that stand in for them, hostile ones too."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import sys
import time
import traceback
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from support import PacedClock

from aiomsi import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.sources import Surroundings, TokenRequest
from aiomsi.sources.azure_cli import AzureCLI
from aiomsi.sources.azure_developer_cli import AzureDeveloperCLI
from aiomsi.sources.azure_powershell import AzurePowerShell
from aiomsi.sources.visual_studio import VisualStudio
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aiomsi import AccessToken
    from aiomsi._clock import Clock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

ToolSource: TypeAlias = AzureCLI | AzureDeveloperCLI | AzurePowerShell | VisualStudio

VAULT = "https://vault.azure.net"
TENANT = "11111111-aaaa-4bbb-8ccc-000000000001"
NOW = 1_760_000_000.0
END = NOW + 3600
END_IN_WORDS = "2025-10-09T09:53:20Z"
SOON = 5.0  # Real seconds for what takes milliseconds, so that a test that would hang fails instead.


def jwt(**claims: Any) -> str:
    """Return a token with these claims; the word "signature" in it must never show."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.signature"


def zone(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    """Let local time be that of the time zone *name* until the generator goes on."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


class StandIn:
    """A program that stands in for a tool, says what it is told, and writes down what it was asked."""

    def __init__(self, folder: Path, kind: Callable[..., ToolSource], program: str, answer: str) -> None:
        self.kind = kind
        self.path = folder / program
        self.answer = answer
        self.surroundings = Surroundings(environ={"PATH": str(folder), "HOME": str(folder)}, platform=sys.platform)
        self.says(answer)

    def does(self, script: str) -> None:
        """Run *script* when it is called."""
        noted = '{ printf "%s\\n" "$@"; echo; } >>"$0.asked"'
        self.path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{noted}\n{script}\n")
        self.path.chmod(0o755)

    def says(self, stdout: str | bytes = b"", *, stderr: str = "", exit_code: int = 0) -> None:
        """Print this and exit."""
        self._beside("stdout").write_bytes(stdout if isinstance(stdout, bytes) else stdout.encode())
        self._beside("stderr").write_text(stderr)
        self.does(f'cat "$0.stderr" >&2\ncat "$0.stdout"\nexit {exit_code}')

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of each call."""
        try:
            calls = self._beside("asked").read_text().removesuffix("\n\n")
        except FileNotFoundError:
            return []
        return [call.split("\n") for call in calls.split("\n\n")]

    def source(self, **options: Any) -> ToolSource:
        """Return a source that runs it."""
        return self.kind(surroundings=self.surroundings, **options)

    async def fetch(self, resource: str = VAULT, clock: Clock | None = None, **request: Any) -> AccessToken:
        """Return what a source without options gets."""
        asked = TokenRequest(resource, clock=clock or ManualClock(NOW), **request)
        async with asyncio.timeout(SOON):
            return await self.source().fetch(asked)

    def _beside(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{what}")


def list_providers(home: Path, *providers: dict[str, Any]) -> Path:
    """Let Visual Studio list *providers*, and return the file."""
    file = home / ".IdentityService" / "AzureServiceAuth" / "tokenprovider.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"TokenProviders": providers}))
    return file


TOOLS: dict[str, tuple[Callable[..., ToolSource], str, str]] = {
    "azure_cli": (AzureCLI, "az", json.dumps({"accessToken": "opaque", "expires_on": END})),
    "azure_developer_cli": (AzureDeveloperCLI, "azd", json.dumps({"token": "opaque", "expiresOn": END_IN_WORDS})),
    "azure_powershell": (
        AzurePowerShell,
        "pwsh",
        "aiomsi:" + json.dumps({"token": "opaque", "expires_on": END}),
    ),
    "visual_studio": (
        VisualStudio,
        "TokenService",
        json.dumps({"access_token": "opaque", "expires_on": END_IN_WORDS}),
    ),
}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> StandIn:
    stand_in = StandIn(tmp_path, *TOOLS[request.param])
    list_providers(tmp_path, {"Path": str(stand_in.path), "Preference": 0})
    return stand_in


async def test_a_token_comes_with_all_that_is_known(tool: StandIn) -> None:
    """The printed token is returned with its end, for the provider to decide when to refresh it."""
    token = await tool.fetch()
    assert (token.token, token.expires_on, token.refresh_on) == ("opaque", END, None)
    assert (token.resource, token.source) == (VAULT, tool.source().name)


async def test_a_crowd_starts_the_tool_once(tool: StandIn) -> None:
    """However many ask, one program runs for all of them."""
    async with TokenProvider(tool.source(), clock=ManualClock(NOW)) as provider:
        tokens = await asyncio.gather(*(provider.token(VAULT) for _ in range(50)))
    assert tokens == ["opaque"] * 50
    assert len(tool.asked) == 1


async def test_the_tenant_that_is_asked_for_goes_before_the_own_one(tool: StandIn) -> None:
    """A provider asks for each tenant once, and who names none gets that of the source."""
    source = tool.source(tenant_id="own.example")
    assert source.chooses_tenant
    async with TokenProvider(source, clock=ManualClock(NOW)) as provider:
        await provider.access_token(VAULT)
        await provider.access_token(VAULT, tenant_id="other.example")
        await provider.access_token(VAULT, tenant_id="other.example")
    own, other = (" ".join(map(readable, call)) for call in tool.asked)
    assert "own.example" in own
    assert "other.example" in other
    assert "own.example" not in other


def readable(argument: str) -> str:
    """Return *argument*, decoded if it is a script of PowerShell."""
    with suppress(ValueError):
        return base64.b64decode(argument, validate=True).decode("utf-16-le") if len(argument) > 100 else argument
    return argument


@pytest.mark.parametrize(("left", "limit"), [(60.0, 7), (3.0, 3)], ids=["its own", "what is left"])
async def test_a_tool_that_hangs_is_stopped(tool: StandIn, left: float, limit: int) -> None:
    """A program that does nothing is ended when its time is up, or that of the fetch, and the error says so."""
    tool.does("sleep 600")
    clock, source = PacedClock(), tool.source(process_timeout=7)
    fetch = asyncio.create_task(source.fetch(TokenRequest(VAULT, clock=clock, deadline=left)))
    assert await clock.next_alarm(fetch) == limit
    await clock.advance(limit - 0.1)
    assert not fetch.done()
    await clock.advance(0.1)
    with pytest.raises(EndpointError, match=f"{tool.path.name} did not finish within {limit} s") as caught:
        await fetch
    assert (caught.value.resource, caught.value.source) == (VAULT, source.name)
    assert clock.timers == 0


async def test_a_child_that_holds_the_pipes_holds_nobody_up(tool: StandIn, tmp_path: Path) -> None:
    """A tool that leaves something running in the background gives its token all the same."""
    tool.does(f"sleep 600 &\necho $! >\"{tmp_path}/child\"\ncat <<'END'\n{tool.answer}\nEND")
    try:
        assert (await tool.fetch()).token == "opaque"
    finally:
        with suppress(ProcessLookupError):
            os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("side", ["", " >&2"], ids=["stdout", "stderr"])
async def test_a_flood_is_stopped_before_it_fills_the_memory(tool: StandIn, side: str) -> None:
    """Of a gigabyte hardly more than the bound is ever held, and the error shows nothing of it."""
    tool.does(f"head -c 1000000000 /dev/zero | tr '\\0' x{side}")
    tracemalloc.start()
    try:
        with pytest.raises(MalformedResponseError, match="printed more than 1048576 bytes") as caught:
            await tool.fetch()
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert "xxx" not in str(caught.value)
    assert (caught.value.resource, caught.value.source) == (VAULT, tool.source().name)


SECRET = jwt(sub="me", name="x" * 60)
LEAKS = {
    "bare": f"ERROR: got {SECRET} from the endpoint",
    "json": f'{{"access_token": "{SECRET}"}}',
    "message": json.dumps({"error": f"got {SECRET}"}),
    "answer": "aiomsi:" + json.dumps({"error": f"got {SECRET}", "id": SECRET}),
    "opaque": '{"accessToken": "signature", "token": "signature"}',
    "header": "Authorization: Bearer signature",
    "CLIXML": f'#< CLIXML\n<Objs><S S="Error">got {SECRET}_x000D__x000A_</S></Objs>',
    "variable": "the key is the-signature-key",
}


def variables_of_ours(error: AiomsiError) -> str:
    """Return the local variables of the package's frames through which *error* has come."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    ours = [str(frame.locals) for frame in frames if "/aiomsi/" in frame.filename]
    assert ours
    return "\n".join(ours)


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_a_secret_in_what_is_printed_goes_nowhere(
    tool: StandIn, caplog: pytest.LogCaptureFixture, leak: str, exit_code: int
) -> None:
    """A secret that a tool prints on either side shows in no message, log, representation or traceback with locals."""
    tool.surroundings = Surroundings(environ={**tool.surroundings.environ, "MSI_KEY": "the-signature-key"})
    tool.says(leak, stderr=leak, exit_code=exit_code)
    caplog.set_level(logging.DEBUG)
    async with TokenProvider(tool.source(), clock=ManualClock(NOW)) as provider:
        with pytest.raises(AiomsiError) as caught:
            await provider.token(VAULT)
        seen = [caplog.text, repr(provider), repr(provider.statistics()), repr(caught.value.__dict__)]
    with pytest.raises(AiomsiError) as caught:
        await tool.fetch()
    seen.append(variables_of_ours(caught.value))
    for text in [*seen, *traceback.format_exception(caught.value)]:
        assert "signature" not in text
        assert SECRET[:40] not in text


SECRET_VARIABLES = (
    *("IDENTITY_HEADER", "MSI_SECRET", "SYSTEM_ACCESSTOKEN", "STORAGE_KEY", "AZURE_CLIENT_CERTIFICATE_PASSWORD"),
    *("AZURE_DEVOPS_EXT_PAT", "DB_PWD", "AzureServicesAuthConnectionString", "SQL_CONNECTION_STRING"),
)


async def test_what_secret_variables_hold_is_not_shown(tool: StandIn) -> None:
    """A tool has them too, and might print them; the current folder is none of them, for all its name."""
    secrets = {name: f"the signature of {number}" for number, name in enumerate(SECRET_VARIABLES)}
    tool.surroundings = Surroundings(environ={**tool.surroundings.environ, **secrets, "PWD": "/some/folder"})
    tool.says(stderr=f"ERROR: {', '.join(secrets.values())} in /some/folder", exit_code=1)
    with pytest.raises(AiomsiError, match="in /some/folder") as caught:
        await tool.fetch()
    assert "signature" not in str(caught.value)


async def test_the_frames_of_a_failed_fetch_hold_no_token(tool: StandIn) -> None:
    """A token that is no good shows in no local variable of the frames that an error passes through."""
    tool.says(tool.answer.replace(str(END), str(NOW)).replace("2025", "2015").replace("opaque", SECRET))
    with pytest.raises(MalformedResponseError, match="expired") as caught:
        await tool.fetch()
    assert "signature" not in variables_of_ours(caught.value)


async def test_a_tool_in_the_current_folder_is_never_run(
    tool: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever puts a program of the right name where an application happens to run cannot make it run."""
    monkeypatch.chdir(tmp_path)
    list_providers(tmp_path, {"Path": tool.path.name, "Preference": 0})
    tool.surroundings = Surroundings(environ={"PATH": os.pathsep.join(["", "."]), "HOME": str(tmp_path)})
    with pytest.raises(SourceUnavailableError):
        await tool.fetch()
    assert tool.asked == []


async def test_a_missing_tool_says_what_to_do(tool: StandIn) -> None:
    """Without the tool the source is unavailable, and the error says for what it was needed, and how to get it."""
    tool.path.unlink()
    with pytest.raises(SourceUnavailableError, match=r"install|sign in to Visual Studio") as caught:
        await tool.fetch()
    assert (caught.value.resource, caught.value.source) == (VAULT, tool.source().name)


@pytest.mark.parametrize(
    "bad",
    ["a&calc", "$(id)", "`id`", "%PATH%", "a;b", "a|b", "-h", "@file", "a'b", 'a"b', "a^b", "a\u2019b", "a\nb", "a\\b"],
)
async def test_what_a_shell_would_read_never_reaches_a_tool(tool: StandIn, bad: str) -> None:
    """A resource or tenant with characters that mean something to a shell is refused, and nothing is run."""
    for resource, tenant_id in ((bad, None), (VAULT, bad)):
        with pytest.raises(ConfigurationError, match="was not run") as caught:
            await tool.fetch(resource, tenant_id=tenant_id)
        assert (caught.value.source, caught.value.resource) == (tool.source().name, resource)
    with pytest.raises(ValueError, match=r"^tenant_id is .* cannot be passed to `.*`; use the GUID"):
        tool.source(tenant_id=bad)
    assert tool.asked == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tenant_id": 5}, TypeError, "tenant_id is a string, not 5"),
        ({"tenant_id": ""}, ValueError, "tenant_id is ''"),
        ({"process_timeout": "5"}, TypeError, "process_timeout is a number of seconds, not '5'"),
        ({"process_timeout": True}, TypeError, "process_timeout is a number"),
        ({"process_timeout": 0}, ValueError, "process_timeout is a positive number"),
        ({"process_timeout": -1.5}, ValueError, "process_timeout is a positive number"),
        ({"process_timeout": float("inf")}, ValueError, "process_timeout is a positive number"),
        ({"process_timeout": float("nan")}, ValueError, "process_timeout is a positive number"),
    ],
    ids=str,
)
def test_wrong_options_are_told_at_once(
    tool: StandIn, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Options that make no sense are an error where they are written, not at the first fetch."""
    with pytest.raises(error, match=message):
        tool.source(**options)


@pytest.mark.parametrize(("options", "limit"), [({}, 30.0), ({"process_timeout": 5}, 5.0)], ids=["default", "given"])
def test_the_time_for_the_process_is_the_time_of_a_fetch(
    tool: StandIn, options: dict[str, float], limit: float
) -> None:
    """The provider gives up when the tool would have been stopped."""
    assert tool.source(**options).time_limit == limit


def test_it_shows_as_it_was_made(tool: StandIn) -> None:
    """The representation says whose tokens these are."""
    name = type(tool.source()).__name__
    assert repr(tool.source(process_timeout=5)) == f"{name}()"
    assert repr(tool.source(tenant_id="contoso.com")) == f"{name}(tenant_id='contoso.com')"


def test_without_surroundings_it_is_this_machine(tool: StandIn) -> None:
    """Making a source reads nothing, so that it can live at module level."""
    assert repr(tool.kind()) == f"{type(tool.source()).__name__}()"


NO_TOKEN = "printed no token"
NO_TIME = "printed a token without a time"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("{}", NO_TOKEN),
        ("[]", NO_TOKEN),
        ("", NO_TOKEN),
        ('{"NAME": null}', NO_TOKEN),
        ('{"NAME": ["signature"]}', NO_TOKEN),
        ('{"NAME": "signature and more"}', "printed a token that no HTTP header can carry"),
        ('{"NAME": "signature"}', NO_TIME),
        ('{"NAME": "signature", "expires_on": true, "expiresOn": "0001-01-01 00:00:00"}', None),
        ('{"NAME": "signature", "expires_on": "soon", "expiresOn": 5}', NO_TIME),
    ],
    ids=str,
)
async def test_an_answer_that_makes_no_sense_is_described(tool: StandIn, answer: str, problem: str | None) -> None:
    """Success without a token that can be used says what is wrong with it, and shows none of it."""
    names = {
        AzureCLI: "accessToken",
        AzureDeveloperCLI: "token",
        AzurePowerShell: "token",
        VisualStudio: "access_token",
    }
    marker = "aiomsi:" if tool.kind is AzurePowerShell else ""
    tool.says(marker + answer.replace("NAME", names[type(tool.source())]))
    with pytest.raises(MalformedResponseError, match=problem) as caught:
        await tool.fetch()
    assert "signature" not in str(caught.value)
    assert (caught.value.resource, caught.value.source) == (VAULT, tool.source().name)


async def test_claims_that_a_tool_cannot_ask_for_are_told(tool: StandIn) -> None:
    """Where a challenge's claims need a new login the error says so, and nothing is run; azd alone takes them."""
    claims = '{"access_token": {"nbf": {"essential": true, "value": "1604106651"}}}'
    if tool.kind is AzureDeveloperCLI:
        assert (await tool.fetch(claims=claims)).token == "opaque"
        return
    with pytest.raises(TokenRefusedError, match=r"run|sign in to Visual Studio") as caught:
        await tool.fetch(claims=claims)
    assert (caught.value.resource, caught.value.source) == (VAULT, tool.source().name)
    assert tool.asked == []
