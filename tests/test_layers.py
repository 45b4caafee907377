"""The architecture, as a test: imports point strictly down, and only a few modules touch the world."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

import aiomsi

PACKAGE = Path(aiomsi.__file__).parent

# From the bottom up: a module may import from layers above it in this list, never from its own or from one below.
LAYERS: list[set[str]] = [
    {"endpoint"},
    {"_errors", "_token", "_clock", "_flight", "_lazy", "_resource"},
    {"_challenge", "_clouds", "_origins", "_schedule", "_source"},
    {"_backoff", "_fetcher", "_lookout", "_tenants"},
    {"_slot"},
    {"_memory", "_statistics"},
    {
        "sources._expiry",
        "sources._files",
        "sources._messages",
        "sources._redaction",
        "sources._retrying",
        "sources._surroundings",
        "sources._xml",
    },
    {
        "sources._azure_cli_profile",
        "sources._firmware",
        "sources._hosts",
        "sources._kerberos",
        "sources._proxies",
        "sources._subprocess",
        "sources._tls",
        "sources._token_answer",
        "sources._ws_trust",
    },
    {"sources._arc", "sources._certificate", "sources._refusals", "sources._tools", "sources._transport"},
    {
        "sources._entra_errors",
        "sources._wire",
        "sources.azure_cli",
        "sources.azure_developer_cli",
        "sources.azure_powershell",
        "sources.visual_studio",
    },
    {"sources._entra_application"},
    {"sources._entra"},
    {"sources._federated_login", "sources._token_proxy", "sources._vouching", "sources.client_credentials"},
    {"sources.federation", "sources.integrated", "sources.key_vault_certificate", "sources.workload_identity"},
    {"sources.managed_identity"},
    {"sources.chain"},
    {"sources._selection"},
    {"sources.connection_string"},
    {"sources.detected"},
    {"sources"},
    {"_provider", "testing"},
    {"_middleware", "adapters._*"},
    {"adapters", "adapters.*"},
    {""},
    {"_command_line", "_command_line.*", "_pytest_plugin"},
    {"__main__"},
]
ENDPOINT_LAYERS: list[set[str]] = [
    {"certificate", "domains", "gate", "hits", "listening", "received", "thread", "tokens"},
    {"faults", "guard", "keyring"},
    {"entra_users", "playing", "protocol", "script"},
    {"answers", "app_service", "entra", "imds", "service_fabric", "spelling"},
    {"hosts", "reception"},
    {"server"},
    {""},
]
HTTP = {"aiohttp", "yarl", "httpx", "requests"}
TOUCH_HTTP = {"_middleware", "sources._tls", "sources._transport"}


@cache
def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names of all modules that *path* imports, type-checking imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def layer(module: str, layers: list[set[str]] = LAYERS) -> int:
    return next(number for number, names in enumerate(layers) if any(fnmatchcase(module, name) for name in names))


INNER = sorted(name for name in modules() if not name.startswith(("endpoint", "_command_line", "__main__")))


@pytest.mark.parametrize("module", INNER)
def test_imports_point_strictly_down(module: str) -> None:
    """Nothing lower knows anything higher."""
    known = modules()
    below = {
        name
        for name in (
            found.removeprefix("aiomsi").removeprefix(".") for found in imports(known[module]) if "aiomsi" in found
        )
        if name in known and name != module
    }
    if module == "":  # The front door names the modules whose names it re-exports.
        return
    assert {name for name in below if name and layer(name) >= layer(module)} == set()


@pytest.mark.parametrize("module", sorted(name for name in modules() if name.startswith("endpoint")))
def test_imports_within_the_emulator_point_strictly_down(module: str) -> None:
    """The emulator, which knows nothing of the rest, has layers of its own."""
    names = {name.removeprefix("endpoint").removeprefix("."): path for name, path in modules().items()}
    module = module.removeprefix("endpoint").removeprefix(".")
    below = imports(names[module]) & {name for name in names if name and f"endpoint.{name}" in modules()}
    assert {name for name in below if layer(name, ENDPOINT_LAYERS) >= layer(module, ENDPOINT_LAYERS)} == set()


@pytest.mark.parametrize("module", sorted(modules()))
def test_only_few_modules_know_http(module: str) -> None:
    """An HTTP library is imported by the middleware, the transport, the adapters and the emulator, and nowhere else."""
    if module in TOUCH_HTTP or module.startswith(("adapters.", "endpoint")):
        return
    assert {found.split(".")[0] for found in imports(modules()[module])} & HTTP == set()


# What others have made is loaded once; then a fork of that interpreter imports one module of ours, and nothing else.
ALONE = """
import importlib, os, sys
import aiohttp, anyio, asyncio, click, rich.live
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(" ".join(failed) or 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_every_module_can_be_imported_alone() -> None:
    """With warnings as errors, each module imports whatever of ours was imported before it."""
    names = [f"aiomsi.{module}".rstrip(".") for module in modules() if module != "__main__"]
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", ALONE, *names], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
