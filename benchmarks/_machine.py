"""With what is measured, and where; nothing that names the machine or its owner."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

_COMPARED = ("azure-identity", "azure-core", "msal", "aiohttp", "uvloop")
_SUPPORTED = ("3.11", "3.12", "3.13")
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_NEEDED = "import aiohttp, anyio, azure.identity.aio"


def versions() -> dict[str, str]:
    """Return the versions of what takes part, as far as it is installed."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in ("aiomsi", *_COMPARED):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """Return what sort of machine this is."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": " ".join([platform.system(), *re.findall(r"^\d+\.\d+", platform.release())]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def other_pythons(named: list[Path]) -> dict[str, Path]:
    """Return the supported Pythons but this one, by version: those *named*, else those that are usually found."""
    mine = "{}.{}".format(*sys.version_info)
    usual = [path for wanted in _SUPPORTED for path in _usual(wanted)]
    found: dict[str, Path] = {}
    for path in [*named, *sorted(usual, key=can_compare, reverse=True)]:
        known = _ask(path, _VERSION)
        if known in _SUPPORTED and known != mine:
            found.setdefault(known, path)
    return dict(sorted(found.items()))


def _usual(wanted: str) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = which(f"python{wanted}")
    return [*([Path(on_path)] if on_path else []), *sorted(root.glob(f"versions/{wanted}.*/bin/python3"))]


def can_compare(python: Path) -> bool:
    """Return whether *python* has what is compared, and what aiomsi needs, in the versions that are here."""
    here = versions()
    names = [name for name in _COMPARED if name in here]
    told = _ask(python, f"{_NEEDED}; from importlib.metadata import version; print(*map(version, {names}))")
    return told == " ".join(here[name] for name in names)


def _ask(python: Path, code: str) -> str | None:
    try:
        asked = subprocess.run([python, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)  # noqa: S603  (a Python)
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
