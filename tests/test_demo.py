"""The demo: its parts, and once the whole of it in real time."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from click.testing import CliRunner
from rich.console import Console

from aiomsi import AiomsiError, EndpointError, TokenProvider
from aiomsi._command_line import demo
from aiomsi._command_line.callers import ask_all_at_once, ask_steadily, returned_at_once
from aiomsi._command_line.commands import cli
from aiomsi._command_line.endpoint_process import EndpointProcess, endpoint_process
from aiomsi._command_line.measurement import Phase, Record, counted, percentile, total
from aiomsi._command_line.presentation import duration, show
from aiomsi.endpoint import IdentityEndpoint
from aiomsi.sources import ManagedIdentity, Surroundings
from aiomsi.testing import ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

VAULT = "https://vault.azure.net"


def finished(**changes: Any) -> Record:
    """Return the record of a demo in which all went well but for *changes* in its outage."""
    record = Record(3, outage=2.5, finished=True)
    for name, requests in (("first token", 1), ("refresh", 1), ("outage", 2), ("recovery", 1)):
        phase = record.begin(name, "as it goes")
        phase.requests = requests
        phase.waits.extend([0.3, 0.000_002, 0.002])
    for name, value in changes.items():
        setattr(record.phases[2], name, value)
    return record


# The whole


def test_demo_as_a_process() -> None:
    """A crowd costs one request, nobody waits for a refresh, and an outage goes unseen: all within 15 seconds."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "aiomsi", "demo", "--callers", "500"],
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "first token (all ask at once): 500 calls, 1 request\n" in done.stdout
    assert re.search(r"refresh \(.*\): [\d,]+ calls, 1 request\n", done.stdout)
    assert re.search(r"outage \(.*\): [\d,]+ calls, 2 requests\n", done.stdout)
    assert re.search(r"recovery \(.*\): [\d,]+ calls, 1 request\n", done.stdout)
    conclusion = r"1 request for 500 callers; nobody waited for a refresh; an outage of [\d.]+ s went unseen"
    assert re.fullmatch(conclusion, done.stdout.splitlines()[-1])


def test_demo_fails_if_it_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the numbers do not bear out the claims, the exit code says so."""

    async def nothing(_record: Record, _announce: Callable[[Phase], object]) -> None:
        pass

    monkeypatch.setattr(demo, "play", nothing)
    result = CliRunner().invoke(cli, ["demo"])
    assert result.exit_code == 1
    assert result.stdout.endswith("the demo did not come to its end in time\n")


async def test_demo_has_a_time_limit() -> None:
    """A demo that is too slow is ended, and its record says that it is not finished."""
    record = Record(1)
    await demo.play(record, lambda _: None, time_limit=0)
    assert not record.finished
    assert not record.kept


class DyingProcess:
    """The way to an endpoint whose process ends before the second phase."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self._phases = iter([1])

    async def requests(self) -> int:
        return 1

    async def serve(self, *, latency: float, failing: bool) -> int:
        assert latency
        assert not failing
        for phase in self._phases:
            return phase
        raise AiomsiError("ended before its time")


async def test_demo_whose_endpoint_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the endpoint's process ends in the middle, the error says so, alone and not in a group."""
    ended: list[Phase] = []
    async with IdentityEndpoint() as emulator:

        @asynccontextmanager
        async def dying_process() -> AsyncIterator[DyingProcess]:
            yield DyingProcess(emulator.environ("app_service"))

        monkeypatch.setattr(demo, "endpoint_process", dying_process)
        with pytest.raises(AiomsiError, match="ended before its time"):
            await demo.play(Record(2), ended.append)
    assert [(phase.name, phase.calls) for phase in ended] == [("first token", 2)]


# Its endpoint


async def test_endpoint_obeys() -> None:
    """The endpoint's process answers, fails and counts as it is told, and its variables lead to it."""
    async with endpoint_process() as endpoint:
        source = ManagedIdentity(surroundings=Surroundings(environ=endpoint.environ))
        async with TokenProvider(source) as provider:
            await endpoint.serve(latency=0.0)
            held = await provider.access_token(VAULT)
        assert await endpoint.requests() == 1
    assert held.source == "app_service"


