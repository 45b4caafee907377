"""The benchmarks, in their order, and how one is run: in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _results import Result

FOLDER = Path(__file__).parent


def posix_shell() -> str | None:
    """Say what is missing where programs cannot be replaced by shell scripts."""
    return "a POSIX shell, since what it runs is a script" if sys.platform == "win32" else None


def kerberos() -> str | None:
    """Say what is missing where there is no Kerberos to log in with."""
    bindings = all(find_spec(name) for name in ("gssapi", "krb5", "spnego", "trustme"))
    program = shutil.which("krb5kdc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return None if bindings and program else "Kerberos' KDC and its Python bindings (the extra integrated)"


@dataclass(frozen=True)
class Benchmark:
    """A script, whether its answer depends on the Python, and what it needs."""

    name: str
    every_python: bool = False
    needs: Callable[[], str | None] = lambda: None


SUITE = (
    Benchmark("stampede"),
    Benchmark("clients"),
    Benchmark("waiters"),
    Benchmark("hot_path", every_python=True),
    Benchmark("refresh"),
    Benchmark("outage"),
    Benchmark("fleet"),
    Benchmark("scale"),
    Benchmark("middleware"),
    Benchmark("serve", needs=posix_shell),
    # Without a network namespace it measures aiomsi only, and says so.
    Benchmark("detection", needs=posix_shell),
    Benchmark("integrated", needs=kerberos),
    Benchmark("footprint"),
)


def lacking(names: Sequence[str]) -> str | None:
    """Say which of the benchmarks *names* cannot run here, and what it needs; return None if all can."""
    needs = {benchmark.name: benchmark.needs() for benchmark in SUITE if benchmark.name in names}
    return next((f"{name} needs {missing}" for name, missing in needs.items() if missing is not None), None)


def run(benchmark: Benchmark, python: Path, *, quick: bool) -> Result:
    """Run *benchmark*, which prints what it finds, and return that.

    What it says on standard error is wrong, whatever it is: a warning, an error that nobody took, a crash.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        command = [str(python), str(FOLDER / f"{benchmark.name}.py"), "--json", str(record)]
        command += ["--quick"] if quick else []
        with subprocess.Popen(  # noqa: S603  (ours)
            command, env=_environ(python), stderr=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            errors = process.communicate()[1]
        found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    sys.stderr.write(errors)
    wrong: list[str] = found.get("wrong", [])
    if process.returncode not in (0, 1) or not found:
        wrong = [*wrong, f"it ended with {process.returncode}"]
    if errors:
        wrong = [*wrong, f"said on standard error: {errors.splitlines()[-1]}"]
    return {
        "title": found.get("title", benchmark.name),
        "date": datetime.now(UTC).date().isoformat(),
        "python": found.get("python", ""),
        "checked": found.get("checked", 0),
        "wrong": wrong,
        "tables": found.get("tables", {}),
    }


def _environ(python: Path) -> dict[str, str]:
    """Return our own environment, in which another Python finds this working copy too."""
    if python == Path(sys.executable):
        return dict(os.environ)
    paths = [str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
