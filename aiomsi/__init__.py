"""Azure tokens for asyncio services: one request whatever the crowd, refreshed before anyone has to wait.

```python
provider = TokenProvider()
token = await provider.token("https://vault.azure.net")
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiomsi._lazy import lazily

if TYPE_CHECKING:
    from aiomsi._clock import Clock
    from aiomsi._clouds import AZURE_CHINA, AZURE_PUBLIC_CLOUD, AZURE_US_GOVERNMENT
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
    from aiomsi._middleware import BearerAuth
    from aiomsi._provider import TokenProvider
    from aiomsi._schedule import RefreshPolicy
    from aiomsi._statistics import ProviderStatistics, ResourceStatistics
    from aiomsi._token import AccessToken, Principal

__all__ = [
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

_HOMES = {
    "aiomsi._clock": ("Clock",),
    "aiomsi._clouds": ("AZURE_CHINA", "AZURE_PUBLIC_CLOUD", "AZURE_US_GOVERNMENT"),
    "aiomsi._errors": (
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
    "aiomsi._middleware": ("BearerAuth",),
    "aiomsi._provider": ("TokenProvider",),
    "aiomsi._schedule": ("RefreshPolicy",),
    "aiomsi._statistics": ("ProviderStatistics", "ResourceStatistics"),
    "aiomsi._token": ("AccessToken", "Principal"),
}


__getattr__ = lazily(globals(), _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
