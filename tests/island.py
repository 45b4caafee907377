"""Where programs of others run, which might go anywhere: an island, with nothing around it but loopback."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support import leading_nowhere, nowhere

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Island", "island"]

# Says what could be had, then keeps the namespaces for as long as its standard input is open.
_HOLD = """PATH="$PATH:/usr/sbin:/sbin"
ip link set lo up || exit
mount --bind "$1" /var/opt 2>/dev/null && echo mounted || echo not mounted
exec cat"""


@dataclass(frozen=True)
class Island:
    """Programs that run on the same island reach each other, and nobody else.

    *entrance* goes before the command of each of them. *environ* leads nowhere else either: on a machine that gives
    out no network namespaces, that is all that keeps them here. *root* is a folder of the island's own; *is_mounted*
    says whether what is below it at var/opt is what they see at /var/opt.
    """

    entrance: tuple[str, ...]
    environ: Mapping[str, str]
    root: Path
    is_mounted: bool


@contextmanager
def island(root: Path) -> Iterator[Island]:
    """Yield an island whose folder is *root*."""
    (root / "var" / "opt").mkdir(parents=True)
    with nowhere() as url, _namespaces(root / "var" / "opt") as (entrance, is_mounted):
        yield Island(entrance, {"PATH": "/usr/bin:/bin", **leading_nowhere(url)}, root, is_mounted)


@contextmanager
def _namespaces(folder: Path) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Hold namespaces where *folder* is at /var/opt, and yield the way in, if there is one, and whether that is so."""
    command = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", _HOLD, "sh", str(folder)]
    try:
        holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:  # There is no such program here.
        yield (), False
        return
    with holder:
        assert holder.stdout is not None
        said = holder.stdout.readline()
        enter = ("nsenter", f"--target={holder.pid}", "--user", "--preserve-credentials", "--net", "--mount", "--")
        yield enter if said else (), said == "mounted\n"
