"""The servers that the clients of others are sent to: the emulator, and `aiomsi serve` with one source or another."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from installed_cli import InstalledCLI
    from island import Island

__all__ = ["Given", "Server", "emulator", "serving_fake_tokens", "serving_installed_az", "serving_scripted_az"]

_PROGRAMS = Path(__file__).parent / "end_to_end"
_SERVE = (sys.executable, "-P", "-m", "aiomsi", "serve", "--output", "json")

Environs: TypeAlias = "Mapping[str, dict[str, str]]"


@dataclass(frozen=True)
class Given:
    """A token for *resource* that was given out, or by an `az` behind a server."""

    resource: str
    token: str
    expires_on: float


@dataclass(frozen=True)
class Server:
    """A server on an island: *environs* lead to it, by protocol.

    *given* returns the tokens so far, where they are written down, and *requests* what was asked. *only* is the one
    resource to ask for, where each further one takes long.
    """

    environs: Environs
    given: Callable[[], list[Given]] | None = None
    requests: Callable[[], list[dict[str, Any]]] | None = None
    only: str | None = None


@contextmanager
def emulator(island: Island) -> Iterator[Server]:
    """Run an `IdentityEndpoint` that plays every host."""
    command = [*island.entrance, sys.executable, str(_PROGRAMS / "recording_emulator.py"), str(island.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        into, out = process.stdin, process.stdout
        environs = json.loads(out.readline())
        # Node trusts no pin, only authorities.
        environs["service_fabric"]["NODE_EXTRA_CA_CERTS"] = str(island.root / "ca.pem")

        def record() -> Any:
            into.write("\n")
            into.flush()
            return json.loads(out.readline())

        yield Server(environs, lambda: [Given(**each) for each in record()["given"]], lambda: record()["requests"])


@contextmanager
def serving_fake_tokens(island: Island) -> Iterator[Server]:
    """Run `aiomsi serve --emulate`."""
    with _serving(island, {}, "--emulate") as environs:
        yield Server(environs)


@contextmanager
def serving_scripted_az(island: Island, folder: Path, resources: Iterable[str]) -> Iterator[Server]:
    """Run `aiomsi serve` with a script in *folder* for an `az`; by IMDS's protocol it serves *resources*."""
    log = folder / "given"
    log.touch()
    script = " ".join(f'"{word}"' for word in (sys.executable, "-IS", _PROGRAMS / "scripted_az.py", log))
    (folder / "az").write_text(f'#!/bin/sh\nexec {script} "$@"\n')
    (folder / "az").chmod(0o755)

    def given() -> list[Given]:
        return [Given(**json.loads(line)) for line in log.read_text().splitlines()]

    environ = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    with _serving(island, environ, "--imds", *_allowing(resources)) as environs:
        yield Server(environs, given)


@contextmanager
def serving_installed_az(island: Island, az: InstalledCLI, *resources: str) -> Iterator[Server]:
    """Run `aiomsi serve` with *az*, at which somebody has logged in; all clients ask for the first of *resources*."""

    def given() -> list[Given]:
        return [Given(each["scope"].removesuffix("/.default"), each["token"], each["expires_on"]) for each in az.tokens]

    with _serving(island, az.environ, "--imds", *_allowing(resources)) as environs:
        yield Server(environs, given, only=resources[0])


def _allowing(resources: Iterable[str]) -> list[str]:
    return [word for resource in resources for word in ("--allow", resource)]


@contextmanager
def _serving(island: Island, environ: Mapping[str, str], *options: str) -> Iterator[Environs]:
    command = [*island.entrance, *_SERVE, *options]
    with subprocess.Popen(command, env={**island.environ, **environ}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
