"""Store what was found, draw it, and write it into the README."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from _plots import drawn, without_idle_lines
from _readme import missing, rewritten
from _results import can_merge, dump, load, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _results import Document

_ROOT = Path(__file__).parents[1]
RESULTS = _ROOT / "benchmarks" / "results.json"
README = _ROOT / "README.md"
IMAGES = _ROOT / ".images"


def can_add(document: Document) -> bool:
    """Return whether a part of *document* may take its place among what is stored."""
    return not RESULTS.exists() or can_merge(load(RESULTS.read_text(encoding="utf-8")), document)


def publish(document: Document, left_out: Sequence[str] = (), *, partly: bool) -> int:
    """Write all that shows what was found; return 1 if something was *left_out*, or the README lacks a number.

    What was measured *partly* takes the place of what is stored for the same benchmarks, and leaves the others.
    """
    if partly and RESULTS.exists():
        document = merged(load(RESULTS.read_text(encoding="utf-8")), document)
    text = dump(without_idle_lines(document))
    document = load(text)  # The README shows what is stored, digit for digit.
    RESULTS.write_text(text, encoding="utf-8")
    README.write_text(rewritten(README.read_text(encoding="utf-8"), document), encoding="utf-8")
    for name, picture in drawn(document).items():
        (IMAGES / name).write_text(picture, encoding="utf-8")
    lacking = [*missing(document), *left_out]
    print(f"\nwritten: {RESULTS.name}, README.md, {', '.join(drawn(document)) or 'no pictures'}")
    if lacking:
        print("\n  ".join(["not measured:", *lacking]))
    return 1 if lacking else 0
