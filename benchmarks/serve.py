"""Measure how fast `aiomsi serve` gives out a token that it holds, next to a handler that always says the same.

Also: how often it asks its source when a crowd wants a first token. The source is a script in place of `az`. Servers
and clients are processes of their own. That the clients are not what is measured shows in the answers that they take
from a server that does nothing, and in the part of their time in which they had work to do.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, urlsplit

from _support import Report, at_least

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _support import Cell

    Results: TypeAlias = Mapping[str, list[dict[str, float]]]

_OURS, _HANDLER, _FLOOR = "aiomsi serve", "bare aiohttp handler", "bare asyncio protocol"
_CONSTANT = {_HANDLER: "handler", _FLOOR: "protocol"}
_CLIENTS = 100
_TARGET = 0.8
_WORK = 0.3  # Seconds that the source takes, within which the whole crowd is there.
_TOKEN = "t" * 1_800  # As long as a real one.
_VERSION = "2019-08-01"
_PROGRAMS = Path(__file__).parent


def main() -> int:
    """Measure, print, and return the exit code."""
    if sys.platform == "win32":
        sys.exit("this benchmark needs a POSIX shell, since its source is a script")
    report = Report.from_command_line("A token over HTTP: from `aiomsi serve`, and what any server would take for it")
    _allow_connections()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source = _Source(Path(folder))
        program = (sys.executable, "-P", "-m", "aiomsi", "serve", "--output", "json")
        # What it says of each request is for the person who started it.
        ours = stack.enter_context(_process(*program, environ=source.environ, errors=subprocess.DEVNULL))
        token_of = _Questions(json.loads(ours.hear())["app_service"])
        crowd = _Crowd(stack.enter_context(_process(sys.executable, str(_PROGRAMS / "_load.py"))))
        _cold(report, crowd, source, token_of, *((300, 1) if report.quick else (1_000, 9)))
        servers = {_OURS: token_of.url}
        for name, kind in _CONSTANT.items():
            constant = stack.enter_context(_process(sys.executable, str(_PROGRAMS / "_constant.py"), kind))
            constant.say(token_of.answer("https://warm.example"))
            servers[name] = constant.hear()
        source.starts()
        _warm(report, crowd, servers, token_of("https://warm.example"), *((0.4, 1) if report.quick else (2.0, 15)))
        report.expect("runs of the source while its token is held", source.starts(), least=0, most=0)
    return report.finish()


def _allow_connections() -> None:
    """Raise the number of files that may be open, for those that are started from here, to what two of them need."""
    import resource  # noqa: PLC0415  (not on Windows)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2_048
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


class _Source:
    """A script in place of `az`, alone on its PATH, which writes down that it was started."""

    def __init__(self, folder: Path) -> None:
        self._runs = folder / "runs"
        printed = json.dumps({"accessToken": _TOKEN, "expires_on": int(time.time()) + 86_400, "tokenType": "Bearer"})
        script = folder / "az"
        script.write_text(
            f"#!/bin/sh\necho run >>{shlex.quote(str(self._runs))}\n"
            f"{shutil.which('sleep')} {_WORK}\nprintf '%s\\n' {shlex.quote(printed)}\n",
            encoding="ascii",
        )
        script.chmod(0o700)
        self._runs.touch()
        # Nothing else of our own environment, which may name an account.
        self.environ = {"PATH": str(folder), "HOME": str(folder)}
        self.environ |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}

    def starts(self) -> int:
        """Return how often it was started since it was asked last."""
        started = len(self._runs.read_bytes().splitlines())
        self._runs.write_bytes(b"")
        return started


class _Process:
    """A program that is told, and tells, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, value: object) -> None:
        """Tell it *value*, as JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Return its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def _process(*command: str, environ: Mapping[str, str] | None = None, errors: int | None = None) -> Iterator[_Process]:
    with subprocess.Popen(  # noqa: S603  (ours)
        command,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield _Process(process)
        finally:
            process.terminate()


class _Questions:
    """The requests for tokens that *variables* lead to."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.url = variables["IDENTITY_ENDPOINT"]
        self._headers = {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]}

    def __call__(self, resource: str) -> str:
        """Return a whole request."""
        parts = urlsplit(self.url)
        lines = [f"GET {self._path(resource)} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        return "\r\n".join([*lines, "Accept: application/json", "", ""])

    def answer(self, resource: str) -> Any:
        """Return what there is for an answer."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
        try:
            connection.request("GET", self._path(resource), headers=self._headers)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["access_token"] == _TOKEN
        return answer

    def _path(self, resource: str) -> str:
        return f"{urlsplit(self.url).path}?api-version={_VERSION}&resource={quote(resource, safe='')}"


class _Crowd:
    """Clients, in a process of their own."""

    def __init__(self, process: _Process) -> None:
        self._process = process

    def ask(self, url: str, request: str, *, clients: int, seconds: float = 0) -> dict[str, float]:
        """Let *clients* of them ask for so many *seconds*, or once, and return how it went."""
        self._process.say({"url": url, "request": request, "clients": clients, "seconds": seconds})
        went: dict[str, float] = json.loads(self._process.hear())
        return went


def _cold(report: Report, crowd: _Crowd, source: _Source, token_of: _Questions, clients: int, repeats: int) -> None:
    starts, seconds = [], []
    for number in range(repeats):
        went = crowd.ask(token_of.url, token_of(f"https://cold-{number}.example"), clients=clients)
        starts.append(source.starts())
        seconds.append(went["seconds"])
        report.expect(f"runs of the source for {clients} clients", starts[-1], least=1, most=1)
        report.expect(
            f"right answers to {clients} clients", int(went["answers"] - went["wrong"]), least=clients, most=clients
        )
    row: dict[str, Cell] = {
        "runs of the source": max(starts),
        "expected": 1,
        "clients": clients,
        "ms until the last has it": median(seconds) * 1e3,
        "of it after the source's own": (median(seconds) - _WORK) * 1e3,
    }
    report.table(f"requests for a first token, all at once; the source takes {_WORK * 1e3:g} ms (of {repeats})", [row])


def _warm(
    report: Report, crowd: _Crowd, servers: Mapping[str, str], request: str, seconds: float, repeats: int
) -> None:
    for url in servers.values():
        crowd.ask(url, request, clients=_CLIENTS, seconds=seconds / 4)  # Counts for nobody.
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(repeats):
        for name, url in servers.items():
            went = crowd.ask(url, request, clients=_CLIENTS, seconds=seconds)
            report.expect(f"wrong answers of {name}", int(went["wrong"]), least=0, most=0)
            results[name].append(went | {"rate": went["answers"] / went["seconds"]})
    title = f"requests for a token that is held, over {_CLIENTS} connections (medians of {repeats})"
    report.table(title, [_row(name, results) for name in servers])


def _row(name: str, results: Results) -> dict[str, Cell]:
    pairs = zip(results[name], results[_HANDLER], strict=True)
    ratio = median(mine["rate"] / other["rate"] for mine, other in pairs)
    return {
        "x handler": ratio,
        "who": name,
        "requests/s": _median(results[name], "rate"),
        "p99 ms": _median(results[name], "p99") * 1e3,
        "clients' work": f"{_median(results[name], 'share'):.0%}",
        "target": at_least(ratio, _TARGET) if name == _OURS else None,
    }


def _median(went: Sequence[Mapping[str, float]], what: str) -> float:
    return median(each[what] for each in went)


if __name__ == "__main__":
    sys.exit(main())
