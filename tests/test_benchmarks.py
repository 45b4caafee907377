"""The suite has each benchmark, and runs it by itself. That they count right, CI sees by `python -m benchmarks`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import _machine
import _suite
import outage
import pytest
from _machine import can_compare, machine, other_pythons, versions
from _memory import forget_peak, peak_memory
from _results import load
from _rivals import CONTROL
from _suite import SUITE, Benchmark, lacking, run
from stampede import WHO, memory_row

FOLDER = Path(_suite.__file__).parent
THIS = Path(sys.executable)

RECORDED = """
import pathlib, sys
record = pathlib.Path(sys.argv[sys.argv.index("--json") + 1])
record.write_text('{"title": "A title", "python": "3.11.0", "checked": 2, "wrong": [], "tables": {"a": [{"b": 1}]}}')
"""


@pytest.fixture(autouse=True)
def not_under_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take most of the time, see only what other tests see, and say so on standard error."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of that of the benchmarks."""
    monkeypatch.setattr(_suite, "FOLDER", tmp_path)
    return tmp_path


def run_suite(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, encoding="utf-8", check=False)


def test_the_suite_has_each_script_once() -> None:
    """No benchmark is forgotten."""
    scripts = [path.stem for path in FOLDER.glob("[!_]*.py")]
    assert sorted(each.name for each in SUITE) == sorted(scripts)


def test_a_benchmark_says_what_it_found(folder: Path) -> None:
    """What a script writes down is its result."""
    (folder / "one.py").write_text(RECORDED)
    result = run(Benchmark("one"), THIS, quick=False)
    assert (result["title"], result["python"], result["checked"]) == ("A title", "3.11.0", 2)
    assert (result["tables"], result["wrong"]) == ({"a": [{"b": 1}]}, [])


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_is_handed_on(folder: Path, *, quick: bool) -> None:
    """A script is told that it is to be quick, or not."""
    (folder / "one.py").write_text(f"{RECORDED}\nassert ('--quick' in sys.argv) is {quick}")
    assert run(Benchmark("one"), THIS, quick=quick)["wrong"] == []


@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        ("import sys; sys.exit(7)", ["it ended with 7"]),
        (RECORDED + "sys.exit(3)", ["it ended with 3"]),
        (RECORDED + "print('Task exception was never retrieved', file=sys.stderr)", ["said on standard error: Task"]),
        ("raise ValueError('no')", ["it ended with 1", "said on standard error: ValueError: no"]),
    ],
)
def test_a_benchmark_that_ends_badly_is_wrong(folder: Path, program: str, wrong: list[str]) -> None:
    """Whoever crashes, or has something on standard error, has not counted what it should."""
    (folder / "one.py").write_text(program)
    found = run(Benchmark("one"), THIS, quick=True)["wrong"]
    assert [what[: len(start)] for what, start in zip(found, wrong, strict=True)] == wrong


def test_one_benchmark_can_be_run_alone(tmp_path: Path) -> None:
    """The suite prints what a script prints, sums it up, and writes all of it down."""
    pytest.importorskip("azure.identity", reason="the benchmarks compare with azure-identity, which is not installed")
    ended = run_suite("--quick", "--only", "clients", "--json", str(tmp_path / "results.json"))
    assert (ended.returncode, ended.stderr) == (0, "")
    heading, rest = ended.stdout.split("\n", 1)
    assert all(told in heading for told in [*versions().values(), *machine().values()])
    assert rest.startswith("\n=== clients\n")
    assert ended.stdout.endswith(" checked, as expected\n")
    assert list(load((tmp_path / "results.json").read_text(encoding="utf-8"))["benchmarks"]) == ["clients"]


