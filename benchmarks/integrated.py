"""Measure what a login with a Kerberos ticket takes on top of the four bare HTTP requests that it consists of.

A real KDC, a federation server that looks into tickets, and the emulator's Entra run in processes of their own. The
bare requests are the same ones to the same servers, on connections as fresh, but without a ticket: the federation
server answers those as well, and there is no Kerberos on either side. What is added is Kerberos, XML and all of ours.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from _support import Report, at_most, spread, without_collector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from _support import Cell

_COMPANY = Path(__file__).parents[1] / "tests" / "company.py"
_RESOURCE = "https://vault.azure.net"
_SAML = "urn:ietf:params:oauth:grant-type:saml1_1-bearer"
_CLIENT_ID = "d7813711-9094-4ad3-a062-cac3ec74ebe8"
_TARGET = 10.0  # Milliseconds.

_BARE = "four bare requests"
_WARM = "aiomsi: the server's ticket is at hand"
_COLD = "aiomsi: the KDC is asked for it"
_NAMED = "aiomsi: ticket at hand, SSL_CERT_FILE"


class _Company:
    """The servers, in processes of their own; *where* is what they say about themselves."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.where = self._hear()

    def log_in(self) -> None:
        """Throw the ticket for the federation server away."""
        self._order("log_in")

    def count(self) -> dict[str, int]:
        """Return how often the servers were asked until now."""
        counted: dict[str, int] = self._order("count")
        return counted

    def _order(self, order: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("A login with a Kerberos ticket, and the bare requests that it consists of")
    with _company() as company:
        # Read by the libraries themselves; that of the authorities before aiohttp is loaded, as at a usual start.
        os.environ.update(company.where["kerberos"])
        os.environ["SSL_CERT_FILE"] = company.where["environ"]["SSL_CERT_FILE"]
        repeats = 2 if report.quick else 60
        times = asyncio.run(_measure(company, repeats))
        _show(report, times)
        _check(report, company.count(), repeats + 1)
    return report.finish()


@contextmanager
def _company() -> Iterator[_Company]:
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, str(_COMPANY), folder]
        process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")  # noqa: S603  (ours)
        with process:
            company = _Company(process)
            if "lacking" in company.where:
                sys.exit(f"this benchmark {company.where['lacking']}")
            company.log_in()
            yield company


async def _measure(company: _Company, repeats: int) -> dict[str, list[float]]:
    """Return the times in milliseconds, by contender; the first of each counts for nobody."""
    times: dict[str, list[float]] = {}
    contenders = {_BARE: _bare(company.where), _COLD: _login(company.where), _WARM: _login(company.where)}
    contenders[_NAMED] = _login(company.where, "SSL_CERT_FILE")
    for _ in range(repeats + 1):
        for name, contender in contenders.items():
            if name == _COLD:
                company.log_in()
            with without_collector():
                begun = time.perf_counter()
                await contender()
                times.setdefault(name, []).append((time.perf_counter() - begun) * 1_000)
    return {name: measured[1:] for name, measured in times.items()}


def _login(where: dict[str, Any], *names: str) -> Callable[[], Awaitable[object]]:
    """Return aiomsi's login, which sees the variables *names* beside those that it needs."""
    from aiomsi._clock import SYSTEM_CLOCK  # noqa: PLC0415  (loads aiohttp)
    from aiomsi.sources import IntegratedAuth, Surroundings, TokenRequest  # noqa: PLC0415

    environ = {name: where["environ"][name] for name in ("AZURE_AUTHORITY_HOST", "KRB5CCNAME", *names)}
    source = IntegratedAuth(surroundings=Surroundings(environ=environ))

    async def login() -> object:
        deadline = SYSTEM_CLOCK.monotonic() + 60
        return await source.fetch(TokenRequest(_RESOURCE, clock=SYSTEM_CLOCK, deadline=deadline))

    return login


def _bare(where: dict[str, Any]) -> Callable[[], Awaitable[object]]:
    """Return the four requests, each on a connection of its own."""
    import aiohttp  # noqa: PLC0415  (see `main`)

    async def ask(method: str, url: str, data: Any = None) -> bytes:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.request(method, url, data=data) as response,
        ):
            assert response.status == 200, await response.text()
            return await response.read()

    async def chain() -> object:
        await ask("GET", f"{where['entra']}/common/userrealm/{where['user']}?api-version=1.0")
        await ask("GET", where["metadata"])
        reply = await ask("POST", f"{where['adfs']}/anybody", b"<an envelope/>" * 60)
        _, opening, rest = reply.partition(b"<saml:Assertion")
        assertion = opening + rest[: rest.index(b"</saml:Assertion\t>")] + b"</saml:Assertion\t>"
        form = {"grant_type": _SAML, "client_id": _CLIENT_ID, "scope": f"{_RESOURCE}/.default"}
        form["assertion"] = base64.b64encode(assertion).decode()
        return json.loads(await ask("POST", f"{where['entra']}/organizations/oauth2/v2.0/token", form))

    return chain


def _show(report: Report, times: dict[str, list[float]]) -> None:
    bare = median(times[_BARE])
    rows: list[dict[str, Cell]] = []
    for name, measured in times.items():
        added = median(measured) - bare
        target = at_most(added, _TARGET, " ms") if name == _WARM else None
        row: dict[str, Cell] = {"x bare": median(measured) / bare, "": name, "requests": 4, "ms": median(measured)}
        rows.append(row | {"spread %": spread(measured), "added ms": added, "target": target})
    report.table("The time of one login, medians of interleaved repeats", rows)


def _check(report: Report, counted: dict[str, int], rounds: int) -> None:
    logins = 3 * rounds
    expected = {
        "entra": 2 * (logins + rounds),
        "tokens": logins + rounds,
        "adfs": 2 * logins + rounds,
        "tickets": logins,
    }
    for name, number in expected.items():
        report.expect(f"requests, {name}", counted[name], least=number, most=number)


if __name__ == "__main__":
    sys.exit(main())
