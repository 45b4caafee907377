"""Everybody who is compared, each in a process of its own that is told what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AIOMSI, CONTROL, FLOOR = "aiomsi", "control: shielded task", "task on a bare future"
BEARER, GET_TOKEN, THREADS = "azure bearer provider", "azure get_token", "msal in threads"


class Rival:
    """One of them, in its process, which is alone at work until it has answered."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, order: str, **details: object) -> Any:
        """Let it do something, and return what it says of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([order, details]) + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """Return the next thing that it says."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def rivals(names: Sequence[str], program: str = "_rival.py") -> Iterator[Mapping[str, Rival]]:
    """Start a *program* for each, who ask the endpoint that the environment names; end them all at the end."""
    started = {name: _start(program, name) for name in names}
    try:
        company = {name: Rival(process) for name, process in started.items()}
        for rival in company.values():
            rival.hear()  # That it is ready.
        yield company
    finally:
        for process in started.values():
            process.communicate()  # Closes its standard input, which ends it.


def _start(program: str, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name(program)), name]
    return subprocess.Popen(  # noqa: S603  (ours)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
