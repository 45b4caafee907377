"""`aiomsi serve`: what it is told, what it prints, whose tokens it gives out and to whom."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import pytest
from click.testing import CliRunner
from rich.console import Console
from test_tools import END, StandIn

from aiomsi import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi._command_line.commands import cli
from aiomsi._command_line.serve import view
from aiomsi._command_line.serve.issuing import only, tokens_of
from aiomsi._command_line.serve.options import ServeOptions, problem
from aiomsi._command_line.serve.traffic import Traffic, printable
from aiomsi._command_line.serve.variables import FORMATS, conflict, renamed
from aiomsi._command_line.serve.view import introduction, shown
from aiomsi.endpoint import Answer, IssueRefused, ReceivedRequest, TokenAsked
from aiomsi.sources import AzureCLI
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

# What it is told


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (ServeOptions(), [(("app_service", "app_service_2017"), 1)]),
        (ServeOptions(imds=True), [(("app_service", "app_service_2017"), 1), (("imds",), 2)]),
        (ServeOptions(emulate=True), [(("app_service", "app_service_2017"), 1), (("imds",), 2)]),
        (ServeOptions(emulate=True, socket=Path("s")), [(("app_service", "app_service_2017"), 1)]),
        (ServeOptions(emulate=True, play=("imds",)), [(("imds",), 2)]),
        (ServeOptions(emulate=True, play=("azure_ml", "azure_ml")), [(("azure_ml",), 1)]),
    ],
)
def test_which_protocols_are_spoken_where(options: ServeOptions, groups: list[tuple[tuple[str, ...], int]]) -> None:
    """Those with a secret share a port; IMDS, which has none, has one of its own, and is there only if wanted."""
    assert list(replace(options, port=1, imds_port=2).groups) == groups


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"imds": True}, "--allow"),
        ({"imds": True, "allow": ("",)}, "--allow: "),
        ({"allow": ("two words",)}, "--allow: "),
        ({"play": ("imds",)}, "add --emulate"),
        ({"latency": 0.0}, "add --emulate"),
        ({"lifetime": 1.0}, "add --emulate"),
        ({"date_text": True}, "add --emulate"),
        ({"root": Path("x")}, "add --emulate"),
        ({"script": ("hang",)}, "add --emulate"),
        ({"emulate": True, "imds": True, "play": ("azure_ml",)}, "say --play imds"),
        ({"emulate": True, "tenant": "contoso.example"}, "no meaning"),
        ({"emulate": True, "source": "dev"}, "no meaning"),
        ({"host": "localhost"}, "IP address"),
        ({"host": "172.17.0.1"}, "add --beyond-loopback"),
        ({"host": "0.0.0.0"}, "your tokens, over plain http"),  # noqa: S104  (refused)
        ({"host": "::", "beyond_loopback": True}, "--host-name"),
        ({"socket": Path("s"), "port": 1}, "goes without"),
        ({"socket": Path("s"), "host": "::1"}, "goes without"),
        ({"socket": Path("s"), "imds": True, "allow": ("r",)}, "goes without"),
        ({"socket": Path("s"), "imds_port": 1}, "goes without"),
        ({"socket": Path("s"), "output": "docker"}, "goes without --output docker"),
        ({"socket": Path("s"), "emulate": True, "play": ("imds", "azure_ml")}, "one socket"),
    ],
)
def test_options_that_make_no_sense_together(options: dict[str, Any], said: str) -> None:
    """What is wrong is said before anything is opened, together with what to do."""
    assert said in (problem(ServeOptions(**options)) or "")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imds": True, "allow": ("r",)},
        {"emulate": True, "imds": True, "latency": 1.0, "lifetime": 5.0},
        {"host": "172.17.0.1", "beyond_loopback": True},
        {"host": "0.0.0.0", "beyond_loopback": True, "host_names": ("a.example",)},  # noqa: S104
        {"host": "0.0.0.0", "beyond_loopback": True, "output": "docker"},  # noqa: S104
        {"socket": Path("s"), "emulate": True},
    ],
)
def test_options_that_make_sense(options: dict[str, Any]) -> None:
    """Nothing is wrong with what was meant."""
    assert problem(ServeOptions(**options)) is None


# What it prints

VARIABLES = {"app_service": {"IDENTITY_ENDPOINT": "http://127.0.0.1:80/msi/token", "IDENTITY_HEADER": "a b"}}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("env", "export IDENTITY_ENDPOINT=http://127.0.0.1:80/msi/token\nexport IDENTITY_HEADER='a b'"),
        ("dotenv", "IDENTITY_ENDPOINT=http://127.0.0.1:80/msi/token\nIDENTITY_HEADER=a b"),
        (
            "docker",
            (
                "--add-host=host.docker.internal:host-gateway --env=IDENTITY_ENDPOINT=http://127.0.0.1:80/msi/token"
                " '--env=IDENTITY_HEADER=a b'"
            ),
        ),
    ],
)
def test_the_forms(form: str, text: str) -> None:
    """Each form is what a shell, a file or Docker takes."""
    assert FORMATS[form](VARIABLES) == text


def test_json_is_one_line() -> None:
    """A program that starts it reads one line, and knows all."""
    assert json.loads(FORMATS["json"](VARIABLES)) == VARIABLES
    assert "\n" not in FORMATS["json"](VARIABLES)


def test_a_variable_cannot_have_two_values() -> None:
    """Two protocols may want the same variable only if they want the same of it."""
    assert conflict({"a": {"X": "1"}, "b": {"X": "1", "Y": "2"}}) is None
    assert conflict({"a": {"X": "1"}, "b": {"Y": "2", "X": "3"}}) == "X"


def test_clients_are_told_the_name_that_they_know() -> None:
    """In a container 127.0.0.1 is the container."""
    environ = VARIABLES["app_service"]
    assert renamed(environ, ["a.example", "b.example"]) == {
        "IDENTITY_ENDPOINT": "http://a.example:80/msi/token",
        "IDENTITY_HEADER": "a b",
    }
    assert renamed(environ, []) == environ
    at_a_socket, over_tls = "http://localhost/msi/token", "https://[::1]:443/"
    assert renamed({"A": at_a_socket, "B": over_tls, "C": "/ca.pem"}, ["a.example"]) == {
        "A": "http://a.example/msi/token",
        "B": "https://a.example:443/",
        "C": "/ca.pem",
    }


# Whose tokens


async def test_whoever_is_selected_it_is_the_provider_that_answers() -> None:
    """A client that selects a user-assigned identity gets the developer's token, fetched once for all."""
    source = ScriptedSource()
    async with TokenProvider(source) as provider:
        issue = tokens_of(provider)
        asked = TokenAsked("app_service", VAULT)
        as_another = replace(asked, identity_kind="client_id", identity=CLIENT_ID)
        given = await asyncio.gather(*(issue(who) for who in (asked, as_another) * 500))
    assert {token.token for token in given} == {"token-1"}
    assert len(source.requests) == 1


