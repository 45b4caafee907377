"""The account of Visual Studio, with programs that stand in for its token providers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support import PacedClock
from test_tools import END, END_IN_WORDS, NOW, TENANT, VAULT, StandIn, list_providers

from aiomsi import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenRefusedError,
)
from aiomsi.sources import Surroundings, TokenRequest
from aiomsi.sources.visual_studio import VisualStudio
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

SIGN_IN = "sign in to Visual Studio: Tools > Options > Azure Service Authentication"
NOBODY = "TS003: Error, TS005: No accounts found. Please go to Tools->Options and add an account.\n"
STALE = "TS003: Error, TS001: This account 'me@contoso.com' needs re-authentication.\n"
REFUSED = "TS003: Error, TS004: Unable to get access token. 'AADSTS65001: no consent'\n"


def printed(token: str, **members: Any) -> str:
    """Return what a token provider prints for a token."""
    return json.dumps(
        {"access_token": token, "expires_on": END_IN_WORDS, "resource": VAULT, "token_type": "Bearer", **members}
    )


def install(folder: Path, name: str, answer: str | None = None) -> StandIn:
    """Put a token provider into *folder*, which gives out its own name."""
    return StandIn(folder, VisualStudio, name, printed(name) if answer is None else answer)


def entry(program: Path | str, preference: int = 0, **members: Any) -> dict[str, Any]:
    return {"Path": str(program), "Preference": preference, **members}


async def fetch(home: Path, **request: Any) -> str:
    """Return the token that a source without options gets where *home* is."""
    source = VisualStudio(surroundings=Surroundings(environ={"HOME": str(home)}))
    return (await source.fetch(TokenRequest(VAULT, clock=ManualClock(NOW), **request))).token


async def test_the_question_is_plain(tmp_path: Path) -> None:
    """A token provider gets its own arguments and then the resource."""
    provider = install(tmp_path, "TokenService")
    list_providers(tmp_path, entry(provider.path, Arguments=["--mode", "two words"]))
    assert await fetch(tmp_path) == "TokenService"
    assert provider.asked == [["--mode", "two words", "--resource", VAULT]]


@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [({"tenant_id": TENANT}, None, TENANT), ({"tenant_id": TENANT}, "asked.example", "asked.example")],
    ids=["own", "asked over own"],
)
async def test_a_tenant_reaches_the_token_provider(
    tmp_path: Path, options: dict[str, str], asked: str | None, expected: str
) -> None:
    """The tenant comes last."""
    provider = install(tmp_path, "TokenService")
    list_providers(tmp_path, entry(provider.path, Arguments=None))
    await provider.source(**options).fetch(TokenRequest(VAULT, tenant_id=asked, clock=ManualClock(NOW)))
    assert provider.asked == [["--resource", VAULT, "--tenant", expected]]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("2025-10-09T09:53:20+00:00", END),
        ("2025-10-09T11:53:20.1234567+02:00", END),
        ("10/09/2025 09:53:20 +00:00", END),
    ],
    ids=["UTC", "a zone", "American"],
)
async def test_the_end_is_a_date(tmp_path: Path, end: str, expected: float) -> None:
    """The date at which the token ends is read with its zone."""
    provider = install(tmp_path, "TokenService", printed("opaque", expires_on=end))
    list_providers(tmp_path, entry(provider.path))
    assert (await provider.fetch()).expires_on == expected


async def test_the_preferred_one_goes_first(tmp_path: Path) -> None:
    """The token providers are run by their preference, the lowest first, until one gives a token."""
    first, second, third = (install(tmp_path, name) for name in ("first", "second", "third"))
    list_providers(tmp_path, entry(third.path, 30), entry(first.path, -1), entry(second.path, 2))
    assert await fetch(tmp_path) == "first"
    first.says(stderr=NOBODY, exit_code=1)
    assert await fetch(tmp_path) == "second"
    second.says("not JSON")
    assert await fetch(tmp_path) == "third"
    assert [len(each.asked) for each in (first, second, third)] == [3, 2, 1]


async def test_one_that_is_not_there_any_more_is_skipped(tmp_path: Path) -> None:
    """An uninstalled version leaves an entry behind, which does not matter."""
    provider = install(tmp_path, "TokenService")
    list_providers(tmp_path, entry(tmp_path / "gone", 0), entry(tmp_path, 1), entry(provider.path, 2))
    assert await fetch(tmp_path) == "TokenService"


@pytest.mark.parametrize("entries", [[], ["/nowhere/TokenService"], ["TokenService", "./TokenService"]], ids=str)
async def test_without_any_it_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[str]
) -> None:
    """Where no token provider is there under an absolute path, the error names the file that lists them."""
    monkeypatch.chdir(tmp_path)
    provider = install(tmp_path, "TokenService")
    file = list_providers(tmp_path, *map(entry, entries))
    with pytest.raises(SourceUnavailableError, match=SIGN_IN) as caught:
        await fetch(tmp_path)
    assert f"{file} lists {len(entries)} token providers" in str(caught.value)
    assert (caught.value.resource, caught.value.source) == (VAULT, "visual_studio")
    assert provider.asked == []


async def test_one_that_may_not_be_run_is_told(tmp_path: Path) -> None:
    """A token provider without the permission to execute it is named as one that was not found."""
    provider = install(tmp_path, "TokenService")
    provider.path.chmod(0o644)
    list_providers(tmp_path, entry(provider.path))
    with pytest.raises(SourceUnavailableError, match=rf"^{provider.path} was not found; {SIGN_IN}$"):
        await fetch(tmp_path)


@pytest.mark.parametrize("home", [None, "", "relative"])
async def test_without_a_home_it_is_unavailable(home: str | None) -> None:
    """Where nothing says where the file would be, the error names the variable."""
    for platform, variable in (("linux", "HOME"), ("win32", "LOCALAPPDATA")):
        environ = {} if home is None else {variable: home}
        source = VisualStudio(surroundings=Surroundings(environ=environ, platform=platform))
        with pytest.raises(SourceUnavailableError, match=f"{variable} is no absolute path"):
            await source.fetch(TokenRequest(VAULT))


@pytest.mark.parametrize("what", ["nothing", "a file"])
async def test_without_the_file_it_is_unavailable(tmp_path: Path, what: str) -> None:
    """Where Visual Studio has never been, the error says where its file would be, and what to do."""
    if what == "a file":
        (tmp_path / ".IdentityService").touch()
    with pytest.raises(SourceUnavailableError, match=SIGN_IN) as caught:
        await fetch(tmp_path)
    assert f"there is no {tmp_path}/.IdentityService/AzureServiceAuth/tokenprovider.json" in str(caught.value)
    assert (caught.value.resource, caught.value.source) == (VAULT, "visual_studio")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no JSON"),
        (b"{", "holds no JSON"),
        (b"\xff\xfe", "holds no JSON"),
        (b"[" * 60_000, "holds no JSON"),
        (b"[]", "has no list of TokenProviders"),
        (b"{}", "has no list of TokenProviders"),
        (b'{"TokenProviders": {}}', "has no list of TokenProviders"),
        (b'{"TokenProviders": [5]}', "has a token provider without"),
        (b'{"TokenProviders": [{"Preference": 1}]}', "has a token provider without"),
        (b'{"TokenProviders": [{"Path": "/x"}]}', "has a token provider without"),
        (b'{"TokenProviders": [{"Path": "/x", "Preference": "1"}]}', "has a token provider without"),
        (b'{"TokenProviders": [{"Path": "/x\\u0000", "Preference": 1}]}', "has a token provider without"),
        (b'{"TokenProviders": [{"Path": "/x", "Preference": 1, "Arguments": "x"}]}', "has a token provider without"),
        (b'{"TokenProviders": [{"Path": "/x", "Preference": 1, "Arguments": [5]}]}', "has a token provider without"),
        (b'{"TokenProviders": []}' + b" " * 65_536, "has more than 65536 bytes"),
    ],
    ids=lambda value: "",  # noqa: ARG005
)
async def test_a_broken_file_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    """A file that Visual Studio would not write stops a chain; the error names it, and says what is wrong with it."""
    file = list_providers(tmp_path)
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        await fetch(tmp_path)
    assert str(caught.value).startswith(f"{file} {what}")
    assert (caught.value.resource, caught.value.source) == (VAULT, "visual_studio")


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo])
async def test_something_that_is_no_file_is_named(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """A folder or a pipe in the file's place is not waited for."""
    file = list_providers(tmp_path)
    file.unlink()
    kind(file)
    with pytest.raises(ConfigurationError) as caught:
        await asyncio.wait_for(fetch(tmp_path), 5)
    assert str(caught.value).startswith(str(file))


