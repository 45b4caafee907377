"""The identity of a Kubernetes workload: its token file, and what becomes of what is in it."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pods import CLIENT_ID, TENANT_ID, VAULT, Pod, assertion, check_silence, pod, refusal

from aiomsi import (
    AccessToken,
    ConfigurationError,
    EndpointError,
    SourceUnavailableError,
    TokenProvider,
    TokenRefusedError,
)
from aiomsi.endpoint import Answer, Gate, IdentityEndpoint
from aiomsi.sources import Surroundings, TokenRequest, WorkloadIdentity
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CALLERS = 5


@pytest.fixture
async def shop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Pod]:
    """A pod whose secrets may not be logged either."""
    caplog.set_level(logging.DEBUG)
    async with pod(tmp_path) as opened:
        yield opened
        assert [secret for secret in opened.secrets if secret in caplog.text] == []


@pytest.fixture
async def endpoint(shop: Pod) -> AsyncIterator[IdentityEndpoint]:
    """The emulator of Entra, which the pod's variables now lead to."""
    async with IdentityEndpoint(hosts=["entra"], root=shop.folder / "root", wall=shop.clock.wall) as opened:
        shop.environ = opened.environ("entra")
        yield opened


def workload(shop: Pod, **options: Any) -> WorkloadIdentity:
    return WorkloadIdentity(**options, surroundings=shop.surroundings)


def assertions(shop: Pod) -> list[str]:
    return [form["client_assertion"] for form in shop.forms]


# The token file


async def test_the_file_is_read_for_each_request(shop: Pod) -> None:
    """The cluster renews the token, so each fetch sends the one of that moment."""
    source = workload(shop)
    await shop.token(source)
    shop.hold(assertion(2))
    await shop.token(source)
    assert assertions(shop) == [assertion(1), assertion(2)]


@pytest.mark.parametrize("frame", ["{}\n", "{}\r\n", " \t{} \n\n", "\ufeff{}", "\ufeff\n{}\n"], ids=ascii)
async def test_what_is_around_the_token_is_not_sent(shop: Pod, frame: str) -> None:
    """Editors and programs put blanks, lines and byte-order marks around a text."""
    shop.hold(frame.format(assertion()))
    await shop.token()
    assert assertions(shop) == [assertion()]


async def test_a_projected_volume_is_links_that_are_turned(shop: Pod, tmp_path: Path) -> None:
    """Kubernetes projects a file as a link through a folder that it replaces in one step."""
    for serial in (1, 2):
        folder = tmp_path / f"..2025_10_0{serial}"
        folder.mkdir()
        (folder / "token").write_text(assertion(serial))
    (tmp_path / "..data").symlink_to("..2025_10_01")
    (tmp_path / "token").symlink_to("..data/token")
    source = workload(shop, token_file=tmp_path / "token")
    await shop.token(source)
    (tmp_path / "..data_tmp").symlink_to("..2025_10_02")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await shop.token(source)
    assert assertions(shop) == [assertion(1), assertion(2)]


def nothing(_file: Path) -> None:
    """Leave the place empty."""


def too_much(file: Path) -> None:
    file.write_bytes(b"a" * (64 * 1024 + 1))


def link_to_itself(file: Path) -> None:
    file.symlink_to(file)


def private_key(file: Path) -> None:
    file.write_text("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----\n")


def other_encoding(file: Path) -> None:
    file.write_text(assertion(), encoding="utf-16")


def other_letters(file: Path) -> None:
    file.write_text(assertion() + "\u00e9")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (nothing, "cannot be read: No such file or directory"),
        (os.mkdir, "is no regular file"),
        (os.mkfifo, "is no regular file"),
        (link_to_itself, "cannot be read: Too many levels of symbolic links"),
        (too_much, "has more than 65536 bytes"),
        (private_key, "holds something else than a token"),
        (other_encoding, "holds something else than a token"),
        (other_letters, "holds something else than a token"),
    ],
)
async def test_a_file_that_is_none(shop: Pod, make: Callable[[Path], None], problem: str) -> None:
    """What cannot be a token is not sent, and no time is spent on it."""
    file = shop.folder / "other"
    make(file)
    shop.environ["AZURE_FEDERATED_TOKEN_FILE"] = str(file)
    outcome, waits = await shop.fetched()
    assert type(outcome) is ConfigurationError
    assert f"the token file {str(file)!r} {problem}" in str(outcome)
    assert waits == []
    assert shop.requests == []


