"""The account of the Azure Developer CLI, with programs that stand in for `azd`."""

from __future__ import annotations

import base64
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from test_tools import END, END_IN_WORDS, NOW, VAULT, StandIn, jwt, zone

from aiomsi import AiomsiError, EndpointError, MalformedResponseError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources import Surroundings, TokenRequest
from aiomsi.sources.azure_developer_cli import AzureDeveloperCLI
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

CLAIMS = '{"access_token": {"nbf": {"essential": true, "value": "1604106651"}}}'


def printed(**members: Any) -> str:
    """Return what `azd` prints for a token."""
    return json.dumps({"token": "opaque", "expiresOn": END_IN_WORDS, **members})


@pytest.fixture
def azd(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path, AzureDeveloperCLI, "azd", printed())


@pytest.mark.parametrize("resource", [VAULT, "https://management.azure.com/", "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"])
async def test_the_scope_is_the_resource_and_a_suffix(azd: StandIn, resource: str) -> None:
    """The resource goes into the scope as it is, trailing slash and all, since a token's audience has it."""
    await azd.fetch(resource)
    expected = ["auth", "token", "--output", "json", "--no-prompt", "--scope", f"{resource}/.default"]
    assert azd.asked == [expected]


@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [
        ({}, {}, []),
        ({"tenant_id": "own.example"}, {}, ["--tenant-id", "own.example"]),
        ({"tenant_id": "own.example"}, {"tenant_id": "asked.example"}, ["--tenant-id", "asked.example"]),
        ({}, {"claims": CLAIMS}, ["--claims", base64.b64encode(CLAIMS.encode()).decode()]),
    ],
    ids=["neither", "own tenant", "asked tenant", "claims"],
)
async def test_tenant_and_claims_reach_azd(
    azd: StandIn, options: dict[str, Any], asked: dict[str, Any], expected: list[str]
) -> None:
    """A tenant is passed on, and the claims of a challenge in base64."""
    await azd.source(**options).fetch(TokenRequest(VAULT, clock=ManualClock(NOW), **asked))
    assert azd.asked[0][7:] == expected


async def test_azd_prints_nothing_of_its_own(azd: StandIn) -> None:
    """Colours, reports, and looking for updates or other tools would cost time and end up in messages."""
    azd.does(f"""printf '{{"token": "%s-%s-%s-%s", "expiresOn": "{END_IN_WORDS}"}}' \\
        "$NO_COLOR" "$AZURE_DEV_COLLECT_TELEMETRY" "$AZD_SKIP_UPDATE_CHECK" "$AZD_SKIP_FIRST_RUN" """)
    assert (await azd.fetch()).token == "true-false-true-true"


@pytest.fixture(params=["America/New_York", "Asia/Tokyo", "UTC"])
def _anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from zone(monkeypatch, request.param)


@pytest.mark.usefixtures("_anywhere")
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, END),
        ({"expiresOn": "2025-10-09T05:53:20-04:00"}, END),
        ({"expiresOn": "2025-10-09T09:53:20.123456789Z"}, END + 0.123456),
        ({"token": jwt(exp=END + 60)}, END),
        ({"token": jwt(exp=END + 60), "expiresOn": "2025-10-09 09:53:20.000000"}, END + 60),
    ],
    ids=["UTC", "a zone", "a fraction", "beside the token's own", "no zone"],
)
async def test_the_end_is_the_same_everywhere(azd: StandIn, members: dict[str, Any], expected: float) -> None:
    """A time with a zone is read as such wherever the machine is; without one the token itself knows better."""
    azd.says(printed(**members))
    assert (await azd.fetch()).expires_on == expected


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from zone(monkeypatch, "Asia/Tokyo")


@pytest.mark.usefixtures("_in_tokyo")
async def test_where_it_stands_in_for_az_it_is_read_like_az(azd: StandIn) -> None:
    """Under the name that `az` gives a token, with a time without a zone and a token that tells none, it is local."""
    azd.says(json.dumps({"accessToken": "emulated", "expiresOn": "2025-10-09 18:53:20.000000"}))
    token = await azd.fetch()
    assert (token.token, token.expires_on) == ("emulated", END)


NOT_LOGGED_IN = "fetching token: not logged in, run `azd auth login` to login"
EXPIRED = "fetching token: failed to authenticate:\n(invalid_grant) AADSTS70043: The refresh token has expired.\n"
OFFLINE = 'Post "https://login.microsoftonline.com/x": dial tcp: lookup login.microsoftonline.com: no such host'


