"""The way to the operating system's Kerberos: threads that nobody waits for, and what its errors mean.

Real tickets are in `end_to_end/test_integrated.py`; here everything is the same on machines without Kerberos.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from aiomsi import AiomsiError, EndpointError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources import IntegratedAuth, Surroundings, TokenRequest
from aiomsi.sources._kerberos import _apart, _failures, _library, _meaning, _take_from, begin, logged_in_user
from aiomsi.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

VAULT = "https://vault.azure.net"
SOON = 1e9


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What a call waits for that never ends by itself; it ends with the test, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def test_what_a_call_returns_comes_back(clock: ManualClock) -> None:
    """The result of a thread is that of whoever waits for it, and so is its error."""
    assert await _apart(lambda: threading.current_thread().daemon, clock, SOON)
    with pytest.raises(ZeroDivisionError):
        await _apart(lambda: 1 // 0, clock, SOON)


@pytest.mark.parametrize(("left", "limit"), [(60.0, 20.0), (5.0, 5.0)])
async def test_a_call_that_never_ends_is_not_waited_for(
    clock: ManualClock, held: threading.Event, left: float, limit: float
) -> None:
    """After twenty seconds, or at the deadline if that comes first, there is an error instead."""
    waiting = asyncio.ensure_future(_apart(held.wait, clock, left))
    await clock.advance(limit - 0.1)
    assert not waiting.done()
    await clock.advance(0.1)
    with pytest.raises(EndpointError, match="no key distribution centre answered in time"):
        await waiting
    assert clock.timers == 0


async def test_a_cancelled_call_is_not_waited_for(clock: ManualClock, held: threading.Event) -> None:
    """Its caller goes on at once, and what comes of it later is nobody's."""
    ended = threading.Event()

    def call() -> None:
        held.wait()
        ended.set()

    waiting = asyncio.ensure_future(_apart(call, clock, SOON))
    await clock.settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert clock.timers == 0
    held.set()
    await asyncio.to_thread(ended.wait)
    await clock.settle()


def test_a_call_may_outlive_its_event_loop(held: threading.Event) -> None:
    """Nobody is there to be told any more, and that is no error."""
    threads: list[threading.Thread] = []

    def call() -> None:
        threads.append(threading.current_thread())
        held.wait()

    async def ask() -> None:
        clock = ManualClock()
        waiting = asyncio.ensure_future(_apart(call, clock, SOON))
        await clock.settle()
        waiting.cancel()

    asyncio.run(ask())
    held.set()
    threads[0].join()


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (
            (
                "SpnegoError (7): Major (458752): No credentials were supplied, or the credentials were unavailable or"
                " inaccessible, Minor (2529639053): No Kerberos credentials available (default cache: FILE:/tmp/x)"
            ),
            SourceUnavailableError,
            "there is no Kerberos ticket; run: kinit",
        ),
        ("No credentials cache found (filename: /tmp/x)", SourceUnavailableError, "run: kinit"),
        (
            "Major (720896): The referenced credential has expired, Minor (100001): Ticket expired",
            SourceUnavailableError,
            "has expired; run: kinit",
        ),
        ("Server HTTP/sts@X not found in Kerberos database", TokenRefusedError, "knows no service HTTP/sts.example"),
        ("Cannot contact any KDC for realm 'X'", EndpointError, "no key distribution centre can be reached"),
        ("Cannot find KDC for realm 'X'", EndpointError, "no key distribution centre can be reached"),
        ("Something else with key=hunter2hunter2", TokenRefusedError, "key=<redacted>; see: klist"),
    ],
)
def test_what_the_library_says(said: str, kind: type[AiomsiError], text: str) -> None:
    """Each failure is told from the others, with what to do about it."""
    error = _meaning(said, "sts.example")
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize("missing", ["spnego", "gssapi", "krb5"])
@pytest.mark.skipif(sys.platform == "win32", reason="on Windows the system brings the last two")
async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, clock: ManualClock, missing: str) -> None:
    """Whichever part of it is missing, the extra is named, and the next source is asked."""
    for name in ("gssapi", "krb5"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SourceUnavailableError, match=r"pip install 'aiomsi\[integrated\]'"):
        await begin("sts.example", None, clock, SOON)
    with pytest.raises(SourceUnavailableError, match=r"pip install 'aiomsi\[integrated\]'") as caught:
        await IntegratedAuth(surroundings=Surroundings(environ={}, platform="linux")).fetch(
            TokenRequest(VAULT, clock=clock)
        )
    assert (caught.value.resource, caught.value.source) == (VAULT, "integrated")


