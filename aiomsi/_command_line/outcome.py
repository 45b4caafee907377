"""How a command ends: its exit code, and what it says on standard error."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aiomsi import (
    AiomsiError,
    ConfigurationError,
    EndpointError,
    MalformedResponseError,
    SecurityError,
    SourceUnavailableError,
    TokenRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

__all__ = ["ENDING_SIGNALS", "EXIT_CODES_HELP", "exit_code", "interruptible", "logs_shown", "on_signals", "run"]

T = TypeVar("T")

ENDING_SIGNALS = ("SIGTERM", "SIGHUP")
"""What ends a process that does not say otherwise, beside Ctrl-C: a supervisor, and a terminal that is closed."""

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it.

_EXIT_CODES: tuple[tuple[int, tuple[type[Exception], ...], str], ...] = (
    (2, (ValueError,), "wrong argument"),
    (3, (SourceUnavailableError,), "nothing here gives out tokens"),
    (4, (ConfigurationError,), "the environment or the connection string is wrong"),
    (5, (TokenRefusedError,), "the token was refused"),
    (6, (MalformedResponseError,), "the answer made no sense"),
    (7, (EndpointError,), "the endpoint cannot serve now"),
    (8, (SecurityError,), "a security check failed"),
)

EXIT_CODES_HELP = "\n".join(
    [
        "\b",  # Keeps click from wrapping the lines into a paragraph.
        "Exit codes:",
        "  0    done",
        "  1    any other error",
        *(f"  {code}    {meaning}" for code, _, meaning in _EXIT_CODES),
        f"  {_INTERRUPTED}  interrupted",
    ]
)


def exit_code(error: Exception) -> int:
    """Return the exit code that tells the kind of *error*."""
    return next((code for code, kinds, _ in _EXIT_CODES if isinstance(error, kinds)), 1)


def run(call: Coroutine[Any, Any, T]) -> T:
    """Run *call* and return its result, or end the process with the exit code and the message of its error."""
    try:
        with interruptible():
            return asyncio.run(_ending_well(call))
    except asyncio.CancelledError:
        raise SystemExit(_INTERRUPTED) from None
    except (AiomsiError, ValueError) as error:
        click.echo(f"aiomsi: {error}", err=True)
        raise SystemExit(exit_code(error)) from None


async def _ending_well(call: Coroutine[Any, Any, T]) -> T:
    """Have what would end the process cancel *call* instead, or the tools that it runs would be left behind."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (this is a coroutine)
    on_signals(ENDING_SIGNALS, task.cancel)
    return await call


def on_signals(names: Iterable[str], callback: Callable[[], object]) -> None:
    """Have *callback* called on the running event loop by each of these signals that this platform has.

    A signal that is ignored since the process was started, as nohup has it, stays ignored.
    """
    loop = asyncio.get_running_loop()
    for name in names:
        with suppress(AttributeError, NotImplementedError):  # Windows has few, and its loops take none.
            number = getattr(signal, name)
            # But for Ctrl-C: shells keep it from what a script runs in the background, which is to end with the script.
            if name == "SIGINT" or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, callback)


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process quietly, with the exit code that says so, on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


@contextmanager
def logs_shown(*, shown: bool) -> Iterator[None]:
    """Show what the library logs on standard error, and what asyncio does, or nothing of it."""
    logs = [logging.getLogger(name) for name in ("aiomsi", "asyncio")]
    # Without any handler, Python itself would print warnings.
    handler = logging.StreamHandler() if shown else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
    level = logs[0].level
    for log in logs:
        log.addHandler(handler)
    logs[0].setLevel(logging.DEBUG if shown else level)
    try:
        yield
    finally:
        for log in logs:
            log.removeHandler(handler)
        logs[0].setLevel(level)