async def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    """Programs on Windows like to begin a file with one."""
    file = list_providers(tmp_path, entry(install(tmp_path, "TokenService").path))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert await fetch(tmp_path) == "TokenService"


@pytest.mark.parametrize(
    ("stderr", "kind", "code"),
    [
        (NOBODY, SourceUnavailableError, "TS005"),
        (STALE, TokenRefusedError, "TS001"),
        (REFUSED, TokenRefusedError, "AADSTS65001"),
        ("Unhandled exception. System.IO.FileNotFoundException\n", TokenRefusedError, None),
        ("", TokenRefusedError, None),
    ],
    ids=["nobody", "stale", "refused", "crash", "silent"],
)
async def test_a_failure_is_told_by_its_code(
    tmp_path: Path, stderr: str, kind: type[AiomsiError], code: str | None
) -> None:
    """Nobody signed in lets a chain go on, anything else stops it, and the error names the program and what to do."""
    provider = install(tmp_path, "TokenService")
    provider.says(stderr=stderr, exit_code=1)
    list_providers(tmp_path, entry(provider.path))
    with pytest.raises(AiomsiError, match=SIGN_IN) as caught:
        await fetch(tmp_path)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (1, code)
    assert (caught.value.resource, caught.value.source) == (VAULT, "visual_studio")
    assert str(caught.value).startswith(f"`{provider.path}` gave no token for '{VAULT}' (exit code 1): ")
    assert (stderr.strip().rstrip(".") or "nothing") in str(caught.value)


