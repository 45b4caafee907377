"""What every benchmark stands on: it stays on loopback, counts at the endpoint, and prints ratios first."""

from __future__ import annotations

import argparse
import contextlib
import gc
import ipaddress
import json
import logging
import os
import platform
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

Cell: TypeAlias = str | int | float | None

IMDS = "169.254.169.254"

_STRANGER = ("192.0.2.1", 80)  # Reserved for documentation (RFC 5737): nobody has it.

# Sent over loopback, where nobody has the address, a packet is dropped, and nobody says so: as on a laptop.
_NAMESPACE = ("unshare", "--map-root-user", "--net", "sh", "-c")
_ONLY_LOOPBACK = f'PATH="$PATH:/usr/sbin:/sbin"; ip link set lo up && ip route add {IMDS}/32 dev lo && exec "$@"'


def stay_on_loopback() -> None:
    """Make every attempt to reach another machine fail, and end the process if that cannot be had.

    The address of IMDS is none of another machine where `imds_is_lost`.
    """
    sys.addaudithook(partial(_refuse_strangers, {IMDS} if imds_is_lost() else set()))
    try:
        sys.audit("socket.connect", None, _STRANGER)
    except PermissionError:
        return
    sys.exit("the guard that keeps this benchmark on loopback does not work here, so it does not run")


def _refuse_strangers(spared: set[str], event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host is not None and host not in spared and not _is_loopback(host):
        raise PermissionError(f"a benchmark stays on loopback, and may not reach {host!r}")


def _is_loopback(host: str | bytes) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text).is_loopback
    return text == "localhost"


def lose_imds() -> bool:
    """Start this program anew, once, where what is sent to IMDS is lost; return whether that could be had.

    That is a network namespace of its own, with nothing but loopback, which needs Linux, `unshare` and `ip`.
    """
    if imds_is_lost():
        return True
    inside = [*_NAMESPACE, _ONLY_LOOPBACK, "sh", sys.executable]
    trial = "import sys, _support; sys.exit(not _support.imds_is_lost())"
    try:
        tried = subprocess.run([*inside, "-c", trial], cwd=Path(__file__).parent, capture_output=True, check=False)  # noqa: S603  (ours)
    except OSError:
        return False
    if tried.returncode == 0:
        os.execvp(inside[0], [*inside, *sys.orig_argv[1:]])  # noqa: S606  (ours)
    return False


def imds_is_lost() -> bool:
    """Return whether what is sent to the address of IMDS is lost on loopback, and no route leads anywhere else."""
    destination = f"{int.from_bytes(socket.inet_aton(IMDS), sys.byteorder):08X}"
    rows = [row.split() for row in _lines("/proc/net/route")[1:]]
    devices = {row[0] for row in rows} | {row.split()[-1] for row in _lines("/proc/net/ipv6_route")}
    return devices == {"lo"} and any(row[1] == destination for row in rows)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


class Endpoint:
    """An identity endpoint in a process of its own, which counts what it is asked.

    While it is open the environment names it, since that is the only way to show it to azure-identity.
    """

    def __init__(self) -> None:
        self.environ: dict[str, str] = {}

    def __enter__(self) -> Self:
        program = [sys.executable, str(Path(__file__).with_name("_emulator.py"))]
        self._process = subprocess.Popen(  # noqa: S603  (ours)
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.environ = self._hear()
        os.environ.update(self.environ)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.environ:
            del os.environ[name]
        self._process.communicate()  # Closes its standard input, which ends it.

    def latency(self, seconds: float) -> None:
        """Let each answer take so many seconds from now on."""
        self._order("latency", seconds)

    def fail(self, *, on: bool) -> None:
        """Answer every request with 500 from now on, or none any more."""
        self._order("fail", on)

    def tokens(self, resource: str, *refresh_in: int) -> None:
        """Give one token for each of *refresh_in*: good for a day, and to be refreshed after so many seconds."""
        self._order("tokens", {"resource": resource, "refresh_in": refresh_in})

    def count(self) -> dict[str, int]:
        """Return how often each resource was asked for since the last count."""
        counted: dict[str, int] = self._order("count")
        return counted

    def _order(self, order: str, value: object = None) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([order, value]) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@dataclass
class Report:
    """The tables of one benchmark, and the counts that were wrong."""

    title: str
    quick: bool
    json: Path | None
    tables: dict[str, list[dict[str, Cell]]] = field(default_factory=dict)
    checked: int = 0
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def from_command_line(cls, title: str) -> Self:
        """Read the options, install the guard, and print what is about to be measured."""
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--quick", action="store_true", help="smaller and fewer, in at most 10 seconds")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there, too")
        options = parser.parse_args()
        stay_on_loopback()
        for name in ("aiomsi", "azure"):
            logging.getLogger(name).addHandler(logging.NullHandler())  # Failures here are staged, and counted.
        version = f"{platform.python_implementation()} {platform.python_version()}"
        print(f"{title}\n{version}, {os.cpu_count()} cores{', --quick' if options.quick else ''}")
        return cls(title, options.quick, options.json)

    def table(self, title: str, rows: Sequence[dict[str, Cell]]) -> None:
        """Print *rows*, which have the same keys, and keep them."""
        self.tables[title] = list(rows)
        lines = [list(rows[0]), *([_text(cell) for cell in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        print(f"\n{title}")
        for line in lines:
            print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def keep(self, title: str, rows: Sequence[dict[str, Cell]]) -> None:
        """Keep *rows*, which are for a plot and too many to print."""
        self.tables[title] = list(rows)
        print(f"\n{title}: {len(rows)} rows, kept")

    def expect(self, what: str, counted: int, *, least: int, most: int) -> None:
        """Remember it if *counted* is out of bounds."""
        self.checked += 1
        if not least <= counted <= most:
            bounds = str(most) if least == most else f"{least} to {most}"
            self.wrong.append(f"{what}: {counted:,}, expected {bounds}")

    def finish(self) -> int:
        """Say whether the counts were right, and return the exit code."""
        print("\ncounts: " + ("as expected" if not self.wrong else "WRONG\n  " + "\n  ".join(self.wrong)))
        if self.json is not None:
            record = {"title": self.title, "python": platform.python_version(), "tables": self.tables}
            counted = {"checked": self.checked, "wrong": self.wrong}
            self.json.write_text(json.dumps(record | counted, indent=1), encoding="utf-8")
        return 1 if self.wrong else 0


def at_most(value: float, target: float, unit: str = "") -> str:
    """Say whether *value* keeps to *target*."""
    return f"<= {target:g}{unit} {'met' if value <= target else 'missed'}"


def at_least(value: float, target: float, unit: str = "") -> str:
    """Say whether *value* reaches *target*."""
    return f">= {target:g}{unit} {'met' if value >= target else 'missed'}"


def spread(values: Sequence[float]) -> float:
    """Return how far apart the middle half of *values* is, in percent of their median."""
    if len(values) < 2:
        return 0.0
    first, middle, third = quantiles(values, n=4, method="inclusive")
    return 100 * (third - first) / middle


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep the garbage collector out of one measurement, and let it clean up before."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2 if abs(cell) >= 0.1 else 4
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