async def test_the_tenant_is_passed_on() -> None:
    """Where the source can choose a tenant, the one of the command line is asked for."""
    source = ScriptedSource(chooses_tenant=True)
    async with TokenProvider(source) as provider:
        await tokens_of(provider, tenant_id="contoso.example")(TokenAsked("imds", VAULT))
    assert source.requests[0].tenant_id == "contoso.example"


async def test_a_token_is_given_out_until_the_provider_has_another_one() -> None:
    """While a token is fresh the same is given out, and that counts as use; a refreshed one takes its place at once."""
    clock = ManualClock()
    source = ScriptedSource(lifetime=7200)
    async with TokenProvider(source, clock=clock) as provider:
        issue, asked = tokens_of(provider), TokenAsked("app_service", VAULT)
        first = await issue(asked)
        assert await issue(asked) is first
        await clock.advance(3600)
        second = await issue(asked)
        assert (first.token, second.token) == ("token-1", "token-2")
        assert await issue(asked) is second
        await clock.advance(3600)
        assert (await issue(asked)).token == "token-3"
    with pytest.raises(IssueRefused, match="closed"):
        await issue(asked)


async def test_the_token_of_the_tenant_is_the_only_one_given() -> None:
    """A token that the provider holds for its usual tenant is not given out for another one."""
    source = ScriptedSource(chooses_tenant=True)
    async with TokenProvider(source) as provider:
        issue = tokens_of(provider, tenant_id="contoso.example")
        usual = await provider.token(VAULT)
        given = [(await issue(TokenAsked("imds", VAULT))).token for _ in range(3)]
    assert usual not in given
    assert len(set(given)) == 1


