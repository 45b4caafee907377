"""How `aiomsi serve` looks while it runs: a picture that moves, or a line for each request where nobody watches."""

from __future__ import annotations

import sys
import time
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from threading import Event, Thread
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aiomsi._clock import SYSTEM_CLOCK
from aiomsi._command_line.serve.options import DOCKER_NAME
from aiomsi._command_line.serve.traffic import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rich.console import RenderableType

    from aiomsi import ProviderStatistics
    from aiomsi._command_line.serve.options import ServeOptions
    from aiomsi._command_line.serve.traffic import Entry, Traffic
    from aiomsi._command_line.serve.variables import Variables

__all__ = ["introduction", "shown"]

_FRAMES_PER_SECOND = 4
_FAREWELL = 1.0  # Seconds for the last lines.


def introduction(options: ServeOptions, variables: Variables, console: Console | None = None) -> None:
    """Say once what is served, to whom."""
    console = console or Console(stderr=True, highlight=False)
    what = (
        "fake tokens"
        if options.emulate
        else "the developer's tokens"
        if options.source in (None, "dev")
        else f"tokens of {options.source}"
    )
    where = options.socket or ", ".join(_addresses(variables))
    lines = [f"Serving {what} at {where}, until Ctrl-C."]
    if "imds" in variables and not options.emulate:
        lines.append(f"IMDS has no secret: every program that gets there may have {', '.join(options.allow)}.")
    near = options.host in ("127.0.0.1", "::1")
    if options.beyond_loopback and not near:
        lines.append("Other machines may get there too. What passes is not encrypted.")
    if DOCKER_NAME in options.names and near and options.socket is None and sys.platform == "linux":
        lines.append(
            f"It listens at {options.host}, which containers do not reach on Linux, unless they are in the host's"
            " network: add --host 172.17.0.1 --beyond-loopback."
        )
    if options.socket is not None:
        lines.append("That is for who speaks HTTP at a Unix socket (curl --unix-socket); Azure's SDKs do not.")
    with suppress(OSError):  # Nobody reads them.
        console.file.writelines(f"{line}\n" for line in lines)
        console.file.flush()


def _addresses(variables: Variables) -> list[str]:
    """Return the URLs in *variables*, cut to scheme, host and port."""
    values = (urlsplit(value) for wanted in variables.values() for value in wanted.values())
    return list(dict.fromkeys(f"{url.scheme}://{url.netloc}" for url in values if url.netloc))


@asynccontextmanager
async def shown(
    traffic: Traffic, statistics: Callable[[], ProviderStatistics] | None, console: Console | None = None
) -> AsyncIterator[None]:
    """Show what is asked while it lasts; *statistics* tells which tokens are held, where there is a provider."""
    console = console or Console(stderr=True, highlight=False)
    selected = "the developer's, not {}" if statistics else "{}"
    if not console.is_terminal:
        async with _lines(traffic, selected, console.file):
            yield
        return

    def picture() -> RenderableType:
        held = () if statistics is None else (_tokens(statistics(), traffic),)
        return Group(_requests(traffic, selected), *held)

    with Live(console=console, refresh_per_second=_FRAMES_PER_SECOND, get_renderable=picture):
        yield


@asynccontextmanager
async def _lines(traffic: Traffic, selected: str, file: IO[str]) -> AsyncIterator[None]:
    """Write a line for each request into *file*, by a thread: whoever does not read it holds up nobody else."""
    ended = Event()

    def write() -> None:
        with suppress(OSError):  # Nobody reads them any more.
            while True:
                is_last = ended.wait(1 / _FRAMES_PER_SECOND)
                left_out, newest = traffic.news()
                lines = [f"{left_out:,} more"] if left_out else []
                lines += [_line(request, selected) for request in newest]
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                if is_last:
                    return

    writer = Thread(target=write, daemon=True)
    try:
        await anyio.to_thread.run_sync(writer.start)
        yield
    finally:
        ended.set()
        if writer.ident is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.join, _FAREWELL)


def _line(request: Entry, selected: str) -> str:
    # What a client may choose comes after what it may not, so that it cannot look like another line.
    words = [_clock(request.at), str(request.status), request.protocol, request.resource, request.client]
    words += [f"[{selected.format(request.identity)}]"] if request.identity else []
    words += [f"({request.reason})"] if request.reason else []
    return " ".join(words)


def _requests(traffic: Traffic, selected: str) -> Table:
    table = _table("last requests", "client", "protocol", "resource", "identity", "answer")
    for request in traffic.last:
        identity = selected.format(request.identity) if request.identity else "default"
        said = f"{request.status} {request.reason or ''}".rstrip()
        answer = Text(said, style="green" if request.status == HTTPStatus.OK else "red")
        cells = (_clock(request.at), request.client, request.protocol, request.resource, identity)
        table.add_row(*map(Text, cells), answer)
    total = f"{traffic.given.total():,} tokens given, {traffic.refused:,} refused"
    table.caption, table.caption_justify = total, "left"
    return table


def _tokens(statistics: ProviderStatistics, traffic: Traffic) -> Table:
    table = _table("tokens held", "of", "state", "valid for", "given", "fetched")
    now = SYSTEM_CLOCK.wall()
    for resource in statistics.resources:
        left = "-" if resource.expires_on is None else f"{max(0, resource.expires_on - now) / 60:.0f} min"
        fetched = f"{resource.fetches} ({resource.failures} failed)" if resource.failures else str(resource.fetches)
        given = f"{traffic.given[resource.resource]:,}"
        table.add_row(*map(Text, (resource.resource, resource.source or "-", resource.state, left, given, fetched)))
        if resource.last_error:
            table.add_row(Text(printable(resource.last_error.splitlines()[0]), style="red"))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
