"""Azure tokens for asyncio services: one request whatever the crowd, refreshed before anyone has to wait.

```python
provider = TokenProvider()
token = await provider.token("https://vault.azure.net")
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiomsi._clock import Clock
    from aiomsi._errors import (
        AiomsiError,
        ConfigurationError,
        EndpointError,
        MalformedResponseError,
        ProviderClosedError,
        SecurityError,
        SourceUnavailableError,
        TokenRefusedError,
        WrongLoopError,
    )
    from aiomsi._provider import TokenProvider
    from aiomsi._schedule import RefreshPolicy
    from aiomsi._statistics import ProviderStatistics, ResourceStatistics
    from aiomsi._token import AccessToken, Principal

__all__ = [
    "AccessToken",
    "AiomsiError",
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

_HOMES = {
    "_clock": ("Clock",),
    "_errors": (
        "AiomsiError",
        "ConfigurationError",
        "EndpointError",
        "MalformedResponseError",
        "ProviderClosedError",
        "SecurityError",
        "SourceUnavailableError",
        "TokenRefusedError",
        "WrongLoopError",
    ),
    "_provider": ("TokenProvider",),
    "_schedule": ("RefreshPolicy",),
    "_statistics": ("ProviderStatistics", "ResourceStatistics"),
    "_token": ("AccessToken", "Principal"),
}


def __getattr__(name: str) -> object:
    # PEP 562: importing a corner of the package does not pull in the whole.
    from importlib import import_module  # noqa: PLC0415  (only when a name is first used)

    for module, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"aiomsi.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'aiomsi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