async def test_more_resources_than_are_remembered() -> None:
    """Each resource has its own token, however many clients ask for."""
    async with TokenProvider(ScriptedSource(), max_resources=200) as provider:
        issue = tokens_of(provider)
        for _ in range(2):
            for number in range(150):
                resource = f"https://{number}.example"
                assert (await issue(TokenAsked("imds", resource))).token == await provider.token(resource)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SourceUnavailableError("run: az login"), 400, "unavailable"),
        (ConfigurationError("wrong"), 400, "unavailable"),
        (SecurityError("wrong"), 400, "unavailable"),
        (TokenRefusedError("no"), 400, "access_denied"),
        (MalformedResponseError("what?"), 502, "unavailable"),
        (EndpointError("later", retry_after=3), 503, "unavailable"),
    ],
)
async def test_errors_get_through(error: AiomsiError, status: int, code: str) -> None:
    """The client reads what to do; only what may pass is said in a way that makes it ask again."""
    source = ScriptedSource()
    source.script(error)
    async with TokenProvider(source) as provider:
        with pytest.raises(IssueRefused) as caught:
            await tokens_of(provider)(TokenAsked("app_service", VAULT))
    refused = caught.value
    assert (refused.status, refused.code, refused.message) == (status, code, str(error))
    assert refused.retry_after == error.retry_after


async def test_a_resource_that_is_none() -> None:
    """What cannot be a resource is refused without asking anybody."""
    source = ScriptedSource()
    async with TokenProvider(source) as provider:
        with pytest.raises(IssueRefused) as caught:
            await tokens_of(provider)(TokenAsked("app_service", "two words"))
    assert (caught.value.status, caught.value.code, source.requests) == (400, "invalid_resource", [])


@pytest.mark.parametrize(
    ("resource", "allowed"),
    [
        (VAULT, True),
        (f"{VAULT}/", True),
        (f"{VAULT}/.default", True),
        (f"{VAULT}//", False),
        (f"{VAULT}//.default", True),
        ("https://storage.azure.com/", True),
        ("https://storage.azure.com", True),
        ("https://graph.microsoft.com", False),
        ("https://vault.azure.net.evil.example", False),
        ("HTTPS://VAULT.AZURE.NET", False),
    ],
)
async def test_only_what_is_allowed(resource: str, *, allowed: bool) -> None:
    """A resource that was not named is refused, and the source is not asked for it; a slash at the end is nothing."""
    source = ScriptedSource()
    async with TokenProvider(source) as provider:
        issue = only([f"{VAULT}/.default", "https://storage.azure.com/"], tokens_of(provider))
        if allowed:
            assert (await issue(TokenAsked("imds", resource))).token == "token-1"
        else:
            with pytest.raises(IssueRefused, match="403 resource_not_allowed"):
                await issue(TokenAsked("imds", resource))
    assert len(source.requests) == allowed


# The view


def received(**changes: Any) -> ReceivedRequest:
    given: dict[str, Any] = {
        "method": "GET",
        "path": "/msi/token",
        "query": (("resource", VAULT),),
        "headers": {"user-agent": "azsdk-python-identity/1.27 Python/3.13"},
        "body": b"",
        "host": "app_service",
        "received_at": 1_760_000_000.0,
        "remote": "127.0.0.1",
    }
    return ReceivedRequest(**given | changes)


async def seen(*, terminal: bool, provider: TokenProvider | None = None) -> str:
    """Return what a person sees of three requests."""
    screen, traffic = StringIO(), Traffic()
    console = Console(file=screen, force_terminal=terminal, width=250)
    async with shown(traffic, None if provider is None else provider.statistics, console):
        traffic.observe(received(), TokenAsked("app_service", VAULT), Answer(200))
        traffic.observe(received(), TokenAsked("app_service", VAULT, "client_id", CLIENT_ID), Answer(200))
        refused = Answer(403, {"error": {"code": "Forbidden", "message": "No\n\x1b."}})
        traffic.observe(received(headers={}, host=None, query=(), remote="172.17.0.2"), None, refused)
    return screen.getvalue()


async def test_a_line_for_each_request() -> None:
    """Where nobody watches there is a line for each, and it says if the identity is not the one that was selected."""
    async with TokenProvider(ScriptedSource()) as provider:
        lines = (await seen(terminal=False, provider=provider)).splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        f"200 app_service {VAULT} azsdk-python-identity/1.27",
        f"200 app_service {VAULT} azsdk-python-identity/1.27 [the developer's, not client_id {CLIENT_ID}]",
        "403 unknown - somebody at 172.17.0.2 (No \ufffd.)",
    ]