@pytest.mark.parametrize(
    ("name", "problem"), [("run/token", "is no absolute path"), ("/run/a\0b", "has a name that no file can have")]
)
async def test_a_name_that_leads_nowhere(shop: Pod, name: str, problem: str) -> None:
    """A relative path depends on where the process was started, so it is not looked for."""
    error = await shop.error(ConfigurationError, workload(shop, token_file=name))
    assert problem in str(error)
    assert shop.requests == []


async def test_a_token_in_the_place_of_its_file_is_not_shown(shop: Pod) -> None:
    """Whoever puts the token itself into the variable is told that a path belongs there."""
    token = assertion(9)
    shop.environ["AZURE_FEDERATED_TOKEN_FILE"] = token
    shop.secrets.append(token)
    error = await shop.error(ConfigurationError, workload(shop))
    assert "the token file is no absolute path" in str(error)
    assert shop.requests == []


@pytest.mark.parametrize("empty", ["", "\n", " \r\n\t", "\ufeff"], ids=ascii)
async def test_an_empty_file_is_looked_at_once_more(shop: Pod, empty: str) -> None:
    """It may be just being written, so it has a second; then it is told, and nothing is sent."""
    shop.token_file.write_text(empty)
    outcome, waits = await shop.fetched()
    assert type(outcome) is ConfigurationError
    assert "is empty; is it being renewed?" in str(outcome)
    assert (waits, shop.requests) == ([1.0], [])


async def test_a_file_that_is_filled_in_time_is_sent(shop: Pod) -> None:
    """What is there at the second look is the token."""
    shop.token_file.write_text("")
    fetching = shop.asking()
    assert await shop.clock.next_alarm(fetching) == 1.0
    shop.hold(assertion(2))
    await shop.clock.advance(1)
    await fetching
    assert assertions(shop) == [assertion(2)]


@pytest.mark.parametrize(
    "name", ["C:\\var\\run\\secrets\\token", "/var/run/secrets/token", "\\var\\run\\secrets\\token"]
)
async def test_paths_of_windows(shop: Pod, name: str) -> None:
    """On Windows the path may have a drive, or none, as the webhook writes it for pods of either platform."""
    root = shop.folder / "root"
    (root / "var/run/secrets").mkdir(parents=True)
    (root / "var/run/secrets/token").write_text(assertion(2))
    environ = {**shop.environ, "AZURE_FEDERATED_TOKEN_FILE": name}
    await shop.token(WorkloadIdentity(surroundings=Surroundings(environ=environ, platform="win32", root=root)))
    assert assertions(shop) == [assertion(2)]


# A proof that is out of date


async def test_a_stale_assertion_is_read_anew_and_sent_once_more(shop: Pod) -> None:
    """Entra calls it out of date while the cluster renews it: the second request carries the new one."""

    async def renew() -> None:
        shop.hold(assertion(len(shop.requests) + 1))

    shop.before_answer = renew
    shop.answers.append(refusal(700024, status=401))
    outcome, waits = await shop.fetched()
    assert isinstance(outcome, AccessToken)
    assert waits == [1.0]
    assert assertions(shop) == [assertion(1), assertion(2)]


async def test_an_assertion_that_stays_stale_is_a_refusal(shop: Pod) -> None:
    """It is sent once more, and not a third time, and the advice is to look at the clock and the file."""
    shop.answers.extend([refusal(700024, status=401)] * 9)
    outcome, waits = await shop.fetched()
    assert type(outcome) is TokenRefusedError
    assert (outcome.code, outcome.status) == ("AADSTS700024", 401)
    assert "is this machine's clock right, and is the token file being renewed?" in str(outcome)
    assert waits == [1.0]
    assert len(shop.requests) == 2


@pytest.mark.parametrize("code", [70021, 700211, 700213, 700016, 90002, 70011, 500011, 50027])
async def test_no_other_refusal_is_asked_again(shop: Pod, code: int) -> None:
    """What a fresh assertion would not change is final at once."""
    shop.answers.extend([refusal(code)] * 9)
    outcome, waits = await shop.fetched()
    assert type(outcome) is TokenRefusedError
    assert (outcome.code, waits, len(shop.requests)) == (f"AADSTS{code}", [], 1)


