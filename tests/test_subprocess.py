"""How the developer's tools are run: found, started, bounded, and never left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import anyio
import pytest

from aiomsi import (
    EndpointError,
    MalformedResponseError,
    ProviderClosedError,
    SourceUnavailableError,
    TokenProvider,
)
from aiomsi._clock import SYSTEM_CLOCK, Clock
from aiomsi.sources import AzureCLI, Surroundings
from aiomsi.sources._subprocess import Finished, run
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs run here are shell scripts")

TOOL = "az"
MEBIBYTE = 1024 * 1024
SOON = 5.0  # Real seconds for what takes milliseconds, so that a test that would hang fails instead.


def install(folder: Path, script: str, interpreter: str = "/bin/sh") -> Path:
    """Put a program into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TOOL
    path.write_text(f"#!{interpreter}\n{script}\n")
    path.chmod(0o755)
    return path


def on_path(*folders: Path | str, **variables: str) -> Surroundings:
    return Surroundings(environ={"PATH": os.pathsep.join(map(str, folders)), **variables}, platform=sys.platform)


async def run_tool(
    surroundings: Surroundings,
    *arguments: str,
    settings: dict[str, str] | None = None,
    clock: Clock = SYSTEM_CLOCK,
    limit: float = 3600.0,
) -> Finished:
    async with asyncio.timeout(SOON):
        return await run(
            TOOL,
            arguments,
            source="a source",
            missing="install it",
            surroundings=surroundings,
            settings=settings or {},
            clock=clock,
            limit=limit,
        )


class Witness:
    """A named pipe that programs hold open for as long as they live."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._mouth = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # Until the first of them has reported, the pipe is kept open here.
        self._own = os.open(path, os.O_WRONLY)
        self._said = b""

    async def report(self) -> int:
        """Return the number of the process that reports to be running."""
        await self._until(lambda: self._said.endswith(b"\n"))
        return self._reported()

    def report_at_once(self) -> int:
        """Return the same, with the event loop standing still meanwhile."""
        while not self._said.endswith(b"\n"):
            assert select.select([self._mouth], [], [], SOON)[0]
            self._said += os.read(self._mouth, 100)
        return self._reported()

    def _reported(self) -> int:
        os.close(self._own)
        return int(self._said)

    async def all_dead(self) -> None:
        """Return when nobody holds the pipe any more."""
        await self._until(lambda: self._said.endswith(b"EOF"))

    async def _until(self, enough: Callable[[], bool]) -> None:
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._mouth, news.set)
        try:
            async with asyncio.timeout(SOON):
                while not enough():
                    await news.wait()
                    news.clear()
                    with suppress(BlockingIOError):
                        self._said += os.read(self._mouth, 100) or b"EOF"
        finally:
            loop.remove_reader(self._mouth)

    def close(self) -> None:
        os.close(self._mouth)
        with suppress(OSError):
            os.close(self._own)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    opened = Witness(tmp_path / "witness")
    yield opened
    opened.close()


@pytest.fixture
def with_offspring(tmp_path: Path, witness: Witness) -> Surroundings:
    """Install a program that never ends, and has started another one that never ends."""
    install(tmp_path, f'exec 3>"{witness.path}"\nsleep 600 &\necho $$ >&3\nwait')
    return on_path(tmp_path, "/usr/bin", "/bin")


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_exit_code_and_all_output_come_back(tmp_path: Path) -> None:
    """Whatever the exit code, it is returned with what was printed to either side."""
    install(tmp_path, "echo out; echo err >&2; exit 3")
    finished = await run_tool(on_path(tmp_path))
    assert (finished.exit_code, finished.stdout, finished.stderr) == (3, b"out\n", b"err\n")


async def test_output_does_not_show(tmp_path: Path) -> None:
    """The output may hold a token, so a repr does not show it."""
    install(tmp_path, "echo eyJ.secret.out; echo eyJ.secret.err >&2")
    assert repr(await run_tool(on_path(tmp_path))) == "Finished(exit_code=0)"


@pytest.mark.parametrize("folder", ["", ".", "tools", "./tools", "tools/../tools"])
async def test_only_absolute_folders_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """A program that lies in or under the current directory is not found by a relative or empty entry of the PATH."""
    install(tmp_path, "echo here")
    install(tmp_path / "tools", "echo here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceUnavailableError, match="az was not found on the PATH; install it"):
        await run_tool(on_path(folder, tmp_path / "empty"))


async def test_the_first_absolute_folder_that_has_it_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative entries of the PATH are passed over, and the rest is searched in order."""
    install(tmp_path, "echo here")
    install(tmp_path / "first", "echo first")
    install(tmp_path / "second", "echo second")
    monkeypatch.chdir(tmp_path)
    surroundings = on_path("", ".", tmp_path / "none", tmp_path / "first", tmp_path / "second")
    assert (await run_tool(surroundings)).stdout == b"first\n"


