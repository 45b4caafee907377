"""Azure Arc: how its agent is found, its challenge with a key file, and whoever squats on its port."""

from __future__ import annotations

import asyncio
import os
import stat
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support import PacedClock

from aiomsi import (
    AccessToken,
    AiomsiError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer, IdentityEndpoint
from aiomsi.sources import ManagedIdentity, Surroundings, TokenRequest
from aiomsi.sources._arc import agent_is_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

VAULT = "https://vault.azure.net"
CLIENT_ID = "11111111-aaaa-4bbb-8ccc-000000000001"
OBJECT_ID = "22222222-aaaa-4bbb-8ccc-000000000002"
RESOURCE_ID = (
    "/subscriptions/33333333-0000-4000-8000-000000000003/resourceGroups/rg/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/mine"
)
KEYS = "var/opt/azcmagent/tokens"
KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def paced() -> PacedClock:
    return PacedClock()


@pytest.fixture
async def endpoint(paced: PacedClock, tmp_path: Path) -> AsyncIterator[IdentityEndpoint]:
    async with IdentityEndpoint(hosts=("azure_arc",), root=tmp_path, wall=paced.wall) as opened:
        yield opened


def on(endpoint: IdentityEndpoint, root: Path, **selector: str) -> ManagedIdentity:
    surroundings = Surroundings(environ=endpoint.environ("azure_arc"), platform="linux", root=root)
    return ManagedIdentity(**selector, surroundings=surroundings)  # type: ignore[arg-type]


async def fetched(source: ManagedIdentity, clock: PacedClock) -> tuple[AccessToken | BaseException, list[float]]:
    request = TokenRequest(VAULT, clock=clock, deadline=clock.monotonic() + 90)
    fetching = asyncio.ensure_future(source.fetch(request))
    waits = await clock.pace(fetching)
    return fetching.exception() or fetching.result(), waits


async def refused(source: ManagedIdentity, clock: PacedClock) -> AiomsiError:
    """Return the error that a fetch ends with, having seen that no secret is in it."""
    outcome, _ = await fetched(source, clock)
    assert isinstance(outcome, AiomsiError), outcome
    said = "".join(traceback.TracebackException.from_exception(outcome, capture_locals=True).format())
    assert KEY not in said
    assert outcome.resource == VAULT
    assert outcome.source == "azure_arc"
    return outcome


# What the agent wants


async def test_the_key_file_is_shown_to_have_been_read(
    endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path
) -> None:
    """The agent's challenge is answered with the content of its file, and the token comes with the second answer."""
    token, waits = await fetched(on(endpoint, tmp_path), paced)
    assert isinstance(token, AccessToken)
    assert (token.source, token.expires_on, waits) == ("azure_arc", paced.wall() + 86_400, [])
    first, second = endpoint.requests
    assert "authorization" not in first.headers
    assert second.headers["authorization"].startswith("Basic ")
    assert first.parameters == second.parameters == {"api-version": "2020-06-01", "resource": VAULT}
    assert first.headers["metadata"] == second.headers["metadata"] == "true"


@pytest.mark.parametrize(
    ("selector", "parameter"),
    [
        ({"client_id": CLIENT_ID}, "client_id"),
        ({"object_id": OBJECT_ID.upper()}, "object_id"),
        ({"resource_id": RESOURCE_ID}, "msi_res_id"),
    ],
)
async def test_a_user_assigned_identity_is_echoed(
    endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path, selector: dict[str, str], parameter: str
) -> None:
    """An agent that knows the identity says so, in whatever case, and its token is taken."""
    outcome, _ = await fetched(on(endpoint, tmp_path, **selector), paced)
    assert isinstance(outcome, AccessToken)
    assert endpoint.token_requests[0].parameters[parameter] == next(iter(selector.values()))


@pytest.mark.parametrize("selector", [{"client_id": CLIENT_ID}, {"object_id": OBJECT_ID}, {"resource_id": RESOURCE_ID}])
async def test_an_old_agent_s_token_for_somebody_else_is_dropped(
    paced: PacedClock, tmp_path: Path, selector: dict[str, str]
) -> None:
    """An agent that ignores the selector gives a token of the machine's own, which is not what was asked for."""
    async with IdentityEndpoint(hosts=("azure_arc",), root=tmp_path, arc_ignores_selectors=True) as endpoint:
        error = await refused(on(endpoint, tmp_path, **selector), paced)
    assert isinstance(error, SecurityError)
    assert "another identity" in str(error)
    assert next(iter(selector.values())) in str(error)


async def test_every_attempt_answers_a_challenge_of_its_own(
    endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path
) -> None:
    """A key is good once, so after a failure the whole exchange begins anew."""
    endpoint.script(Answer(500), Answer(503))
    outcome, waits = await fetched(on(endpoint, tmp_path), paced)
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0, 2.0]
    keys = [request.headers["authorization"] for request in endpoint.token_requests]
    assert len(set(keys)) == len(waits) + 1


