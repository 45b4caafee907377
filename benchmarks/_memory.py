"""The most memory that this process has had: not by getrusage, which counts what a parent had before it started us."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["forget_peak", "peak_memory"]

_PROCESS = Path("/proc/self")


def forget_peak() -> None:
    """Let `peak_memory` begin anew with what this process has now, where the system can do that."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> float | None:
    """Return the most memory that this process has had, in MB, or None where the system does not say."""
    with contextlib.suppress(OSError):
        for line in (_PROCESS / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None
