"""What the package promises to export, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aiomsi
import aiomsi.endpoint
import aiomsi.sources
import aiomsi.testing


def test_the_public_names() -> None:
    """The front door has these names, and no more."""
    assert aiomsi.__all__ == [
        "AZURE_CHINA",
        "AZURE_PUBLIC_CLOUD",
        "AZURE_US_GOVERNMENT",
        "AccessToken",
        "AiomsiError",
        "BearerAuth",
        "Clock",
        "ConfigurationError",
        "EndpointError",
        "MalformedResponseError",
        "Principal",
        "ProviderClosedError",
        "ProviderStatistics",
        "RefreshPolicy",
        "ResourceStatistics",
        "SecurityError",
        "SourceUnavailableError",
        "TokenProvider",
        "TokenRefusedError",
        "WrongLoopError",
    ]


@pytest.mark.parametrize("module", [aiomsi, aiomsi.sources, aiomsi.endpoint, aiomsi.testing])
def test_every_listed_name_is_there_and_documented(module: object) -> None:
    """`__all__` is sorted, and each name in it has a docstring."""
    names: list[str] = module.__all__  # type: ignore[attr-defined]
    assert names == sorted(names)
    for name in names:
        found = getattr(module, name)
        assert found.__doc__ or not callable(found), name
    assert set(names) <= set(dir(module))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is told as for any module."""
    with pytest.raises(AttributeError, match="no attribute 'TokenProvder'"):
        aiomsi.TokenProvder  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import aiomsi", {"aiohttp", "anyio", "aiomsi._provider"}),
        ("from aiomsi import AccessToken", {"aiohttp", "anyio", "aiomsi._provider"}),
        ("from aiomsi import TokenProvider", {"aiohttp", "anyio"}),
        ("from aiomsi import AZURE_PUBLIC_CLOUD", {"aiohttp", "anyio", "aiomsi._provider"}),
        ("from aiomsi import BearerAuth", {"anyio", "aiomsi.sources"}),
        ("import aiomsi._pytest_plugin", {"aiohttp", "anyio", "aiomsi.endpoint", "aiomsi.sources", "aiomsi._provider"}),
        ("import aiomsi.testing", {"aiohttp", "anyio", "pytest"}),
        ("import aiomsi.sources", {"click", "rich", "azure"}),
    ],
)
def test_importing_a_corner_does_not_pull_in_the_whole(statement: str, absent: set[str]) -> None:
    """Each import brings only what it needs."""
    script = f"{statement}; import sys; print(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