def newest(error: str) -> str:
    """Return how azd prints an error since 1.23.7."""
    return (
        json.dumps({"type": "consoleMessage", "timestamp": "2026-04-13T17:43:24Z", "data": {"message": "\n"}})
        + "\n"
        + json.dumps({"error": error, "message": "Authentication with Azure failed.", "suggestion": "Sign in."})
        + "\n"
    )


def older(error: str) -> str:
    """Return how azd printed an error before."""
    return json.dumps({"type": "consoleMessage", "timestamp": "", "data": {"message": f"\nERROR: {error}\n"}}) + "\n"


@pytest.mark.parametrize("style", [newest, older, "Error: {}\n".format], ids=["newest", "older", "plain"])
@pytest.mark.parametrize(
    ("error", "kind", "code", "advice"),
    [
        (NOT_LOGGED_IN, SourceUnavailableError, None, "run: azd auth login"),
        (EXPIRED, TokenRefusedError, "AADSTS70043", "run: azd auth login"),
        (OFFLINE, EndpointError, None, "is the network up? Try: azd auth token"),
        ("unknown flag: --claims", TokenRefusedError, None, "update azd to 1.18.1 or later"),
        ("panic: what now", TokenRefusedError, None, f"by hand: azd auth token --output json --scope {VAULT}/.default"),
    ],
    ids=["nobody", "expired", "offline", "old", "other"],
)
async def test_a_failure_is_told_by_its_text(
    azd: StandIn, style: Any, error: str, kind: type[AiomsiError], code: str | None, advice: str
) -> None:
    """Nobody logged in lets a chain go on; anything else stops it, and each says in one line what to do."""
    azd.says(stderr=style(error), exit_code=1)
    with pytest.raises(AiomsiError, match=re.escape(advice)) as caught:
        await azd.fetch()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (1, code)
    assert (caught.value.resource, caught.value.source) == (VAULT, "azure_developer_cli")
    assert str(caught.value).startswith(f"`azd` gave no token for '{VAULT}' (exit code 1): ")
    assert " ".join(error.removeprefix("fetching token: ").split()).rstrip(".") in str(caught.value)
    assert not {"\n", "consoleMessage", "suggestion"} & set(str(caught.value).replace('"', " ").split(" "))


async def test_an_error_is_found_on_either_side(azd: StandIn) -> None:
    """Some versions print their errors among the output."""
    azd.says(newest(NOT_LOGGED_IN), exit_code=1)
    with pytest.raises(SourceUnavailableError, match="not logged in"):
        await azd.fetch()


@pytest.mark.parametrize(
    "stderr",
    ["", "null\n", "5\n", '{"error": 5}\n', '{"data": 5}\n', '{"data": {"message": 5}}\n', "[" * 100_000],
    ids=["nothing", "null", "number", "error", "data", "message", "deep"],
)
async def test_lines_without_a_message_are_no_reason_to_stumble(azd: StandIn, stderr: str) -> None:
    """Whatever else azd prints when it fails, the error is that it failed."""
    azd.says(stderr=stderr, exit_code=3)
    with pytest.raises(TokenRefusedError, match=r"`azd` gave no token for .* \(exit code 3\)"):
        await azd.fetch()


async def test_a_token_is_nothing_without_success(azd: StandIn) -> None:
    """With an exit code other than 0 the output is not read for a token."""
    azd.says(printed(), stderr=newest(NOT_LOGGED_IN), exit_code=1)
    with pytest.raises(SourceUnavailableError):
        await azd.fetch()


async def test_output_of_another_kind_asks_for_an_update(azd: StandIn) -> None:
    """Success without a token says what was printed instead, and what to do."""
    azd.says(json.dumps({"type": "consoleMessage"}))
    with pytest.raises(MalformedResponseError, match=r"printed no token: .*type: text of 14 characters.*[Uu]pdate"):
        await azd.fetch()


async def test_without_azd_the_message_says_where_to_get_it(tmp_path: Path) -> None:
    """Where there is no `azd`, the source is unavailable and says how to install it and log in."""
    source = AzureDeveloperCLI(surroundings=Surroundings(environ={"PATH": str(tmp_path)}))
    with pytest.raises(SourceUnavailableError, match=r"install the Azure Developer CLI .* and run: azd auth login"):
        await source.fetch(TokenRequest(VAULT))
