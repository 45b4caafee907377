"""The README is true: its Python runs, its variables are those that are read, its command is the one that CI runs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

import aiomsi
from aiomsi.endpoint import IdentityEndpoint

# A recipe needs servers of its own: tests/test_recipes.py.
_RECIPE = re.compile(r"<!-- recipe: (\w+) -->\s*\Z")

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def blocks(language: str) -> list[Example]:
    parser = CodeBlockParser(language=language, evaluator=lambda _example: None)
    return list(Document.parse(str(README), parser))


def recipe_of(example: Example) -> str | None:
    """Return the name of the recipe that the comment before *example* makes it, or None."""
    found = _RECIPE.search(example.document.text[: example.region.start])
    return found and found[1]


async def execute(code: str, line: int, namespace: dict[str, Any]) -> None:
    """Run *code*, which stands at that *line* of the README, as `python -m asyncio` does."""
    compiled = compile(code, f"README.md:{line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(compiled, namespace)  # noqa: S307  (our own README)
    if inspect.isawaitable(running):
        await running


PLAIN = [example for example in blocks("python") if recipe_of(example) is None]


@pytest.mark.parametrize("number", range(len(PLAIN)))
async def test_each_block_of_python_runs(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example does what it says, on an app service whose endpoint is the emulator, after those before it."""
    async with IdentityEndpoint() as endpoint:
        for name, value in endpoint.environ("app_service").items():
            monkeypatch.setenv(name, value)
        namespace: dict[str, Any] = {"TokenProvider": aiomsi.TokenProvider}
        await execute(str(PLAIN[number].parsed), PLAIN[number].line, namespace)
        provider = namespace.get("provider")
        if provider is not None:
            await provider.aclose()


_VARIABLE = re.compile(
    r"(ACTIONS|ALL|AZURE|DEFAULT|HTTPS|IDENTITY|IMDS|MSI|NO|SSL|SYSTEM)_[A-Z_]+|AZURESUBSCRIPTION_[A-Z_]+|SYSTEMROOT"
    r"|AzureServices\w+|HOME|LOCALAPPDATA|PATH|PATHEXT|PYTHON[A-Z]+|Program[A-Z][a-z]+|USERPROFILE"
)


def test_every_variable_that_is_read_is_in_the_table() -> None:
    """The configuration table knows each text in the sources that is the name of a variable, but those that are set."""
    named = {
        node.value
        for path in Path(aiomsi.__file__).parent.glob("sources/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _VARIABLE.fullmatch(node.value)
    }
    read = {name for name in named if not name.endswith(("_COLOR", "_TELEMETRY"))}
    text = README.read_text()
    assert {name for name in read if f"`{name}`" not in text} == set()
    assert {"IDENTITY_HEADER", "AZURE_CLIENT_SECRET", "HTTPS_PROXY", "SSL_CERT_FILE"} <= named


def test_every_error_is_in_the_table() -> None:
    """The table of errors has each class."""
    text = README.read_text()
    assert [name for name in aiomsi.__all__ if name.endswith("Error") and f"`{name}`" not in text] == []


@pytest.mark.skipif(not (ROOT / ".ci/run").exists(), reason="this is not a checkout")
def test_ci_runs_the_commands_of_the_readme() -> None:
    """What the README tells a newcomer to type is what CI runs, to the letter."""
    script = (ROOT / ".ci/run").read_text()
    demo, test, *_ = (str(example.parsed).strip() for example in blocks("sh"))
    assert demo in script
    assert test in script