@pytest.mark.parametrize(("wrong", "code"), [("[]", 0), ('["requests: 2, expected 1"]', 1)])
def test_a_wrong_count_fails_the_command(tmp_path: Path, wrong: str, code: int) -> None:
    """The exit code tells, and the summary says which count it was; what was found is written down all the same."""
    (tmp_path / "clients.py").write_text(RECORDED.replace('"wrong": []', f'"wrong": {wrong}'))
    program = "import pathlib, runpy, sys; sys.path.insert(0, 'benchmarks'); import _suite\n"
    program += f"_suite.FOLDER = pathlib.Path({str(tmp_path)!r}); runpy.run_module('benchmarks', run_name='__main__')"
    command = [sys.executable, "-c", program, "--only", "clients", "--json", str(tmp_path / "results.json")]
    ended = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ("clients: requests: 2, expected 1" in ended.stdout) is bool(code)
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--quick", "--write"],
        ["--only", "nothing"],
        ["--json", "nowhere/results.json"],
        ["--json", "."],
        ["--python", "nowhere/python"],
        ["--python", sys.executable],
    ],
)
def test_what_makes_no_sense_is_refused(*, options: list[str]) -> None:
    """Nothing is measured if it cannot be written down, or is not there."""
    ended = run_suite(*options)
    assert (ended.returncode, ended.stdout) == (2, "")


def test_what_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark that is named, and lacks something, is not left out as if nobody had asked for it."""
    monkeypatch.setattr(_suite, "SUITE", (Benchmark("one"), Benchmark("two", needs=lambda: "a moon")))
    assert lacking(["one", "two"]) == "two needs a moon"
    assert lacking(["one"]) is None


def test_another_python_has_the_same_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured elsewhere is the same as here, so a Python with another azure-identity is not asked."""
    pytest.importorskip("azure.identity", reason="the benchmarks compare with azure-identity, which is not installed")
    assert can_compare(THIS)
    monkeypatch.setattr(_machine, "versions", lambda: versions() | {"azure-identity": "0"})
    assert not can_compare(THIS)


def test_another_python_is_one_that_runs(tmp_path: Path) -> None:
    """What is no Python of another supported version is not among them, nor is this one."""
    mine = "{}.{}".format(*sys.version_info)
    found = other_pythons([tmp_path / "python", THIS])
    assert mine not in found
    assert THIS not in found.values()
    assert not can_compare(tmp_path / "python")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say how much it is")
def test_a_peak_of_memory_is_that_of_one_measurement() -> None:
    """What a process had before counts for nothing."""
    forget_peak()
    before = peak_memory()
    much = bytearray(64 << 20)
    peak = peak_memory()
    del much
    forget_peak()
    after = peak_memory()
    assert before is not None
    assert peak is not None
    assert after is not None
    assert peak - before > 60
    assert after - before < 30


def test_memory_is_compared_for_as_many_callers() -> None:
    """Whoever had fewer callers than the control has no ratio to it, nor has what is next to nothing."""
    rest = dict.fromkeys(WHO, 10.0)
    row = memory_row((10_000, 1), {"aiomsi": [12.0, 11.0, 13.0], CONTROL: [14.0] * 3}, rest)
    assert (row["aiomsi / control"], row["aiomsi MB"], row["azure get_token / control"]) == (0.5, 2.0, None)
    row = memory_row((1, 1), {"aiomsi": [10.1], CONTROL: [10.0]}, rest)
    assert row["aiomsi / control"] is None


def test_an_outage_is_what_happens_in_it() -> None:
    """The minute after an outage, which shows when tokens are back, adds to no count of the outage."""
    seen = outage.simulate(outage.CONTENDERS["aiomsi"], 1, holding=False)
    assert (seen.calls, seen.answered, seen.errors.total()) == (600, 0, 600)
    assert max(seen.attempts) < 600
    assert seen.back is not None


def test_nothing_names_the_machine() -> None:
    """The versions and the sort of machine say neither whose it is nor where things lie on it."""
    told = " ".join([*versions().values(), *machine().values()])
    assert not any(name in told for name in (platform.node(), str(Path.home()), platform.release()))
    assert versions()["python"].endswith(platform.python_version())
