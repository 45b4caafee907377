"""What every test stands on: both event loops, no blocking calls, and nothing that leaves this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import aioresponses.core
import pytest
from aiohttp import ClientResponse
from blockbuster import blockbuster_ctx

from aiomsi import RefreshPolicy, TokenProvider
from aiomsi.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-loop", action="store_true", help="run asynchronous tests on asyncio's own event loop alone")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:  # noqa: ARG001
    """Run every asynchronous test on each event loop that this machine has."""
    factories: dict[str, Callable[[], Any]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32" and not config.getoption("--one-loop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


_strayed: list[str] = []


def _refuse_strangers(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if not isinstance(address, tuple) or ipaddress.ip_address(address[0]).is_loopback:
        return
    _strayed.append(str(address))
    raise PermissionError(f"a test tried to reach {address}, which is not loopback")


sys.addaudithook(_refuse_strangers)


@pytest.fixture(autouse=True)
def _stay_on_loopback() -> Iterator[None]:
    """Fail the test that tried to leave, even if it swallowed the error."""
    _strayed.clear()
    yield
    assert _strayed == []


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Fail the test in which our package blocks the event loop."""
    with blockbuster_ctx("aiomsi"):
        yield


class _ClientResponse(ClientResponse):
    """What aioresponses 0.7.9 builds, with the argument that aiohttp 3.14 added (pnuckowski/aioresponses#289)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*arguments, **options)


@pytest.fixture(autouse=True)
def _mend_aioresponses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioresponses.core, "ClientResponse", _ClientResponse)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
async def provider(source: ScriptedSource, clock: ManualClock) -> AsyncIterator[TokenProvider]:
    """A provider on which nothing is left to chance."""
    async with TokenProvider(source, clock=clock, policy=RefreshPolicy(spread=0, refresh_retry_spread=0)) as opened:
        yield opened