@pytest.mark.parametrize(
    ("second", "kind", "code"),
    [(NOBODY, SourceUnavailableError, "TS005"), (STALE, TokenRefusedError, "TS001")],
    ids=["all unavailable", "one refused"],
)
async def test_all_failures_are_told(tmp_path: Path, second: str, kind: type[AiomsiError], code: str) -> None:
    """When all have failed there is a line for each; together they are unavailable only if each of them is."""
    providers = [install(tmp_path, "first"), install(tmp_path, "second")]
    for provider, said in zip(providers, (NOBODY, second), strict=True):
        provider.says(stderr=said, exit_code=1)
    list_providers(tmp_path, *(entry(provider.path) for provider in providers))
    with pytest.raises(AiomsiError) as caught:
        await fetch(tmp_path)
    title, *lines = str(caught.value).splitlines()
    assert title == f"no token for '{VAULT}': none of the 2 token providers of Visual Studio gave one"
    assert [line.partition(" gave ")[0] for line in lines] == [f"- `{provider.path}`" for provider in providers]
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.resource, caught.value.source) == (code, VAULT, "visual_studio")


async def test_all_of_them_share_the_time(tmp_path: Path) -> None:
    """When the first one has taken all the time, the others are not started any more."""
    first, second = install(tmp_path, "first"), install(tmp_path, "second")
    first.does("sleep 600")
    list_providers(tmp_path, entry(first.path), entry(second.path))
    clock, source = PacedClock(), first.source(process_timeout=7)
    running = asyncio.create_task(source.fetch(TokenRequest(VAULT, clock=clock)))
    assert await clock.next_alarm(running) == 7
    await clock.advance(7)
    with pytest.raises(EndpointError, match=r"\n- .*first did not finish within 7 s .*\n- .*second did not finish"):
        await running
    assert second.asked == []


async def test_output_that_makes_no_sense_is_described(tmp_path: Path) -> None:
    """Success without a token names the program and the kind of its output."""
    provider = install(tmp_path, "TokenService", "{}")
    list_providers(tmp_path, entry(provider.path))
    with pytest.raises(MalformedResponseError, match=rf"`{provider.path}` printed no token: .* no members"):
        await fetch(tmp_path)


async def test_claims_need_a_new_sign_in(tmp_path: Path) -> None:
    """Visual Studio cannot ask for a challenge's claims, so the error is what to do, and nothing is run."""
    provider = install(tmp_path, "TokenService")
    list_providers(tmp_path, entry(provider.path))
    with pytest.raises(TokenRefusedError, match=SIGN_IN):
        await fetch(tmp_path, claims="{}")
    assert provider.asked == []


async def test_on_windows_the_file_is_in_the_local_profile(tmp_path: Path) -> None:
    """Paths are those of Windows, each looked for under the root of the file system."""
    profile, programs = tmp_path / "Users" / "me" / "Local", tmp_path / "Program Files" / "VS"
    programs.mkdir(parents=True)
    install(programs, "TokenService.exe")
    list_providers(profile, entry("TokenService.exe", -1), entry(r"C:\Program Files\VS\TokenService.exe"))
    environ = {"LOCALAPPDATA": r"C:\Users\me\Local", "SYSTEMROOT": str(tmp_path)}
    surroundings = Surroundings(environ=environ, platform="win32", root=tmp_path)
    token = await VisualStudio(surroundings=surroundings).fetch(TokenRequest(VAULT, clock=ManualClock(NOW)))
    assert token.token == "TokenService.exe"
