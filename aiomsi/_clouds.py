"""The origins of each cloud's services, for `BearerAuth`.

Only services are here whose hosts run no customer's code that could see a request's headers: no web apps, no API
gateways, no virtual machines, no Relay (which shares its domain with Service Bus and Event Hubs).

Source: Microsoft documentation, "Azure services that support Microsoft Entra authentication", and the pages of national
clouds.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AZURE_CHINA", "AZURE_PUBLIC_CLOUD", "AZURE_US_GOVERNMENT"]

_STORAGE = "https://storage.azure.com/"  # In all clouds.


def _cloud(storage: str, others: dict[str, str]) -> Mapping[str, str]:
    kinds = ("blob", "dfs", "file", "queue", "table")
    return MappingProxyType({**{f"https://*.{kind}.{storage}": _STORAGE for kind in kinds}, **others})


AZURE_PUBLIC_CLOUD = _cloud(
    "core.windows.net",
    {
        "https://management.azure.com": "https://management.azure.com/",
        "https://graph.microsoft.com": "https://graph.microsoft.com",
        "https://*.vault.azure.net": "https://vault.azure.net",
        "https://*.managedhsm.azure.net": "https://managedhsm.azure.net",
        "https://*.azconfig.io": "https://azconfig.io",
        "https://*.cognitiveservices.azure.com": "https://cognitiveservices.azure.com",
        "https://*.openai.azure.com": "https://cognitiveservices.azure.com",
        "https://*.search.windows.net": "https://search.azure.com",
        "https://*.dev.azuresynapse.net": "https://dev.azuresynapse.net",
        "https://api.loganalytics.io": "https://api.loganalytics.io",
    },
)
AZURE_US_GOVERNMENT = _cloud(
    "core.usgovcloudapi.net",
    {
        "https://management.usgovcloudapi.net": "https://management.usgovcloudapi.net/",
        "https://graph.microsoft.us": "https://graph.microsoft.us",
        "https://*.vault.usgovcloudapi.net": "https://vault.usgovcloudapi.net",
        "https://*.azconfig.azure.us": "https://azconfig.azure.us",
        "https://*.cognitiveservices.azure.us": "https://cognitiveservices.azure.us",
        "https://*.openai.azure.us": "https://cognitiveservices.azure.us",
        "https://*.dev.azuresynapse.usgovcloudapi.net": "https://dev.azuresynapse.usgovcloudapi.net",
        "https://api.loganalytics.us": "https://api.loganalytics.us",
    },
)
AZURE_CHINA = _cloud(
    "core.chinacloudapi.cn",
    {
        "https://management.chinacloudapi.cn": "https://management.chinacloudapi.cn/",
        "https://microsoftgraph.chinacloudapi.cn": "https://microsoftgraph.chinacloudapi.cn",
        "https://*.vault.azure.cn": "https://vault.azure.cn",
        "https://*.azconfig.azure.cn": "https://azconfig.azure.cn",
        "https://*.cognitiveservices.azure.cn": "https://cognitiveservices.azure.cn",
        "https://*.openai.azure.cn": "https://cognitiveservices.azure.cn",
        "https://api.loganalytics.azure.cn": "https://api.loganalytics.azure.cn",
    },
)
