"""The account of the Azure CLI, with programs that stand in for `az`."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

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
from aiomsi.sources import AzureCLI, Surroundings, TokenRequest
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

VAULT = "https://vault.azure.net"
TENANT = "11111111-aaaa-4bbb-8ccc-000000000001"
NOW = 1_760_000_000.0
END = NOW + 3600
SOON = 5.0  # Real seconds for what takes milliseconds, so that a test that would hang fails instead.


def jwt(**claims: Any) -> str:
    """Return a token with these claims; the word "signature" in it must never show."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.signature"


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


class StandIn:
    """A program that stands in for `az`, says what it is told, and writes down what it was asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.surroundings = Surroundings(environ={"PATH": str(folder)}, platform=sys.platform)
        self.says(printed())

    def does(self, script: str) -> None:
        """Run *script* when it is called."""
        program = self._folder / "az"
        program.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\n{{ printf "%s\\n" "$@"; echo; }} >>"$0.asked"\n{script}\n')
        program.chmod(0o755)

    def says(self, stdout: str | bytes = b"", *, stderr: str = "", exit_code: int = 0) -> None:
        """Print this and exit."""
        (self._folder / "az.stdout").write_bytes(stdout if isinstance(stdout, bytes) else stdout.encode())
        (self._folder / "az.stderr").write_text(stderr)
        self.does(f'cat "$0.stderr" >&2\ncat "$0.stdout"\nexit {exit_code}')

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of each call."""
        try:
            calls = (self._folder / "az.asked").read_text().removesuffix("\n\n")
        except FileNotFoundError:
            return []
        return [call.split("\n") for call in calls.split("\n\n")]

    async def fetch(self, resource: str = VAULT, clock: ManualClock | None = None, **request: Any) -> str:
        """Return the token that a source without options gets."""
        asked = TokenRequest(resource, clock=clock or ManualClock(NOW), **request)
        async with asyncio.timeout(SOON):
            return (await AzureCLI(surroundings=self.surroundings).fetch(asked)).token


