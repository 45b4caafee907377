"""The developer's command-line tools: run safely, bounded, and never left behind."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import ByteReceiveStream, Process

    from aiomsi._clock import Clock
    from aiomsi.sources._surroundings import Surroundings

__all__ = ["Finished", "find_program", "run"]

_LARGEST_OUTPUT = 1024 * 1024
_DRAINING_TIME = 1.0  # Seconds for which the output of an ended program is read if something else holds its pipes.
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
    settings: Mapping[str, str],
    clock: Clock,
    limit: float,
) -> Finished:
    """Run *program*, an absolute path or a name on the PATH, without a shell, for *limit* seconds at the most.

    *settings* are added to its environment; *missing* says what to do if there is no such program.

    Raises:
        SourceUnavailableError: there is no such program, or it cannot be started.
        EndpointError: it took too long, and was killed with all that it had started.
        MalformedResponseError: it printed more than a mebibyte.
    """
    if limit <= 0:
        raise EndpointError(f"{program} did not finish, since no time was left to start it", source=source)
    path = await anyio.to_thread.run_sync(find_program, program, surroundings)
    if path is None:
        where = "" if Path(program).is_absolute() else " on the PATH"
        raise SourceUnavailableError(f"{program} was not found{where}; {missing}", source=source)
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


def find_program(program: str, surroundings: Surroundings) -> str | None:
    """Return the path of *program*, an absolute path or a name on the PATH, or None if it is not there. Blocks."""
    if Path(program).is_absolute():
        return program if _can_run(Path(program)) else None
    # Only in absolute folders: an empty or relative one would find what lies in the current directory, where
    # `shutil.which` looks first on Windows.
    windows = surroundings.platform == "win32"
    endings = (surroundings.get("PATHEXT") or ".COM;.EXE;.BAT;.CMD").split(";") if windows else [""]
    for folder in map(Path, surroundings.environ.get("PATH", "").split(os.pathsep)):
        for ending in endings:
            path = folder / f"{program}{ending}"
            if path.is_absolute() and _can_run(path):
                return str(path)
    return None


def _can_run(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


class _TooMuchError(Exception):
    """The program printed more than anybody wants."""


async def _run(command: Sequence[str], environ: dict[str, str], surroundings: Surroundings) -> Finished:
    """Run *command* in a task of its own, where a shield holds: a native cancellation goes through one."""
    outcomes: list[Finished | Exception] = []

    async def run_alone() -> None:
        try:
            outcomes.append(await _run_shielded(command, environ, surroundings))
        except Exception as error:  # noqa: BLE001  (raised below, where no task group wraps it)
            outcomes.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_alone)
    outcome = outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _run_shielded(command: Sequence[str], environ: dict[str, str], surroundings: Surroundings) -> Finished:
    windows = surroundings.platform == "win32"
    # Cancelled while it starts a program, an event loop ends at best the program, and never what that has started.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            # Not the current directory: a tool written in Python may import from there.
            cwd=environ.get("SYSTEMROOT") if windows else "/",
            env=environ,
            start_new_session=not windows,
        )
    try:
        return await _read(process)
    except BaseException:
        # Killed before it is awaited: closing would wait politely.
        _kill(process, surroundings)
        raise
    finally:
        with anyio.move_on_after(_REAPING_TIME, shield=True):
            await process.aclose()


async def _read(process: Process) -> Finished:
    printed = bytearray(), bytearray()

    async def read(index: int, stream: ByteReceiveStream | None) -> None:
        assert stream is not None  # noqa: S101  (we asked for pipes)
        async for chunk in stream:
            printed[index].extend(chunk)
            if len(printed[index]) > _LARGEST_OUTPUT:
                readers.cancel_scope.cancel()
                return  # A cancellation does not reach who always finds something to read.

    async with anyio.create_task_group() as readers:
        readers.start_soon(read, 0, process.stdout)
        readers.start_soon(read, 1, process.stderr)
        exit_code = await process.wait()
        # What it left in the background may hold the pipes for ever; what it printed itself is in them already.
        readers.cancel_scope.deadline = anyio.current_time() + _DRAINING_TIME
    if max(map(len, printed)) > _LARGEST_OUTPUT:
        raise _TooMuchError
    return Finished(exit_code, *map(bytes, printed))


def _kill(process: Process, surroundings: Surroundings) -> None:
    """Kill the program and all that it has started, which would else hold the pipes open and go on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if surroundings.platform == "win32":  # pragma: no cover  (taskkill is there only on Windows)
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], check=False, capture_output=True)  # noqa: S603, S607
        else:
            os.killpg(process.pid, signal.SIGKILL)