async def test_the_emulator_says_whom_it_played() -> None:
    """A fake token is for whoever was selected."""
    assert f"[client_id {CLIENT_ID}]" in await seen(terminal=False)


async def test_the_picture() -> None:
    """On a terminal there are the last requests, and the tokens that are held."""
    source = ScriptedSource(lifetime=7200)
    async with TokenProvider(source) as provider:
        await provider.token(VAULT)
        source.script(SourceUnavailableError("nobody is logged in;\nrun: az login"))
        with pytest.raises(SourceUnavailableError):
            await provider.token("https://graph.microsoft.com")
        screen = await seen(terminal=True, provider=provider)
    assert f"the developer's, not client_id {CLIENT_ID}" in screen
    assert "2 tokens given, 1 refused" in screen
    assert "FRESH" in screen
    assert "120 min" in screen
    assert "nobody is logged in;" in screen
    assert "token-1" not in screen


async def test_the_picture_of_the_emulator() -> None:
    """Without a provider there are no tokens to be held."""
    screen = await seen(terminal=True)
    assert "last requests" in screen
    assert "tokens held" not in screen


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\x9b31mb", "a\u202eb", "a\r\nb"])
def test_nothing_that_a_client_says_is_obeyed_by_the_terminal(text: str) -> None:
    """Whatever a client calls itself, it is shown, and for no longer than a line or two."""
    assert printable(text).isprintable()
    assert len(printable(text * 1000)) == 200


def test_what_was_asked_long_ago_is_forgotten() -> None:
    """The record does not grow, however long it runs and whatever is asked."""
    traffic = Traffic()
    for number in range(3_000):
        traffic.observe(received(), TokenAsked("imds", f"r{number}"), Answer(200))
    traffic.observe(received(), None, Answer(404))
    assert (len(traffic.last), len(traffic.given), traffic.refused) == (12, 1_000, 1)


def test_of_a_flood_the_newest_are_told_and_the_rest_are_counted() -> None:
    """Nobody reads thousands of lines a second, but nobody is left to think that there were no more."""
    traffic = Traffic()
    for number in range(3_000):
        traffic.observe(received(), TokenAsked("imds", f"r{number}"), Answer(200))
    left_out, newest = traffic.news()
    assert (left_out, len(newest), newest[-1].resource) == (2_900, 100, "r2999")
    assert traffic.news() == (0, [])
    traffic.observe(received(), TokenAsked("imds", "one more"), Answer(200))
    left_out, newest = traffic.news()
    assert (left_out, [entry.resource for entry in newest]) == (0, ["one more"])


async def test_lines_that_are_left_out_are_counted() -> None:
    """In place of the lines that a flood would take there is one that says how many they were."""
    lines = StringIO()
    traffic = Traffic()
    async with shown(traffic, None, Console(file=lines)):
        for number in range(1_100):
            traffic.observe(received(), TokenAsked("imds", f"r{number}"), Answer(200))
    told = lines.getvalue().splitlines()
    assert sum(int(line.split()[0].replace(",", "")) if line.endswith("more") else 1 for line in told) == 1_100


class Gone(StringIO):
    """A reader who reads no more."""

    def flush(self) -> None:
        raise BrokenPipeError


async def test_who_gives_up_at_once_leaves_no_writer_behind() -> None:
    """A view that is cancelled before it is there starts nothing that would go on."""
    before = set(threading.enumerate())
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with shown(Traffic(), None, Console(file=StringIO())):
            pytest.fail("it was shown all the same")
    assert scope.cancelled_caught
    assert set(threading.enumerate()) <= before