@pytest.fixture
def az(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


async def test_a_token_comes_with_all_that_is_known(az: StandIn) -> None:
    """The printed token is returned with its end, for the provider to decide when to refresh it."""
    token = await AzureCLI(surroundings=az.surroundings).fetch(TokenRequest(VAULT, clock=ManualClock(NOW)))
    assert (token.token, token.expires_on, token.refresh_on) == ("opaque", END, None)
    assert (token.resource, token.source) == (VAULT, "azure_cli")


async def test_the_question_is_plain(az: StandIn) -> None:
    """Without options `az` is asked for JSON and a resource, and for nothing else."""
    await az.fetch()
    assert az.asked == [["account", "get-access-token", "--output", "json", "--resource", VAULT]]


async def test_az_neither_colours_nor_reports(az: StandIn) -> None:
    """Colours would end up in messages, and telemetry takes time."""
    az.does("""printf '{"accessToken": "%s-%s", "expires_on": 1800000000}' \\
        "$AZURE_CORE_NO_COLOR" "$AZURE_CORE_COLLECT_TELEMETRY" """)
    assert await az.fetch() == "true-false"


@pytest.mark.parametrize("noise", ["WARNING: there is a new version\n", "ERROR: a command module failed\n"])
async def test_noise_beside_a_token_is_ignored(az: StandIn, noise: str) -> None:
    """The exit code and the JSON decide, whatever stderr says."""
    az.says(printed(), stderr=noise)
    assert await az.fetch() == "opaque"


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


def zone(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


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


SECRET = jwt(sub="me", name="x" * 60)
LEAKS = {
    "bare": f"ERROR: got {SECRET} from the endpoint",
    "json": f'ERROR: {{"access_token": "{SECRET}", "expires_on": 1}}',
    "opaque": 'ERROR: {"accessToken": "signature"}',
    "header": "ERROR: Authorization: Bearer signature",
    "traceback": f"Traceback (most recent call last):\nValueError: {SECRET}",
}


@pytest.mark.parametrize("stderr", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_a_token_in_an_error_goes_nowhere(
    az: StandIn, caplog: pytest.LogCaptureFixture, stderr: str, exit_code: int
) -> None:
    """A token that `az` prints among its errors shows in no message, log, representation or traceback."""
    az.says(stderr=stderr, exit_code=exit_code)
    caplog.set_level(logging.DEBUG)
    async with TokenProvider(AzureCLI(surroundings=az.surroundings), clock=ManualClock(NOW)) as provider:
        with pytest.raises(AiomsiError) as caught:
            await provider.token(VAULT)
        seen = [caplog.text, repr(provider), repr(provider.statistics()), repr(caught.value.__dict__)]
    for text in [*seen, *traceback.format_exception(caught.value)]:
        assert "signature" not in text
        assert SECRET[:40] not in text


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


async def test_ten_megabytes_are_no_token(az: StandIn) -> None:
    """Output is read up to a bound and no further."""
    az.does("head -c 10000000 /dev/zero | tr '\\0' x")
    with pytest.raises(MalformedResponseError, match="az printed more than") as caught:
        await az.fetch()
    assert "xxx" not in str(caught.value)


async def test_without_az_the_message_says_where_to_get_it(tmp_path: Path) -> None:
    """Where there is no `az`, the source is unavailable and says how to install it and log in."""
    source = AzureCLI(surroundings=Surroundings(environ={"PATH": str(tmp_path / "empty")}))
    with pytest.raises(SourceUnavailableError, match=r"install the Azure CLI \(https://.*\) and run: az login"):
        await source.fetch(TokenRequest(VAULT))


@pytest.mark.parametrize("script", [None, "head -c 2000000 /dev/zero", "sleep 600"], ids=["missing", "flood", "hang"])
async def test_errors_about_the_program_name_the_resource_too(az: StandIn, tmp_path: Path, script: str | None) -> None:
    """Whatever went wrong with the program, the error says for what and from whom a token was wanted."""
    if script is None:
        (tmp_path / "az").unlink()
    else:
        az.does(script)
    source = AzureCLI(process_timeout=0.001 if script == "sleep 600" else 30.0, surroundings=az.surroundings)
    with pytest.raises(AiomsiError) as caught:
        await source.fetch(TokenRequest(VAULT))
    assert (caught.value.resource, caught.value.source) == (VAULT, "azure_cli")


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


async def test_a_crowd_starts_az_once(az: StandIn) -> None:
    """However many ask, one program runs for all of them."""
    async with TokenProvider(AzureCLI(surroundings=az.surroundings), clock=ManualClock(NOW)) as provider:
        tokens = await asyncio.gather(*(provider.token(VAULT) for _ in range(50)))
    assert tokens == ["opaque"] * 50
    assert len(az.asked) == 1


@pytest.mark.parametrize("bad", ["a&calc", "$(id)", "`id`", "%PATH%", "a;b", "a|b", "-h", "@file", "a'b", 'a"b', "a^b"])
async def test_what_a_shell_would_read_never_reaches_az(az: StandIn, bad: str) -> None:
    """A resource, tenant or subscription with characters that mean something to a shell is refused; nothing is run."""
    for resource, tenant_id in ((bad, None), (VAULT, bad)):
        with pytest.raises(ConfigurationError, match="`az` was not run") as caught:
            await az.fetch(resource, tenant_id=tenant_id)
        assert (caught.value.source, caught.value.resource) == ("azure_cli", resource)
    for option in ("tenant_id", "subscription"):
        with pytest.raises(ValueError, match=f"^{option} is .* cannot be passed to `az`; use the GUID"):
            AzureCLI(**{option: bad})  # type: ignore[arg-type]
    assert az.asked == []


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
        ({"tenant_id": 5}, TypeError, "tenant_id is a string, not 5"),
        ({"subscription": b"x"}, TypeError, "subscription is a string"),
        ({"tenant_id": ""}, ValueError, "tenant_id is ''"),
        ({"subscription": "a\n"}, ValueError, "subscription is"),
        ({"process_timeout": "5"}, TypeError, "process_timeout is a number of seconds, not '5'"),
        ({"process_timeout": True}, TypeError, "process_timeout is a number"),
        ({"process_timeout": 0}, ValueError, "process_timeout is a positive number"),
        ({"process_timeout": -1.5}, ValueError, "process_timeout is a positive number"),
        ({"process_timeout": float("inf")}, ValueError, "process_timeout is a positive number"),
        ({"process_timeout": float("nan")}, ValueError, "process_timeout is a positive number"),
    ],
    ids=str,
)
def test_wrong_options_are_told_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """Options that make no sense are an error where they are written, not at the first fetch."""
    with pytest.raises(error, match=message):
        AzureCLI(**options)


@pytest.mark.parametrize(("options", "limit"), [({}, 30.0), ({"process_timeout": 5}, 5.0)], ids=["default", "given"])
def test_the_time_for_the_process_is_the_time_of_a_fetch(options: dict[str, float], limit: float) -> None:
    """The provider gives up when `az` would have been stopped."""
    assert AzureCLI(**options).time_limit == limit  # type: ignore[arg-type]


@pytest.mark.parametrize(("left", "limit"), [(60.0, 7), (3.0, 3)], ids=["its own", "what is left"])
async def test_az_has_no_more_time_than_the_fetch(az: StandIn, left: float, limit: int) -> None:
    """`az` is stopped when its time is up, or that of the whole fetch."""
    az.does("sleep 600")
    clock, source = PacedClock(), AzureCLI(process_timeout=7, surroundings=az.surroundings)
    fetch = asyncio.create_task(source.fetch(TokenRequest(VAULT, clock=clock, deadline=left)))
    assert await clock.next_alarm(fetch) == limit
    await clock.advance(limit - 0.1)
    assert not fetch.done()
    await clock.advance(0.1)
    with pytest.raises(EndpointError, match=f"az did not finish within {limit} s and was stopped"):
        await fetch


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "AzureCLI()"),
        ({"tenant_id": "contoso.com"}, "AzureCLI(tenant_id='contoso.com')"),
        ({"subscription": "mine", "process_timeout": 5}, "AzureCLI(subscription='mine')"),
    ],
    ids=["plain", "tenant", "subscription"],
)
def test_it_shows_as_it_was_made(options: dict[str, Any], expected: str) -> None:
    """The representation says whose tokens these are."""
    assert repr(AzureCLI(**options)) == expected