async def test_trouble_of_other_kinds_does_not_multiply_the_second_chance(shop: Pod) -> None:
    """Outages before and after it are waited out, but there is one second chance in a fetch."""
    stale, outage = refusal(700024, status=401), Answer(503, "")
    shop.answers.extend([outage, stale, outage, stale, stale])
    outcome, waits = await shop.fetched()
    assert type(outcome) is TokenRefusedError
    assert waits == [1.0, 1.0, 1.0]
    shop.answers.clear()
    shop.answers.extend([outage, stale, outage])
    outcome, waits = await shop.fetched()
    assert isinstance(outcome, AccessToken)


@pytest.mark.parametrize(
    ("retry_timeout", "limit", "attempts"), [(0, 60, 1), (0.5, 60, 1), (1.5, 60, 2), (None, 0.5, 1), (None, 1.5, 2)]
)
async def test_the_second_chance_keeps_to_the_time_there_is(
    shop: Pod, retry_timeout: float | None, limit: float, attempts: int
) -> None:
    """Where there is no time for it, the refusal is the answer, and not that time ran out."""
    shop.answers.extend([refusal(700024, status=401)] * 9)
    await shop.error(TokenRefusedError, workload(shop, retry_timeout=retry_timeout), limit=limit)
    assert len(shop.requests) == attempts


async def test_each_retry_carries_the_assertion_of_its_moment(shop: Pod) -> None:
    """An outage may last longer than a token of the cluster."""

    async def renew() -> None:
        shop.hold(assertion(len(shop.requests) + 1))

    shop.before_answer = renew
    shop.answers.extend([Answer(503, ""), Answer(429, "", {"Retry-After": "30"})])
    await shop.token()
    assert assertions(shop) == [assertion(1), assertion(2), assertion(3)]


async def test_a_renewed_token_is_taken_by_a_real_token_endpoint(shop: Pod, endpoint: IdentityEndpoint) -> None:
    """With an endpoint that refuses all but the newest assertion, a fetch after each renewal succeeds."""
    source = workload(shop)
    for _ in range(2):
        token = await shop.token(source)
        assert token.expires_on == shop.clock.wall() + 86_400
        await endpoint.rotate_federated_token()
    assert len(endpoint.token_requests) == 2


# What it is made of


@pytest.mark.parametrize("environ", [{}, {"AZURE_CLIENT_ID": CLIENT_ID, "AZURE_TENANT_ID": TENANT_ID}])
@pytest.mark.parametrize("file", [{}, {"AZURE_FEDERATED_TOKEN_FILE": ""}])
async def test_without_a_token_file_there_is_no_workload_identity(
    shop: Pod, environ: dict[str, str], file: dict[str, str]
) -> None:
    """A client id alone is somebody else's; the next source is asked, and the advice is the pod's label."""
    source = WorkloadIdentity(surroundings=Surroundings(environ={**environ, **file}))
    error = await shop.error(SourceUnavailableError, source)
    assert "azure.workload.identity/use: 'true'" in str(error)


@pytest.mark.parametrize("missing", ["AZURE_CLIENT_ID", "AZURE_TENANT_ID"])
async def test_half_of_a_workload_identity_is_a_mistake(shop: Pod, missing: str) -> None:
    """Where there is a file somebody wanted this identity, so another source would be the wrong one."""
    del shop.environ[missing]
    error = await shop.error(ConfigurationError)
    assert missing in str(error)


@pytest.mark.parametrize("kind", [str, Path])
async def test_arguments_are_enough(shop: Pod, kind: type[str | Path]) -> None:
    """Without any of the webhook's variables, and without the authority, the source can be told everything."""
    environ = {name: value for name, value in shop.environ.items() if not name.startswith("AZURE_")}
    shop.environ = {**environ, "AZURE_FEDERATED_TOKEN_FILE": "/not/looked/at"}
    source = workload(shop, client_id=CLIENT_ID, tenant_id=TENANT_ID, token_file=kind(shop.token_file))
    await shop.token(source)
    assert assertions(shop) == [assertion()]


@pytest.mark.parametrize(
    "option",
    [
        {"client_id": 1},
        {"tenant_id": b"x"},
        {"authority": Path("x")},
        {"token_file": 1},
        {"token_file": b"/run/token"},
        {"client_capabilities": "CP1"},
        {"retry_timeout": "1"},
    ],
)
def test_arguments_of_a_wrong_type(option: dict[str, Any]) -> None:
    """They are told where they are written, not at the first fetch."""
    with pytest.raises(TypeError):
        WorkloadIdentity(**option)