@pytest.mark.parametrize("environ", [{}, {"PATH": ""}, {"PATH": "/nowhere"}], ids=["unset", "empty", "nowhere"])
async def test_a_missing_program_says_what_to_do(environ: dict[str, str]) -> None:
    """Without the program the source is unavailable, and the message says how to get it."""
    with pytest.raises(SourceUnavailableError, match=r"^az was not found on the PATH; install it$") as caught:
        await run_tool(Surroundings(environ=environ))
    assert caught.value.source == "a source"


async def test_a_file_that_is_not_executable_is_passed_over(tmp_path: Path) -> None:
    """A file without the permission to execute it, or a folder, is not the program."""
    install(tmp_path / "text", "echo text").chmod(0o644)
    (tmp_path / "folder" / TOOL).mkdir(parents=True)
    install(tmp_path / "real", "echo real")
    folders = [tmp_path / "text", tmp_path / "folder"]
    assert (await run_tool(on_path(*folders, tmp_path / "real"))).stdout == b"real\n"
    with pytest.raises(SourceUnavailableError, match="not found"):
        await run_tool(on_path(*folders))


@pytest.mark.parametrize("interpreter", ["/nowhere/interpreter", "/"], ids=["missing", "folder"])
async def test_a_program_that_cannot_be_started_is_unavailable(tmp_path: Path, interpreter: str) -> None:
    """An executable that the system refuses to start names its path and how to get a good one."""
    path = install(tmp_path, "", interpreter)
    with pytest.raises(SourceUnavailableError, match=r"az could not be started \(\w+\); install it$") as caught:
        await run_tool(on_path(tmp_path))
    assert str(path) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.fixture
def _typed_ahead() -> Iterator[None]:
    """Let somebody have typed a line into this process."""
    saved = os.dup(0)
    mouth, end = os.pipe()
    os.dup2(mouth, 0)
    os.write(end, b"typed\n")
    yield
    os.dup2(saved, 0)
    for descriptor in (saved, mouth, end):
        os.close(descriptor)


@pytest.mark.usefixtures("_typed_ahead")
async def test_nothing_can_be_read_from_the_keyboard(tmp_path: Path) -> None:
    """A program that asks a question finds its input at an end, and neither waits nor eats what was typed."""
    install(tmp_path, "if read line; then echo read; else echo end; fi")
    assert (await run_tool(on_path(tmp_path))).stdout == b"end\n"


async def test_it_runs_where_nobody_can_place_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program runs in the root folder, whatever the current directory is."""
    install(tmp_path, "/bin/pwd")
    monkeypatch.chdir(tmp_path)
    assert (await run_tool(on_path(tmp_path))).stdout == b"/\n"


async def test_variables_of_another_python_are_taken_out(tmp_path: Path) -> None:
    """The program gets the environment without what redirects Python's imports, and with the settings on top."""
    install(tmp_path, "/usr/bin/env")
    surroundings = on_path(tmp_path, PYTHONPATH="/evil", PYTHONHOME="/evil", HOME="/home/me", EDITOR="ed", COLOR="on")
    finished = await run_tool(surroundings, settings={"COLOR": "off"})
    told = dict(line.split("=", 1) for line in finished.stdout.decode().splitlines())
    assert not told.keys() & {"PYTHONPATH", "PYTHONHOME"}
    assert told.items() >= {("PATH", str(tmp_path)), ("HOME", "/home/me"), ("EDITOR", "ed"), ("COLOR", "off")}
    assert surroundings.environ["COLOR"] == "on"


async def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    """No shell reads the arguments."""
    install(tmp_path, "printf '%s\\n' \"$@\"")
    arguments = ["$(touch evil)", "`id`", "; exit 5", "a b", "*", "| cat", "&", "'", '"', "\\", "", "$HOME", "> file"]
    finished = await run_tool(on_path(tmp_path), *arguments)
    assert finished.exit_code == 0
    assert finished.stdout.decode().split("\n") == [*arguments, ""]


