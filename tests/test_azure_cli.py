"""The account of the Azure CLI, with programs that stand in for `az`."""

from __future__ import annotations

import base64
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from test_tools import END, NOW, TENANT, VAULT, StandIn, jwt, zone

from aiomsi import (
    AiomsiError,
    EndpointError,
    MalformedResponseError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.sources import AzureCLI, Surroundings, TokenRequest
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")


def printed(**members: Any) -> str:
    """Return what `az` prints for a token."""
    return json.dumps(
        {
            "accessToken": "opaque",
            "expiresOn": "2025-10-09 09:53:20.000000",
            "expires_on": END,
            "subscription": "a subscription",
            "tenant": TENANT,
            "tokenType": "Bearer",
            **members,
        }
    )


@pytest.fixture
def az(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path, AzureCLI, "az", printed())


async def test_the_question_is_plain(az: StandIn) -> None:
    """Without options `az` is asked for JSON and a resource, and for nothing else."""
    await az.fetch()
    assert az.asked == [["account", "get-access-token", "--output", "json", "--resource", VAULT]]


async def test_az_neither_colours_nor_reports(az: StandIn) -> None:
    """Colours would end up in messages, and telemetry takes time."""
    az.does("""printf '{"accessToken": "%s-%s", "expires_on": 1800000000}' \\
        "$AZURE_CORE_NO_COLOR" "$AZURE_CORE_COLLECT_TELEMETRY" """)
    assert (await az.fetch()).token == "true-false"


@pytest.mark.parametrize("noise", ["WARNING: there is a new version\n", "ERROR: a command module failed\n"])
async def test_noise_beside_a_token_is_ignored(az: StandIn, noise: str) -> None:
    """The exit code and the JSON decide, whatever stderr says."""
    az.says(printed(), stderr=noise)
    assert (await az.fetch()).token == "opaque"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"expires_on": END, "accessToken": jwt(exp=END + 60)}, END),
        ({"expires_on": None, "accessToken": jwt(exp=END + 60)}, END + 60),
        ({"expires_on": "soon", "accessToken": jwt(exp=END + 60)}, END + 60),
        ({"expires_on": None, "accessToken": jwt(exp="never"), "expiresOn": "2025-10-09 11:53:20"}, END + 7200),
        ({"expires_on": None, "accessToken": "a.b.c", "expiresOn": "2025-10-09T10:53:20+00:00"}, END + 3600),
    ],
    ids=["expires_on", "the token's own", "unreadable expires_on", "local time", "with a zone"],
)
@pytest.mark.usefixtures("_in_greenwich")
async def test_the_end_is_read_from_where_it_is_clearest(az: StandIn, members: dict[str, Any], expected: float) -> None:
    """Unix seconds come first, then the token's own claim, and local time only where there is nothing else."""
    az.says(printed(**members))
    token = await AzureCLI(surroundings=az.surroundings).fetch(TokenRequest(VAULT, clock=ManualClock(NOW)))
    assert token.expires_on == expected


@pytest.fixture
def _in_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from zone(monkeypatch, "UTC")