async def test_the_second_request_has_what_the_first_has_left_of_the_time(tmp_path: Path, paced: PacedClock) -> None:
    """An agent that is slow to ask for its key does not make the fetch overrun its deadline."""
    key_file(tmp_path)

    async def handle(request: web.Request) -> web.Response:
        if "Authorization" in request.headers:
            return web.json_response({"access_token": "a-token", "expires_in": 3600})
        await paced.advance(14)
        return web.Response(status=401, headers={"WWW-Authenticate": f"Basic realm=/{KEYS}/a.key"})

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    async with TestServer(application) as server:
        environ = dict.fromkeys(("IDENTITY_ENDPOINT", "IMDS_ENDPOINT"), f"http://127.0.0.1:{server.port}/token")
        source = ManagedIdentity(surroundings=Surroundings(environ=environ, platform="linux", root=tmp_path))
        request = TokenRequest(VAULT, clock=paced, deadline=paced.monotonic() + 20)
        fetching = asyncio.ensure_future(source.fetch(request))
        assert [await paced.next_alarm(fetching) for _ in range(2)] == [15.0, 6.0]
        assert (await fetching).token == "a-token"


async def test_an_upgrade_of_the_agent_is_waited_out(
    endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path
) -> None:
    """The agent imitates IMDS, whose 410 means that it is back within 70 s."""
    endpoint.script(Answer(410), Answer(410))
    outcome, waits = await fetched(on(endpoint, tmp_path), paced)
    assert isinstance(outcome, AccessToken)
    assert waits == [10.0, 10.0]


async def test_an_identity_that_is_not_assigned_is_a_refusal(
    endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path
) -> None:
    """A 404 is an answer about the identity here, and asking again would not change it."""
    endpoint.script(then=Answer(404, {"error": "not_found"}))
    error = await refused(on(endpoint, tmp_path, client_id=CLIENT_ID), paced)
    assert isinstance(error, TokenRefusedError)
    assert f"assign '{CLIENT_ID}'" in str(error)
    assert len(endpoint.token_requests) == 1


# How it is found


def program(root: Path) -> Path:
    path = root / "opt/azcmagent/bin/himds"
    path.parent.mkdir(parents=True)
    path.touch()
    return root


async def test_the_agent_is_found_by_its_program(endpoint: IdentityEndpoint, paced: PacedClock, tmp_path: Path) -> None:
    """A service that did not inherit the variables finds the agent where it always is, and IMDS is left alone."""
    surroundings = Surroundings(
        environ={}, platform="linux", root=program(tmp_path), imds_url="http://127.0.0.1:1", arc_url=endpoint.url
    )
    machine = ManagedIdentity(surroundings=surroundings)
    assert await machine.here()
    outcome, _ = await fetched(machine, paced)
    assert isinstance(outcome, AccessToken)
    assert outcome.source == "azure_arc"