async def test_who_gives_up_while_the_writer_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that is cancelled as its writer starts does not leave it behind."""
    loop, writers = asyncio.get_running_loop(), []

    class Writer(threading.Thread):
        def start(self) -> None:
            super().start()
            writers.append(self)
            loop.call_soon_threadsafe(showing.cancel)

    async def show() -> None:
        async with shown(Traffic(), None, Console(file=StringIO())):
            pytest.fail("it was shown all the same")

    monkeypatch.setattr(view, "Thread", Writer)
    showing = asyncio.create_task(show())
    await asyncio.wait([showing])
    assert showing.cancelled()
    assert [writer.is_alive() for writer in writers] == [False]


async def test_a_reader_who_has_gone_spoils_nothing() -> None:
    """Whoever reads the lines may stop; requests are answered all the same."""
    traffic = Traffic()
    async with shown(traffic, None, Console(file=Gone(), force_terminal=False)):
        traffic.observe(received(), TokenAsked("app_service", VAULT), Answer(200))
    assert traffic.given == {VAULT: 1}


async def test_lines_come_while_it_lasts() -> None:
    """Whoever reads along does not wait for the end: what was asked is written a moment later, again and again."""
    written: queue.Queue[str] = queue.Queue()

    class Screen(StringIO):
        def write(self, text: str) -> int:
            written.put(text)
            return len(text)

    traffic = Traffic()
    async with shown(traffic, None, Console(file=Screen(), force_terminal=False)):
        for status in (200, 503):
            traffic.observe(received(), TokenAsked("app_service", VAULT), Answer(status))
            assert f" {status} app_service {VAULT}" in await asyncio.to_thread(written.get, timeout=30)


async def test_a_reader_who_does_not_read_holds_up_nobody() -> None:
    """Even a pipe that is full keeps neither a request nor the end waiting."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 65_536)
    os.set_blocking(write, True)
    traffic = Traffic()
    with os.fdopen(write, "w") as full:
        try:
            async with shown(traffic, None, Console(file=full, force_terminal=False)):
                for _ in range(10_000):
                    traffic.observe(received(), TokenAsked("app_service", VAULT), Answer(200))
        finally:
            os.close(read)
            with suppress(BrokenPipeError):
                full.close()
    assert traffic.given == {VAULT: 10_000}


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (ServeOptions(), ["Serving the developer's tokens at http://a.example:80, until Ctrl-C."]),
        (ServeOptions(emulate=True), ["Serving fake tokens at http://a.example:80, until Ctrl-C."]),
        (
            ServeOptions(source="prod", socket=Path("/s")),
            [
                "Serving tokens of prod at /s, until Ctrl-C.",
                "That is for who speaks HTTP at a Unix socket (curl --unix-socket); Azure's SDKs do not.",
            ],
        ),
        (
            ServeOptions(emulate=True, output="docker", host="172.17.0.1"),
            ["Serving fake tokens at http://a.example:80, until Ctrl-C."],
        ),
        (
            ServeOptions(host="172.17.0.1", beyond_loopback=True),
            [
                "Serving the developer's tokens at http://a.example:80, until Ctrl-C.",
                "Other machines may get there too. What passes is not encrypted.",
            ],
        ),
    ],
)
def test_it_says_what_is_served(options: ServeOptions, lines: list[str]) -> None:
    """One knows at the start whose tokens go where."""
    screen = StringIO()
    introduction(options, {"app_service": {"URL": "http://a.example:80/x", "S": "s"}}, Console(file=screen, width=200))
    assert screen.getvalue().splitlines() == lines


@pytest.mark.parametrize(("platform", "said"), [("linux", True), ("darwin", False)])
def test_it_says_where_containers_do_not_get(monkeypatch: pytest.MonkeyPatch, platform: str, *, said: bool) -> None:
    """On Linux loopback is not led into containers, which Docker Desktop does."""
    monkeypatch.setattr(sys, "platform", platform)
    screen = StringIO()
    introduction(ServeOptions(output="docker"), {"app_service": {}}, Console(file=screen, width=200))
    assert ("add --host 172.17.0.1 --beyond-loopback" in screen.getvalue()) is said
    at_a_socket = ServeOptions(socket=Path("s"), host_names=("host.docker.internal",))
    introduction(at_a_socket, {"app_service": {}}, Console(file=screen, width=200))
    assert screen.getvalue().count("add --host") == int(said)


def test_it_says_that_imds_has_no_secret() -> None:
    """Who switches it on reads what it means."""
    screen = StringIO()
    introduction(ServeOptions(imds=True, allow=(VAULT,)), {"imds": {}}, Console(file=screen, width=200))
    assert f"every program that gets there may have {VAULT}" in screen.getvalue()


def test_an_introduction_that_nobody_reads_spoils_nothing() -> None:
    """Who has what clients must set needs no more of it."""
    introduction(ServeOptions(emulate=True), {"imds": {}}, Console(file=Gone()))


# The whole