@pytest.fixture
def _in_sydney(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from zone(monkeypatch, "AEST-10AEDT,M10.1.0,M4.1.0/3")


@pytest.mark.usefixtures("_in_sydney")
async def test_in_the_hour_that_comes_twice_the_earlier_one_is_meant(az: StandIn) -> None:
    """When summer time ends, a local time that was twice is taken for the first one, so no dead token is served."""
    first = 1_806_766_199.0
    az.says(printed(expires_on=None, expiresOn="2027-04-04 02:29:59.000000"))
    request = TokenRequest(VAULT, clock=ManualClock(first - 3600))
    assert (await AzureCLI(surroundings=az.surroundings).fetch(request)).expires_on == first


LOG_IN = "ERROR: Please run 'az login' to setup account.\n"
NEW_LOGIN = """ERROR: {}: The refresh token has expired. Trace ID: 1 Correlation ID: 2 Timestamp: 2026-11-23 09:34:48Z
Run the command below to authenticate interactively; additional arguments may be added as needed:
az logout
az login --tenant "11111111-aaaa-4bbb-8ccc-000000000001" --scope "https://vault.azure.net/.default"
"""
CRASH = """ERROR: The command failed with an unexpected error. Here is the traceback:
ERROR: Unable to get authority configuration for https://login.microsoftonline.com/x
Traceback (most recent call last):
  File "/opt/az/lib/knack/cli.py", line 233, in invoke
ValueError: Unable to get authority configuration for https://login.microsoftonline.com/x
To check existing issues, please visit: https://github.com/Azure/azure-cli/issues
"""


@pytest.mark.parametrize(
    ("stderr", "kind", "code", "advice"),
    [
        (LOG_IN, SourceUnavailableError, None, "run: az login"),
        ("ERROR: Please run az account set -s to pick one.", SourceUnavailableError, None, "run: az login"),
        (NEW_LOGIN.format("AADSTS700082"), TokenRefusedError, "AADSTS700082", "run: az login"),
        (NEW_LOGIN.format("AADSTS50076"), TokenRefusedError, "AADSTS50076", "run: az login"),
        ("ERROR: AADSTS500011: no such resource\naz logout\naz login", TokenRefusedError, "AADSTS500011", "az login"),
        ("ERROR: Subscription 'x' not found. Check the spelling.", TokenRefusedError, None, "try the same by hand"),
        ("ERROR: unrecognized arguments: --tenant", TokenRefusedError, None, "try the same by hand"),
        (CRASH, EndpointError, None, "is the network up"),
        ("ERROR: The command failed with an unexpected error.", EndpointError, None, "is the network up"),
        ("", TokenRefusedError, None, "nothing; try the same by hand"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
@pytest.mark.parametrize("exit_code", [1, 2])
async def test_a_failure_is_told_by_its_text(
    az: StandIn, stderr: str, kind: type[AiomsiError], code: str | None, advice: str, exit_code: int
) -> None:
    """Nobody logged in lets a chain go on; a refusal, an outage and anything else stop it, and each says what to do."""
    az.says(stderr=stderr, exit_code=exit_code)
    with pytest.raises(AiomsiError, match=re.escape(advice)) as caught:
        await az.fetch()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (exit_code, code)
    assert (caught.value.resource, caught.value.source) == (VAULT, "azure_cli")
    assert f"(exit code {exit_code})" in str(caught.value)


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        ("WARNING: old\nERROR: AADSTS500011: The resource\nwas not found.\n", ": AADSTS500011: The resource was not"),
        (CRASH, ": ValueError: Unable to get authority configuration"),
        ("no prefix at all", ": no prefix at all;"),
    ],
    ids=["error", "traceback", "plain"],
)
async def test_the_message_of_az_is_passed_on_in_one_line(az: StandIn, stderr: str, shown: str) -> None:
    """What `az` had to say is part of the message, without its warnings, its traceback and its line ends."""
    az.says(stderr=stderr, exit_code=1)
    with pytest.raises(AiomsiError) as caught:
        await az.fetch()
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "WARNING" not in str(caught.value)


async def test_a_token_is_nothing_without_success(az: StandIn) -> None:
    """With an exit code other than 0 the output is not read."""
    az.says(printed(), stderr=LOG_IN, exit_code=1)
    with pytest.raises(SourceUnavailableError):
        await az.fetch()


NO_TOKEN = "printed no token"
NO_HEADER = "printed a token that no HTTP header can carry"
NO_TIME = "printed a token without a time"


@pytest.mark.parametrize(
    ("stdout", "problem", "shape"),
    [
        ("", NO_TOKEN, "an empty body"),
        ("\n", NO_TOKEN, "an empty body"),
        ("false", NO_TOKEN, "JSON that is false"),
        ("<html>signature</html>", NO_TOKEN, "HTML of 22 bytes"),
        ('["signature"]', NO_TOKEN, "JSON that is an array"),
        ('"signature"', NO_TOKEN, "JSON that is text of 9 characters"),
        ("signature", NO_TOKEN, "something that is not JSON of 9 bytes"),
        (b"\xff\xfe\xff", NO_TOKEN, "something that is not JSON of 3 bytes"),
        ("[" * 200_000, NO_TOKEN, "something that is not JSON of 200000 bytes"),
        ("{}", NO_TOKEN, "no members"),
        (printed(accessToken=None), NO_TOKEN, "accessToken: null"),
        (printed(accessToken=""), NO_TOKEN, "accessToken: empty text"),
        (printed(accessToken=["signature"]), NO_TOKEN, "accessToken: an array"),
        (printed(accessToken="signature\r\nX: y"), NO_HEADER, "accessToken: text of 15 characters"),
        (printed(accessToken="signature and"), NO_HEADER, "accessToken: text of 13 characters"),
        (printed(accessToken="signatüre"), NO_HEADER, "accessToken: text of 9 characters"),
        (printed(expires_on=None, expiresOn=None), NO_TIME, "expiresOn: null"),
        (printed(expires_on=True, expiresOn="signature"), NO_TIME, "expires_on: true"),
        (printed(expires_on=1e300, expiresOn="9999-99-99"), NO_TIME, "expires_on: a number"),
        ('{"accessToken": "signature"}', NO_TIME, "accessToken: text of 9 characters"),
        (printed(expires_on=NOW), "printed a token that expired 0 s ago", "expires_on: a number"),
        (printed(expires_on=NOW - 60), "printed a token that expired 60 s ago", "expires_on: a number"),
    ],
    ids=lambda value: "",  # noqa: ARG005
)
async def test_output_that_makes_no_sense_is_described(
    az: StandIn, stdout: str | bytes, problem: str, shape: str
) -> None:
    """Success without a token that can be used names the kind of output, and shows none of it."""
    az.says(stdout)
    with pytest.raises(MalformedResponseError) as caught:
        await az.fetch()
    assert problem in str(caught.value)
    assert shape in str(caught.value)
    assert "az upgrade" in str(caught.value)
    assert "signat" not in str(caught.value)
    assert (caught.value.resource, caught.value.source) == (VAULT, "azure_cli")


async def test_without_az_the_message_says_where_to_get_it(tmp_path: Path) -> None:
    """Where there is no `az`, the source is unavailable and says how to install it and log in."""
    source = AzureCLI(surroundings=Surroundings(environ={"PATH": str(tmp_path / "empty")}))
    with pytest.raises(SourceUnavailableError, match=r"install the Azure CLI \(https://.*\) and run: az login"):
        await source.fetch(TokenRequest(VAULT))


@pytest.mark.parametrize(
    ("options", "asked_tenant", "expected"),
    [
        ({}, None, []),
        ({}, "contoso.com", ["--tenant", "contoso.com"]),
        ({"tenant_id": TENANT}, None, ["--tenant", TENANT]),
        ({"tenant_id": TENANT}, "contoso.com", ["--tenant", "contoso.com"]),
        ({"subscription": "Pay as you go"}, None, ["--subscription", "Pay as you go"]),
        ({"subscription": "Pay as you go"}, TENANT, ["--subscription", "Pay as you go"]),
    ],
    ids=["neither", "asked", "own", "asked over own", "subscription", "subscription over asked"],
)
async def test_tenant_and_subscription_reach_az(
    az: StandIn, options: dict[str, Any], asked_tenant: str | None, expected: list[str]
) -> None:
    """The tenant that is asked for goes before the source's own, and a subscription, which has its tenant, alone."""
    source = AzureCLI(**options, surroundings=az.surroundings)
    await source.fetch(TokenRequest(VAULT, tenant_id=asked_tenant, clock=ManualClock(NOW)))
    assert az.asked[0][6:] == expected


async def test_a_provider_asks_for_tenants_only_where_they_can_be_chosen(az: StandIn) -> None:
    """With a subscription the tenant is settled, so another one makes no call of its own."""
    for subscription, calls in ((None, 2), ("mine", 3)):
        source = AzureCLI(subscription=subscription, surroundings=az.surroundings)
        assert source.chooses_tenant is (subscription is None)
        async with TokenProvider(source, clock=ManualClock(NOW)) as provider:
            await provider.access_token(VAULT)
            await provider.access_token(VAULT, tenant_id=TENANT)
        assert len(az.asked) == calls


@pytest.mark.parametrize("bad", ["a&calc", "$(id)", "%PATH%", "-h", "a\n", ""])
def test_what_a_shell_would_read_is_no_subscription(bad: str) -> None:
    """A subscription with characters that mean something to a shell is refused where it is written."""
    with pytest.raises(ValueError, match=r"^subscription is .* cannot be passed to `az`; use the GUID"):
        AzureCLI(subscription=bad)


async def test_claims_need_a_new_login(az: StandIn) -> None:
    """A challenge's claims are passed to `az login` only, so the error is the command to run; nothing is run."""
    claims = '{"access_token": {"nbf": {"essential": true, "value": "1604106651"}}}'
    with pytest.raises(TokenRefusedError) as caught:
        await az.fetch(claims=claims)
    command = re.search(r'run: az login --claims-challenge "([^"]+)"$', str(caught.value))
    assert command is not None
    assert base64.b64decode(command[1]).decode() == claims
    assert (caught.value.resource, caught.value.source) == (VAULT, "azure_cli")
    assert az.asked == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tenant_id": "a", "subscription": "b"}, ValueError, "only one of tenant_id and subscription"),
        ({"subscription": b"x"}, TypeError, "subscription is a string"),
    ],
    ids=["both", "bytes"],
)
def test_wrong_options_are_told_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """Options that make no sense are an error where they are written, not at the first fetch."""
    with pytest.raises(error, match=message):
        AzureCLI(**options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "AzureCLI()"),
        ({"subscription": "mine", "process_timeout": 5}, "AzureCLI(subscription='mine')"),
    ],
    ids=["plain", "subscription"],
)
def test_it_shows_as_it_was_made(options: dict[str, Any], expected: str) -> None:
    """The representation says whose tokens these are."""
    assert repr(AzureCLI(**options)) == expected