async def test_an_agent_that_is_down_is_an_outage(paced: PacedClock, tmp_path: Path) -> None:
    """Where the agent's program is installed, its silence never makes the service somebody else."""
    surroundings = Surroundings(
        environ={},
        platform="linux",
        root=program(tmp_path),
        imds_url="http://127.0.0.1:1",
        arc_url="http://127.0.0.1:1",
    )
    outcome, waits = await fetched(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(outcome, EndpointError)
    assert "Azure Arc gave no token" in str(outcome)
    assert waits == [1.0, 2.0, 4.0]


def test_the_agent_is_asked_at_an_address_that_needs_no_resolving() -> None:
    """It listens on 127.0.0.1 alone, and `localhost` may be ::1."""
    assert urlsplit(Surroundings().arc_url).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    ("platform", "environ", "path", "found"),
    [
        ("linux", {}, "opt/azcmagent/bin/himds", True),
        ("linux", {}, "opt/azcmagent/bin/other", False),
        ("darwin", {}, "opt/azcmagent/bin/himds", False),
        (
            "win32",
            {"ProgramFiles": "C:\\Program Files"},
            "Program Files/AzureConnectedMachineAgent/himds.exe",
            True,
        ),
        ("win32", {"ProgramFiles": "C:\\Elsewhere"}, "Program Files/AzureConnectedMachineAgent/himds.exe", False),
        ("win32", {}, "Program Files/AzureConnectedMachineAgent/himds.exe", False),
        ("win32", {"ProgramFiles": "relative"}, "relative/AzureConnectedMachineAgent/himds.exe", False),
    ],
)
async def test_where_the_program_is(
    tmp_path: Path, platform: str, environ: dict[str, str], path: str, *, found: bool
) -> None:
    """On Linux under /opt, on Windows under the folder of programs, and nowhere else."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert await agent_is_here(Surroundings(environ=environ, platform=platform, root=tmp_path)) is found


# Whoever squats on the port


@asynccontextmanager
async def squatter(challenge: str | None) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Yield the URL of a server that asks for whatever file it likes, and the requests that it got."""
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        requests.append(request)
        if len(requests) > 9:  # A source that is led round in circles should fail its test, not hang in it.
            return web.Response(status=500)
        return web.Response(status=401, headers={} if challenge is None else {"WWW-Authenticate": challenge})

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    async with TestServer(application) as server:
        yield f"http://127.0.0.1:{server.port}/token", requests


def key_file(root: Path, name: str = "a.key", content: bytes = KEY.encode()) -> Path:
    path = root / KEYS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