async def test_a_mebibyte_is_not_too_much(tmp_path: Path) -> None:
    """Output up to the bound is read whole, on both sides at the same time."""
    install(tmp_path, f"head -c {MEBIBYTE} /dev/zero >&2; head -c {MEBIBYTE} /dev/zero")
    finished = await run_tool(on_path(tmp_path, "/usr/bin", "/bin"))
    assert (len(finished.stdout), len(finished.stderr)) == (MEBIBYTE, MEBIBYTE)


@pytest.mark.parametrize("side", ["", " >&2"], ids=["stdout", "stderr"])
async def test_a_program_that_prints_too_much_is_stopped(tmp_path: Path, witness: Witness, side: str) -> None:
    """After a mebibyte on either side the program is killed rather than read on."""
    install(tmp_path, f'exec 3>"{witness.path}"\necho $$ >&3\ncat /dev/zero{side}')
    with pytest.raises(MalformedResponseError, match="az printed more than 1048576 bytes") as caught:
        await run_tool(on_path(tmp_path, "/usr/bin", "/bin"))
    assert caught.value.source == "a source"
    assert not is_there(await witness.report())
    await witness.all_dead()


async def test_a_program_that_takes_too_long_is_stopped_with_its_offspring(
    clock: ManualClock, with_offspring: Surroundings, witness: Witness
) -> None:
    """When its time is up the program is killed, and so is what it has started."""
    running = asyncio.create_task(run_tool(with_offspring, clock=clock, limit=30))
    process = await witness.report()
    await clock.advance(29)
    assert is_there(process)
    await clock.advance(1)
    with pytest.raises(EndpointError, match="az did not finish within 30 s and was stopped") as caught:
        await running
    assert caught.value.source == "a source"
    assert not is_there(process)
    await witness.all_dead()
    assert clock.timers == 0


async def test_no_time_is_left(tmp_path: Path) -> None:
    """With a limit that has passed already nothing is waited for."""
    install(tmp_path, "sleep 600")
    with pytest.raises(EndpointError, match="did not finish"):
        await run_tool(on_path(tmp_path, "/usr/bin", "/bin"), limit=-1)


async def cancel_natively(
    call: Callable[[], Coroutine[Any, Any, object]], started: Callable[[], Coroutine[Any, Any, int]]
) -> int:
    running = asyncio.create_task(call())
    process = await started()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return process


async def cancel_by_scope(
    call: Callable[[], Coroutine[Any, Any, object]], started: Callable[[], Coroutine[Any, Any, int]]
) -> int:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        process = await started()
        tasks.cancel_scope.cancel()
    assert tasks.cancel_scope.cancelled_caught
    return process


@pytest.mark.parametrize("cancel", [cancel_natively, cancel_by_scope], ids=["task", "scope"])
async def test_a_cancelled_call_leaves_no_process(
    with_offspring: Surroundings,
    witness: Witness,
    cancel: Callable[
        [Callable[[], Coroutine[Any, Any, object]], Callable[[], Coroutine[Any, Any, int]]], Coroutine[Any, Any, int]
    ],
) -> None:
    """When the call has ended by cancellation the program is dead and reaped, and what it had started is killed."""
    process = await cancel(lambda: run_tool(with_offspring), witness.report)
    assert not is_there(process)
    await witness.all_dead()


def children() -> set[str]:
    found: set[str] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # A thread may end meanwhile.
            found.update((thread / "children").read_text().split())
    return found


async def children_are(expected: set[str]) -> None:
    async with asyncio.timeout(SOON):
        while children() != expected:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)


async def ends_cancelled(running: asyncio.Task[Any]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, SOON)


on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed only on Linux")


@on_linux
@pytest.mark.parametrize("turns", range(8))
async def test_a_call_cancelled_before_the_program_runs_leaves_no_process(
    with_offspring: Surroundings, turns: int
) -> None:
    """Whichever turn of the event loop a cancellation falls into, what was started meanwhile is ended."""
    before = children()
    running = asyncio.create_task(run_tool(with_offspring))
    for _ in range(turns):
        await asyncio.sleep(0)
        if children() != before:
            break
    await ends_cancelled(running)
    await children_are(before)


