"""What clients of `aiomsi serve` must set, in the forms in which shells, files and containers take it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from aiomsi._command_line.serve.options import DOCKER_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FORMATS", "Variables", "conflict", "renamed"]

Variables: TypeAlias = "Mapping[str, Mapping[str, str]]"
"""Names and values, by the protocol that they lead to."""


def conflict(variables: Variables) -> str | None:
    """Return the name of a variable for which two protocols want different values, or None."""
    seen: dict[str, str] = {}
    for wanted in variables.values():
        for name, value in wanted.items():
            if seen.setdefault(name, value) != value:
                return name
    return None


def renamed(wanted: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return *wanted* with the first of *names*, if there is one, instead of the host in each URL."""
    return {name: _at(names[0], value) if names else value for name, value in wanted.items()}


def _at(host: str, value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https"):
        return value
    # A Unix socket has no port.
    return url._replace(netloc=host if url.port is None else f"{host}:{url.port}").geturl()


def _merged(variables: Variables) -> dict[str, str]:
    return {name: value for wanted in variables.values() for name, value in wanted.items()}


def _env(variables: Variables) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in _merged(variables).items())


def _dotenv(variables: Variables) -> str:
    return "\n".join(f"{name}={value}" for name, value in _merged(variables).items())


def _docker(variables: Variables) -> str:
    settings = [f"--env={name}={value}" for name, value in _merged(variables).items()]
    # Docker Desktop knows the name by itself, and takes no harm from this.
    return shlex.join([f"--add-host={DOCKER_NAME}:host-gateway", *settings])


FORMATS: Mapping[str, Callable[[Variables], str]] = {
    "env": _env,
    "dotenv": _dotenv,
    "json": json.dumps,
    "docker": _docker,
}
