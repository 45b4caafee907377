"""Run the benchmarks one after the other: python -m benchmarks [--quick] [--only NAME …] [--write] [--json FILE]."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))  # Where scripts find their neighbours.

from _machine import can_compare, machine, other_pythons, versions
from _publish import can_add, publish
from _results import dump, setting, summary
from _suite import SUITE, lacking, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _results import Document, Result
    from _suite import Benchmark


def main() -> int:
    """Run what is asked for, sum it up, and return the exit code: 1 if a count is wrong."""
    options = _options()
    document: Document = {
        "quick": options.quick,
        "versions": versions(),
        "machine": machine(),
        "benchmarks": {},
    }
    if options.write and options.only and not can_add(document):
        sys.exit("what is stored was measured with other versions, or elsewhere: run all of it anew")
    print(setting(document))
    left_out: list[str] = []
    chosen = _chosen(options.only, left_out)
    document["benchmarks"].update(_results(chosen, options.python, left_out, quick=options.quick))
    print(f"\n=== summary\n{summary(document)}")
    if options.json is not None:
        options.json.write_text(dump(document), encoding="utf-8")
    if any(result["wrong"] for result in document["benchmarks"].values()):
        return 1
    return publish(document, left_out, partly=bool(options.only)) if options.write else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure all that the README claims.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, for the counts, in 2 minutes")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", choices=[each.name for each in SUITE], help="leave out others"
    )
    parser.add_argument(
        "--python", nargs="+", default=[], type=Path, metavar="FILE", help="other Pythons, with azure-identity"
    )
    parser.add_argument("--write", action="store_true", help="store the result, and rewrite the README and its plots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("a quick run measures too little to be written down")
    if (wrong := lacking(options.only) or _wrong(options.python, options.json)) is not None:
        parser.error(wrong)
    return options


def _wrong(pythons: list[Path], json: Path | None) -> str | None:
    """Say what would come to nothing, before anything is measured."""
    others = other_pythons(pythons).values() if pythons else ()
    for python in pythons:
        if python not in others or not can_compare(python):
            return f"{python} is no other supported Python with azure-identity and the like in the versions of this one"
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        return f"{json} is no place for a file"
    return None


def _chosen(only: Sequence[str], left_out: list[str]) -> Iterator[Benchmark]:
    for benchmark in SUITE:
        if only and benchmark.name not in only:
            continue
        if (missing := benchmark.needs()) is None:
            yield benchmark
        else:
            print(f"\n=== {benchmark.name} is left out: it needs {missing}")
            left_out.append(benchmark.name)


def _results(
    chosen: Iterator[Benchmark], named: list[Path], left_out: list[str], *, quick: bool
) -> Iterator[tuple[str, Result]]:
    for benchmark in chosen:
        yield _result(benchmark.name, benchmark, Path(sys.executable), quick=quick)
        if not benchmark.every_python or quick:  # What is counted does not depend on the Python.
            continue
        for version, python in other_pythons(named).items():
            name = f"{benchmark.name} on {version}"
            if can_compare(python):
                yield _result(name, benchmark, python, quick=quick)
            else:
                print(f"\n=== {name} is left out: azure-identity and the like are not there in the same versions")
                left_out.append(name)


def _result(name: str, benchmark: Benchmark, python: Path, *, quick: bool) -> tuple[str, Result]:
    print(f"\n=== {name}", flush=True)
    began = time.perf_counter()
    result = run(benchmark, python, quick=quick)
    print(f"({time.perf_counter() - began:.0f} s)", flush=True)
    return name, result


if __name__ == "__main__":
    sys.exit(main())
