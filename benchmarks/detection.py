"""Measure what finding out that this is a laptop adds to the time of the first developer tool alone.

The tool is a script that sleeps as long as `az` works, and prints a token as `az` does. What is added is the time of a
first token by detection over that of the tool's own source in the same library. IMDS does not answer, as on a laptop:
what is sent to it is lost. aiomsi is measured where the firmware names another maker, and where it says nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from _support import IMDS, Report, at_most, lose_imds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _support import Cell

    Results: TypeAlias = Mapping[str, list[dict[str, Any]]]
    Times: TypeAlias = Mapping[str, list[float]]

_TOKEN = "the-token-of-the-tool"  # noqa: S105  (nobody's)
_TARGET = 1.1


@dataclass(frozen=True)
class _Contender:
    """Who gets a token, and where; *imds* is how often it may call there, if that is known."""

    name: str
    library: str
    made_by: str
    control: str
    firmware: str = "another maker"
    imds: int | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


_OURS, _AZURE = "aiomsi: AzureCLI()", "azure: AzureCliCredential()"
_CONTENDERS = (
    _Contender(_OURS, "aiomsi", "AzureCLI", control=_OURS, imds=0),
    _Contender("aiomsi: default(), another maker", "aiomsi", "default", control=_OURS, imds=0),
    _Contender("aiomsi: default(), silent firmware", "aiomsi", "default", _OURS, "silent", imds=1),
    _Contender(_AZURE, "azure", "AzureCliCredential", control=_AZURE, imds=0),
    _Contender("azure: DefaultAzureCredential()", "azure", "DefaultAzureCredential", control=_AZURE),
    # What its documentation advises for a developer's machine.
    _Contender(
        "azure: DefaultAzureCredential(), told `dev`",
        "azure",
        "DefaultAzureCredential",
        control=_AZURE,
        imds=0,
        environ={"AZURE_TOKEN_CREDENTIALS": "dev"},
    ),
)

# Repeats for each time that the tool takes, in seconds: `az` from its cache, and `az` on a slow or busy machine.
_FULL: Mapping[float, int] = {0.3: 15, 1.5: 9}
_QUICK: Mapping[float, int] = {0.1: 1}


def main() -> int:
    """Measure, print, and return the exit code."""
    if sys.platform == "win32":
        sys.exit("this benchmark needs a POSIX shell, since its tool is a script")
    lost = lose_imds()
    report = Report.from_command_line("The first token on a laptop: detection, and the tool alone")
    with tempfile.TemporaryDirectory() as folder, _black_hole(lost=lost) as imds_url:
        laptop = _Laptop(Path(folder), imds_url)
        contenders = [contender for contender in _CONTENDERS if lost or contender.library == "aiomsi"]
        laptop.tool_takes(0)
        _round(laptop, contenders)  # Leaves compiled modules behind, and counts for nobody.
        for seconds, repeats in (_QUICK if report.quick else _FULL).items():
            laptop.tool_takes(seconds)
            results: Results = defaultdict(list)
            for _ in range(repeats):
                for name, result in _round(laptop, contenders).items():
                    results[name].append(result)
            _show(report, contenders, results, seconds)
    return report.finish()


@contextmanager
def _black_hole(*, lost: bool) -> Iterator[str]:
    """Say where nobody answers, in the second best way where the first cannot be had."""
    if lost:
        print(f"azure-identity {version('azure-identity')}; in a network namespace where what {IMDS} is sent is lost")
        yield f"http://{IMDS}"
        return
    print("aiomsi only: a network namespace cannot be had, so IMDS is a local port with a queue that is full")
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening, ExitStack() as queue:
        for _ in range(8):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield "http://{}:{}".format(*listening.getsockname())


class _Laptop:
    """A machine with one tool on its PATH, whose firmware is that of another maker than Azure's, or silent."""

    def __init__(self, folder: Path, imds_url: str) -> None:
        self._folder = folder
        self._imds_url = imds_url
        self._tool, self._runs = folder / "bin" / "az", folder / "runs"
        for name in ("bin", "home", "silent"):
            (folder / name).mkdir()
        dmi = folder / "another maker" / "sys" / "class" / "dmi" / "id"
        dmi.mkdir(parents=True)
        (dmi / "sys_vendor").write_text("LENOVO\n", encoding="ascii")
        (dmi / "chassis_asset_tag").write_text("No Asset Information\n", encoding="ascii")

    def tool_takes(self, seconds: float) -> None:
        """Let the tool take so many *seconds* from now on."""
        expires_on = time.time() + 86_400
        date = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.localtime(expires_on))
        answer = {"accessToken": _TOKEN, "expiresOn": date, "expires_on": int(expires_on), "tokenType": "Bearer"}
        printed = shlex.quote(json.dumps(answer, indent=2))
        self._tool.write_text(
            f'#!/bin/sh\necho "$@" >>{shlex.quote(str(self._runs))}\n'
            f"{shutil.which('sleep')} {seconds}\nprintf '%s\\n' {printed}\n",
            encoding="ascii",
        )
        self._tool.chmod(0o700)

    def first_token(self, contender: _Contender) -> dict[str, Any]:
        """Let *contender* get its first token, and return how it went."""
        # Nothing else of our own environment, which may name an identity or a proxy.
        environ = {"PATH": str(self._tool.parent), "HOME": str(self._folder / "home")}
        environ |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
        environ |= contender.environ
        program = [sys.executable, str(Path(__file__).with_name("_first_token.py"))]
        program += [contender.library, contender.made_by, str(self._folder / contender.firmware), self._imds_url]
        self._runs.write_bytes(b"")
        printed = subprocess.run(program, env=environ, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603  (ours)
        result: dict[str, Any] = json.loads(printed)
        return result | {"runs": len(self._runs.read_bytes().splitlines())}


def _round(laptop: _Laptop, contenders: Sequence[_Contender]) -> dict[str, dict[str, Any]]:
    return {contender.name: laptop.first_token(contender) for contender in contenders}


def _show(report: Report, contenders: Sequence[_Contender], results: Results, seconds: float) -> None:
    takes = f"`az` takes {seconds:g} s"
    for contender in contenders:
        _check(report, contender, results[contender.name], takes)
    counts = [_count_row(contender, results[contender.name]) for contender in contenders]
    report.table(f"runs of the tool, and requests tried at IMDS (the most in any repeat); {takes}", counts)
    title = f"(medians of {len(results[_OURS])}); {takes}"
    times = {name: [result["seconds"] for result in of_one] for name, of_one in results.items()}
    report.table(
        f"a first token, the library imported but for what it loads later {title}",
        [_time_row(contender, times) | _target(contender, times) for contender in contenders],
    )
    times = {name: [result["imports"] + result["seconds"] for result in of_one] for name, of_one in results.items()}
    report.table(
        f"the same, and the imports of the library {title}", [_time_row(contender, times) for contender in contenders]
    )


def _check(report: Report, contender: _Contender, results: list[dict[str, Any]], takes: str) -> None:
    for result in results:
        what = f"{{}} for the first token of {contender.name}, {takes}"
        report.expect(what.format("runs of the tool"), result["runs"], least=1, most=1)
        report.expect(what.format("other tokens than the tool's"), result["token"] != _TOKEN, least=0, most=0)
        if contender.imds is not None:
            tried = what.format("requests tried at IMDS")
            report.expect(tried, result["imds"], least=contender.imds, most=contender.imds)


def _count_row(contender: _Contender, results: list[dict[str, Any]]) -> dict[str, Cell]:
    return {
        "runs": max(result["runs"] for result in results),
        "expected": 1,
        "who": contender.name,
        "requests": max(result["imds"] for result in results),
        "requests expected": contender.imds,
    }


def _time_row(contender: _Contender, times: Times) -> dict[str, Cell]:
    own = times[contender.name]
    more = median(mine - other for mine, other in zip(own, times[contender.control], strict=True))
    return {
        "x tool alone": _ratio(contender, times),
        "who": contender.name,
        "ms": median(own) * 1e3,
        "least": min(own) * 1e3,
        "most": max(own) * 1e3,
        "ms more": None if contender.name == contender.control else more * 1e3,
    }


def _target(contender: _Contender, times: Times) -> dict[str, Cell]:
    compared = contender.library == "aiomsi" and contender.name != contender.control
    return {"target": at_most(_ratio(contender, times), _TARGET) if compared else None}


def _ratio(contender: _Contender, times: Times) -> float:
    pairs = zip(times[contender.name], times[contender.control], strict=True)
    return median(mine / other for mine, other in pairs)


if __name__ == "__main__":
    sys.exit(main())