async def asked_for(realm: str | None, root: Path, clock: PacedClock, platform: str = "linux") -> AiomsiError:
    """Return the error when the agent asks for *realm*, having seen that it got one request without any content."""
    challenge = None if realm is None else f"Basic realm={realm}"
    async with squatter(challenge) as (url, requests):
        environ = {"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}
        surroundings = Surroundings(environ=environ, platform=platform, root=root)
        error = await refused(ManagedIdentity(surroundings=surroundings), clock)
    assert len(requests) == 1
    assert "Authorization" not in requests[0].headers
    return error


@pytest.mark.parametrize(
    "realm",
    [
        None,
        "",
        "/etc/passwd",
        "/etc/shadow.key",
        f"/{KEYS}",
        f"/{KEYS}/",
        f"/{KEYS}/a.txt",
        f"/{KEYS}/.key",
        f"/{KEYS}/../tokens/a.key",
        f"/{KEYS}/sub/a.key",
        f"/{KEYS}/a\tb.key",
        f"/{KEYS}2/a.key",
        f"{KEYS}/a.key",
        "a.key",
        "//evil.example/tokens/a.key",
        "C:\\ProgramData\\AzureConnectedMachineAgent\\Tokens\\a.key",
        f"/{KEYS}/a.key, Basic realm=/{KEYS}/b.key",
    ],
)
async def test_a_file_that_is_no_key_of_the_agent_is_not_opened(
    realm: str | None, tmp_path: Path, paced: PacedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a `.key` right in the agent's folder is looked at; a path is refused before anything is opened."""
    key_file(tmp_path)
    opened: list[object] = []
    monkeypatch.setattr("aiomsi.sources._files.os.open", lambda path, _flags: opened.append(path))
    error = await asked_for(realm, tmp_path, paced)
    assert isinstance(error, SecurityError)
    assert "nothing was read" in str(error)
    assert opened == []


@pytest.mark.parametrize("scheme", ["Bearer", "Negotiate", "Basicrealm", ""])
async def test_another_scheme_is_not_answered(scheme: str, tmp_path: Path, paced: PacedClock) -> None:
    """The agent asks with Basic; whoever asks otherwise is not the agent."""
    key_file(tmp_path)
    async with squatter(f"{scheme} realm=/{KEYS}/a.key") as (url, requests):
        surroundings = Surroundings(
            environ={"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}, platform="linux", root=tmp_path
        )
        assert isinstance(await refused(ManagedIdentity(surroundings=surroundings), paced), SecurityError)
    assert len(requests) == 1


def linked(path: Path) -> None:
    outside = path.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked_hard(path: Path) -> None:
    path.with_name("outside").hardlink_to(path)


def for_everybody(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWOTH)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (linked, "is a symbolic link, and was not read"),
        (linked_hard, "has another name"),
        (piped, "is no regular file"),
        (a_folder, "is no regular file"),
        (for_everybody, "was not written by the agent"),
        (lambda path: path.write_bytes(b"x" * 5000), "has more than 4096 bytes"),
        (lambda path: path.write_bytes(b"one\ntwo"), "holds characters that no HTTP header may"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "holds characters that no HTTP header may"),
        (lambda path: path.write_bytes("schlüssel".encode()), "holds characters that no HTTP header may"),
    ],
)
async def test_a_file_that_the_agent_cannot_have_written_is_not_sent(
    spoil: Callable[[Path], object], complaint: str, tmp_path: Path, paced: PacedClock
) -> None:
    """A link of either kind, a pipe, a folder, a large file, one that anybody may write, and no key are refused."""
    spoil(key_file(tmp_path))
    error = await asked_for(f"/{KEYS}/a.key", tmp_path, paced)
    assert isinstance(error, SecurityError)
    assert complaint in str(error)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give a file away")
async def test_a_file_of_somebody_else_is_not_sent(tmp_path: Path, paced: PacedClock) -> None:
    """A key belongs to root, or to whom the agent's folder belongs."""
    path = key_file(tmp_path)
    os.chown(path, 12_345, 12_345)
    assert "was not written by the agent" in str(await asked_for(f"/{KEYS}/a.key", tmp_path, paced))
    os.chown(path.parent, 12_345, 12_345)
    async with squatter(f"Basic realm=/{KEYS}/a.key") as (url, requests):
        surroundings = Surroundings(
            environ={"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}, platform="linux", root=tmp_path
        )
        await fetched(ManagedIdentity(surroundings=surroundings), paced)
    assert [request.headers.get("Authorization") for request in requests] == [None, f"Basic {KEY}"]


@pytest.mark.parametrize("content", [b"", b"\n"])
async def test_an_empty_key_is_a_refusal(content: bytes, tmp_path: Path, paced: PacedClock) -> None:
    """There is nothing to answer with, and nobody is accused."""
    key_file(tmp_path, content=content)
    error = await asked_for(f"/{KEYS}/a.key", tmp_path, paced)
    assert isinstance(error, TokenRefusedError)
    assert "is empty" in str(error)


async def test_a_key_that_may_not_be_read_says_which_group_may(
    tmp_path: Path, paced: PacedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual mistake is a service that is not in the agent's group, and the error says what to type."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("aiomsi.sources._files.os.open", refuse)
    error = await asked_for(f"/{KEYS}/a.key", tmp_path, paced)
    assert isinstance(error, TokenRefusedError)
    assert "cannot be read (Permission denied)" in str(error)
    assert "sudo usermod -aG himds <user>" in str(error)


async def test_a_link_is_refused_where_opening_does_not_refuse_it(
    tmp_path: Path, paced: PacedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform that follows links on opening, as Windows does, is told apart afterwards."""
    linked(key_file(tmp_path))
    monkeypatch.delattr("aiomsi.sources._files.os.O_NOFOLLOW")
    error = await asked_for(f"/{KEYS}/a.key", tmp_path, paced)
    assert isinstance(error, SecurityError)
    assert "is a symbolic link" in str(error)


async def test_the_content_is_stripped_and_sent_as_it_is(tmp_path: Path, paced: PacedClock) -> None:
    """A newline at the end would make an illegal header, and encoding it once more a wrong one."""
    key_file(tmp_path, content=f"{KEY}\r\n".encode())
    async with squatter(f"Basic realm=/{KEYS}/a.key") as (url, requests):
        surroundings = Surroundings(
            environ={"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}, platform="linux", root=tmp_path
        )
        error = await refused(ManagedIdentity(surroundings=surroundings), paced)
    assert requests[1].headers["Authorization"] == f"Basic {KEY}"
    assert len(requests) == 2, "a second challenge is a refusal: nobody is led round in circles"
    assert isinstance(error, TokenRefusedError)
    assert "did not take the key" in str(error)


async def test_an_answer_that_echoes_the_key_shows_none_of_it(tmp_path: Path, paced: PacedClock) -> None:
    """What comes back is shown without the secret that went there."""
    key_file(tmp_path)

    async def handle(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": f"Basic realm=/{KEYS}/a.key"})
        return web.json_response({"error": "bad", "error_description": f"no such key as {KEY} here"}, status=400)

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    async with TestServer(application) as server:
        url = f"http://127.0.0.1:{server.port}/token"
        surroundings = Surroundings(
            environ={"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}, platform="linux", root=tmp_path
        )
        error = await refused(ManagedIdentity(surroundings=surroundings), paced)
    assert "no such key as <redacted> here" in str(error)


async def test_windows_has_its_own_folder(tmp_path: Path, paced: PacedClock) -> None:
    """There the keys are under ProgramData, in any case, whatever variable says where that is."""
    folder = tmp_path / "Data/AzureConnectedMachineAgent/Tokens"
    folder.mkdir(parents=True)
    (folder / "a.key").write_text(KEY)
    async with squatter(
        "Basic realm=D:\\data\\AzureConnectedMachineAgent\\tokens\\A.key".replace("A.key", "a.key")
    ) as (
        url,
        requests,
    ):
        environ = {"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url, "ProgramData": "D:\\Data"}
        surroundings = Surroundings(environ=environ, platform="win32", root=tmp_path)
        outcome, _ = await fetched(ManagedIdentity(surroundings=surroundings), paced)
    # On a file system that tells cases apart the file is not found, which is past the check of the path.
    assert isinstance(outcome, TokenRefusedError)
    assert len(requests) == 1
    assert "does not exist" in str(outcome)


async def test_a_platform_without_an_agent_has_none(tmp_path: Path, paced: PacedClock) -> None:
    """On a Mac there is no agent, so whatever asks for a file is something else."""
    key_file(tmp_path)
    error = await asked_for(f"/{KEYS}/a.key", tmp_path, paced, platform="darwin")
    assert isinstance(error, SourceUnavailableError)
    assert "no agent of Azure Arc for this platform" in str(error)


async def test_a_first_answer_without_a_challenge_is_taken(tmp_path: Path, paced: PacedClock) -> None:
    """Imitations of the agent hand the token out at once."""

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response({"access_token": "a-token", "expires_in": "3600"})

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    async with TestServer(application) as server:
        url = f"http://127.0.0.1:{server.port}/token"
        surroundings = Surroundings(environ={"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}, root=tmp_path)
        outcome, _ = await fetched(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(outcome, AccessToken)


async def test_a_crowd_is_one_exchange(tmp_path: Path) -> None:
    """However many ask at the same time, one challenge is answered; cancelling any of them changes nothing."""
    async with (
        IdentityEndpoint(hosts=("azure_arc",), root=tmp_path) as endpoint,
        TokenProvider(on(endpoint, tmp_path)) as provider,
    ):
        callers = [asyncio.ensure_future(provider.token(VAULT)) for _ in range(50)]
        await asyncio.sleep(0)
        for number in (0, 25, 49):
            callers[number].cancel()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 47
    assert len(endpoint.requests) == 2


async def test_a_success_that_is_none_shows_no_key(tmp_path: Path, paced: PacedClock) -> None:
    """An answer that makes no sense after the key was sent is told by its shape."""
    key_file(tmp_path)

    async def handle(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": f'Basic realm="/{KEYS}/a.key"'})
        return web.Response(text=f"<html>{KEY}</html>", content_type="text/html")

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    async with TestServer(application) as server:
        url = f"http://127.0.0.1:{server.port}/token"
        surroundings = Surroundings(
            environ={"IDENTITY_ENDPOINT": url, "IMDS_ENDPOINT": url}, platform="linux", root=tmp_path
        )
        error = await refused(ManagedIdentity(surroundings=surroundings), paced)
    assert isinstance(error, MalformedResponseError)
    assert "HTML" in str(error)