@on_linux
@pytest.mark.parametrize("turns", range(8))
async def test_a_call_cancelled_while_its_pipes_are_connected_leaves_no_process(
    with_offspring: Surroundings, witness: Witness, turns: int
) -> None:
    """A program may be busy before the event loop is done with starting it; even then it ends with its offspring."""
    before = children()
    running = asyncio.create_task(run_tool(with_offspring))
    async with asyncio.timeout(SOON):
        while children() == before:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    witness.report_at_once()
    await ends_cancelled(running)
    await children_are(before)
    await witness.all_dead()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_a_call_cancelled_before_the_program_fails_to_start_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once cancelled, a call waits for what it has begun to start, and ends as cancelled even if that fails."""
    asked, told = asyncio.Event(), asyncio.Event()

    async def open_process(*_: object, **__: object) -> None:
        asked.set()
        await told.wait()
        raise PermissionError

    install(tmp_path, "echo out")
    monkeypatch.setattr(anyio, "open_process", open_process)
    running = asyncio.create_task(run_tool(on_path(tmp_path)))
    await asked.wait()
    for _ in range(times):
        running.cancel()
        await ManualClock().settle()
        assert not running.done()
    told.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, SOON)


@pytest.mark.parametrize("tidy", [True, False], ids=["closed", "let go"])
async def test_closing_a_provider_leaves_no_process(with_offspring: Surroundings, witness: Witness, tidy: bool) -> None:
    """A provider that is closed, or left by an error, while a program runs for it takes the program along."""
    provider = TokenProvider(AzureCLI(surroundings=with_offspring))
    caller = asyncio.create_task(provider.token("https://vault.azure.net"))
    process = await witness.report()
    if tidy:
        await provider.aclose()
    else:
        with pytest.raises(ZeroDivisionError):
            async with provider:
                raise ZeroDivisionError
    with pytest.raises(ProviderClosedError):
        await caller
    assert not is_there(process)
    await witness.all_dead()


async def test_offspring_that_holds_the_pipes_is_not_waited_for(tmp_path: Path) -> None:
    """When the program itself has ended, what it left in the background does not hold up its answer."""
    install(tmp_path, f'sleep 600 &\necho $! >"{tmp_path}/offspring"\necho out')
    try:
        finished = await run_tool(on_path(tmp_path, "/usr/bin", "/bin"))
        assert (finished.exit_code, finished.stdout) == (0, b"out\n")
    finally:
        with suppress(ProcessLookupError):
            os.kill(int((tmp_path / "offspring").read_text()), signal.SIGKILL)


async def test_an_event_loop_without_processes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the event loop cannot start programs, as the selector loop on Windows, the source is unavailable."""
    install(tmp_path, "echo out")
    monkeypatch.setattr(anyio, "open_process", Mock(side_effect=NotImplementedError))
    with pytest.raises(SourceUnavailableError, match=r"could not be started \(NotImplementedError\)"):
        await run_tool(on_path(tmp_path))


def on_windows(*folders: Path, **variables: str) -> Surroundings:
    return Surroundings(environ={"PATH": os.pathsep.join(map(str, folders)), **variables}, platform="win32")


async def test_on_windows_it_runs_in_the_system_folder(tmp_path: Path) -> None:
    """Windows has no root folder that suits, so the program runs in the one of the system."""
    install(tmp_path, "/bin/pwd").rename(tmp_path / "az.CMD")
    finished = await run_tool(on_windows(tmp_path, SYSTEMROOT=str(tmp_path)))
    assert finished.stdout.decode().strip() == str(tmp_path)


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, b"cmd\n"), ({"PATHEXT": ".BAT;.PS1;.CMD"}, b"ps1\n")], ids=["usual", "other"]
)
async def test_on_windows_a_program_has_an_ending(tmp_path: Path, variables: dict[str, str], expected: bytes) -> None:
    """On Windows a file is a program by its ending; one without, such as a shell script, is passed over."""
    for ending in ("PS1", "CMD"):
        install(tmp_path / "second", f"echo {ending.lower()}").rename(tmp_path / "second" / f"az.{ending}")
    install(tmp_path / "first", "echo none")
    finished = await run_tool(on_windows(tmp_path / "first", tmp_path / "second", **variables))
    assert finished.stdout == expected
