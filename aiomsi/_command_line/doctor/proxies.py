"""Which proxies the environment names, and whose requests they would catch. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # (typeshed does not know it)

from aiomsi._command_line.doctor.report import Proxy, ProxyFacts
from aiomsi.sources._proxies import EXCEPTIONS, PROXIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiomsi.sources._surroundings import Surroundings

__all__ = ["VARIABLES", "proxies"]

_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_UNREADABLE = "no URL of a proxy"
# In the order in which most programs look: lower case goes first.
_FOR_HTTP = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
VARIABLES = tuple(dict.fromkeys((*_FOR_HTTP[:2], *PROXIES)))
"""What names a proxy."""


def proxies(surroundings: Surroundings, local: Iterable[str]) -> ProxyFacts:
    """Return the proxies, and which of the *local* hosts other programs would ask through them."""
    used = _first(surroundings, PROXIES)
    exceptions = _first(surroundings, EXCEPTIONS)
    culprit = _first(surroundings, _FOR_HTTP)
    listed = (surroundings.get(exceptions) or "") if exceptions else ""
    caught = tuple(dict.fromkeys(host for host in local if culprit and not _is_excepted(host, listed)))
    return ProxyFacts(
        proxies=tuple(
            Proxy(name, _address(surroundings.get(name) or ""), name == used)
            for name in VARIABLES
            if surroundings.get(name)
        ),
        exceptions=exceptions,
        in_the_way=caught,
        culprit=culprit if caught else None,
    )


def _first(surroundings: Surroundings, variables: Iterable[str]) -> str | None:
    return next((name for name in variables if surroundings.get(name)), None)


def _is_excepted(host: str, listed: str) -> bool:
    if proxy_bypass_environment(host, {"no": listed}):
        return True
    try:  # Networks, which only some programs understand; those that do are the ones that ask local hosts.
        address = ipaddress.ip_address(host)
        return any(address in ipaddress.ip_network(part.strip()) for part in listed.split(",") if "/" in part)
    except ValueError:
        return False


def _address(text: str) -> str:
    """Return scheme, host and port of the proxy *text*: what else is in it may be secret."""
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        return _UNREADABLE
    # A password with a slash in it that is not encoded seems to end the host before it begins.
    if not host or url.scheme not in _SCHEMES or "@" in f"{url.path}{url.query}{url.fragment}":
        return _UNREADABLE
    return f"{url.scheme}://{host}" + (f":{port}" if port else "")
