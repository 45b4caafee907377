"""The benchmarks run, and count what they should; what they time is nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("azure.identity", reason="the benchmarks compare with azure-identity, which is not installed")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NEEDS_A_SHELL = pytest.mark.skipif(sys.platform == "win32", reason="the program run there is a shell script")


@pytest.mark.parametrize(
    "name",
    [
        "stampede",
        "clients",
        "waiters",
        "hot_path",
        "middleware",
        "refresh",
        "fleet",
        "scale",
        "outage",
        "footprint",
        pytest.param("detection", marks=NEEDS_A_SHELL),
        pytest.param("serve", marks=NEEDS_A_SHELL),
    ],
)
def test_a_quick_run_counts_what_it_should(name: str, tmp_path: Path) -> None:
    """A benchmark ends well only if requests, errors and waiting callers are as many as expected."""
    record = tmp_path / "record.json"
    program = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--json", str(record)]
    # Not under coverage, which would take most of the time and see only what other tests see.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(program, env=environ, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert "counts: as expected" in ended.stdout
    tables = json.loads(record.read_text(encoding="utf-8"))["tables"]
    assert tables
    assert all(tables.values())
