"""The developer's command-line tools: run safely, bounded, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiomsi._clock import time_limit
from aiomsi._errors import EndpointError, MalformedResponseError, SourceUnavailableError
from aiomsi._flight import Flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import ByteReceiveStream, Process

    from aiomsi._clock import Clock
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Finished", "run"]

_LARGEST_OUTPUT = 1024 * 1024
_REAPING_TIME = 2.0  # Seconds that a killed process is given to be gone.
_DROPPED = ("PYTHONPATH", "PYTHONHOME")  # They would make a tool written in Python import somebody else's modules.


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended; its output may hold a token and is never shown."""

    exit_code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


async def run(
    program: str,
    arguments: Sequence[str],
    *,
    source: str,
    missing: str,
    surroundings: Surroundings,
    settings: dict[str, str],
    clock: Clock,
    limit: float,
) -> Finished:
    """Run *program*, found on the PATH, without a shell, for *limit* seconds at the most.

    *settings* are added to its environment; *missing* says what to do if there is no such program.

    Raises:
        SourceUnavailableError: there is no such program, or it cannot be started.
        EndpointError: it took too long, and was killed with all that it had started.
        MalformedResponseError: it printed more than a mebibyte.
    """
    path = await anyio.to_thread.run_sync(_find, program, surroundings)
    if path is None:
        raise SourceUnavailableError(f"{program} was not found on the PATH; {missing}", source=source)
    environ = {name: value for name, value in surroundings.environ.items() if name not in _DROPPED}
    try:
        async with time_limit(clock, limit):
            return await _run([path, *arguments], {**environ, **settings}, surroundings)
    except TimeoutError:
        raise EndpointError(f"{program} did not finish within {limit:g} s and was stopped", source=source) from None
    except _TooMuchError:
        raise MalformedResponseError(
            f"{program} printed more than {_LARGEST_OUTPUT} bytes where a token has a few thousand", source=source
        ) from None
    except (OSError, NotImplementedError) as error:
        # NotImplementedError: the selector event loop on Windows cannot start programs.
        raise SourceUnavailableError(
            f"{path} could not be started ({type(error).__name__}); {missing}", source=source
        ) from error.with_traceback(None)


def _find(program: str, surroundings: Surroundings) -> str | None:
    # Only in absolute folders: an empty or relative one would find what lies in the current directory, where
    # `shutil.which` looks first on Windows.
    windows = surroundings.platform == "win32"
    endings = surroundings.environ.get("PATHEXT", ".COM;.EXE;.BAT;.CMD").split(";") if windows else [""]
    for folder in map(Path, surroundings.environ.get("PATH", "").split(os.pathsep)):
        for ending in endings:
            path = folder / f"{program}{ending}"
            if path.is_absolute() and path.is_file() and os.access(path, os.X_OK):
                return str(path)
    return None


class _TooMuchError(Exception):
    """The program printed more than anybody wants."""


async def _run(command: Sequence[str], environ: dict[str, str], surroundings: Surroundings) -> Finished:
    process = await _start(command, environ, surroundings)
    try:
        stdout, stderr = await _read_both(process)
        return Finished(await process.wait(), stdout, stderr)
    except BaseException:
        # Killed before it is awaited: a native cancellation comes only once, and closing would wait politely.
        _kill(process, surroundings)
        raise
    finally:
        await _close(process)


async def _start(command: Sequence[str], environ: dict[str, str], surroundings: Surroundings) -> Process:
    """Start the program; a cancellation meanwhile does not leave it, or what it has started by then, behind."""
    windows = surroundings.platform == "win32"
    start = anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        # Not the current directory: a tool written in Python may import from there.
        cwd=environ.get("SYSTEMROOT") if windows else "/",
        env=environ,
        start_new_session=not windows,
    )
    starting: Flight[Process] = Flight(start, lambda _flight, outcome: outcome)
    try:
        outcome = await starting.board()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await asyncio.wait({starting.task})
        if starting.task.exception() is None:
            _kill(starting.task.result(), surroundings)
            await _close(starting.task.result())
        raise
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _close(process: Process) -> None:
    with anyio.move_on_after(_REAPING_TIME, shield=True):
        await process.aclose()


async def _read_both(process: Process) -> tuple[bytes, bytes]:
    printed = [b"", b""]

    async def read(index: int, stream: ByteReceiveStream | None) -> None:
        assert stream is not None  # noqa: S101  (we asked for pipes)
        async for chunk in stream:
            printed[index] += chunk
            if len(printed[index]) > _LARGEST_OUTPUT:
                readers.cancel_scope.cancel()

    async with anyio.create_task_group() as readers:
        readers.start_soon(read, 0, process.stdout)
        readers.start_soon(read, 1, process.stderr)
    if readers.cancel_scope.cancelled_caught:
        raise _TooMuchError
    return printed[0], printed[1]


def _kill(process: Process, surroundings: Surroundings) -> None:
    """Kill the program and all that it has started, which would else hold the pipes open and go on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if surroundings.platform == "win32":  # pragma: no cover  (taskkill is there only on Windows)
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], check=False, capture_output=True)  # noqa: S603, S607
        else:
            os.killpg(process.pid, signal.SIGKILL)