@pytest.mark.parametrize("option", [{"client_capabilities": ["CP 1"]}, {"retry_timeout": -1}])
def test_arguments_that_make_no_sense(option: dict[str, Any]) -> None:
    """So are values that nobody can mean."""
    with pytest.raises(ValueError, match=r"capability|retry_timeout"):
        WorkloadIdentity(**option)


def test_it_says_what_it_was_given() -> None:
    """What was given shows, and it is no secret; what comes from the environment does not."""
    assert repr(WorkloadIdentity()) == "WorkloadIdentity()"
    given = repr(WorkloadIdentity(client_id="a", tenant_id="b", token_file="/c", authority="https://:hunter2@d"))
    assert given == "WorkloadIdentity(client_id='a', tenant_id='b', token_file='/c')"


def test_it_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    """Nothing of a fetch is kept, so that the same source serves on a second loop."""
    environ: dict[str, str] = {}
    source = WorkloadIdentity(surroundings=Surroundings(environ=environ))

    async def fetch() -> str:
        async with pod(tmp_path) as opened:
            environ.clear()
            environ.update(opened.environ)
            return (await source.fetch(TokenRequest(VAULT))).token

    assert [asyncio.run(fetch()) for _ in range(2)] == ["entra-gave-this"] * 2


# Callers


@pytest.mark.parametrize("victim", [0, CALLERS // 2, CALLERS - 1], ids=["first", "middle", "last"])
async def test_a_cancelled_caller_takes_nobody_along(shop: Pod, endpoint: IdentityEndpoint, victim: int) -> None:
    """Whoever leaves while Entra is being asked, the others get the one token."""
    gate = Gate()
    endpoint.script(gate)
    async with TokenProvider(workload(shop), clock=ManualClock(shop.clock.wall())) as provider:
        callers = [asyncio.create_task(provider.token(VAULT)) for _ in range(CALLERS)]
        await gate.reached()
        callers[victim].cancel()
        await asyncio.wait([callers[victim]])
        gate.open()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(outcomes.pop(victim), asyncio.CancelledError)
        assert len(set(map(str, outcomes))) == 1
        assert outcomes[0] == provider.peek(VAULT)
    assert len(endpoint.requests) == 1


class Door(Gate):
    """A gate that tells when somebody who waited at it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.left = asyncio.Event()

    async def hold(self) -> None:
        try:
            await super().hold()
        finally:
            self.left.set()


async def test_a_cancelled_fetch_hangs_up(shop: Pod, endpoint: IdentityEndpoint) -> None:
    """What is cancelled while it waits for an answer leaves no connection, no timer and no task behind."""
    door = Door()
    endpoint.script(door)
    before = asyncio.all_tasks()
    fetching = shop.asking()
    await door.reached()
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    assert shop.clock.timers == 0
    await door.left.wait()  # It was never opened: the client has hung up.
    await endpoint.aclose()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("turns", range(0, 24, 3))
async def test_a_cancellation_at_any_moment_leaves_nothing_behind(shop: Pod, turns: int) -> None:
    """Whichever turn of the event loop it falls into, no timer stays, and the next fetch works."""
    fetching = shop.asking()
    for _ in range(turns):
        await asyncio.sleep(0)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert shop.clock.timers == 0
    await shop.token()


async def test_a_cancellation_between_two_attempts_ends_the_fetch(shop: Pod) -> None:
    """Nobody waits for a retry that nobody wants any more."""
    shop.answers.append(refusal(700024, status=401))
    fetching = shop.asking()
    while await shop.clock.next_alarm(fetching) != 1.0:
        pass
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    assert (shop.clock.timers, len(shop.requests)) == (0, 1)


async def test_what_a_provider_raises_shows_nothing_either(shop: Pod) -> None:
    """The error that each caller gets tells of the outage, and of nothing that was sent."""
    shop.answers.extend([refusal(70021), Answer(503, assertion())])
    async with TokenProvider(workload(shop, retry_timeout=0), clock=ManualClock()) as provider:
        for resource, kind in (("https://storage.azure.com/", TokenRefusedError), (VAULT, EndpointError)):
            callers = [asyncio.ensure_future(provider.token(resource)) for _ in range(2)]
            await asyncio.wait(callers)
            for caller in callers:
                error = caller.exception()
                assert type(error) is kind
                check_silence(error, shop.secrets)
