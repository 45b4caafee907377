"""The real `az`, as the tests need it that run it: in a folder of its own, with an Entra ID on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from support import leading_nowhere

from aiomsi.sources import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AS_SERVICE", "TENANT", "InstalledCLI", "choose_cloud", "install", "serving_entra"]

HINT = "set AIOMSI_TEST_AZ to the path of az (python -m venv az && az/bin/pip install azure-cli)"
TENANT = "22222222-aaaa-4bbb-8ccc-000000000002"
CLIENT = "44444444-aaaa-4bbb-8ccc-000000000004"
AS_SERVICE = ("--service-principal", "--username", CLIENT, "--password", "none")

_FAKE_ENTRA = Path(__file__).parent / "end_to_end" / "fake_entra.py"


@dataclass(frozen=True)
class InstalledCLI:
    """A real `az` with a home of its own, which counts how often it is started."""

    folder: Path
    environ: dict[str, str]
    entrance: tuple[str, ...] = ()

    @property
    def surroundings(self) -> Surroundings:
        """A machine that has it."""
        return Surroundings(environ=self.environ)

    @property
    def starts(self) -> int:
        """How often it was started."""
        return len((self.folder / "starts").read_text())

    @property
    def token_requests(self) -> list[dict[str, str]]:
        """What Entra ID was asked for: the tenant and scope of each token."""
        return [{name: line[name] for name in ("tenant", "scope")} for line in self._log]

    @property
    def tokens(self) -> list[dict[str, Any]]:
        """What Entra ID gave: the scope, token and end of each token."""
        return [
            {name: line[name] for name in ("scope", "token", "expires_on")} for line in self._log if "token" in line
        ]

    def run(self, *arguments: str) -> str:
        """Run it, and return what it prints, or fail if it fails."""
        command = [*self.entrance, str(self.folder / "az"), *arguments]
        ended = subprocess.run(command, env=self.environ, check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    @property
    def _log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "token_requests").read_text().splitlines()]


def install(folder: Path, nowhere: str, entrance: tuple[str, ...] = ()) -> InstalledCLI:
    """Put a program into *folder* that starts the real `az`, in an environment that leads nowhere but to loopback.

    *entrance* goes before its command.
    """
    real = os.environ.get("AIOMSI_TEST_AZ")
    if real is None:
        pytest.skip(HINT)
    (folder / "starts").touch()
    (folder / "az").write_text(f'#!/bin/sh\nprintf x >>"{folder}/starts"\nexec "{Path(real).absolute()}" "$@"\n')
    (folder / "az").chmod(0o755)
    environ = {
        **leading_nowhere(nowhere),
        "PATH": f"{folder}:/usr/bin:/bin",
        "HOME": str(folder),
        "AZURE_CONFIG_DIR": str(folder / "azure"),
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "REQUESTS_CA_BUNDLE": str(folder / "authority.pem"),
    }
    return InstalledCLI(folder, environ, entrance)


@contextmanager
def serving_entra(folder: Path, entrance: tuple[str, ...] = ()) -> Iterator[str]:
    """Run an Entra ID whose certificate the `az` in *folder* trusts, and return its URL."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "entra.pem")
    command = [*entrance, sys.executable, *map(str, (_FAKE_ENTRA, folder / "entra.pem", folder / "token_requests"))]
    with (
        (folder / "entra.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def choose_cloud(az: InstalledCLI, entra: str) -> None:
    """Make *entra* the cloud of *az*."""
    endpoints = ("active-directory", "active-directory-resource-id", "active-directory-graph-resource-id")
    options = [word for name in (*endpoints, "resource-manager") for word in (f"--endpoint-{name}", entra)]
    az.run("cloud", "register", "--name", "loopback", "--skip-endpoint-discovery", *options)
    # Were this to fail unnoticed, the login would go to login.microsoftonline.com.
    az.run("cloud", "set", "--name", "loopback")
    az.run("config", "set", "core.instance_discovery=false")