def test_windows_needs_no_libraries_of_kerberos(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the system brings it, only pyspnego has to be there, and the tickets are those of the login."""
    spnego = pytest.importorskip("spnego")
    monkeypatch.setattr(sys, "platform", "win32")
    for name in ("gssapi", "krb5"):
        monkeypatch.setitem(sys.modules, name, None)
    assert _library() is spnego
    assert _failures() == (spnego.exceptions.SpnegoError,)
    _take_from("FILE:whichever")


class Windows:
    """As much of Windows as tells who is logged in; *name* is None where nobody of a domain is."""

    def __init__(self, name: str | None) -> None:
        self.name = name

    def GetUserNameExW(self, kind: int, buffer: Any, size: Any) -> int:  # noqa: N802  (its name)
        assert kind == 8
        size._obj.value = len(self.name or "") + 1
        if buffer is None or self.name is None:
            return 0
        buffer.value = self.name
        return 1


async def test_who_is_logged_in_to_windows(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    """The system itself tells the name at Entra."""
    windows = SimpleNamespace(secur32=Windows("alice@contoso.com"))
    monkeypatch.setattr(ctypes, "windll", windows, raising=False)
    assert await logged_in_user("win32", None, clock, SOON) == "alice@contoso.com"
    windows.secur32.name = None
    with pytest.raises(SourceUnavailableError, match="az login"):
        await logged_in_user("win32", None, clock, SOON)


@pytest.mark.parametrize("name", ["host/machine.contoso.com@CONTOSO.COM", "alice", "CONTOSO\\alice", "a b@c", "@", ""])
async def test_a_ticket_of_no_user(monkeypatch: pytest.MonkeyPatch, clock: ManualClock, name: str) -> None:
    """A machine's own ticket, for instance, has no name that Entra knows, so one has to be given."""

    async def somebody(*_: object) -> str:
        return name

    monkeypatch.setattr("aiomsi.sources._kerberos.logged_in_user", somebody)
    with pytest.raises(SourceUnavailableError, match="give username"):
        await IntegratedAuth(surroundings=Surroundings(environ={})).fetch(TokenRequest(VAULT, clock=clock))


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"username": "alice"}, ValueError, "like alice@contoso.com"),
        ({"username": "a@b/../c"}, ValueError, "like alice@contoso.com"),
        ({"username": "a\0@contoso.com"}, ValueError, "like alice@contoso.com"),
        ({"username": "\udcff@contoso.com"}, ValueError, "like alice@contoso.com"),
        ({"username": 1}, TypeError, "username is a string, not int"),
        ({"tenant_id": b"x"}, TypeError, "tenant_id is a string, not bytes"),
        ({"client_id": 1}, TypeError, "client_id is a string"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    """They are told when they are given."""
    with pytest.raises(kind, match=said):
        IntegratedAuth(**options)


def test_it_shows_for_whom_it_is() -> None:
    """There is no secret in it."""
    assert repr(IntegratedAuth()) == "IntegratedAuth()"
    shown = "IntegratedAuth(username='alice@contoso.com', tenant_id='contoso.com')"
    assert repr(IntegratedAuth(username="alice@contoso.com", tenant_id="contoso.com")) == shown
