"""Tables that say which test guards what: each line names tests, or says in one sentence why none is needed."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Guards", "mistakes"]

Guards: TypeAlias = list[str] | str
"""Tests, as "file::test", or a sentence that says why there are none."""

_HERE = Path(__file__).parent


def mistakes(table: Iterable[Guards]) -> list[str]:
    """Return the names in *table* that are no tests of ours, and the sentences that are none."""
    found = []
    for guards in table:
        if isinstance(guards, list):
            found += [name for name in guards if name not in _tests()] or ([] if guards else ["a line without tests"])
        elif not (guards[:1].isupper() and guards.endswith(".") and " " in guards):
            found.append(guards)
    return found


@cache
def _tests() -> set[str]:
    return {
        f"{path.relative_to(_HERE).with_suffix('').as_posix()}::{node.name}"
        for path in _HERE.rglob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