def test_endpoint_ends_with_its_standard_input() -> None:
    """The endpoint's process is never left behind: it ends when nobody can give it orders any more."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "aiomsi._command_line.demo_endpoint"],
        input='{"failing": true}\n{}\n',
        text=True,
        capture_output=True,
        check=True,
    )
    environ, *answers = map(json.loads, done.stdout.splitlines())
    assert set(environ) == {"IDENTITY_ENDPOINT", "IDENTITY_HEADER"}
    assert environ["IDENTITY_ENDPOINT"].startswith("http://127.0.0.1:")
    assert answers == [{"requests": 0}, {"requests": 0}]


async def test_endpoint_that_does_not_start() -> None:
    """A process that ends without a greeting is an error, not a wait without end."""
    with pytest.raises(AiomsiError, match="ended before its time"):
        async with endpoint_process("keyword"):
            pass


async def test_endpoint_that_has_gone() -> None:
    """An order to a process that is gone is an error too."""
    orders, nobody = anyio.create_memory_object_stream[bytes]()
    nothing, answers = anyio.create_memory_object_stream[bytes]()
    nobody.close()
    nothing.close()
    with orders, answers, pytest.raises(AiomsiError, match="ended before its time"):
        await EndpointProcess(orders, answers).requests()


# Its callers


async def test_crowd() -> None:
    """Every caller of the crowd is timed, and all of them cost one fetch."""
    source, phase = ScriptedSource(), Phase("crowd")
    await ask_all_at_once(TokenProvider(source), VAULT, 20, phase)
    assert (phase.calls, phase.errors, phase.suspended) == (20, 0, 0)
    assert len(source.requests) == 1


async def test_crowd_sees_errors() -> None:
    """Every caller who gets an error is counted."""
    source, phase = ScriptedSource(), Phase("crowd")
    source.script(EndpointError("down"))
    await ask_all_at_once(TokenProvider(source), VAULT, 20, phase)
    assert (phase.calls, phase.errors) == (20, 20)


async def steady_calls(source: ScriptedSource, provider: TokenProvider, phase: Phase) -> None:
    """Let calls go on until there have been some, the source held until the first of them began."""
    begun = asyncio.Queue[None]()

    def phase_now() -> Phase:
        begun.put_nowait(None)
        return phase

    async with asyncio.TaskGroup() as tasks:
        calls = tasks.create_task(ask_steadily(provider, VAULT, phase_now))
        await begun.get()
        source.release()
        while phase.calls < 10:
            await begun.get()
        calls.cancel()


async def test_steady_calls_that_return_at_once() -> None:
    """Calls that find a token are none that waited."""
    source, phase = ScriptedSource(), Phase("steady")
    provider = TokenProvider(source)
    await provider.prefetch(VAULT)
    await steady_calls(source, provider, phase)
    assert phase.calls >= 10
    assert (phase.suspended, phase.errors) == (0, 0)


async def test_steady_calls_that_wait() -> None:
    """A call that finds no token is counted as one that waited, and goes on to its end."""
    source, phase = ScriptedSource(held=True), Phase("steady")
    await steady_calls(source, TokenProvider(source), phase)
    assert phase.suspended >= 1
    assert phase.errors == 0
    assert len(source.requests) == 1


async def test_steady_calls_that_fail() -> None:
    """A call that gets an error is counted, and the next one is made nevertheless."""
    source, phase = ScriptedSource(held=True), Phase("steady")
    source.script(EndpointError("down", retry_after=60))
    await steady_calls(source, TokenProvider(source), phase)
    assert phase.errors == phase.calls >= 10


async def test_call_that_would_wait_is_given_up() -> None:
    """Whether a call waits is found out without waiting, and leaves nothing behind."""
    tidied: list[bool] = []

    async def call(*, waits: bool) -> None:
        try:
            if waits:
                await asyncio.get_running_loop().create_future()
        finally:
            tidied.append(waits)

    assert returned_at_once(call(waits=False))
    assert not returned_at_once(call(waits=True))
    assert tidied == [False, True]


# Its numbers


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5.0], 50, 5.0), ([3, 1, 2, 4], 50, 2), ([3, 1, 2, 4], 99, 4), ([3, 1, 2, 4], 0, 1), (range(1, 101), 99, 99)],
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    """A percentile is one of the values: the smallest that so many of them do not exceed."""
    assert percentile(values, percent) == expected


def test_percentile_of_nothing() -> None:
    """Without a value there is no percentile."""
    assert math.isnan(percentile([], 50))


def test_total() -> None:
    """The total sums up calls, requests, waits and errors."""
    sum_ = total(finished(suspended=1, errors=2).phases)
    assert (sum_.name, sum_.calls, sum_.requests, sum_.suspended, sum_.errors) == ("total", 12, 5, 1, 2)


def test_claims_that_hold() -> None:
    """The conclusion is drawn from the numbers."""
    record = finished()
    assert record.kept
    assert [claim.text for claim in record.claims] == [
        "1 request for 3 callers",
        "nobody waited for a refresh",
        "an outage of 2.5 s went unseen",
    ]


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"suspended": 1}, ["1 call waited for a refresh", "an outage of 2.5 s was seen by callers"]),
        ({"errors": 4}, ["an outage of 2.5 s was seen by callers"]),
        ({"requests": 0}, ["an outage of 2.5 s met no refresh"]),
    ],
)
def test_claims_that_do_not_hold(changes: dict[str, int], failing: list[str]) -> None:
    """A claim that the numbers do not bear out is worded as what happened."""
    record = finished(**changes)
    assert not record.kept
    assert [claim.text for claim in record.claims if not claim.holds] == failing


def test_crowd_that_costs_more_than_a_request() -> None:
    """More than one request for the crowd is not what was promised."""
    record = finished()
    record.phases[0].requests = 2
    assert not record.kept
    assert record.claims[0].text == "2 requests for 3 callers"


def test_error_outside_of_the_outage() -> None:
    """An error spoils the demo whenever it comes."""
    record = finished()
    record.phases[1].errors = 1
    assert all(claim.holds for claim in record.claims)
    assert not record.kept


# Its looks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(math.nan, "-"), (0.000_000_4, "0.4 us"), (0.012_3, "12 ms"), (0.412, "412 ms"), (1.234, "1.23 s")],
)
def test_duration(seconds: float, text: str) -> None:
    """Times are shown in the unit that suits them."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 calls"), (1, "1 call"), (10_000, "10,000 calls")])
