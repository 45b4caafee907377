"""What a run of the suite found: one document, its claims, and the numbers in it. All of this is pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _support import Cell

    Row: TypeAlias = dict[str, Cell]


class Result(TypedDict):
    """What one benchmark found; *checked* is how many counts were compared with what was expected."""

    title: str
    date: str
    python: str
    checked: int
    wrong: list[str]
    tables: dict[str, list[Row]]


class Document(TypedDict):
    """What all benchmarks found, with what, and where."""

    quick: bool
    versions: dict[str, str]
    machine: dict[str, str]
    benchmarks: dict[str, Result]


@dataclass(frozen=True)
class Claim:
    """A target that was set for a measured value."""

    benchmark: str
    table: str
    subject: str
    target: str

    @property
    def met(self) -> bool:
        """Whether the value keeps to the target."""
        return self.target.endswith("met")

    def __str__(self) -> str:
        wanted = self.target.rpartition(" ")[0].rstrip(":")
        return f"{self.benchmark}: {self.table}: {self.subject}: {wanted}"


@dataclass(frozen=True)
class Place:
    """Where numbers stand: the tables whose titles match, and there the rows that have these cells."""

    benchmark: str
    table: str
    row: Mapping[str, Cell] = field(default_factory=dict)

    def has(self, benchmark: str, title: str) -> bool:
        """Return whether that table is one of these."""
        return benchmark == self.benchmark and fnmatchcase(title, self.table)

    def rows(self, document: Document) -> list[Row]:
        """Return the rows, in their order."""
        return [
            row
            for name, result in document["benchmarks"].items()
            for title, rows in result["tables"].items()
            if self.has(name, title)
            for row in rows
            if self.row.items() <= row.items()
        ]

    def cell(self, document: Document, column: str) -> Cell:
        """Return what stands in that *column* of the first such row, or None."""
        return next((row.get(column) for row in self.rows(document)), None)


def claims(document: Document) -> Iterator[Claim]:
    """Find every target, which are cells that end with whether it was met."""
    for name, result in document["benchmarks"].items():
        for title, rows in result["tables"].items():
            for row in rows:
                target = row.get("target")
                if isinstance(target, str) and target.endswith(("met", "missed")):
                    subject = next((cell for cell in row.values() if isinstance(cell, str)), "")
                    yield Claim(name, title, subject, target)


def summary(document: Document) -> str:
    """Say which claims hold, and whether the counts are right."""
    results = document["benchmarks"]
    lines = [f"  {'met   ' if claim.met else 'MISSED'}  {claim}" for claim in claims(document)]
    checked = sum(result["checked"] for result in results.values())
    wrong = [f"  {name}: {what}" for name, result in results.items() for what in result["wrong"]]
    verdict = f"{len(wrong)} WRONG" if wrong else "as expected"
    heading = "claims, as far as a quick run can tell" if document["quick"] else "claims"
    return "\n".join([heading, *lines, "", f"counts: {checked:,} checked, {verdict}", *wrong])


def setting(document: Document) -> str:
    """Say with what all of it was measured, and where."""
    versions, machine = dict(document["versions"]), document["machine"]
    python = versions.pop("python")
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{packages} on {python} and {machine['cores']} cores ({machine['processor']}, {machine['kernel']})"


def can_merge(stored: Document, run: Document) -> bool:
    """Return whether both were measured with the same versions on the same sort of machine."""
    return (stored["versions"], stored["machine"]) == (run["versions"], run["machine"])


def merged(stored: Document, run: Document) -> Document:
    """Return *stored* with what was found in *run* in place of what was found before."""
    if not can_merge(stored, run):
        raise ValueError("what is stored was measured with other versions, or elsewhere: run all of it anew")
    return {**run, "benchmarks": stored["benchmarks"] | run["benchmarks"]}


def dump(document: Document) -> str:
    """Write *document* with one row to a line, so that a change of one number is a change of one line."""
    benchmarks = {
        name: result | {"tables": _folded(result["tables"])} for name, result in document["benchmarks"].items()
    }
    return _dumped(document | {"benchmarks": benchmarks}, "") + "\n"


def load(text: str) -> Document:
    """Read what `dump` wrote."""
    document = json.loads(text)
    for result in document["benchmarks"].values():
        result["tables"] = {title: _unfolded(*lines) for title, lines in result["tables"].items()}
    return cast("Document", document)


def _folded(tables: Mapping[str, list[Row]]) -> dict[str, list[list[Cell]]]:
    """Name the columns once for each table."""
    return {title: [list(rows[0]), *(list(row.values()) for row in rows)] for title, rows in tables.items()}


def _unfolded(columns: Sequence[str], *rows: Sequence[Cell]) -> list[Row]:
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _dumped(value: object, indent: str) -> str:
    items: list[str] = []
    inside = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(name)}: {_dumped(item, inside)}" for name, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, list) for item in value):
        items = [json.dumps([_rounded(cell) for cell in row], ensure_ascii=False) for row in value]
    if not items:
        return json.dumps(value, ensure_ascii=False)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inside}" + f",\n{inside}".join(items) + f"\n{indent}{closing}"


def _rounded(cell: Cell) -> Cell:
    """Leave the digits that mean something: nobody measures a time to more than four."""
    return float(f"{cell:.4g}") if isinstance(cell, float) else cell