@contextmanager
def serving(
    *arguments: str, environ: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run `aiomsi serve` with *arguments*, and make sure that it ends; *before* goes before its command."""
    process = subprocess.Popen(
        [*before, sys.executable, "-P", "-m", "aiomsi", "serve", *arguments],
        env={**os.environ, **(environ or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def leads_to(process: subprocess.Popen[str]) -> dict[str, dict[str, str]]:
    assert process.stdout is not None
    found: dict[str, dict[str, str]] = json.loads(process.stdout.readline())
    return found


def ask(environ: Mapping[str, str], query: str = f"resource={VAULT}") -> tuple[int, dict[str, Any]]:
    """Ask as App Service or IMDS is asked, whichever *environ* leads to."""
    if "IDENTITY_ENDPOINT" in environ:
        url = f"{environ['IDENTITY_ENDPOINT']}?api-version=2019-08-01&{query}"
        headers = {"X-IDENTITY-HEADER": environ["IDENTITY_HEADER"]}
    else:
        url = f"{environ['AZURE_POD_IDENTITY_AUTHORITY_HOST']}/metadata/identity/oauth2/token?api-version=2018-02-01"
        url, headers = f"{url}&{query}", {"Metadata": "true"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (http on loopback)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@POSIX
def test_the_developers_token_for_any_program(tmp_path: Path) -> None:
    """`az` is started once per resource for all clients, IMDS gives what is allowed, and SIGTERM ends it well."""
    az = StandIn(tmp_path, AzureCLI, "az", json.dumps({"accessToken": "opaque", "expires_on": END + 1_000_000_000}))
    with serving("--imds", "--allow", VAULT, "--output", "json", environ=az.surroundings.environ) as process:
        variables = leads_to(process)
        assert set(variables) == {"app_service", "app_service_2017", "imds"}
        assert variables["app_service"]["IDENTITY_ENDPOINT"] == variables["app_service_2017"]["MSI_ENDPOINT"]
        given = [
            ask(variables["app_service"]),
            ask(variables["app_service"], f"resource={VAULT}&client_id={CLIENT_ID}"),
            ask(variables["imds"]),
        ]
        assert [(status, body["access_token"]) for status, body in given] == [(200, "opaque")] * 3
        assert {body["expires_on"] for _, body in given} == {str(int(END) + 1_000_000_000)}
        assert ask(variables["imds"], "resource=https://graph.microsoft.com")[0] == 403
        status, body = ask(variables["app_service"] | {"IDENTITY_HEADER": "that of yesterday"})
        assert (status, "load anew" in body["message"]) == (403, True)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "")
    assert f"[the developer's, not client_id {CLIENT_ID}]" in errors
    assert "load anew" in errors
    assert len(az.asked) == 1
    assert not {"opaque", variables["app_service"]["IDENTITY_HEADER"]} & set(errors.split())
    assert "opaque" not in errors


@POSIX
def test_why_there_is_no_token_gets_through(tmp_path: Path) -> None:
    """Where nobody is logged in, the client's own error says what to do."""
    az = StandIn(tmp_path, AzureCLI, "az", "")
    az.says(stderr="ERROR: Please run 'az login' to setup account.", exit_code=1)
    with serving("--source", "azure_cli", "--output", "json", environ=az.surroundings.environ) as process:
        status, body = ask(leads_to(process)["app_service"])
    assert status == 400
    assert "az login" in body["message"]


def test_the_emulator_as_a_command() -> None:
    """`--emulate` gives out fake tokens by all three protocols, and Ctrl-C ends it well."""
    with serving("--emulate", "--lifetime", "60", "--output", "json") as process:
        variables = leads_to(process)
        for protocol in ("app_service", "imds"):
            status, body = ask(variables[protocol], "resource=anything")
            assert (status, len(body["access_token"].split("."))) == (200, 3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_script_for_clients_in_other_languages() -> None:
    """`--script` says what goes wrong with which request."""
    with serving("--emulate", "--script", "429:3", "--script", "503@3", "--output", "json") as process:
        environ = leads_to(process)["app_service"]
        assert [ask(environ)[0] for _ in range(4)] == [429, 200, 503, 200]


def test_being_told_twice(tmp_path: Path) -> None:
    """The first signal waits for whoever has asked already; the second one does not."""
    az = StandIn(tmp_path, AzureCLI, "az", "")
    for name in ("here", "never"):
        os.mkfifo(tmp_path / name)
    az.does(f'cd "{tmp_path}"; echo $$ >here; exec cat never')
    with serving("--output", "json", environ=az.surroundings.environ) as process:
        environ = leads_to(process)["app_service"]
        with ThreadPoolExecutor() as threads:
            asking = threads.submit(ask, environ)
            tool = int((tmp_path / "here").read_text())
            process.send_signal(signal.SIGTERM)
            while not refuses(environ):  # Until it has heard.
                pass
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert isinstance(asking.exception(), OSError)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(tool, 0)


@POSIX
def test_whoever_starts_it_may_let_it_outlive_the_terminal() -> None:
    """A hang-up that is ignored from the start, as by nohup, does not end it."""
    with serving("--emulate", "--output", "json", before=("sh", "-c", 'trap "" HUP; exec "$@"', "sh")) as process:
        environ = leads_to(process)["app_service"]
        process.send_signal(signal.SIGHUP)
        assert ask(environ)[0] == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


def refuses(environ: Mapping[str, str]) -> bool:
    """Return whether nobody listens there any more."""
    url = urlsplit(environ["IDENTITY_ENDPOINT"])
    try:
        socket.create_connection((url.hostname, url.port or 0)).close()
    except (ConnectionRefusedError, ConnectionResetError):  # The latter in the moment in which it stops.
        return True
    return False


def test_every_host_can_be_played(tmp_path: Path) -> None:
    """`--play` chooses the hosts; those that have files put them below a folder, by default one that goes away."""
    with serving("--emulate", "--play", "azure_arc", "--play", "entra", "--output", "json") as process:
        variables = leads_to(process)
        folder = Path(variables["entra"]["SSL_CERT_FILE"]).parent
        assert set(variables) == {"azure_arc", "entra"}
        assert folder.is_dir()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert not folder.exists()
    with serving("--emulate", "--play", "entra", "--root", str(tmp_path), "--output", "json") as process:
        assert leads_to(process)["entra"]["SSL_CERT_FILE"] == str(tmp_path / "ca.pem")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_nobody_can_be_told() -> None:
    """Where its output cannot be written, it says so and ends."""
    with open("/dev/full", "w") as full:  # noqa: PTH123  (a device)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "aiomsi", "serve", "--emulate"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "cannot print what clients must set" in done.stderr


def test_shells_can_read_it() -> None:
    """What is printed for a shell sets the variables there."""
    with serving("--emulate", "--play", "app_service") as process:
        assert process.stdout is not None
        lines = [shlex.split(process.stdout.readline()) for _ in range(2)]
    assert [(word, setting.partition("=")[0]) for word, setting in lines] == [
        ("export", "IDENTITY_ENDPOINT"),
        ("export", "IDENTITY_HEADER"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--imds"], 2, "--allow"),
        (["--host", "10.0.0.1"], 2, "--beyond-loopback"),
        (["--emulate", "--lifetime", "0"], 2, "--lifetime"),
        (["--emulate", "--lifetime", "nan"], 2, "lifetime"),
        (["--source", ""], 2, "'--source': it is empty"),
        (["--tenant", ""], 2, "'--tenant': it is empty"),
        (["--socket", ""], 2, "'--socket': it is empty"),
        (["--emulate", "--root", ""], 2, "'--root': it is empty"),
        (["--source", "nobody"], 4, "the source is 'nobody'"),
        (["--emulate", "--play", "moon"], 2, "unknown host 'moon'"),
        (["--emulate", "--play", "azure_ml", "--play", "cloud_shell"], 2, "different values of MSI_ENDPOINT"),
        (["--emulate", "--script", "moon"], 2, "moon"),
        (["--emulate", "--host-name", "a:80"], 2, "host name"),
        (["--emulate", "--host-name", "*"], 2, "host name"),
        (["--emulate", "--socket", "/dev/null"], 1, "cannot serve app_service"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], code: int, said: str) -> None:
    """It ends with a message and an exit code before it serves anything."""
    result = CliRunner().invoke(cli, ["serve", *arguments], prog_name="aiomsi")
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_what_default_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--source default` is what a service would take, so that a wrong variable is told as there."""
    monkeypatch.setenv("AzureServicesAuthConnectionString", "RunAs=Nobody")
    with serving("--source", "default", "--output", "json") as process:
        status, body = ask(leads_to(process)["app_service"])
    assert (status, "RunAs" in body["message"]) == (400, True)
