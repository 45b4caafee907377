"""`aiomsi serve`: an identity endpoint that gives out the tokens of a source to whoever is told its secret."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aiomsi import AiomsiError, TokenProvider
from aiomsi._clock import SYSTEM_CLOCK
from aiomsi._command_line.outcome import ENDING_SIGNALS, on_signals
from aiomsi._command_line.serve.issuing import only, tokens_of
from aiomsi._command_line.serve.traffic import Traffic
from aiomsi._command_line.serve.variables import conflict, renamed
from aiomsi._command_line.serve.view import introduction, shown
from aiomsi.endpoint import Guard, IdentityEndpoint, parse_step
from aiomsi.endpoint.tokens import fake_tokens
from aiomsi.sources import Surroundings, default
from aiomsi.sources._selection import selected

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi._command_line.serve.options import ServeOptions
    from aiomsi._command_line.serve.variables import Variables
    from aiomsi.endpoint.tokens import Issue
    from aiomsi.sources import Source

__all__ = ["serve"]

_DAY = 86_400.0
_ADVICE = (
    "The secret is missing or wrong: aiomsi serve makes a new one each time that it is started, so load anew what it"
    " prints."
)
_GRACE = 5.0  # Seconds for the requests under way, when it is told to end.


async def serve(options: ServeOptions, announce: Callable[[Variables], object]) -> None:
    """Serve until the process is told to end; *announce* is called once with what clients must set.

    Raises:
        AiomsiError: it cannot listen there, or there is no such source.
        ValueError: what clients must set cannot be written in the form that was asked for.
    """
    async with AsyncExitStack() as stack:
        ended = _told_to_end()
        provider = None
        if not options.emulate:
            provider = await stack.enter_async_context(TokenProvider(_source(options)))
        traffic = Traffic()
        variables = await _open(options, _issue(options, provider), traffic, stack)
        name = conflict(variables)
        if name is not None and options.output != "json":
            raise ValueError(f"the protocols played want different values of {name}; choose one, or --output json")
        try:
            announce(variables)
        except OSError as error:
            raise AiomsiError(f"cannot print what clients must set: {error}") from error
        introduction(options, variables)
        async with shown(traffic, None if provider is None else provider.statistics):
            await ended.wait()


def _source(options: ServeOptions) -> Source:
    return default() if options.source == "default" else selected(Surroundings(), options.source or "dev")


def _issue(options: ServeOptions, provider: TokenProvider | None) -> Issue:
    if provider is None:
        issue = fake_tokens(SYSTEM_CLOCK.wall, options.lifetime or _DAY)
    else:
        issue = tokens_of(provider, tenant_id=options.tenant)
    return only(options.allow, issue) if options.allow else issue


async def _open(options: ServeOptions, issue: Issue, traffic: Traffic, stack: AsyncExitStack) -> Variables:
    """Open the endpoints, to be closed by *stack*, and return what leads to each protocol."""
    root = options.root
    if root is None and options.emulate:
        root = Path(await stack.enter_async_context(anyio.TemporaryDirectory(prefix="aiomsi-")))
    variables: dict[str, dict[str, str]] = {}
    for hosts, port in options.groups:
        endpoint = IdentityEndpoint(
            issue,
            host=options.host,
            port=port,
            unix_socket=options.socket,
            beyond_loopback=options.beyond_loopback,
            guard=Guard(options.names, advice=_ADVICE),
            hosts=hosts,
            root=root,
            lifetime=options.lifetime or _DAY,
            latency=options.latency or 0.0,
            date_text=options.date_text,
            remembered=0,
            observe=traffic.observe,
        )
        endpoint.script(*map(parse_step, options.script))
        try:
            await endpoint.start()
        except (OSError, ImportError) as error:
            raise AiomsiError(f"cannot serve {', '.join(hosts)}: {error}") from error
        stack.push_async_callback(endpoint.aclose, grace=_GRACE)
        variables |= {host: renamed(endpoint.environ(host), options.names) for host in hosts}
    return variables


def _told_to_end() -> asyncio.Event:
    """Return an event that is set when the process is told to end; being told again ends it at once."""
    ended, task = asyncio.Event(), asyncio.current_task()
    assert task is not None  # noqa: S101  (this is called by a coroutine)
    signals = ("SIGINT", *ENDING_SIGNALS)

    def end() -> None:
        ended.set()
        on_signals(signals, task.cancel)

    on_signals(signals, end)
    return ended
