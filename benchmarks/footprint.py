"""Measure what it takes to have the library at all: the time of an import, and what pip installs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from _support import Report, at_most, spread
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _support import Cell

_BARE, _AIOHTTP = "python, nothing imported", "import aiohttp"
_IMPORTS = {
    _AIOHTTP: "import aiohttp",
    _BARE: "pass",
    "import aiomsi": "import aiomsi",
    "from aiomsi import TokenProvider": "from aiomsi import TokenProvider",
    "the same, and TokenProvider()": "from aiomsi import TokenProvider; TokenProvider()",
    "import msal": "import msal",
    "import azure.identity": "import azure.identity",
    "import azure.identity.aio": "import azure.identity.aio",
    "the same, and DefaultAzureCredential()": (
        "from azure.identity.aio import DefaultAzureCredential; DefaultAzureCredential()"
    ),
}
_IMPORT_TARGET = 1.15

_OURS, _BASE = "aiomsi", "aiohttp"
_INSTALLS = {
    f"pip install {_BASE}": (_BASE,),
    f"pip install {_OURS}": (_OURS,),
    "pip install msal": ("msal",),
    "pip install azure-identity aiohttp": ("azure-identity", _BASE),
}


def main() -> int:
    """Measure, print, and return the exit code."""
    report = Report.from_command_line("The import, and what pip installs")
    _imports(report, 1 if report.quick else 21)
    _installs(report)
    return report.finish()


def _imports(report: Report, rounds: int) -> None:
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as compiled:
        # All byte code in one place, made in the first round, which does not count: in a working copy aiomsi may have
        # none, or not be allowed to keep it, while what pip installed has.
        environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
        for number in range(rounds + 1):
            for name, statement in _IMPORTS.items():
                took = _fresh_interpreter(statement, environ)
                if number:
                    seconds[name].append(took)
    rows = [_import_row(name, seconds) for name in _IMPORTS]
    report.table(f"a fresh interpreter (medians of {rounds})", rows)


def _fresh_interpreter(statement: str, environ: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environ, check=True)  # noqa: S603  (ours)
    return time.perf_counter() - began


def _import_row(name: str, seconds: Mapping[str, list[float]]) -> dict[str, Cell]:
    ratio = median(mine / other for mine, other in zip(seconds[name], seconds[_AIOHTTP], strict=True))
    milliseconds = median(seconds[name]) * 1e3
    return {
        "x import aiohttp": ratio,
        "statement": name,
        "ms": milliseconds,
        "ms beyond bare": milliseconds - median(seconds[_BARE]) * 1e3,
        "spread %": spread(seconds[name]),
        "target": at_most(ratio, _IMPORT_TARGET) if "aiomsi" in _IMPORTS[name] else None,
    }


def _installs(report: Report) -> None:
    """Add up the installed distributions themselves, so that no network is needed; byte code is not counted."""
    pulled = {command: _distributions(names) for command, names in _INSTALLS.items()}
    base = pulled[f"pip install {_BASE}"]
    alone = sum(map(_size, base))
    rows: list[dict[str, Cell]] = [
        {
            "x aiohttp alone": sum(map(_size, names)) / alone,
            "command": command,
            "packages": len(names),
            "MB": sum(map(_size, names)) / 1e6,
            "packages beyond aiohttp's": len(names - base),
            "MB of those": sum(map(_size, names - base)) / 1e6,
        }
        for command, names in pulled.items()
    ]
    report.table("what pip installs", rows)
    # anyio; and idna and typing-extensions, if aiohttp happens not to bring them here.
    extra = pulled[f"pip install {_OURS}"] - base - {"idna", "typing-extensions"}
    report.expect("packages of aiomsi beyond aiohttp's", len(extra), least=2, most=2)


def _distributions(names: Iterable[str]) -> set[str]:
    """Return *names* with all that they require on this machine."""
    found: set[str] = set()
    wanted = [(canonicalize_name(name), frozenset[str]()) for name in names]
    seen = set(wanted)
    while wanted:
        name, extras = wanted.pop()
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                continue
            following = canonicalize_name(needed.name), frozenset(needed.extras)
            if following not in seen:
                seen.add(following)
                wanted.append(following)
    return found


def _size(name: str) -> int:
    """Return the bytes of what a distribution installs."""
    if name == _OURS:  # Which a working copy has only a link to.
        spec = importlib.util.find_spec(_OURS)
        assert spec is not None
        assert spec.origin is not None
        paths = [path for path in Path(spec.origin).parent.rglob("*") if path.is_file()]
    else:
        paths = [Path(str(file.locate())) for file in importlib.metadata.files(name) or ()]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.exists())


if __name__ == "__main__":
    sys.exit(main())