def test_counted(number: int, text: str) -> None:
    """Numbers agree with their nouns."""
    assert counted(number, "call") == text


def shown(record: Record, *, terminal: bool) -> str:
    """Return how a demo of two phases looks, of which the second one ends it."""
    screen = StringIO()
    phases, record.phases, record.finished = record.phases, [], False
    with show(record, Console(file=screen, force_terminal=terminal, width=80)) as announce:
        record.phases = phases[:1]
        announce(phases[0])
        record.phases, record.finished = phases, True
    return screen.getvalue()


def test_plain_lines() -> None:
    """Where nobody watches there is a line for each phase, the table, and the conclusion in the last line."""
    lines = shown(finished(errors=1), terminal=False).splitlines()
    assert "first token (as it goes): 3 calls, 1 request" in lines
    assert " total             12         5     2 ms   300 ms   300 ms           0        1 " in lines
    assert lines[-1].endswith("; an outage of 2.5 s was seen by callers; 1 error")
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines[:-1])) <= 80


def test_live_table() -> None:
    """On a terminal the table is drawn over and over, and ends with the total and the conclusion."""
    screen = shown(finished(), terminal=True)
    assert "\x1b[" in screen
    assert "12" in screen.split("total")[1]
    assert "nobody waited for a refresh" in screen


@pytest.mark.parametrize(("remaining", "text"), [(0.0, "no token yet"), (7.5, "token FRESH, valid for 7.5 s")])
def test_live_status(remaining: float, text: str) -> None:
    """Under the moving table is what goes on now, and how the token is doing."""
    record = finished()
    record.finished, record.state, record.remaining = False, "FRESH", remaining
    screen = StringIO()
    with show(record, Console(file=screen, force_terminal=True, width=80)):
        pass
    assert f"recovery: as it goes; {text}" in screen.getvalue()
